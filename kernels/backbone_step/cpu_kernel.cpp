// Tokens through all layers of a Mixture-of-Transformers, on one CPU core. reference.py beside this file is the definition;
// common/linear.hpp holds the matrices.
//
// R tokens, D width, H heads, K key/value heads, E head width, F width of the feed-forward layer, L columns of the cache.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "../common/instruction_set.hpp"
#include "../common/linear.hpp"
#include "../common/loops.hpp"
#include "../common/memory.hpp"

namespace py = pybind11;

namespace {

using namespace llamo;
using FloatArray = py::array_t<float, py::array::c_style>;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

struct Layer {
  std::vector<float> attention_norm, feed_forward_norm;  // (D)
  Linear query_key_value;                                // (H + 2 K) E outputs
  Linear attention_output;
  Linear gate_up;  // F gates, then F others
  Linear down;
};

struct Branch {
  InstructionSet instruction_set;
  Precision precision;
  std::int64_t width, heads, kv_heads, head_width, ffn_width;
  float norm_epsilon;
  Arena arena;
  std::vector<Layer> layers;
  std::vector<float> norm;
};

// Tokens next to one another that go through the same branch.
struct Span {
  const Branch* branch;
  std::int64_t begin, end;
};

// What one call reads besides the weights, its working memory, and where it writes. Strides are in floats.
struct Task {
  Span spans[2];  // which follow one another and cover all rows; an empty one has no branch
  std::int64_t rows;
  float* x;                                        // (R, D), the tokens on entry, the hidden states on return
  const float *cosine, *sine;                      // (R, E)
  float *keys, *values;                            // (layers, cache rows, K, L, E)
  std::int64_t layer_stride, row_stride, columns;  // of those two; head stride is columns * E
  const std::int64_t *cache_rows, *lengths;        // (R); token r goes to column lengths[r] and attends up to it
  float *normed, *wide, *inner, *scores;           // working memory: (R, stride) thrice, and (longest + 1)
  std::int64_t stride;
  std::int16_t* quantised;
};

template <int LANES>
struct Loops {
  // out = x / rms(x) * weight.
  static LLAMO_INLINE void rms_norm(const float* LLAMO_RESTRICT x, const float* LLAMO_RESTRICT weight,
                                    std::int64_t width, float epsilon, float* LLAMO_RESTRICT out) {
    const float mean = dot<LANES>(x, x, width) / static_cast<float>(width);
    const float inverse = 1.0f / std::sqrt(mean + epsilon);
    for (std::int64_t i = 0; i < width; ++i) out[i] = weight[i] * (x[i] * inverse);
  }

