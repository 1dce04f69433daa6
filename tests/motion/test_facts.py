from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.facts import MotionFacts, kept_level, motion_facts, reversals
from llamo_ros.motion.rotations import axis_angle_to_matrix, rotation_about_y
from llamo_ros.motion.skeleton import JOINT_INDEX

# Stiff bodies move exactly; what is left is float rounding.
EXACT = 1e-6


def body(
    frames: int = 120,
    forward: float = 0.0,
    left: float = 0.0,
    turn: float = 0.0,
    start_heading: float = 0.0,
    left_arm: float | np.ndarray = -80.0,
    right_arm: float | np.ndarray = -80.0,
    lean: float | np.ndarray = 0.0,
    lift: float | np.ndarray = 0.0,
    rate: float = 30.0,
) -> MotionClip:
    """A stiff body that glides: speeds [m/s], turn [deg/s], arm elevation and forward lean [deg], lift of all [m]."""
    time = np.arange(frames) / rate
    yaw = np.radians(start_heading + turn * time)
    vectors = np.zeros((frames, 22, 3))
    vectors[:, JOINT_INDEX["left_shoulder"], 2] = np.radians(left_arm)
    vectors[:, JOINT_INDEX["right_shoulder"], 2] = -np.radians(right_arm)
    vectors[:, JOINT_INDEX["spine1"], 0] = np.radians(lean)
    rotations = axis_angle_to_matrix(vectors)
    rotations[:, 0] = rotation_about_y(yaw)
    steps = np.tile([left, 0.0, forward], (frames, 1)) / rate
    root = np.cumsum((rotation_about_y(yaw) @ steps[..., None])[..., 0], axis=0)
    root[:, 1] = 0.94 + lift  # feet 2 cm over the floor, as joints are
    return MotionClip(rotations, root, frame_rate=rate)


def test_displacement_is_seen_from_the_first_frame_wherever_that_faces() -> None:
    for start_heading in (0.0, 120.0, -90.0):
        facts = motion_facts(body(121, forward=1.5, left=0.5, start_heading=start_heading))
        assert (facts.forward_m, facts.left_m) == pytest.approx((6.0, 2.0), abs=EXACT)
        assert facts.mean_speed == pytest.approx(np.hypot(1.5, 0.5), abs=EXACT)


def test_a_full_circle_goes_nowhere_but_advances_and_turns_360_degrees() -> None:
    facts = motion_facts(body(121, forward=1.0, turn=90.0))
    assert facts.yaw_deg == pytest.approx(360, abs=EXACT)
    assert abs(facts.forward_m) < 0.01  # the polygon of 120 chords closes to a step length
    assert facts.advance_m == pytest.approx(4.0, abs=0.01)
    assert facts.drift_m == pytest.approx(4.0 / np.pi, abs=0.02)


def test_turning_left_is_positive_and_the_mirror_image_is_its_negative() -> None:
    clip = body(turn=30.0, forward=1.0)
    facts, mirrored = motion_facts(clip), motion_facts(clip.mirrored())
    assert facts.yaw_deg > 0 and facts.left_m > 0
    assert mirrored.yaw_deg == pytest.approx(-facts.yaw_deg, abs=EXACT)
    assert mirrored.left_m == pytest.approx(-facts.left_m, abs=EXACT)


def test_turning_there_and_back_has_a_range_but_no_net_turn() -> None:
    yaw = 50.0 * np.sin(np.linspace(0, np.pi, 90))
    clip = body(90)
    rotations = clip.rotations.copy()
    rotations[:, 0] = rotation_about_y(np.radians(yaw))
    facts = motion_facts(MotionClip(rotations, clip.root_positions))
    assert facts.yaw_deg == pytest.approx(0, abs=EXACT)
    assert facts.yaw_range_deg == pytest.approx(50, abs=0.1)  # sampled peak


def test_walking_backwards_advances_by_a_negative_distance_whatever_the_heading() -> None:
    facts = motion_facts(body(121, forward=-0.8, turn=45.0, start_heading=70.0))
    assert facts.advance_m == pytest.approx(-3.2, abs=0.01)


def test_a_raised_wrist_is_higher_than_its_shoulder_and_the_other_is_not() -> None:
    facts = motion_facts(body(left_arm=70.0))
    assert facts.left_wrist_m > 0.4
    assert facts.right_wrist_m < -0.4


def test_mirroring_swaps_every_left_and_right_fact() -> None:
    swing = 60 + 25 * np.sin(np.linspace(0, 8 * np.pi, 120))
    facts, mirrored = motion_facts(body(left_arm=swing)), motion_facts(body(left_arm=swing).mirrored())
    # the skeleton's two sides differ by up to 8 mm
    assert mirrored.right_wrist_m == pytest.approx(facts.left_wrist_m, abs=0.03)
    assert mirrored.right_reversals == facts.left_reversals > 0
    assert mirrored.left_reversals == facts.right_reversals == 0


