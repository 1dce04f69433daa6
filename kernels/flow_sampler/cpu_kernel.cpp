// The Euler loop of the flow head on one CPU core, in float32. reference.py beside this file is the definition.
//
// B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps, M = 3WN + 2W.
//
// Reading the weights takes the time, 50 times over. So they are packed once, in the order in which they are read, and
// a panel of them is used for all rows (the conditional and the null row of guidance above all) while it is in the
// cache. The loops are plain C++; the compiler vectorises them once per instruction set, and the best is taken at run
// time. Wants -O3.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__GNUC__)  // GCC and Clang
#define LLAMO_INLINE __attribute__((always_inline)) inline  // compiled for the instruction set of its caller
#define LLAMO_RESTRICT __restrict__
#else
#define LLAMO_INLINE inline
#define LLAMO_RESTRICT
#endif

namespace py = pybind11;

namespace {

constexpr std::int64_t kMaxRows = 64;  // more are done in groups: their activations must stay in the cache too
constexpr float kLayerNormEpsilon = 1e-6f;

// ---------------------------------------------------------------------------------------------- memory and weights

// Zeroed floats that start on a cache line.
class Floats {
 public:
  explicit Floats(std::int64_t count)
      : data_(static_cast<float*>(::operator new(sizeof(float) * static_cast<std::size_t>(count), kAlignment))) {
    std::fill_n(data_.get(), count, 0.0f);
  }
  float* get() { return data_.get(); }
  const float* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* pointer) const { ::operator delete(pointer, kAlignment); }
  };
  std::unique_ptr<float[], Free> data_;
};

std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// A linear layer y = W x + b, packed. Outputs are cut into panels, the last one filled up with zeros; in a panel the
// weights from one input to all outputs of the panel lie side by side, and the inputs follow one another.
struct Linear {
  Linear(const float* weight, const float* bias_values, std::int64_t in, std::int64_t out, std::int64_t panel)
      : inputs(in), outputs(round_up(out, panel)), weights(inputs * outputs), bias(outputs) {
    for (std::int64_t o = 0; o < out; ++o) {
      float* column = weights.get() + o / panel * panel * in + o % panel;
      for (std::int64_t i = 0; i < in; ++i) column[i * panel] = weight[o * in + i];
      bias.get()[o] = bias_values[o];
    }
  }
  std::int64_t inputs, outputs;  // outputs counts the zeros too
  Floats weights, bias;
};

struct Block {
  Linear first, second;
};

struct Weights;
struct Task;

struct InstructionSet {
  const char* name;
  std::int64_t panel;  // outputs that are summed together
  bool (*runs_here)();
  void (*sample)(const Weights&, const Task&);
};

struct Weights {
  const InstructionSet* instruction_set;
  std::int64_t channels, width;  // Z, W
  Linear input, output;
  std::vector<Block> blocks;
};

// What one call reads besides the weights, its working memory, and where it writes. Strides are in floats.
struct Task {
  std::int64_t samples, steps;  // B, S
  bool guided;
  float guidance_scale;
  const float *time, *condition;  // the modulation of row r at step k is time[k, r] + condition[r]
  std::int64_t time_step_stride, time_row_stride, condition_row_stride;
  float *hidden, *normed, *inner;  // a row for each row of a group
  std::int64_t stride;             // from row to row of these three
  float* latents;                  // (B, Z); the noise on entry
};

// Where the modulation of row r of a group begins, from `offset` on; the row's twin under guidance is B rows below.
struct Modulation {
  LLAMO_INLINE Modulation(const Task& task, std::int64_t step, std::int64_t begin, std::int64_t group, std::int64_t r,
                          std::int64_t offset) {
    const std::int64_t row = r < group ? begin + r : task.samples + begin + r - group;
    time = task.time + step * task.time_step_stride + row * task.time_row_stride + offset;
    condition = task.condition + row * task.condition_row_stride + offset;
  }
  const float *time, *condition;
};

// ------------------------------------------------------------------------------------------------------- the loops

