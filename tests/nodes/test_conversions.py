from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix, quaternion_xyzw_to_matrix
from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.msg import HumanMotion, MotionPrompt
from llamo_ros.nodes.conversions import (
    from_human_motion,
    from_joint_state,
    from_prompt,
    from_time,
    to_human_motion,
    to_markers,
    to_time,
)


def t_pose(frames: int = 1) -> MotionClip:
    return MotionClip(np.tile(np.eye(3), (frames, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (frames, 1)))


def message_of(clip: MotionClip, **keywords: object) -> HumanMotion:
    arguments = {"stamp_ns": 0, "frame_id": "odom", "stream_id": "a", "start_index": 0, **keywords}
    return to_human_motion(clip, **arguments)


def test_any_motion_comes_back_as_it_was(random_clip) -> None:
    clip = random_clip(seed=3, frames=7)
    message = message_of(clip, stamp_ns=12_345_678_901, start_index=40, text="walk", prompt_id="p", append=True)
    back = from_human_motion(message)
    np.testing.assert_allclose(back.rotations, clip.rotations, atol=1e-6)  # float32 on the wire
    np.testing.assert_allclose(back.root_positions, clip.root_positions, atol=1e-6)
    assert back.frame_rate == 30.0
    assert from_time(message.header.stamp) == 12_345_678_901
    assert (message.header.frame_id, message.stream_id, message.start_index) == ("odom", "a", 40)
    assert (message.text, message.prompt_id, message.mode) == ("walk", "p", HumanMotion.APPEND)


def test_the_person_stands_upright_and_faces_forward_on_the_wire() -> None:
    clip = t_pose()
    clip = MotionClip(clip.rotations, clip.root_positions + [[0.2, 0.0, 1.5]])  # 1.5 m ahead, 0.2 m to the left
    message = message_of(clip)
    np.testing.assert_allclose(message.root_positions, [1.5, 0.2, 0.93], atol=1e-6)  # x forward, y left, z up
    np.testing.assert_array_equal(np.reshape(message.joint_rotations, (22, 4)), np.tile([0, 0, 0, 1], (22, 1)))


# One joint at a time, about each axis: no symmetric mistake can hide.
@pytest.mark.parametrize(
    ("core_axis", "wire_axis"), [((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, 1)), ((0, 0, 1), (1, 0, 0))]
)
@pytest.mark.parametrize("joint", ["pelvis", "left_elbow", "right_knee"])
def test_a_joint_turns_about_the_same_axis_in_both_worlds(joint: str, core_axis: tuple, wire_axis: tuple) -> None:
    rotations = t_pose().rotations.copy()
    rotations[0, JOINT_INDEX[joint]] = axis_angle_to_matrix(0.7 * np.array(core_axis, dtype=float))
    message = message_of(MotionClip(rotations, t_pose().root_positions))
    quaternion = np.reshape(message.joint_rotations, (22, 4))[JOINT_INDEX[joint]].astype(float)
    expected = axis_angle_to_matrix(0.7 * np.array(wire_axis, dtype=float))
    np.testing.assert_allclose(quaternion_xyzw_to_matrix(quaternion), expected, atol=1e-6)


def test_a_left_arm_that_is_raised_is_on_the_left_and_up_in_the_markers() -> None:
    rotations = t_pose().rotations.copy()
    rotations[0, JOINT_INDEX["left_shoulder"]] = axis_angle_to_matrix(np.array([0.0, 0.0, np.pi / 2]))
    lines, label = to_markers(MotionClip(rotations, t_pose().root_positions), 0, "odom", "raise").markers
    wrist = lines.points[2 * (JOINT_INDEX["left_wrist"] - 1) + 1]
    head = lines.points[2 * (JOINT_INDEX["head"] - 1) + 1]
    assert wrist.y > 0.1 and wrist.z > head.z
    assert (label.text, len(lines.points)) == ("raise", 42)


def test_an_empty_last_message_is_allowed_and_an_empty_other_one_is_not() -> None:
    empty = t_pose().sliced(1)
    assert len(from_human_motion(message_of(empty, is_final=True))) == 0
    with pytest.raises(MotionDataError, match="only the last message"):
        from_human_motion(message_of(empty))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("root_positions", [np.nan] * 6, "NaN"),
        ("root_positions", [np.inf] * 6, "NaN or infinite"),
        ("root_positions", [0.0] * 5, "3 T"),
        ("root_positions", [1e6] * 6, "10 km"),
        ("joint_rotations", [0.0] * 7, "88 T"),
        ("joint_rotations", [0.0] * 176, "norm 0.000"),
        ("joint_rotations", [0.9] * 176, "norm 1.800"),
        ("frame_rate", 0.0, "frame_rate"),
        ("frame_rate", float("nan"), "frame_rate"),
        ("frame_rate", -30.0, "frame_rate"),
    ],
)
def test_garbage_is_refused_with_a_reason(field: str, value: object, reason: str) -> None:
    message = message_of(t_pose(2))
    setattr(message, field, value)
    with pytest.raises(MotionDataError, match=reason):
        from_human_motion(message)


def test_options_of_a_prompt_at_zero_or_below_take_defaults() -> None:
    prompt = from_prompt(MotionPrompt(text="jump", prompt_id="7", mode=MotionPrompt.APPEND, seed=4, max_duration=-1.0))
    assert (prompt.text, prompt.prompt_id, prompt.append) == ("jump", "7", True)
    assert prompt.options == {"seed": 4}


def test_a_nan_option_is_handed_on_to_be_refused() -> None:
    assert np.isnan(from_prompt(MotionPrompt(text="jump", min_duration=float("nan"))).options["min_duration"])


@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999, 1_000_000_000, 1_795_206_309_883_550_102])
def test_times_come_back_to_the_nanosecond(nanoseconds: int) -> None:
    assert from_time(to_time(nanoseconds)) == nanoseconds


def test_joint_states_are_sorted_by_name_and_extra_joints_are_left_out() -> None:
    message = JointState(name=["c", "extra", "a", "b"], position=[3.0, 9.0, 1.0, 2.0])
    np.testing.assert_array_equal(from_joint_state(message, ["a", "b", "c"]), [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (JointState(name=["a"], position=[1.0]), "first 'b'"),
        (JointState(name=["a", "b"], position=[1.0]), "first 'b'"),
        (JointState(name=["a", "b"], position=[1.0, float("nan")]), "'b' is not finite"),
    ],
)
def test_an_incomplete_joint_state_is_refused(message: JointState, reason: str) -> None:
    with pytest.raises(MotionDataError, match=reason):
        from_joint_state(message, ["a", "b"])
