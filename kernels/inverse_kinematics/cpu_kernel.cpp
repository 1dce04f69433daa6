// Postures of a robot that meet goals as well as limits allow, frame by frame, on one CPU core in float64. reference.py
// beside this file is the definition.
//
// T frames, L links, J joints, O orientations, P vectors, C capsules, U = 3 + J unknowns.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../common/rotations.hpp"

namespace py = pybind11;

namespace {

using namespace llamo;
using FloatArray = py::array_t<double, py::array::c_style>;
using IndexArray = py::array_t<std::int64_t, py::array::c_style>;

// ------------------------------------------------------------------------------------------------------------- robot

struct Link {
  std::int64_t parent, joint;  // -1 where there is none
  Matrix origin_rotation;
  Vector origin, axis;
  bool slides;
  std::vector<std::int64_t> moved_by;  // joints between the root and here, in rising order
};

struct Capsule {
  std::int64_t link;
  Vector start, end;
  double radius;
};

struct Solver {
  std::vector<Link> links;
  std::vector<std::int64_t> joint_links;  // the link that each joint carries
  std::vector<double> neutral;
  double neutral_weight;
  std::vector<std::int64_t> turned, starts, ends;  // links of the O orientations and the P vectors
  std::vector<double> lengths;
  std::vector<Capsule> capsules;
  std::vector<std::array<std::int64_t, 2>> pairs;
  double clearance, clearance_weight, reach;
  double damping, largest_step, converged;
  std::int64_t iterations;