// x / (1 + exp(-x)) to a few units in the last place. Without branches, so that it vectorises. NaN stays NaN.
LLAMO_INLINE float silu(float x) {
  float y = -x;
  y = y > 88.0f ? 88.0f : y;  // beyond, exp leaves the normal floats and SiLU is 0 or x
  y = y < -87.0f ? -87.0f : y;
  const float shifted = y * 1.44269504f + 12582912.0f;  // 1.5 * 2^23 pushes the fraction out: round(y / ln 2) is left
  const float n = shifted - 12582912.0f;
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts keeps r accurate
  float p = 1.9875691500e-4f;                                   // exp(r) on +-ln(2)/2, polynomial of Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;  // the bits of 2^n: n + 127 becomes the exponent, those of 1.5 * 2^23 fall off the top
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return x / (1.0f + p * power);
}

// LANES floats fill a vector register; up to MAX_ROWS rows are summed in registers at once. A row is summed in the same
// order however many go along, so a sample does not depend on its neighbours in the batch.
template <int LANES, int MAX_ROWS>
struct Loops {
  static constexpr int kPanel = 4 * LANES;

  // out[r] = layer(in[r]) for ROWS rows and the outputs of one panel. The compiler keeps `sums` in registers.
  template <int ROWS>
  static LLAMO_INLINE void multiply_panel(const float* LLAMO_RESTRICT weights, const float* LLAMO_RESTRICT bias,
                                          std::int64_t inputs, std::int64_t stride, const float* LLAMO_RESTRICT in,
                                          std::int64_t in_stride, float* LLAMO_RESTRICT out) {
    float sums[ROWS][kPanel];
    for (int r = 0; r < ROWS; ++r)
      for (int o = 0; o < kPanel; ++o) sums[r][o] = bias[o];
    for (std::int64_t i = 0; i < inputs; ++i, weights += kPanel)
      for (int r = 0; r < ROWS; ++r)
        for (int o = 0; o < kPanel; ++o) sums[r][o] += in[r * in_stride + i] * weights[o];
    for (int r = 0; r < ROWS; ++r)
      for (int o = 0; o < kPanel; ++o) out[r * stride + o] = sums[r][o];
  }

  // The same for any number of rows: as many ROWS as fit, then the rest by halves.
  template <int ROWS>
  static LLAMO_INLINE void multiply_rows(const float* weights, const float* bias, std::int64_t inputs,
                                         std::int64_t stride, const float* in, std::int64_t in_stride, float* out,
                                         std::int64_t rows) {
    for (; rows >= ROWS; rows -= ROWS, in += ROWS * in_stride, out += ROWS * stride)
      multiply_panel<ROWS>(weights, bias, inputs, stride, in, in_stride, out);
    if constexpr (ROWS > 1) multiply_rows<ROWS / 2>(weights, bias, inputs, stride, in, in_stride, out, rows);
  }

  // out[r] = layer(in[r]) for all rows.
  static LLAMO_INLINE void multiply(const Linear& layer, const float* in, std::int64_t in_stride, float* out,
                                    std::int64_t stride, std::int64_t rows) {
    for (std::int64_t o = 0; o < layer.outputs; o += kPanel)
      multiply_rows<MAX_ROWS>(layer.weights.get() + o * layer.inputs, layer.bias.get() + o, layer.inputs, stride, in,
                              in_stride, out + o, rows);
  }

  // Sum of (x[i] - centre)^POWER. LANES partial sums, since a compiler may not reorder a sum of floats by itself.
  template <int POWER>
  static LLAMO_INLINE float sum(const float* x, std::int64_t count, float centre) {
    float partial[LANES] = {};
    std::int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
      for (int lane = 0; lane < LANES; ++lane) {
        const float d = x[i + lane] - centre;
        partial[lane] += POWER == 1 ? d : d * d;
      }
    float total = 0.0f;
    for (int lane = 0; lane < LANES; ++lane) total += partial[lane];
    for (; i < count; ++i) {
      const float d = x[i] - centre;
      total += POWER == 1 ? d : d * d;
    }
    return total;
  }