def test_a_hand_raised_for_one_frame_is_not_raised() -> None:
    arm = np.full(120, -80.0)
    arm[60] = 80.0
    assert motion_facts(body(left_arm=arm)).left_wrist_m < -0.4


def test_waving_reverses_twice_a_period_and_raising_at_most_once() -> None:
    wave = np.concatenate([np.linspace(-80, 60, 30), 60 + 20 * np.sin(np.linspace(0, 8 * np.pi, 90))])
    assert motion_facts(body(right_arm=wave)).right_reversals in (7, 8, 9)  # 4 periods, with or without the ends
    raise_and_lower = np.concatenate([np.linspace(-80, 80, 60), np.linspace(80, -80, 60)])
    assert motion_facts(body(right_arm=raise_and_lower)).right_reversals <= 1


def test_swinging_a_low_arm_is_no_waving() -> None:
    swing = -70 + 15 * np.sin(np.linspace(0, 8 * np.pi, 120))
    assert motion_facts(body(right_arm=swing)).right_reversals == 0


def test_bowing_leans_forward_and_lowers_the_head() -> None:
    upright, bowed = motion_facts(body()), motion_facts(body(lean=45.0))
    assert bowed.trunk_lean_deg > 30 > upright.trunk_lean_deg
    assert bowed.head_height_m < upright.head_height_m - 0.1
    assert motion_facts(body(lean=-30.0)).trunk_lean_deg < 0


def test_a_jump_lifts_both_feet_and_comes_down() -> None:
    lift = np.zeros(120)
    lift[50:65] = 0.3
    facts = motion_facts(body(lift=lift))
    assert facts.flight_m == pytest.approx(0.3, abs=EXACT)
    assert facts.pelvis_rise_m == pytest.approx(0.3, abs=EXACT)
    assert facts.flight_s == pytest.approx(0.5)


def test_standing_on_a_step_is_no_flight() -> None:
    facts = motion_facts(body(lift=0.3))
    assert facts.flight_m == pytest.approx(0, abs=EXACT)
    assert facts.flight_s == 0


def test_a_gliding_statue_slides_and_a_standing_one_does_not() -> None:
    assert motion_facts(body(forward=0.7)).foot_sliding == pytest.approx(0.7, abs=EXACT)
    assert motion_facts(body()).foot_sliding == pytest.approx(0, abs=EXACT)


def test_peak_speed_finds_the_second_in_which_the_body_runs() -> None:
    clip = body(121)
    root = clip.root_positions.copy()
    root[:, 2] = np.cumsum(np.where((np.arange(121) >= 40) & (np.arange(121) < 70), 3.0, 0.5)) / 30
    facts = motion_facts(MotionClip(clip.rotations, root))
    assert facts.peak_speed == pytest.approx(3.0, abs=EXACT)
    assert facts.mean_speed < 1.5


def test_facts_do_not_depend_on_the_frame_rate() -> None:
    slow = motion_facts(body(61, forward=1.2, turn=20.0, left_arm=50.0, rate=15.0))
    fast = motion_facts(body(241, forward=1.2, turn=20.0, left_arm=50.0, rate=60.0))
    for name in ("yaw_deg", "mean_speed", "left_wrist_m", "forward_m"):
        # a turning path is a polygon: a quarter of the chords moves its end by a few centimetres
        assert getattr(slow, name) == pytest.approx(getattr(fast, name), abs=0.08), name


def test_facts_are_plain_frozen_numbers() -> None:
    facts = motion_facts(body(4))
    assert all(type(getattr(facts, field.name)) in (int, float) for field in dataclasses.fields(MotionFacts))
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.yaw_deg = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_clip_too_short_to_measure_is_refused(frames: int) -> None:
    with pytest.raises(ParameterError, match="at least 4"):
        motion_facts(body(frames))


def test_reversals_count_swings_and_not_tremor() -> None:
    time = np.linspace(0, 1, 400)
    assert reversals(np.cos(6 * np.pi * time), 0.1) == 5
    noisy = time + 0.02 * np.sin(300 * time)
    assert reversals(noisy, 0.1) == 0
    assert reversals(np.zeros(5), 0.1) == 0


def test_kept_level_is_the_highest_level_that_lasts() -> None:
    values = np.array([0.0, 9.0, 0.0, 3.0, 4.0, 3.0, 0.0])
    assert kept_level(values, 3) == 3.0
    assert kept_level(values, 1) == 9.0
    assert kept_level(values, 99) == 0.0
