// The Euler loop of the flow head on the CPU. reference.py beside this file is the definition.
//
// B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps, M = 3WN + 2W.
//
// Reading the weights takes the time, 50 times over; see common/linear.hpp for how they are packed, and in which
// precisions. Input and output layer are always float32: they see the latent itself.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "../common/instruction_set.hpp"
#include "../common/linear.hpp"
#include "../common/loops.hpp"
#include "../common/memory.hpp"
#include "../common/team.hpp"

namespace py = pybind11;

namespace {

using namespace llamo;

constexpr std::int64_t kMaxRows = 64;  // more are done in groups: their activations must stay in the cache too
constexpr float kLayerNormEpsilon = 1e-6f;

struct Block {
  Linear first, second;
};

struct Weights {
  InstructionSet instruction_set;
  std::int64_t channels, width;  // Z, W
  Arena arena;
  Linear input, output;
  std::vector<Block> blocks;
  std::unique_ptr<Team> team;  // null: one thread. Last, so that its threads end before the layers
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
  std::int16_t* quantised;
  Team* team;      // for the layers of the blocks; null: one thread
  float* latents;  // (B, Z); the noise on entry
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

template <int LANES>
struct Loops {
  // out = LayerNorm(x) * (1 + scale) + shift, with [shift, scale] = time + condition.
  static LLAMO_INLINE void norm_and_modulate(const float* LLAMO_RESTRICT x, const float* LLAMO_RESTRICT time,
                                             const float* LLAMO_RESTRICT condition, std::int64_t width,
                                             float* LLAMO_RESTRICT out) {
    const float mean = sum<LANES, 1>(x, width, 0.0f) / static_cast<float>(width);
    const float variance = sum<LANES, 2>(x, width, mean) / static_cast<float>(width);
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
    const auto multiply = [&task, stride](const Linear& layer, const float* in, std::int64_t in_stride, float* out,
                                          std::int64_t count, Team* team = nullptr) {
      const Rows some{in, in_stride, out, stride, count, task.quantised};
      team != nullptr ? team->multiply(layer, some) : layer.multiply(some);
    };

    for (std::int64_t k = 0; k < task.steps; ++k) {
      multiply(weights.input, latents, channels, hidden, group);
      for (std::int64_t r = group; r < rows; ++r) std::copy_n(hidden + (r - group) * stride, width, hidden + r * stride);

      std::int64_t offset = 0;  // of the block in a row of modulations
      for (const Block& block : weights.blocks) {
        for (std::int64_t r = 0; r < rows; ++r) {
          const Modulation m(task, k, begin, group, r, offset);
          norm_and_modulate(hidden + r * stride, m.time, m.condition, width, task.normed + r * stride);
        }
        multiply(block.first, task.normed, stride, inner, rows, task.team);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t i = 0; i < width; ++i) inner[r * stride + i] = silu(inner[r * stride + i]);
        multiply(block.second, inner, stride, task.normed, rows, task.team);
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
      multiply(weights.output, task.normed, stride, inner, rows);
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

void sample_portable(const Weights& weights, const Task& task) { Loops<8>::sample(weights, task); }
#if defined(LLAMO_X86)
LLAMO_AVX2 void sample_avx2(const Weights& weights, const Task& task) { Loops<8>::sample(weights, task); }
LLAMO_AVX512 void sample_avx512(const Weights& weights, const Task& task) { Loops<16>::sample(weights, task); }
#endif

void run(const Weights& weights, const Task& task) {
  switch (weights.instruction_set) {
#if defined(LLAMO_X86)
    case InstructionSet::kAvx512Vnni:
    case InstructionSet::kAvx512:
      return sample_avx512(weights, task);
    case InstructionSet::kAvx2:
      return sample_avx2(weights, task);
#endif
    default:
      return sample_portable(weights, task);
  }
}

// --------------------------------------------------------------------------------------------------------- binding
// The Python wrapper has checked every shape. noconvert(): float64 is refused here, not converted.

using FloatArray = py::array_t<float, py::array::c_style>;

Weights pack(const FloatArray& input_weight, const FloatArray& input_bias, const FloatArray& first_weight,
             const FloatArray& first_bias, const FloatArray& second_weight, const FloatArray& second_bias,
             const FloatArray& output_weight, const FloatArray& output_bias, const std::string& instruction_set,
             const std::string& precision_name, std::int64_t threads) {
  const InstructionSet set = instruction_set_named(instruction_set);
  const Precision precision = precision_named(precision_name);
  const std::int64_t width = input_weight.shape(0), channels = input_weight.shape(1), blocks = first_weight.shape(0);
  Arena arena;
  const auto packed = [set, &arena](const float* weight, const float* bias, std::int64_t in, std::int64_t out,
                                    Precision kept) { return Linear(weight, bias, in, out, kept, set, arena); };
  Linear input = packed(input_weight.data(), input_bias.data(), channels, width, Precision::kFloat32);
  std::vector<Block> inner(static_cast<std::size_t>(blocks));
  for (std::int64_t n = 0; n < blocks; ++n)
    inner[n] = {packed(first_weight.data(n), first_bias.data(n), width, width, precision),
                packed(second_weight.data(n), second_bias.data(n), width, width, precision)};
  Linear output = packed(output_weight.data(), output_bias.data(), width, channels, Precision::kFloat32);
  Weights weights{set, channels, width, std::move(arena), std::move(input), std::move(output), std::move(inner), nullptr};
  if (threads > 1) weights.team = std::make_unique<Team>(threads - 1, width, padded_size(width), kMaxRows);
  return weights;
}

FloatArray sample(const Weights& weights, const FloatArray& noise, const FloatArray& time,
                  const std::optional<FloatArray>& condition, const std::optional<float>& guidance_scale) {
  const std::int64_t modulations = time.shape(time.ndim() - 1);
  const std::int64_t stride = padded_size(std::max(weights.width, weights.channels));
  FloatArray latents({noise.shape(0), noise.shape(1)});
  std::copy_n(noise.data(), noise.size(), latents.mutable_data());
  const std::int64_t rows = std::min(kMaxRows, noise.shape(0) * (guidance_scale ? 2 : 1));
  Buffer<float> memory(3 * rows * stride), no_condition(condition ? 0 : modulations);
  Buffer<std::int16_t> quantised(quantised_size(weights.width, rows));

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
  task.quantised = quantised.get();
  task.latents = latents.mutable_data();

  {
    py::gil_scoped_release unlocked;  // the node keeps spinning meanwhile
    std::unique_lock<std::mutex> team_is_ours;
    if (weights.team) team_is_ours = std::unique_lock<std::mutex>(weights.team->lock, std::try_to_lock);
    if (team_is_ours) task.team = weights.team.get();  // otherwise it helps another call
    run(weights, task);
  }
  return latents;
}

// The layer that makes all modulations of a latent: read once, so its bytes are all that counts.
struct ModulationWeights {
  Arena arena;
  Linear layer;
};

ModulationWeights pack_modulations(const FloatArray& weight, const std::optional<FloatArray>& bias,
                                   const std::string& instruction_set, const std::string& precision) {
  Arena arena;
  Linear layer(weight.data(), bias ? bias->data() : nullptr, weight.shape(1), weight.shape(0),
               precision_named(precision), instruction_set_named(instruction_set), arena);
  return {std::move(arena), std::move(layer)};
}

// Rows (P, M); the memory behind them has rows of whole panels.
py::array modulate(const ModulationWeights& weights, const FloatArray& activations) {
  const Linear& layer = weights.layer;
  const std::int64_t count = activations.shape(0);
  FloatArray rows({count, layer.padded});
  float* const out = rows.mutable_data();
  {
    py::gil_scoped_release unlocked;
    Buffer<std::int16_t> quantised(quantised_size(layer.inputs, std::min<std::int64_t>(count, kMaxRows)));
    layer.multiply({activations.data(), layer.inputs, out, layer.padded, count, quantised.get()});
  }
  return rows[py::make_tuple(py::ellipsis(), py::slice(0, layer.outputs, 1))];
}

}  // namespace

void register_flow_sampler(py::module_& m) {
  py::class_<Weights>(m, "FlowSamplerWeights", "Weights of the flow head, packed for one instruction set.")
      .def(py::init(&pack), py::arg("input_weight").noconvert(), py::arg("input_bias").noconvert(),
           py::arg("first_weight").noconvert(), py::arg("first_bias").noconvert(),
           py::arg("second_weight").noconvert(), py::arg("second_bias").noconvert(),
           py::arg("output_weight").noconvert(), py::arg("output_bias").noconvert(), py::arg("instruction_set"),
           py::arg("precision"), py::arg("threads"));
  m.def("flow_sampler", &sample, "Latents (B, Z) after all Euler steps.", py::arg("weights"),
        py::arg("noise").noconvert(), py::arg("time").noconvert(), py::arg("condition").noconvert().none(true),
        py::arg("guidance_scale").none(true));
  py::class_<ModulationWeights>(m, "ModulationWeights", "Weights of the modulations, packed for one instruction set.")
      .def(py::init(&pack_modulations), py::arg("weight").noconvert(), py::arg("bias").noconvert().none(true),
           py::arg("instruction_set"), py::arg("precision"));
  m.def("modulate", &modulate, "Modulations (P, M) of activations (P, W).", py::arg("weights"),
        py::arg("activations").noconvert());
}