  // out = LayerNorm(x) * (1 + scale) + shift, with [shift, scale] = time + condition.
  static LLAMO_INLINE void norm_and_modulate(const float* LLAMO_RESTRICT x, const float* LLAMO_RESTRICT time,
                                             const float* LLAMO_RESTRICT condition, std::int64_t width,
                                             float* LLAMO_RESTRICT out) {
    const float mean = sum<1>(x, width, 0.0f) / static_cast<float>(width);
    const float variance = sum<2>(x, width, mean) / static_cast<float>(width);
    const float inverse = 1.0f / std::sqrt(variance + kLayerNormEpsilon);
    for (std::int64_t i = 0; i < width; ++i) {
      const float shift = time[i] + condition[i];
      const float scale = time[width + i] + condition[width + i];
      out[i] = (x[i] - mean) * inverse * (1.0f + scale) + shift;
    }
  }

  // All steps for samples [begin, end): rows are the samples, then with guidance the samples again, as null rows.
  static LLAMO_INLINE void sample_group(const Weights& weights, const Task& task, std::int64_t begin,
                                        std::int64_t end) {
    const std::int64_t group = end - begin, rows = task.guided ? 2 * group : group;
    const std::int64_t width = weights.width, channels = weights.channels, stride = task.stride;
    const float dt = 1.0f / static_cast<float>(task.steps);
    float* LLAMO_RESTRICT const latents = task.latents + begin * channels;
    float* LLAMO_RESTRICT const hidden = task.hidden;
    float* LLAMO_RESTRICT const inner = task.inner;

    for (std::int64_t k = 0; k < task.steps; ++k) {
      multiply(weights.input, latents, channels, hidden, stride, group);
      for (std::int64_t r = group; r < rows; ++r) std::copy_n(hidden + (r - group) * stride, width, hidden + r * stride);

      std::int64_t offset = 0;  // of the block in a row of modulations
      for (const Block& block : weights.blocks) {
        for (std::int64_t r = 0; r < rows; ++r) {
          const Modulation m(task, k, begin, group, r, offset);
          norm_and_modulate(hidden + r * stride, m.time, m.condition, width, task.normed + r * stride);
        }
        multiply(block.first, task.normed, stride, inner, stride, rows);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t i = 0; i < width; ++i) inner[r * stride + i] = silu(inner[r * stride + i]);
        multiply(block.second, inner, stride, task.normed, stride, rows);
        for (std::int64_t r = 0; r < rows; ++r) {
          const Modulation m(task, k, begin, group, r, offset + 2 * width);
          const float* LLAMO_RESTRICT update = task.normed + r * stride;
          for (std::int64_t i = 0; i < width; ++i)
            hidden[r * stride + i] += (m.time[i] + m.condition[i]) * update[i];
        }
        offset += 3 * width;
      }

      for (std::int64_t r = 0; r < rows; ++r) {
        const Modulation m(task, k, begin, group, r, offset);
        norm_and_modulate(hidden + r * stride, m.time, m.condition, width, task.normed + r * stride);
      }
      multiply(weights.output, task.normed, stride, inner, stride, rows);
      for (std::int64_t r = 0; r < group; ++r)
        for (std::int64_t z = 0; z < channels; ++z) {
          float velocity = inner[r * stride + z];
          if (task.guided) {
            const float null_velocity = inner[(group + r) * stride + z];
            velocity = null_velocity + task.guidance_scale * (velocity - null_velocity);
          }
          latents[r * channels + z] += dt * velocity;
        }
    }
  }

  static LLAMO_INLINE void sample(const Weights& weights, const Task& task) {
    const std::int64_t group = task.guided ? kMaxRows / 2 : kMaxRows;
    for (std::int64_t begin = 0; begin < task.samples; begin += group)
      sample_group(weights, task, begin, std::min(begin + group, task.samples));
  }
};

// --------------------------------------------------------------------------------- one copy of the loops per machine

// Not 4 floats, the SSE2 and NEON register: GCC unrolls a panel of 16 before it looks for vectors, which costs 4 times.
void sample_portable(const Weights& weights, const Task& task) { Loops<8, 1>::sample(weights, task); }

#if defined(__x86_64__) && defined(__GNUC__)
// Rows at once: as many as leave registers for a panel of weights (16 registers here, 32 below).
__attribute__((target("avx2,fma"))) void sample_avx2(const Weights& weights, const Task& task) {
  Loops<8, 2>::sample(weights, task);
}

