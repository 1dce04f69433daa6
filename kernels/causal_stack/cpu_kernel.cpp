// Causal layers over rows in time, with streaming state, on one CPU core. reference.py beside this file is the
// definition; common/linear.hpp holds the matrices.
//
// B streams, T rows of each at present, C channels. The rows of all streams go through a layer together, so that its
// weights are read once.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../common/instruction_set.hpp"
#include "../common/linear.hpp"
#include "../common/loops.hpp"
#include "../common/memory.hpp"

namespace py = pybind11;

namespace {

using namespace llamo;
using FloatArray = py::array_t<float, py::array::c_style>;

enum class Kind { kConvolution, kNorm, kSilu, kRelu, kRepeat, kKeep, kAdd };

struct Operation {
  explicit Operation(Kind what) : kind(what) {}

  Kind kind;
  Linear linear;                                     // convolution
  std::int64_t kernel = 1, dilation = 1, stride = 1;  // convolution
  std::vector<float> weight;                         // norm
  float epsilon = 0.0f;                              // norm
  std::int64_t times = 1;                            // repeat

  std::int64_t lookback() const { return (kernel - 1) * dilation + 1 - stride; }
  std::int64_t inputs() const { return linear.inputs / kernel; }
};

struct Stack {
  InstructionSet instruction_set;
  Precision precision;
  std::int64_t inputs, outputs;
  Arena arena;
  std::vector<Operation> operations;
};

// Rows of all streams, (B, T, C) at a row stride.
struct Block {
  Buffer<float> values;
  std::int64_t rows = 0, channels = 0, stride = 0;  // rows T of each stream
};

// Memory of one call, found out before any loop begins.
struct Plan {
  Block now, next;                 // rows before and after the operation at hand, changing places
  std::vector<Buffer<float>> kept;  // for Add, innermost last
  Buffer<float> taps;
  Buffer<std::int16_t> quantised;
};

template <int LANES>
struct Loops {
  static LLAMO_INLINE void norm(float* LLAMO_RESTRICT x, const float* LLAMO_RESTRICT weight, std::int64_t channels,
                                float epsilon) {
    const float inverse = 1.0f / std::sqrt(dot<LANES>(x, x, channels) / static_cast<float>(channels) + epsilon);
    for (std::int64_t i = 0; i < channels; ++i) x[i] = weight[i] * x[i] * inverse;
  }

  // Output rows of a convolution, and its new past. `past` is (B, lookback, C), as is `new_past`.
  static LLAMO_INLINE void convolve(const Operation& op, Plan& plan, std::int64_t batch, const float* past,
                                    float* new_past) {
    const Block& in = plan.now;
    const std::int64_t lookback = op.lookback(), rows = in.rows, channels = in.channels, rows_out = rows / op.stride;
    // Row t of a stream's history: the past first, then what is there now.
    const auto history = [&](std::int64_t b, std::int64_t t) {
      return t < lookback ? past + (b * lookback + t) * channels : in.values.get() + (b * rows + t - lookback) * in.stride;
    };
    const bool is_plain = op.kernel == 1 && op.stride == 1;  // then rows are taken as they are
    if (!is_plain)
      for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t l = 0; l < rows_out; ++l)
          for (std::int64_t k = 0; k < op.kernel; ++k)
            std::copy_n(history(b, l * op.stride + k * op.dilation), channels,
                        plan.taps.get() + ((b * rows_out + l) * op.kernel + k) * channels);
    Block& out = plan.next;
    out.rows = rows_out;
    out.channels = op.linear.outputs;
    out.stride = op.linear.padded;
    op.linear.multiply({is_plain ? in.values.get() : plan.taps.get(), is_plain ? in.stride : op.linear.inputs,
                        out.values.get(), out.stride, batch * rows_out, plan.quantised.get()});
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t t = 0; t < lookback; ++t)
        std::copy_n(history(b, rows + t), channels, new_past + (b * lookback + t) * channels);
    std::swap(plan.now, plan.next);
  }

  static LLAMO_INLINE void run(const Stack& stack, Plan& plan, std::int64_t batch,
                               const std::vector<const float*>& pasts, const std::vector<float*>& new_pasts) {
    std::size_t convolution = 0, depth = 0;
    for (const Operation& op : stack.operations) {
      Block& now = plan.now;
      const std::int64_t count = batch * now.rows;
      float* const values = now.values.get();
      switch (op.kind) {
        case Kind::kConvolution:
          if (op.lookback() > 0) {
            convolve(op, plan, batch, pasts[convolution], new_pasts[convolution]);
            ++convolution;
          } else {
            convolve(op, plan, batch, nullptr, nullptr);
          }
          break;
        case Kind::kNorm:
          for (std::int64_t r = 0; r < count; ++r)
            norm(values + r * now.stride, op.weight.data(), now.channels, op.epsilon);
          break;
        case Kind::kSilu:
          for (std::int64_t i = 0; i < count * now.stride; ++i) values[i] = silu(values[i]);
          break;
        case Kind::kRelu:
          for (std::int64_t i = 0; i < count * now.stride; ++i)
            values[i] = values[i] < 0.0f ? 0.0f : values[i];  // NaN stays
          break;
        case Kind::kRepeat:
          for (std::int64_t r = 0; r < count; ++r)
            for (std::int64_t n = 0; n < op.times; ++n)
              std::copy_n(values + r * now.stride, now.channels,
                          plan.next.values.get() + (r * op.times + n) * now.stride);
          plan.next.rows = now.rows * op.times;
          plan.next.channels = now.channels;
          plan.next.stride = now.stride;
          std::swap(plan.now, plan.next);
          break;
        case Kind::kKeep:
          for (std::int64_t r = 0; r < count; ++r)
            std::copy_n(values + r * now.stride, now.channels, plan.kept[depth].get() + r * now.channels);
          ++depth;
          break;
        case Kind::kAdd:
          --depth;
          for (std::int64_t r = 0; r < count; ++r) {
            const float* LLAMO_RESTRICT kept = plan.kept[depth].get() + r * now.channels;
            float* LLAMO_RESTRICT row = values + r * now.stride;
            for (std::int64_t i = 0; i < now.channels; ++i) row[i] += kept[i];
          }
          break;
      }
    }
  }
};

