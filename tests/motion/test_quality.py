from __future__ import annotations

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.motion import quality
from llamo_ros.motion.rotations import axis_angle_to_matrix, rotation_about_y

RATE = 30.0
# Float64 arithmetic on metres: errors are rounding of 1e-16 times 30^3 at most.
EXACT = 1e-9


def positions(frames: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 22, 3))


def standing(frames: int, horizontal_speed: float = 0.0, height: float = 0.02) -> np.ndarray:
    result = np.ones((frames, 22, 3))
    result[:, [10, 11], 1] = height
    result[..., 2] += np.arange(frames)[:, None] * horizontal_speed / RATE
    return result


def test_jerk_of_constant_acceleration_is_zero() -> None:
    time = np.arange(30)[:, None, None] / RATE
    assert quality.joint_jerk(np.broadcast_to(time**2, (30, 22, 3)), RATE) == pytest.approx(0, abs=1e-8)


def test_jerk_is_the_third_derivative_in_metres_per_second_cubed() -> None:
    time = np.arange(30) / RATE
    moving = np.zeros((30, 22, 3))
    moving[..., 0] = 2.0 * time[:, None] ** 3
    assert quality.joint_jerk(moving, RATE) == pytest.approx(12.0)


def test_jerk_scales_with_the_cube_of_the_frame_rate() -> None:
    assert quality.joint_jerk(positions(), 60.0) == pytest.approx(8 * quality.joint_jerk(positions(), 30.0))


def test_what_cannot_be_measured_is_nan_and_not_zero() -> None:
    assert np.isnan(quality.joint_jerk(positions(3), RATE))
    assert np.isnan(quality.joint_speed(positions(1), RATE))
    assert np.isnan(quality.foot_sliding(standing(30, height=0.5), RATE))


def test_joint_speed_does_not_see_the_travel_of_the_whole_body() -> None:
    still = standing(30, horizontal_speed=3.0)
    assert quality.joint_speed(still, RATE) == pytest.approx(0, abs=EXACT)


def test_a_foot_dragged_over_the_floor_slides_at_its_speed() -> None:
    assert quality.foot_sliding(standing(30, horizontal_speed=0.4), RATE) == pytest.approx(0.4)


def test_a_foot_that_swings_above_the_floor_does_not_slide() -> None:
    one_foot_up = standing(30, horizontal_speed=0.4)
    one_foot_up[:, 11, 1] = 0.2
    one_foot_up[:, 10, [0, 2]] = 0.0
    assert quality.foot_sliding(one_foot_up, RATE) == pytest.approx(0, abs=EXACT)


def test_a_landing_foot_does_not_slide() -> None:
    landing = standing(2, horizontal_speed=1.0)
    landing[0, [10, 11], 1] = 0.05
    landing[1, [10, 11], 1] = 0.03  # 0.6 m/s downward
    assert np.isnan(quality.foot_sliding(landing, RATE))


def test_penetration_is_the_depth_of_the_lowest_joint() -> None:
    sunk = np.ones((4, 22, 3))
    sunk[:2, 10, 1] = -0.04
    assert quality.floor_penetration(sunk) == pytest.approx(0.02)
    assert quality.floor_penetration(np.ones((4, 22, 3))) == 0


def test_root_drift_is_the_farthest_point_and_not_the_last() -> None:
    root = np.zeros((3, 3))
    root[1] = [3.0, 9.0, 4.0]
    assert quality.root_drift(root) == pytest.approx(5.0)


def test_mpjpe_ignores_where_the_pelvis_is_and_global_mpjpe_does_not() -> None:
    reference = positions()
    moved = reference + np.array([0.3, 0.0, 0.4])
    assert quality.mpjpe(moved, reference) == pytest.approx(0, abs=EXACT)
    assert quality.global_mpjpe(moved, reference) == pytest.approx(0.5)


def test_procrustes_mpjpe_ignores_rotation_and_scale_but_not_a_mirror_image() -> None:
    reference = positions()
    turned = 1.7 * reference @ axis_angle_to_matrix(np.array([0.4, 1.0, -2.0])).T + 3.0
    assert quality.procrustes_mpjpe(turned, reference) == pytest.approx(0, abs=1e-7)
    assert quality.procrustes_mpjpe(reference * [-1, 1, 1], reference) > 0.1


def test_alignment_never_makes_the_error_larger() -> None:
    first, second = positions(seed=1), positions(seed=2)
    mean_aligned = quality.global_mpjpe(
        first - first.mean(axis=1, keepdims=True), second - second.mean(axis=1, keepdims=True)
    )
    assert quality.procrustes_mpjpe(first, second) < mean_aligned


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 30.0, 179.0])
def test_rotation_error_is_the_angle_between_the_rotations(degrees: float) -> None:
    turned = rotation_about_y(np.full((5, 22), np.radians(degrees)))
    # asin of the chord loses half the digits near 180 degrees
    assert quality.rotation_error_degrees(turned, rotation_about_y(np.zeros((5, 22)))) == pytest.approx(
        degrees, abs=1e-5
    )


def test_root_trajectory_error_gives_mean_and_final_distance() -> None:
    reference = np.zeros((3, 3))
    drifting = np.array([[0.0, 0, 0], [1.0, 0, 0], [5.0, 0, 0]])
    assert quality.root_trajectory_error(drifting, reference) == pytest.approx((2.0, 5.0))


def test_measuring_leaves_the_input_as_it_was() -> None:
    first, second = positions(), positions(seed=1)
    before = first.copy()
    quality.procrustes_mpjpe(first, second)
    quality.mpjpe(first, second)
    quality.foot_sliding(first, RATE)
    np.testing.assert_array_equal(first, before)


def test_wrong_shapes_and_rates_are_refused_with_the_shape_that_is_expected() -> None:
    with pytest.raises(ShapeError, match=r"\(T, 22, 3\)"):
        quality.foot_sliding(np.zeros((4, 21, 3)), RATE)
    with pytest.raises(ShapeError, match="equally long"):
        quality.mpjpe(positions(4), positions(5))
    with pytest.raises(ShapeError):
        quality.root_drift(np.zeros((0, 3)))
    with pytest.raises(ShapeError):
        quality.rotation_error_degrees(np.zeros((4, 6)), np.zeros((4, 6)))
    with pytest.raises(ParameterError, match="frame_rate"):
        quality.joint_jerk(positions(), 0.0)