__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))) void sample_avx512(const Weights& weights,
                                                                                      const Task& task) {
  Loops<16, 4>::sample(weights, task);
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

bool always() { return true; }

const InstructionSet kInstructionSets[] = {
#if defined(__x86_64__) && defined(__GNUC__)
    {"avx512", 64, has_avx512, sample_avx512},
    {"avx2", 32, has_avx2, sample_avx2},
#endif
    {"portable", 32, always, sample_portable},
};

// --------------------------------------------------------------------------------------------------------- binding
// The Python wrapper has checked every shape. noconvert(): float64 is refused here, not converted.

using FloatArray = py::array_t<float, py::array::c_style>;

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : kInstructionSets)
    if (set.runs_here()) names.emplace_back(set.name);
  return names;
}

Weights pack(const FloatArray& input_weight, const FloatArray& input_bias, const FloatArray& first_weight,
             const FloatArray& first_bias, const FloatArray& second_weight, const FloatArray& second_bias,
             const FloatArray& output_weight, const FloatArray& output_bias, const std::string& instruction_set) {
  for (const InstructionSet& set : kInstructionSets) {
    if (set.name != instruction_set || !set.runs_here()) continue;
    const std::int64_t width = input_weight.shape(0), channels = input_weight.shape(1), blocks = first_weight.shape(0);
    Weights weights{&set, channels, width,
                    Linear(input_weight.data(), input_bias.data(), channels, width, set.panel),
                    Linear(output_weight.data(), output_bias.data(), width, channels, set.panel), {}};
    for (std::int64_t n = 0; n < blocks; ++n)
      weights.blocks.push_back({Linear(first_weight.data(n), first_bias.data(n), width, width, set.panel),
                                Linear(second_weight.data(n), second_bias.data(n), width, width, set.panel)});
    return weights;
  }
  throw std::invalid_argument("instruction set " + instruction_set + " does not run on this machine");
}

FloatArray sample(const Weights& weights, const FloatArray& noise, const FloatArray& time,
                  const std::optional<FloatArray>& condition, const std::optional<float>& guidance_scale) {
  const std::int64_t modulations = time.shape(time.ndim() - 1);
  const std::int64_t stride = round_up(std::max(weights.width, weights.channels), 64);
  FloatArray latents({noise.shape(0), noise.shape(1)});
  std::copy_n(noise.data(), noise.size(), latents.mutable_data());
  const std::int64_t rows = std::min(kMaxRows, noise.shape(0) * (guidance_scale ? 2 : 1));
  Floats memory(3 * rows * stride);
  Floats no_condition(condition ? 0 : modulations);

  Task task{};
  task.samples = noise.shape(0);
  task.steps = time.shape(0);
  task.guided = guidance_scale.has_value();
  task.guidance_scale = guidance_scale.value_or(1.0f);
  task.time = time.data();
  task.time_row_stride = time.ndim() == 3 ? modulations : 0;
  task.time_step_stride = time.size() / time.shape(0);
  task.condition = condition ? condition->data() : no_condition.get();
  task.condition_row_stride = condition ? modulations : 0;
  task.hidden = memory.get();
  task.normed = memory.get() + rows * stride;
  task.inner = memory.get() + 2 * rows * stride;
  task.stride = stride;
  task.latents = latents.mutable_data();

  {
    py::gil_scoped_release unlocked;  // the node keeps spinning meanwhile
    weights.instruction_set->sample(weights, task);
  }
  return latents;
}

}  // namespace

void register_flow_sampler(py::module_& m) {
  m.def("flow_sampler_instruction_sets", &instruction_sets, "Names of those that run on this machine, fastest first.");
  py::class_<Weights>(m, "FlowSamplerWeights", "Weights of the flow head, packed for one instruction set.")
      .def(py::init(&pack), py::arg("input_weight").noconvert(), py::arg("input_bias").noconvert(),
           py::arg("first_weight").noconvert(), py::arg("first_bias").noconvert(),
           py::arg("second_weight").noconvert(), py::arg("second_bias").noconvert(),
           py::arg("output_weight").noconvert(), py::arg("output_bias").noconvert(), py::arg("instruction_set"));
  m.def("flow_sampler", &sample, "Latents (B, Z) after all Euler steps.", py::arg("weights"),
        py::arg("noise").noconvert(), py::arg("time").noconvert(), py::arg("condition").noconvert().none(true),
        py::arg("guidance_scale").none(true));
}