// --------------------------------------------------------------------------------- one copy of the loops per machine

using Pasts = std::vector<const float*>;
using NewPasts = std::vector<float*>;

void run_portable(const Stack& s, Plan& p, std::int64_t batch, const Pasts& pasts, const NewPasts& new_pasts) {
  Loops<8>::run(s, p, batch, pasts, new_pasts);
}
#if defined(LLAMO_X86)
LLAMO_AVX2 void run_avx2(const Stack& s, Plan& p, std::int64_t batch, const Pasts& pasts, const NewPasts& new_pasts) {
  Loops<8>::run(s, p, batch, pasts, new_pasts);
}
LLAMO_AVX512 void run_avx512(const Stack& s, Plan& p, std::int64_t batch, const Pasts& pasts,
                             const NewPasts& new_pasts) {
  Loops<16>::run(s, p, batch, pasts, new_pasts);
}
#endif

void run(const Stack& stack, Plan& plan, std::int64_t batch, const Pasts& pasts, const NewPasts& new_pasts) {
  switch (stack.instruction_set) {
#if defined(LLAMO_X86)
    case InstructionSet::kAvx512Vnni:
    case InstructionSet::kAvx512:
      return run_avx512(stack, plan, batch, pasts, new_pasts);
    case InstructionSet::kAvx2:
      return run_avx2(stack, plan, batch, pasts, new_pasts);
#endif
    default:
      return run_portable(stack, plan, batch, pasts, new_pasts);
  }
}

// All buffers as large as the largest that any operation needs for `rows` rows of each stream.
Plan planned(const Stack& stack, std::int64_t batch, std::int64_t rows) {
  std::int64_t block = rows * padded_size(stack.inputs), taps = 0, quantised = 0, channels = stack.inputs;
  Plan plan;
  std::vector<std::int64_t> kept;  // values at each depth, of the largest there
  std::size_t depth = 0;
  for (const Operation& op : stack.operations) {
    if (op.kind == Kind::kConvolution) {
      rows /= op.stride;
      taps = std::max(taps, rows * op.linear.inputs);
      quantised = std::max(quantised, quantised_size(op.linear.inputs, batch * rows));
      channels = op.linear.outputs;
    }
    if (op.kind == Kind::kRepeat) rows *= op.times;
    if (op.kind == Kind::kKeep) {
      if (depth == kept.size()) kept.push_back(0);
      kept[depth] = std::max(kept[depth], batch * rows * channels);
      ++depth;
    }
    if (op.kind == Kind::kAdd) --depth;
    block = std::max(block, rows * padded_size(channels));
  }
  for (const std::int64_t size : kept) plan.kept.emplace_back(size);
  plan.now.values = Buffer<float>(batch * block);
  plan.next.values = Buffer<float>(batch * block);
  plan.taps = Buffer<float>(batch * taps);
  plan.quantised = Buffer<std::int16_t>(quantised);
  return plan;
}

