// Frames from features on one CPU core, in float64. reference.py beside this file is the definition.
//
// T frames, J joints, 8 + 12 J features a frame. Matrices are 9 numbers, row by row.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

namespace py = pybind11;

namespace {

constexpr double kShortest = 1e-12;  // a shorter row is divided by this instead of its length

struct Skeleton {
  std::int64_t joints;
  const std::int64_t* parents;  // (J,); a parent comes before its children, and joint 0 has none
  const double* offsets;        // (J, 3)
};

// Heading, [rad], and place, [m], after the frames so far.
struct State {
  double heading, x, z;
};

// ------------------------------------------------------------------------------------------------------- the loops

double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

void normalise(double* vector) {
  const double square = dot(vector, vector);
  const double length = std::sqrt(square < kShortest * kShortest ? kShortest * kShortest : square);
  for (int i = 0; i < 3; ++i) vector[i] /= length;
}

// Gram-Schmidt on two rows; the third is their cross product.
void rows6d_to_matrix(const double* rows, double* matrix) {
  double *first = matrix, *second = matrix + 3, *third = matrix + 6;
  std::copy_n(rows, 3, first);
  normalise(first);
  const double along = dot(first, rows + 3);
  for (int i = 0; i < 3; ++i) second[i] = rows[3 + i] - along * first[i];
  normalise(second);
  third[0] = first[1] * second[2] - first[2] * second[1];
  third[1] = first[2] * second[0] - first[0] * second[2];
  third[2] = first[0] * second[1] - first[1] * second[0];
}

// matrix = R_y(heading) matrix.
void turn_about_y(double heading, double* matrix) {
  const double cosine = std::cos(heading), sine = std::sin(heading);
  for (int c = 0; c < 3; ++c) {
    const double top = matrix[c], bottom = matrix[6 + c];
    matrix[c] = cosine * top + sine * bottom;
    matrix[6 + c] = cosine * bottom - sine * top;
  }
}

State decode_frame(const double* features, std::int64_t joints, State state, double* rotations, double* root) {
  const double cosine = std::cos(state.heading), sine = std::sin(state.heading);  // of the frame before
  state.x += cosine * features[0] + sine * features[1];
  state.z += cosine * features[1] - sine * features[0];
  state.heading += std::atan2(-features[4], features[2]);
  root[0] = state.x;
  root[1] = features[9];
  root[2] = state.z;
  const double* rows = features + 8 + 6 * joints;
  for (std::int64_t j = 0; j < joints; ++j) rows6d_to_matrix(rows + 6 * j, rotations + 9 * j);
  turn_about_y(state.heading, rotations);
  return state;
}

// World positions (J, 3) and rotations (J, 3, 3) of one frame.
void place_joints(const Skeleton& skeleton, const double* local, const double* root, double* positions,
                  double* rotations) {
  std::copy_n(root, 3, positions);
  std::copy_n(local, 9, rotations);
  for (std::int64_t j = 1; j < skeleton.joints; ++j) {
    const std::int64_t parent = skeleton.parents[j];
    const double *turn = rotations + 9 * parent, *own = local + 9 * j;
    for (int r = 0; r < 3; ++r) {
      positions[3 * j + r] = positions[3 * parent + r] + dot(turn + 3 * r, skeleton.offsets + 3 * j);
      for (int c = 0; c < 3; ++c)
        rotations[9 * j + 3 * r + c] =
            turn[3 * r] * own[c] + turn[3 * r + 1] * own[3 + c] + turn[3 * r + 2] * own[6 + c];
    }
  }
}

// --------------------------------------------------------------------------------------------------------- binding
// The Python wrapper has checked every shape. noconvert(): float32 is refused here, not converted.

using DoubleArray = py::array_t<double, py::array::c_style>;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

Skeleton skeleton_of(const IndexArray& parents, const DoubleArray& offsets) {
  return {parents.shape(0), parents.data(), offsets.data()};
}

// World positions and rotations of all joints, or None for both.
py::tuple frame_decoder(const DoubleArray& features, double heading, double x, double z, const IndexArray& parents,
                        const DoubleArray& offsets, bool with_joints) {
  const Skeleton skeleton = skeleton_of(parents, offsets);
  const std::int64_t frames = features.shape(0), joints = skeleton.joints, width = features.shape(1);
  DoubleArray rotations({frames, joints, std::int64_t{3}, std::int64_t{3}});
  DoubleArray roots({frames, std::int64_t{3}});
  std::optional<DoubleArray> joint_positions, joint_rotations;
  if (with_joints) {
    joint_positions = DoubleArray({frames, joints, std::int64_t{3}});
    joint_rotations = DoubleArray({frames, joints, std::int64_t{3}, std::int64_t{3}});
  }
  const double* in = features.data();
  double *local = rotations.mutable_data(), *root = roots.mutable_data();
  double* positions = with_joints ? joint_positions->mutable_data() : nullptr;
  double* turned = with_joints ? joint_rotations->mutable_data() : nullptr;
  State state{heading, x, z};
  {
    py::gil_scoped_release unlocked;  // the node keeps spinning meanwhile
    for (std::int64_t t = 0; t < frames; ++t) {
      state = decode_frame(in + t * width, joints, state, local + 9 * joints * t, root + 3 * t);
      if (with_joints)
        place_joints(skeleton, local + 9 * joints * t, root + 3 * t, positions + 3 * joints * t,
                     turned + 9 * joints * t);
    }
  }
  return py::make_tuple(rotations, roots, state.heading, py::make_tuple(state.x, state.z), joint_positions,
                        joint_rotations);
}

py::tuple forward_kinematics(const DoubleArray& local_rotations, const DoubleArray& root_positions,
                             const IndexArray& parents, const DoubleArray& offsets) {
  const Skeleton skeleton = skeleton_of(parents, offsets);
  const std::int64_t frames = local_rotations.shape(0), joints = skeleton.joints;
  DoubleArray positions({frames, joints, std::int64_t{3}});
  DoubleArray rotations({frames, joints, std::int64_t{3}, std::int64_t{3}});
  const double *local = local_rotations.data(), *root = root_positions.data();
  double *placed = positions.mutable_data(), *turned = rotations.mutable_data();
  {
    py::gil_scoped_release unlocked;
    for (std::int64_t t = 0; t < frames; ++t)
      place_joints(skeleton, local + 9 * joints * t, root + 3 * t, placed + 3 * joints * t, turned + 9 * joints * t);
  }
  return py::make_tuple(positions, rotations);
}

}  // namespace

void register_frame_decoder(py::module_& m) {
  m.def("frame_decoder", &frame_decoder, "Local rotations, roots, heading, (x, z), joint positions and rotations.",
        py::arg("features").noconvert(), py::arg("heading"), py::arg("x"), py::arg("z"),
        py::arg("parents").noconvert(), py::arg("offsets").noconvert(), py::arg("with_joints"));
  m.def("frame_decoder_forward_kinematics", &forward_kinematics, "World positions and rotations of all joints.",
        py::arg("local_rotations").noconvert(), py::arg("root_positions").noconvert(), py::arg("parents").noconvert(),
        py::arg("offsets").noconvert());
}