  std::int64_t joints() const { return static_cast<std::int64_t>(neutral.size()); }
  std::int64_t unknowns() const { return 3 + joints(); }
};

struct Pose {
  Matrix rotation;
  Vector position;
};

// Memory of one call.
struct Work {
  explicit Work(const Solver& solver)
      : poses(solver.links.size()),
        axes(solver.joints()),
        points(solver.joints()),
        normal(solver.unknowns() * solver.unknowns()),
        factor(normal.size()),
        gradient(solver.unknowns()),
        pull(solver.unknowns()),
        step(solver.unknowns()) {
    columns.reserve(solver.unknowns());
  }
  std::vector<Pose> poses;  // in the root link's frame
  std::vector<Vector> axes, points;
  std::vector<double> normal, factor;          // (U, U), of which the lower triangle is used
  std::vector<double> gradient, pull, step;    // (U)
  struct Column {
    std::int64_t unknown;
    Vector value;
  };
  std::vector<Column> columns;  // of the three rows at hand, where they are not zero; in rising order
  struct Contact {
    double missing;               // distance that two capsules lack, or have to spare if negative
    bool is_active;               // whether the step at hand is to make up for it
    std::vector<Column> columns;  // how the distance grows, in x
  };
  std::vector<Contact> contacts;  // of capsules that are near each other; `near` of them are valid
  std::size_t near = 0;
};

void place_links(const Solver& solver, const double* q, Work& work) {
  work.poses[0] = {{1, 0, 0, 0, 1, 0, 0, 0, 1}, {}};
  for (std::size_t l = 1; l < solver.links.size(); ++l) {
    const Link& link = solver.links[l];
    const Pose& parent = work.poses[link.parent];
    Pose& pose = work.poses[l];
    pose.rotation = parent.rotation * link.origin_rotation;
    pose.position = parent.position + parent.rotation * link.origin;
    if (link.joint < 0) continue;
    work.axes[link.joint] = pose.rotation * link.axis;
    if (link.slides)
      pose.position = pose.position + q[link.joint] * work.axes[link.joint];
    else
      pose.rotation = pose.rotation * rotation_of(q[link.joint] * link.axis);
    work.points[link.joint] = pose.position;
  }
}

// How joint j moves a point of a link that it carries.
Vector motion_of(const Solver& solver, const Work& work, std::int64_t j, Vector point) {
  return solver.links[solver.joint_links[j]].slides ? work.axes[j] : cross(work.axes[j], point - work.points[j]);
}

// The columns in which two points of two links move against each other: in those of both, the difference counts.
void difference_columns(const Solver& solver, std::int64_t from, Vector from_point, std::int64_t to, Vector to_point,
                        Work& work) {
  const auto &first = solver.links[from].moved_by, &second = solver.links[to].moved_by;
  auto a = first.begin(), b = second.begin();
  while (a != first.end() || b != second.end()) {
    const bool in_first = a != first.end() && (b == second.end() || *a <= *b);
    const bool in_second = b != second.end() && (a == first.end() || *b <= *a);
    const std::int64_t j = in_first ? *a : *b;
    Vector value;
    if (in_second) value = value + motion_of(solver, work, j, to_point);
    if (in_first) value = value - motion_of(solver, work, j, from_point);
    work.columns.push_back({3 + j, value});
    a += in_first;
    b += in_second;
  }
}

// Add weight * |error - columns * step|^2 to what is minimised.
void add_rows(const std::vector<Work::Column>& columns, double weight, Vector error, std::vector<double>& normal,
              std::vector<double>& gradient) {
  const auto unknowns = static_cast<std::int64_t>(gradient.size());
  for (std::size_t n = 0; n < columns.size(); ++n) {
    const Vector scaled = weight * columns[n].value;
    double* const row = normal.data() + columns[n].unknown * unknowns;
    for (std::size_t m = 0; m <= n; ++m) row[columns[m].unknown] += dot(scaled, columns[m].value);
    gradient[columns[n].unknown] += dot(scaled, error);
  }
}

// Parameters from 0 to 1 of the points of two segments that are nearest to each other.
std::array<double, 2> nearest(Vector start_a, Vector along_a, Vector start_b, Vector along_b) {
  constexpr double kShort = 1e-12;
  const Vector between = start_a - start_b;
  const double aa = dot(along_a, along_a), bb = dot(along_b, along_b), ab = dot(along_a, along_b);
  const double at_a = dot(along_a, between), at_b = dot(along_b, between);
  const double determinant = aa * bb - ab * ab;
  double s = determinant > kShort ? std::clamp((ab * at_b - at_a * bb) / determinant, 0.0, 1.0) : 0.0;
  double t = bb > kShort ? (ab * s + at_b) / bb : 0.0;
  if (t < 0.0 || t > 1.0 || bb <= kShort) {
    t = std::clamp(t, 0.0, 1.0);
    s = aa > kShort ? std::clamp((ab * t - at_a) / aa, 0.0, 1.0) : 0.0;
  }
  return {s, t};
}

// Where on the two segments to look, as parameters: the ends of each against the other, and where they are nearest to
// each other if that is an end of neither. The nearest points alone jump from end to end where segments are parallel.
int places_of_contact(Vector start_a, Vector along_a, Vector start_b, Vector along_b,
                      std::array<std::array<double, 2>, 5>& places) {
  int count = 0;
  for (double end : {0.0, 1.0}) {
    places[count++] = {end, nearest(start_a + end * along_a, {}, start_b, along_b)[1]};
    places[count++] = {nearest(start_a, along_a, start_b + end * along_b, {})[0], end};
  }
  const auto [s, t] = nearest(start_a, along_a, start_b, along_b);
  if (s > 0.0 && s < 1.0 && t > 0.0 && t < 1.0) places[count++] = {s, t};
  return count;
}

// Finds the places at which one step could bring capsules together.
void find_contacts(const Solver& solver, Work& work) {
  work.near = 0;
  std::array<std::array<double, 2>, 5> places;
  for (const auto& [first, second] : solver.pairs) {
    const Capsule &a = solver.capsules[first], &b = solver.capsules[second];
    const Pose &pose_a = work.poses[a.link], &pose_b = work.poses[b.link];
    const Vector start_a = pose_a.position + pose_a.rotation * a.start, along_a = pose_a.rotation * (a.end - a.start);
    const Vector start_b = pose_b.position + pose_b.rotation * b.start, along_b = pose_b.rotation * (b.end - b.start);
    const double wanted = solver.clearance + a.radius + b.radius;
    // Bodies whose middles are far apart need no closer look.
    const Vector middles = start_a + 0.5 * along_a - start_b - 0.5 * along_b;
    const double halves = 0.5 * (std::sqrt(dot(along_a, along_a)) + std::sqrt(dot(along_b, along_b)));
    if (std::sqrt(dot(middles, middles)) - halves >= wanted + solver.reach) continue;
    const int count = places_of_contact(start_a, along_a, start_b, along_b, places);
    for (int n = 0; n < count; ++n) {
      const Vector on_a = start_a + places[n][0] * along_a, on_b = start_b + places[n][1] * along_b;
      const double apart = std::sqrt(dot(on_b - on_a, on_b - on_a)), missing = wanted - apart;
      if (missing <= -solver.reach || apart < 1e-9) continue;
      const Vector normal = (1.0 / apart) * (on_b - on_a);
      work.columns.clear();
      difference_columns(solver, a.link, on_a, b.link, on_b, work);
      for (auto& column : work.columns) column.value = {dot(normal, column.value), 0.0, 0.0};
      if (work.near == work.contacts.size()) work.contacts.emplace_back();
      Work::Contact& contact = work.contacts[work.near++];
      contact.missing = missing;
      contact.is_active = missing > 0.0;
      contact.columns = work.columns;
    }
  }
}

struct Frame {
  const double *orientations, *orientation_weights, *vectors, *vector_weights;  // (O, 3, 3), (O), (P, 3), (P)
  const double *lower, *upper, *before, *smoothness;  // limits, positions of the frame before, and its weight, (J)
};

void add_goals(const Solver& solver, const Frame& frame, const Matrix& root, const double* q, Work& work) {
  const std::int64_t unknowns = solver.unknowns();
  const Matrix to_root = transposed(root);
  for (std::size_t o = 0; o < solver.turned.size(); ++o) {
    if (frame.orientation_weights[o] == 0.0) continue;
    const std::int64_t link = solver.turned[o];
    const Matrix error = to_root * matrix_at(frame.orientations + 9 * o) * transposed(work.poses[link].rotation);
    work.columns.clear();
    for (int i = 0; i < 3; ++i) work.columns.push_back({i, {i == 0 ? 1.0 : 0.0, i == 1 ? 1.0 : 0.0, i == 2 ? 1.0 : 0.0}});
    for (std::int64_t j : solver.links[link].moved_by)
      if (!solver.links[solver.joint_links[j]].slides) work.columns.push_back({3 + j, work.axes[j]});
    add_rows(work.columns, frame.orientation_weights[o], turn_of(error), work.normal, work.gradient);
  }
  for (std::size_t p = 0; p < solver.starts.size(); ++p) {
    if (frame.vector_weights[p] == 0.0) continue;
    const Vector start = work.poses[solver.starts[p]].position, end = work.poses[solver.ends[p]].position;
    const Vector now = end - start;
    work.columns.clear();
    work.columns.push_back({0, {0.0, -now.z, now.y}});
    work.columns.push_back({1, {now.z, 0.0, -now.x}});
    work.columns.push_back({2, {-now.y, now.x, 0.0}});
    difference_columns(solver, solver.starts[p], start, solver.ends[p], end, work);
    add_rows(work.columns, frame.vector_weights[p] / (solver.lengths[p] * solver.lengths[p]),
             to_root * vector_at(frame.vectors + 3 * p) - now, work.normal, work.gradient);
  }
  for (std::int64_t j = 0; j < solver.joints(); ++j) {
    work.normal[(3 + j) * unknowns + 3 + j] += solver.neutral_weight + frame.smoothness[j];
    work.gradient[3 + j] +=
        solver.neutral_weight * (solver.neutral[j] - q[j]) + frame.smoothness[j] * (frame.before[j] - q[j]);
  }
}

// Cholesky, in place; the matrix is positive definite. The result is the step.
void solve_in_place(std::vector<double>& a, std::vector<double>& x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    double* const row = a.data() + i * n;
    for (std::int64_t j = 0; j <= i; ++j) {
      const double* const other = a.data() + j * n;
      double sum = row[j];
      for (std::int64_t k = 0; k < j; ++k) sum -= row[k] * other[k];
      row[j] = i == j ? std::sqrt(sum) : sum / other[j];
    }
    double sum = x[i];
    for (std::int64_t k = 0; k < i; ++k) sum -= row[k] * x[k];
    x[i] = sum / row[i];
  }
  for (std::int64_t i = n - 1; i >= 0; --i) {
    x[i] /= a[i * n + i];
    for (std::int64_t k = 0; k < i; ++k) x[k] -= a[i * n + k] * x[i];
  }
}