// --------------------------------------------------------------------------------------------------------- binding
// The Python wrapper has checked every shape. noconvert(): float64 is refused here, not converted.

Stack make_stack(std::int64_t inputs, const std::string& instruction_set, const std::string& precision) {
  return {instruction_set_named(instruction_set), precision_named(precision), inputs, inputs, {}, {}};
}

void add_convolution(Stack& stack, const FloatArray& weight, const std::optional<FloatArray>& bias, std::int64_t kernel,
                     std::int64_t dilation, std::int64_t stride) {
  Operation op(Kind::kConvolution);
  op.linear = Linear(weight.data(), bias ? bias->data() : nullptr, weight.shape(1), weight.shape(0), stack.precision,
                     stack.instruction_set, stack.arena);
  op.kernel = kernel;
  op.dilation = dilation;
  op.stride = stride;
  stack.outputs = weight.shape(0);
  stack.operations.push_back(std::move(op));
}

void add_norm(Stack& stack, const FloatArray& weight, float epsilon) {
  Operation op(Kind::kNorm);
  op.weight.assign(weight.data(), weight.data() + weight.size());
  op.epsilon = epsilon;
  stack.operations.push_back(std::move(op));
}

void add_repeat(Stack& stack, std::int64_t times) {
  Operation op(Kind::kRepeat);
  op.times = times;
  stack.operations.push_back(std::move(op));
}

void add_plain(Stack& stack, const std::string& name) {
  const std::pair<const char*, Kind> known[] = {
      {"silu", Kind::kSilu}, {"relu", Kind::kRelu}, {"keep", Kind::kKeep}, {"add", Kind::kAdd}};
  for (const auto& [known_name, kind] : known)
    if (name == known_name) {
      stack.operations.emplace_back(kind);
      return;
    }
  throw std::invalid_argument("there is no operation '" + name + "'");
}

std::pair<FloatArray, std::vector<FloatArray>> causal_stack(const Stack& stack, const FloatArray& x,
                                                            const std::vector<FloatArray>& state) {
  const std::int64_t batch = x.shape(0), rows = x.shape(1);
  Plan plan = planned(stack, batch, rows);
  plan.now.rows = rows;
  plan.now.channels = plan.now.stride = stack.inputs;
  std::copy_n(x.data(), x.size(), plan.now.values.get());
  std::int64_t rows_out = rows;
  for (const Operation& op : stack.operations) rows_out = rows_out / op.stride * op.times;
  FloatArray out({batch, rows_out, stack.outputs});
  float* const results = out.mutable_data();
  std::vector<FloatArray> new_state;
  Pasts pasts;
  NewPasts new_pasts;
  for (const FloatArray& past : state) {
    new_state.emplace_back(std::vector<py::ssize_t>(past.shape(), past.shape() + past.ndim()));
    pasts.push_back(past.data());
    new_pasts.push_back(new_state.back().mutable_data());
  }
  {
    py::gil_scoped_release unlocked;  // the node keeps spinning meanwhile
    run(stack, plan, batch, pasts, new_pasts);
    for (std::int64_t r = 0; r < batch * rows_out; ++r)
      std::copy_n(plan.now.values.get() + r * plan.now.stride, stack.outputs, results + r * stack.outputs);
  }
  return {std::move(out), std::move(new_state)};
}

}  // namespace

void register_causal_stack(py::module_& m) {
  py::class_<Stack>(m, "CausalStack", "Operations with their weights, packed for one instruction set.")
      .def(py::init(&make_stack), py::arg("inputs"), py::arg("instruction_set"), py::arg("precision"))
      .def("add_convolution", &add_convolution, py::arg("weight").noconvert(), py::arg("bias").noconvert().none(true),
           py::arg("kernel"), py::arg("dilation"), py::arg("stride"))
      .def("add_norm", &add_norm, py::arg("weight").noconvert(), py::arg("epsilon"))
      .def("add_repeat", &add_repeat, py::arg("times"))
      .def("add_plain", &add_plain, "Of silu, relu, keep, add.", py::arg("name"));
  m.def("causal_stack", &causal_stack, "Output rows (B, L, outputs) and the new state.", py::arg("stack"),
        py::arg("x").noconvert(), py::arg("state").noconvert());
}
