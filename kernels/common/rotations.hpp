// Vectors and rotations in space, in float64.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>

namespace llamo {

struct Vector {
  double x = 0.0, y = 0.0, z = 0.0;
};

inline Vector operator+(Vector a, Vector b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vector operator-(Vector a, Vector b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vector operator*(double s, Vector a) { return {s * a.x, s * a.y, s * a.z}; }
inline double dot(Vector a, Vector b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vector cross(Vector a, Vector b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
inline Vector vector_at(const double* at) { return {at[0], at[1], at[2]}; }

using Matrix = std::array<double, 9>;  // by rows

inline Vector operator*(const Matrix& m, Vector v) {
  return {m[0] * v.x + m[1] * v.y + m[2] * v.z, m[3] * v.x + m[4] * v.y + m[5] * v.z,
          m[6] * v.x + m[7] * v.y + m[8] * v.z};
}
inline Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix out;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  return out;
}
inline Matrix transposed(const Matrix& m) { return {m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]}; }
inline Matrix matrix_at(const double* at) {
  Matrix out;
  std::copy_n(at, 9, out.begin());
  return out;
}

// Turn by |turn| about turn.
inline Matrix rotation_of(Vector turn) {
  const double angle = std::sqrt(dot(turn, turn));
  const double sine = angle < 1e-8 ? 1.0 : std::sin(angle) / angle;
  const double half = std::sin(0.5 * angle);
  const double versine = angle < 1e-8 ? 0.5 : 2.0 * half * half / (angle * angle);
  const auto [x, y, z] = turn;
  return {1.0 - versine * (y * y + z * z), versine * x * y - sine * z, versine * x * z + sine * y,
          versine * x * y + sine * z, 1.0 - versine * (x * x + z * z), versine * y * z - sine * x,
          versine * x * z - sine * y, versine * y * z + sine * x, 1.0 - versine * (x * x + y * y)};
}

// The shortest turn that rotation_of makes this rotation from; by way of the quaternion, whose largest part is divided
// by, so that half turns are no special case.
inline Vector turn_of(const Matrix& m) {
  const double trace = m[0] + m[4] + m[8];
  const std::array<double, 4> choice{m[0], m[4], m[8], trace};
  const int largest = static_cast<int>(std::max_element(choice.begin(), choice.end()) - choice.begin());
  double w;
  std::array<double, 3> q;
  if (largest == 3) {
    q = {m[7] - m[5], m[2] - m[6], m[3] - m[1]};
    w = 1.0 + trace;
  } else {
    const int i = largest, j = (i + 1) % 3, k = (i + 2) % 3;
    q[i] = 1.0 - trace + 2.0 * m[4 * i];
    q[j] = m[3 * j + i] + m[3 * i + j];
    q[k] = m[3 * k + i] + m[3 * i + k];
    w = m[3 * k + j] - m[3 * j + k];
  }
  const double sign = w < 0.0 ? -1.0 : 1.0;
  const Vector axis = sign * Vector{q[0], q[1], q[2]};
  const double length = std::sqrt(dot(axis, axis));
  if (length < 1e-300) return {};
  return (2.0 * std::atan2(length, sign * w) / length) * axis;
}

}  // namespace llamo