// The step to the minimum of the goals' linearisation, with the contacts that are active.
void find_step(const Solver& solver, const Frame& frame, const double* q, Work& work) {
  const std::int64_t unknowns = solver.unknowns();
  work.factor = work.normal;
  work.pull = work.gradient;
  for (std::size_t n = 0; n < work.near; ++n)
    if (work.contacts[n].is_active)
      add_rows(work.contacts[n].columns, solver.clearance_weight, {work.contacts[n].missing, 0.0, 0.0}, work.factor,
               work.pull);
  for (std::int64_t i = 0; i < unknowns; ++i) {
    const std::int64_t j = i - 3;
    const bool is_held = j >= 0 && ((q[j] <= frame.lower[j] && work.pull[i] < 0.0) ||
                                    (q[j] >= frame.upper[j] && work.pull[i] > 0.0));
    if (is_held) {  // pushed against its limit: no unknown in this step
      for (std::int64_t k = 0; k < unknowns; ++k) work.factor[std::max(i, k) * unknowns + std::min(i, k)] = 0.0;
      work.pull[i] = 0.0;
    }
    work.factor[i * unknowns + i] += is_held ? 1.0 : solver.damping;
  }
  work.step = work.pull;
  solve_in_place(work.factor, work.step, unknowns);
}