  // Channel i and channel i + E / 2 are rotated together, by the angle of the row's position.
  static LLAMO_INLINE void rotate(float* LLAMO_RESTRICT head, const float* LLAMO_RESTRICT cosine,
                                  const float* LLAMO_RESTRICT sine, std::int64_t half) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float first = head[i], second = head[half + i];
      head[i] = first * cosine[i] - second * sine[i];
      head[half + i] = second * cosine[half + i] + first * sine[half + i];
    }
  }

  // Attention of one query over `count` columns.
  static LLAMO_INLINE void attend(const float* LLAMO_RESTRICT query, const float* LLAMO_RESTRICT keys,
                                  const float* LLAMO_RESTRICT values, std::int64_t count, std::int64_t width,
                                  float* LLAMO_RESTRICT scores, float* LLAMO_RESTRICT out) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));
    float most = -INFINITY;
    for (std::int64_t c = 0; c < count; ++c) {
      scores[c] = dot<LANES>(query, keys + c * width, width) * scale;
      most = scores[c] > most ? scores[c] : most;
    }
    for (std::int64_t c = 0; c < count; ++c) scores[c] = bounded_exp(scores[c] - most) + 0.0f * scores[c];  // keeps NaN
    const float inverse = 1.0f / sum<LANES, 1>(scores, count, 0.0f);
    for (std::int64_t i = 0; i < width; ++i) out[i] = 0.0f;
    for (std::int64_t c = 0; c < count; ++c) {
      const float share = scores[c] * inverse;
      const float* LLAMO_RESTRICT value = values + c * width;
      for (std::int64_t i = 0; i < width; ++i) out[i] += share * value[i];
    }
  }

  // Queries, keys and values of a span, rotated; keys and values go to the cache.
  static LLAMO_INLINE void project(const Span& span, std::size_t n, const Task& task) {
    const Branch& branch = *span.branch;
    const Layer& layer = branch.layers[n];
    const std::int64_t head_width = branch.head_width, heads = branch.heads, kv_heads = branch.kv_heads;
    norm_rows(span, layer.attention_norm.data(), task);
    multiply(span, layer.query_key_value, task.normed, task.wide, task);
    for (std::int64_t r = span.begin; r < span.end; ++r) {
      float* const query = task.wide + r * task.stride;
      const float* const key = query + heads * head_width;
      const float* const value = key + kv_heads * head_width;
      const float *const cosine = task.cosine + r * head_width, *const sine = task.sine + r * head_width;
      for (std::int64_t h = 0; h < heads + kv_heads; ++h) rotate(query + h * head_width, cosine, sine, head_width / 2);
      const std::int64_t begin = cache_begin(n, r, task) + task.lengths[r] * head_width;
      for (std::int64_t k = 0; k < kv_heads; ++k) {
        const std::int64_t column = begin + k * task.columns * head_width;
        std::copy_n(key + k * head_width, head_width, task.keys + column);
        std::copy_n(value + k * head_width, head_width, task.values + column);
      }
    }
  }

  // The rest of the layer, once the keys and values of all tokens are in the cache.
  static LLAMO_INLINE void finish(const Span& span, std::size_t n, const Task& task) {
    const Branch& branch = *span.branch;
    const Layer& layer = branch.layers[n];
    const std::int64_t head_width = branch.head_width, shared = branch.heads / branch.kv_heads, stride = task.stride;
    for (std::int64_t r = span.begin; r < span.end; ++r) {
      const std::int64_t begin = cache_begin(n, r, task);
      for (std::int64_t h = 0; h < branch.heads; ++h) {
        const std::int64_t head = begin + h / shared * task.columns * head_width;
        attend(task.wide + r * stride + h * head_width, task.keys + head, task.values + head, task.lengths[r] + 1,
               head_width, task.scores, task.inner + r * stride + h * head_width);
      }
    }
    multiply(span, layer.attention_output, task.inner, task.normed, task);
    add(span, task.normed, task);
    norm_rows(span, layer.feed_forward_norm.data(), task);
    multiply(span, layer.gate_up, task.normed, task.wide, task);
    for (std::int64_t r = span.begin; r < span.end; ++r) {
      const float* LLAMO_RESTRICT gate = task.wide + r * stride;
      const float* LLAMO_RESTRICT up = gate + branch.ffn_width;
      float* LLAMO_RESTRICT inner = task.inner + r * stride;
      for (std::int64_t i = 0; i < branch.ffn_width; ++i) inner[i] = silu(gate[i]) * up[i];
    }
    multiply(span, layer.down, task.inner, task.normed, task);
    add(span, task.normed, task);
  }

  static LLAMO_INLINE void run(const Task& task) {
    const std::size_t layers = (task.spans[0].branch ? task.spans[0] : task.spans[1]).branch->layers.size();
    for (std::size_t n = 0; n < layers; ++n) {
      for (const Span& span : task.spans)
        if (span.branch != nullptr) project(span, n, task);
      for (const Span& span : task.spans)
        if (span.branch != nullptr) finish(span, n, task);
    }
    for (const Span& span : task.spans) {
      if (span.branch == nullptr) continue;
      norm_rows(span, span.branch->norm.data(), task);
      for (std::int64_t r = span.begin; r < span.end; ++r)
        std::copy_n(task.normed + r * task.stride, span.branch->width, task.x + r * span.branch->width);
    }
  }

 private:
  static LLAMO_INLINE std::int64_t cache_begin(std::size_t n, std::int64_t row, const Task& task) {
    return static_cast<std::int64_t>(n) * task.layer_stride + task.cache_rows[row] * task.row_stride;
  }

  static LLAMO_INLINE void norm_rows(const Span& span, const float* weight, const Task& task) {
    const std::int64_t width = span.branch->width;
    for (std::int64_t r = span.begin; r < span.end; ++r)
      rms_norm(task.x + r * width, weight, width, span.branch->norm_epsilon, task.normed + r * task.stride);
  }

  static LLAMO_INLINE void multiply(const Span& span, const Linear& layer, const float* in, float* out,
                                    const Task& task) {
    const std::int64_t first = span.begin * task.stride;
    layer.multiply({in + first, task.stride, out + first, task.stride, span.end - span.begin, task.quantised});
  }

  static LLAMO_INLINE void add(const Span& span, const float* LLAMO_RESTRICT update, const Task& task) {
    const std::int64_t width = span.branch->width;
    for (std::int64_t r = span.begin; r < span.end; ++r)
      for (std::int64_t i = 0; i < width; ++i) task.x[r * width + i] += update[r * task.stride + i];
  }
};

// --------------------------------------------------------------------------------- one copy of the loops per machine

void run_portable(const Task& task) { Loops<8>::run(task); }
#if defined(LLAMO_X86)
LLAMO_AVX2 void run_avx2(const Task& task) { Loops<8>::run(task); }
LLAMO_AVX512 void run_avx512(const Task& task) { Loops<16>::run(task); }
#endif

void run(const Task& task, InstructionSet instruction_set) {
  switch (instruction_set) {
#if defined(LLAMO_X86)
    case InstructionSet::kAvx512Vnni:
    case InstructionSet::kAvx512:
      return run_avx512(task);
    case InstructionSet::kAvx2:
      return run_avx2(task);
#endif
    default:
      return run_portable(task);
  }
}

