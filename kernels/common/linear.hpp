// A linear layer y = W x + b whose weights are packed once, in the order in which they are read, in one of three
// precisions. Activations, sums and results are float32.
//
//   float32   the reference
//   bfloat16  weights rounded to bfloat16: half the bytes
//   int8      weights rounded to 8 bits with one scale per output, activations to 8 bits with one scale per row and
//             call; products are summed exactly in int32, so every instruction set gives the same sums
//
// A row's result does not depend on the rows that go along.

#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "instruction_set.hpp"
#include "memory.hpp"

namespace llamo {

enum class Precision { kFloat32, kBfloat16, kInt8 };

// "float32", "bfloat16" or "int8"; throws std::invalid_argument for any other name.
Precision precision_named(const std::string& name);

// What one product reads and writes; strides are from row to row, in floats.
struct Rows {
  const float* in;
  std::int64_t in_stride;
  float* out;
  std::int64_t out_stride;
  std::int64_t count;
  std::int16_t* quantised;  // working memory of quantised_size(); only int8 uses it
  std::int64_t begin = 0, end = std::numeric_limits<std::int64_t>::max();  // outputs; whole panels
};

// Outputs are cut into panels, the last one filled up with zeros. In a panel the weights from one input (float32), two
// (bfloat16) or four (int8) to all outputs lie side by side, and the inputs follow one another.
struct Linear {
  Linear() = default;
  // weight (out, in) and bias (out) as in torch.nn.Linear; a null bias is none. They are packed into the arena.
  Linear(const float* weight, const float* bias_values, std::int64_t in, std::int64_t out, Precision precision,
         InstructionSet set, Arena& arena);

  // out[r] = layer(in[r]) from `begin` to `end`; each row of `out` has `padded` values, zeros from `outputs` on.
  void multiply(const Rows& rows) const { multiply_rows(*this, rows); }

  std::int64_t inputs = 0, outputs = 0, padded = 0;
  Buffer<float> floats, bias;
  Buffer<std::uint32_t> pairs;  // bfloat16; the even input in the lower half
  Buffer<std::int8_t> bytes;    // int8
  Buffer<float> scale;          // int8, per output
  Buffer<std::int32_t> shift;   // int8: 128 times the sum of an output's weights
  void (*multiply_rows)(const Linear&, const Rows&) = nullptr;
};

// Outputs of a row with those that are filled up, and quantised inputs of some rows, at most.
constexpr std::int64_t padded_size(std::int64_t outputs) { return (outputs + 63) / 64 * 64; }
constexpr std::int64_t quantised_size(std::int64_t inputs, std::int64_t rows) { return (inputs + 3) / 4 * 4 * rows; }

}  // namespace llamo