// Whether other contacts are active after the step than before it; then those are.
bool contacts_change(Work& work) {
  bool changes = false;
  for (std::size_t n = 0; n < work.near; ++n) {
    Work::Contact& contact = work.contacts[n];
    double left = contact.missing;
    for (const auto& column : contact.columns) left -= column.value.x * work.step[column.unknown];
    changes |= contact.is_active != (left > 0.0);
    contact.is_active = left > 0.0;
  }
  return changes;
}

// Improves root (in the world) and q until they rest; returns how many steps it took. work.poses are those of q then.
std::int64_t solve_frame(const Solver& solver, const Frame& frame, Matrix& root, double* q, Work& work) {
  constexpr int kRounds = 4;  // of finding out which contacts matter
  const std::int64_t joints = solver.joints();
  for (std::int64_t j = 0; j < joints; ++j) q[j] = std::clamp(q[j], frame.lower[j], frame.upper[j]);
  place_links(solver, q, work);
  std::int64_t steps = 0;
  for (bool rests = false; steps < solver.iterations && !rests; ++steps) {
    std::fill(work.normal.begin(), work.normal.end(), 0.0);
    std::fill(work.gradient.begin(), work.gradient.end(), 0.0);
    add_goals(solver, frame, root, q, work);
    find_contacts(solver, work);
    find_step(solver, frame, q, work);
    for (int round = 1; round < kRounds && contacts_change(work); ++round) find_step(solver, frame, q, work);
    double largest = 0.0;
    for (double value : work.step) largest = std::max(largest, std::abs(value));
    const double shortened = std::min(1.0, solver.largest_step / std::max(largest, solver.largest_step));
    root = root * rotation_of(shortened * Vector{work.step[0], work.step[1], work.step[2]});
    for (std::int64_t j = 0; j < joints; ++j)
      q[j] = std::clamp(q[j] + shortened * work.step[3 + j], frame.lower[j], frame.upper[j]);
    place_links(solver, q, work);
    rests = largest < solver.converged;
  }
  return steps;
}

// ----------------------------------------------------------------------------------------------------------- binding
// The Python wrapper has checked every shape. noconvert(): float32 is refused here, not converted.

std::vector<double> values_of(const FloatArray& array) { return {array.data(), array.data() + array.size()}; }
std::vector<std::int64_t> values_of(const IndexArray& array) { return {array.data(), array.data() + array.size()}; }

Solver make_solver(const IndexArray& parents, const IndexArray& link_joints, const FloatArray& origins,
                   const FloatArray& axes, const IndexArray& slides, const FloatArray& neutral, double neutral_weight, const IndexArray& turned, const IndexArray& starts,
                   const IndexArray& ends, const FloatArray& lengths, const IndexArray& capsule_links,
                   const FloatArray& capsules, const IndexArray& pairs, double clearance, double clearance_weight,
                   double reach, double damping, double largest_step, double converged, std::int64_t iterations) {
  Solver solver{};
  solver.joint_links.resize(neutral.size());
  for (std::int64_t l = 0; l < parents.size(); ++l) {
    const double* const origin = origins.data(l);  // (4, 4)
    Link link{parents.at(l), link_joints.at(l), {}, {origin[3], origin[7], origin[11]}, vector_at(axes.data(l)),
              slides.at(l) != 0, {}};
    for (int i = 0; i < 3; ++i) std::copy_n(origin + 4 * i, 3, link.origin_rotation.begin() + 3 * i);
    if (link.parent >= 0) link.moved_by = solver.links[link.parent].moved_by;
    if (link.joint >= 0) {
      link.moved_by.insert(std::lower_bound(link.moved_by.begin(), link.moved_by.end(), link.joint), link.joint);
      solver.joint_links[link.joint] = l;
    }
    solver.links.push_back(std::move(link));
  }
  solver.neutral = values_of(neutral);
  solver.neutral_weight = neutral_weight;
  solver.turned = values_of(turned);
  solver.starts = values_of(starts);
  solver.ends = values_of(ends);
  solver.lengths = values_of(lengths);
  for (std::int64_t c = 0; c < capsule_links.size(); ++c) {  // start, end, radius
    const double* const row = capsules.data(c);
    solver.capsules.push_back({capsule_links.at(c), vector_at(row), vector_at(row + 3), row[6]});
  }
  for (std::int64_t n = 0; n < pairs.shape(0); ++n) solver.pairs.push_back({pairs.at(n, 0), pairs.at(n, 1)});
  solver.clearance = clearance;
  solver.clearance_weight = clearance_weight;
  solver.reach = reach;
  solver.damping = damping;
  solver.largest_step = largest_step;
  solver.converged = converged;
  solver.iterations = iterations;
  return solver;
}