// --------------------------------------------------------------------------------------------------------- binding
// The Python wrapper has checked every shape. noconvert(): float64 is refused here, not converted.

Branch make_branch(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_width, const FloatArray& norm,
                   float norm_epsilon, const std::string& instruction_set, const std::string& precision) {
  Branch branch{};
  branch.instruction_set = instruction_set_named(instruction_set);
  branch.precision = precision_named(precision);
  branch.width = norm.size();
  branch.heads = heads;
  branch.kv_heads = kv_heads;
  branch.head_width = head_width;
  branch.norm_epsilon = norm_epsilon;
  branch.norm.assign(norm.data(), norm.data() + norm.size());
  return branch;
}

void add_layer(Branch& branch, const FloatArray& attention_norm, const FloatArray& query_key_value,
               const FloatArray& attention_output, const FloatArray& feed_forward_norm, const FloatArray& gate_up,
               const FloatArray& down) {
  const auto packed = [&branch](const FloatArray& weight) {
    return Linear(weight.data(), nullptr, weight.shape(1), weight.shape(0), branch.precision, branch.instruction_set,
                  branch.arena);
  };
  branch.ffn_width = down.shape(1);
  Layer layer{{attention_norm.data(), attention_norm.data() + attention_norm.size()},
              {feed_forward_norm.data(), feed_forward_norm.data() + feed_forward_norm.size()},
              packed(query_key_value), packed(attention_output), packed(gate_up), packed(down)};
  branch.layers.push_back(std::move(layer));
}

// The first `text_rows` tokens go through `text`, the others through `motion`.
FloatArray step(const Branch& motion, const Branch& text, const FloatArray& tokens, const FloatArray& cosine,
                const FloatArray& sine, FloatArray keys, FloatArray values, const IndexArray& cache_rows,
                const IndexArray& lengths, std::int64_t text_rows) {
  FloatArray hidden({tokens.shape(0), tokens.shape(1)});
  std::copy_n(tokens.data(), tokens.size(), hidden.mutable_data());
  Task task{};
  task.rows = tokens.shape(0);
  if (task.rows == 0) return hidden;
  if (text_rows > 0) task.spans[0] = {&text, 0, text_rows};
  if (text_rows < task.rows) task.spans[1] = {&motion, text_rows, task.rows};
  const std::int64_t projected = (motion.heads + 2 * motion.kv_heads) * motion.head_width;
  const std::int64_t widest = std::max({motion.width, projected, 2 * motion.ffn_width, 2 * text.ffn_width});
  task.stride = padded_size(widest);
  const std::int64_t longest = *std::max_element(lengths.data(), lengths.data() + task.rows) + 1;
  Buffer<float> memory(3 * task.rows * task.stride + longest);
  Buffer<std::int16_t> quantised(quantised_size(widest, task.rows));
  task.x = hidden.mutable_data();
  task.cosine = cosine.data();
  task.sine = sine.data();
  task.keys = keys.mutable_data();
  task.values = values.mutable_data();
  task.columns = keys.shape(3);
  task.row_stride = keys.shape(2) * task.columns * motion.head_width;
  task.layer_stride = keys.shape(1) * task.row_stride;
  task.cache_rows = cache_rows.data();
  task.lengths = lengths.data();
  task.normed = memory.get();
  task.wide = memory.get() + task.rows * task.stride;
  task.inner = memory.get() + 2 * task.rows * task.stride;
  task.scores = memory.get() + 3 * task.rows * task.stride;
  task.quantised = quantised.get();
  {
    py::gil_scoped_release unlocked;  // the node keeps spinning meanwhile
    run(task, motion.instruction_set);
  }
  return hidden;
}

}  // namespace

void register_backbone_step(py::module_& m) {
  py::class_<Branch>(m, "BackboneBranch", "Weights of a Llama branch, packed for one instruction set.")
      .def(py::init(&make_branch), py::arg("heads"), py::arg("kv_heads"), py::arg("head_width"),
           py::arg("norm").noconvert(), py::arg("norm_epsilon"), py::arg("instruction_set"), py::arg("precision"))
      .def("add_layer", &add_layer, "Pack the weights of the next layer.", py::arg("attention_norm").noconvert(),
           py::arg("query_key_value").noconvert(), py::arg("attention_output").noconvert(),
           py::arg("feed_forward_norm").noconvert(), py::arg("gate_up").noconvert(), py::arg("down").noconvert());
  m.def("backbone_step", &step, "Hidden states (R, D) of more tokens; keys and values are written.",
        py::arg("motion"), py::arg("text"), py::arg("tokens").noconvert(), py::arg("cosine").noconvert(), py::arg("sine").noconvert(),
        py::arg("keys").noconvert(), py::arg("values").noconvert(), py::arg("cache_rows").noconvert(),
        py::arg("lengths").noconvert(), py::arg("text_rows"));
}