// Root rotations (T, 3, 3) and joint positions (T, J); link positions (T, L, 3) and rotations (T, L, 3, 3) in the root
// link's frame; steps (T). Each frame starts at the joint positions of the one before, the first at `q`.
py::tuple solve(const Solver& solver, const FloatArray& root_rotations, const FloatArray& q,
                const FloatArray& orientations, const FloatArray& orientation_weights, const FloatArray& vectors,
                const FloatArray& vector_weights, const FloatArray& smoothness, const FloatArray& lower,
                const FloatArray& upper) {
  const std::int64_t frames = root_rotations.shape(0), joints = solver.joints();
  const auto links = static_cast<std::int64_t>(solver.links.size());
  const auto turned = static_cast<std::int64_t>(solver.turned.size());
  const auto count = static_cast<std::int64_t>(solver.starts.size());
  FloatArray roots({frames, std::int64_t{3}, std::int64_t{3}}), postures({frames, joints});
  FloatArray positions({frames, links, std::int64_t{3}});
  FloatArray rotations({frames, links, std::int64_t{3}, std::int64_t{3}});
  IndexArray steps(frames);
  double *const out_roots = roots.mutable_data(), *const out_q = postures.mutable_data();
  double *const out_positions = positions.mutable_data(), *const out_rotations = rotations.mutable_data();
  std::int64_t* const out_steps = steps.mutable_data();
  {
    py::gil_scoped_release unlocked;
    Work work(solver);
    std::vector<double> posture(q.data(), q.data() + joints), before(joints);
    for (std::int64_t t = 0; t < frames; ++t) {
      before = posture;
      const Frame frame{orientations.data() + 9 * turned * t, orientation_weights.data() + turned * t,
                        vectors.data() + 3 * count * t,       vector_weights.data() + count * t,
                        lower.data(), upper.data(), before.data(), smoothness.data() + joints * t};
      Matrix root = matrix_at(root_rotations.data() + 9 * t);
      out_steps[t] = solve_frame(solver, frame, root, posture.data(), work);
      std::copy(root.begin(), root.end(), out_roots + 9 * t);
      std::copy(posture.begin(), posture.end(), out_q + joints * t);
      for (std::int64_t l = 0; l < links; ++l) {
        const auto& [rotation, position] = work.poses[l];
        const double place[] = {position.x, position.y, position.z};
        std::copy_n(place, 3, out_positions + 3 * (links * t + l));
        std::copy(rotation.begin(), rotation.end(), out_rotations + 9 * (links * t + l));
      }
    }
  }
  return py::make_tuple(roots, postures, positions, rotations, steps);
}

}  // namespace

void register_inverse_kinematics(py::module_& m) {
  py::class_<Solver>(m, "InverseKinematicsSolver", "A robot and what its postures are asked for.")
      .def(py::init(&make_solver), py::arg("parents").noconvert(), py::arg("link_joints").noconvert(),
           py::arg("origins").noconvert(), py::arg("axes").noconvert(), py::arg("slides").noconvert(),
           py::arg("neutral").noconvert(),
           py::arg("neutral_weight"), py::arg("turned").noconvert(), py::arg("starts").noconvert(),
           py::arg("ends").noconvert(), py::arg("lengths").noconvert(), py::arg("capsule_links").noconvert(),
           py::arg("capsules").noconvert(), py::arg("pairs").noconvert(), py::arg("clearance"),
           py::arg("clearance_weight"), py::arg("reach"), py::arg("damping"), py::arg("largest_step"), py::arg("converged"),
           py::arg("iterations"));
  m.def("inverse_kinematics", &solve, "Postures of T frames that follow one another.", py::arg("solver"),
        py::arg("root_rotations").noconvert(), py::arg("q").noconvert(), py::arg("orientations").noconvert(),
        py::arg("orientation_weights").noconvert(), py::arg("vectors").noconvert(),
        py::arg("vector_weights").noconvert(), py::arg("smoothness").noconvert(),
        py::arg("lower").noconvert(), py::arg("upper").noconvert());
}
