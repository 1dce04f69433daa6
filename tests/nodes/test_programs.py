"""The three node programs as separate processes, talked to over topics and services as a user would."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from llamo_ros.msg import HumanMotion, MotionCaption, MotionPrompt, MotionReference
from llamo_ros.nodes.conversions import from_human_motion, from_time
from llamo_ros.nodes.runtime import LATCHED_QOS, STREAM_QOS
from llamo_ros.retarget.profile import load_robot

LONG = "x" * 10_000


class Listener:
    """Keeps every message of one topic, and when it came."""

    def __init__(self, graph, message_type: type, topic: str) -> None:
        self.messages: list = []
        self.times: list[float] = []
        self.subscription = graph.node.create_subscription(message_type, topic, self._on_message, STREAM_QOS)

    def _on_message(self, message: object) -> None:
        self.times.append(time.monotonic())
        self.messages.append(message)

    @property
    def is_matched(self) -> bool:
        return self.subscription.get_publisher_count() > 0


@pytest.fixture
def chain(graph, tiny_checkpoint: Path):
    """Generator and publisher, ready for a prompt, and listeners on what they publish."""
    graph.start("motion_generator", checkpoint=tiny_checkpoint)
    graph.start("pose_publisher")
    graph.motions = Listener(graph, HumanMotion, "/motion_generator/human_motion")
    graph.poses = Listener(graph, HumanMotion, "/pose_publisher/human_pose")
    graph.trajectories = Listener(graph, JointTrajectory, "/pose_publisher/joint_trajectory")
    graph.joint_states = Listener(graph, JointState, "/pose_publisher/joint_states")
    graph.references = Listener(graph, MotionReference, "/pose_publisher/reference")
    graph.prompts = graph.node.create_publisher(MotionPrompt, "/motion_generator/prompt", 10)
    graph.texts = graph.node.create_publisher(String, "/motion_generator/text", 10)
    listeners = (graph.motions, graph.poses, graph.trajectories, graph.joint_states, graph.references)
    graph.wait(
        lambda: (
            all(listener.is_matched for listener in listeners)
            and graph.prompts.get_subscription_count() > 0
            and graph.texts.get_subscription_count() > 0
            # both subscribers of the motion, this test and the publisher, have been found
            and graph.node.count_subscribers("/motion_generator/human_motion") == 2
        ),
        "chain of generator and publisher",
    )
    return graph


def test_a_prompt_becomes_motion_poses_trajectories_and_a_caption(chain, tiny_checkpoint: Path) -> None:
    captions = Listener(chain, MotionCaption, "/motion_captioner/caption")
    chain.start("motion_captioner", checkpoint=tiny_checkpoint, interval=1.0)
    chain.wait(lambda: chain.node.count_subscribers("/motion_generator/human_motion") == 3, "captioner")
    chain.wait(lambda: captions.is_matched, "captions")

    asked = time.monotonic()
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="first", seed=3))
    chain.wait(lambda: any(m.is_final for m in chain.motions.messages), "end of the motion")
    chain.wait(lambda: any(c.is_final for c in captions.messages), "final caption")
    chain.wait(lambda: len(chain.poses.messages) > 88 + 15, "poses of the whole motion and of holding")

    motions = chain.motions.messages
    assert {(m.stream_id, m.prompt_id, m.text) for m in motions} == {
        (motions[0].stream_id, "first", "a person walks forward")
    }
    frames = [len(m.root_positions) // 3 for m in motions]
    assert [m.start_index for m in motions] == list(np.cumsum([0, *frames[:-1]]))
    assert sum(frames) == 88  # round(3 s * 7.5 latents/s) latents of 4 frames

    poses = chain.poses.messages
    assert chain.poses.times[0] - asked < 1.0  # the promise: first pose at most 1 s after the prompt
    assert [p.start_index for p in poses] == list(range(len(poses)))
    assert len({p.stream_id for p in poses}) == 1
    stamps = np.array([from_time(p.header.stamp) for p in poses])
    np.testing.assert_allclose(np.diff(stamps), 1e9 / 30, atol=1)  # rounding to whole nanoseconds
    # Nothing came before: the first pose is the first generated frame, and the stream goes on exactly.
    played = np.array([p.root_positions for p in poses[:88]])
    np.testing.assert_allclose(played, np.concatenate([m.root_positions for m in motions]).reshape(-1, 3), atol=1e-5)

    last = [c for c in captions.messages if c.is_final]
    assert [(c.start_index, c.end_index, c.stream_id) for c in last] == [(0, 87, motions[0].stream_id)]
    assert 0.0 <= last[0].confidence <= 1.0
    assert from_time(last[0].end_time) - from_time(last[0].start_time) == pytest.approx(87 / 30 * 1e9, abs=1e6)


def test_trajectories_are_safe_to_hand_to_a_controller(chain) -> None:
    robot = load_robot("unitree_g1")
    chain.prompts.publish(MotionPrompt(text="a person walks forward"))
    chain.wait(lambda: len(chain.poses.messages) > 95, "poses")

    seen: dict[int, list[float]] = {}
    for message in chain.trajectories.messages:
        assert message.joint_names == list(robot.joint_names)
        assert len(message.joint_names) == 29
        times = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points])
        positions = np.array([p.positions for p in message.points])
        velocities = np.array([p.velocities for p in message.points])
        assert (np.diff(times) > 0).all()
        assert np.isfinite(positions).all() and np.isfinite(velocities).all()
        assert (positions >= robot.model.lower).all() and (positions <= robot.model.upper).all()
        assert (np.abs(velocities) <= robot.velocity_limits + 1e-9).all()
        assert (velocities[-1] == 0.0).all()  # Jazzy's controller refuses anything else
        assert from_time(message.header.stamp) > 0
        # What was sent before comes again as the same numbers, as far as it was final (the first four points at least).
        for ns, point in zip(from_time(message.header.stamp) + np.round(times * 1e9), positions, strict=True):
            key = round(ns / 1e6)  # [ms]; frames are 33 ms apart
            for neighbour in (key - 1, key, key + 1):
                if neighbour in seen:
                    np.testing.assert_array_equal(point, seen[neighbour])
            if times[0] <= 4 / 30 and len(seen) < 10_000 and ns <= from_time(message.header.stamp) + 4e9 / 30:
                seen[key] = point
    assert len(chain.trajectories.messages) >= 20  # one for each chunk of four frames
    states = np.array([m.position for m in chain.joint_states.messages])
    speed = np.abs(np.diff(states, axis=0)) * 30
    assert (speed <= robot.velocity_limits + 1e-9).all()
    np.testing.assert_array_equal(states[-1], chain.trajectories.messages[-1].points[-1].positions)

    references = chain.references.messages
    assert [m.sequence_id for m in references] == list(range(references[0].sequence_id, len(references)))
    assert all(len(m.positions) == len(m.root_poses) * 29 == len(m.velocities) for m in references)
    assert all((len(m.root_poses) - 1) * m.dt >= 0.2 for m in references)  # trackers look 200 ms ahead
    assert references[-1].mode == MotionReference.HOLD


def test_a_second_prompt_takes_over_without_a_jump(chain) -> None:
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="a", max_duration=10.0))
    chain.wait(lambda: len(chain.poses.messages) > 30, "poses of the first prompt")
    asked = time.monotonic()
    chain.prompts.publish(MotionPrompt(text="someone jumps", prompt_id="b"))
    chain.wait(lambda: any(p.prompt_id == "b" for p in chain.poses.messages), "poses of the second prompt")
    assert time.monotonic() - asked < 1.0  # the promise holds for every prompt
    chain.spin(0.7)
    poses = chain.poses.messages
    assert [p.start_index for p in poses] == list(range(len(poses)))
    ids = [p.prompt_id for p in poses]
    assert ids == sorted(ids)  # all of "a", then all of "b"
    roots = np.array([p.root_positions for p in poses])
    own = np.array([m.root_positions for m in chain.motions.messages if len(m.root_positions)]).reshape(-1, 4, 3)
    largest = np.abs(np.diff(own, axis=1)).max()
    assert np.abs(np.diff(roots, axis=0)).max() <= 1.2 * largest  # height is faded, which may add a little


def test_bad_input_is_refused_with_one_line_each_and_the_nodes_live_on(chain) -> None:
    for text in ("", "   ", LONG):
        chain.texts.publish(String(data=text))
    for bad in (MotionPrompt(text="a person jumps", max_duration=float("nan")), MotionPrompt(text="")):
        chain.prompts.publish(bad)
    chain.wait(lambda: chain.log("motion_generator").count("is not performed") >= 5, "refusals in the log")
    motions = chain.node.create_publisher(HumanMotion, "/motion_generator/human_motion", STREAM_QOS)
    chain.wait(lambda: motions.get_subscription_count() >= 2, "a second source of motion")
    identity = np.tile([0.0, 0.0, 0.0, 1.0], 22 * 4)
    roots = np.tile([0.0, 0.0, 0.9], 4)
    good = {"frame_rate": 30.0, "root_positions": roots, "joint_rotations": identity}
    bad_messages = [
        HumanMotion(stream_id="nan", **{**good, "root_positions": [float("nan")] * 12}),
        HumanMotion(stream_id="short", **{**good, "joint_rotations": identity[:7]}),
        HumanMotion(stream_id="norm", **{**good, "joint_rotations": 3.0 * identity}),
        HumanMotion(stream_id="rate", **{**good, "frame_rate": 0.0}),
        HumanMotion(stream_id="none", frame_rate=30.0),
    ]
    for message in bad_messages:
        motions.publish(message)
        chain.spin(0.05)
    chain.wait(lambda: "motion is rejected" in chain.log("pose_publisher"), "rejection in the log")
    assert not chain.poses.messages
    assert all(program.poll() is None for program in chain.programs)

    chain.texts.publish(String(data="a person waves the right hand"))
    chain.wait(lambda: len(chain.poses.messages) > 10, "poses after bad input")
    assert "Traceback" not in chain.log("motion_generator") + chain.log("pose_publisher")
    # the logger writes each refusal once: five prompts, five lines
    assert chain.log("motion_generator").count("is not performed") == 5


def test_an_emergency_stop_brakes_and_stays_until_it_is_reset(chain) -> None:
    stops = chain.node.create_publisher(Bool, "/pose_publisher/estop", LATCHED_QOS)
    chain.wait(lambda: stops.get_subscription_count() > 0, "subscription to the stop")
    chain.texts.publish(String(data="a person walks forward"))
    chain.wait(lambda: len(chain.poses.messages) > 40, "poses")
    stops.publish(Bool(data=True))
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.STOP, "stop")
    chain.spin(0.6)
    count = len(chain.poses.messages)
    resting = np.array([m.position for m in chain.joint_states.messages[-5:]])
    np.testing.assert_array_equal(resting, np.tile(resting[0], (5, 1)))
    chain.texts.publish(String(data="someone jumps"))
    chain.spin(0.5)
    assert len(chain.poses.messages) > count  # frames go on while holding
    np.testing.assert_array_equal(chain.joint_states.messages[-1].position, resting[0])

    assert not chain.call(Trigger, "/pose_publisher/reset", Trigger.Request()).success  # still pressed
    stops.publish(Bool(data=False))
    chain.spin(0.2)
    assert chain.references.messages[-1].mode == MotionReference.STOP  # released is not reset
    assert chain.call(Trigger, "/pose_publisher/reset", Trigger.Request()).success
    chain.texts.publish(String(data="someone jumps"))
    chain.wait(lambda: chain.references.messages[-1].mode != MotionReference.STOP, "reference after the reset")
    chain.wait(lambda: chain.references.messages[-1].text == "someone jumps", "motion after the reset")
    states = np.array([m.position for m in chain.joint_states.messages])
    assert (np.abs(np.diff(states, axis=0)) * 30 <= load_robot("unitree_g1").velocity_limits + 1e-9).all()


def test_stop_and_pause_brake_to_rest(chain) -> None:
    chain.prompts.publish(MotionPrompt(text="a person walks forward", max_duration=20.0, min_duration=20.0))
    chain.wait(lambda: len(chain.poses.messages) > 30, "poses")
    assert chain.call(SetBool, "/pose_publisher/pause", SetBool.Request(data=True)).success
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.HOLD, "pause")
    assert chain.call(SetBool, "/pose_publisher/pause", SetBool.Request(data=False)).success
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.RUN, "motion after the pause")
    assert chain.call(Trigger, "/motion_generator/stop", Trigger.Request()).success
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.HOLD, "rest", timeout=1.5)
    assert chain.motions.messages[-1].is_final
    poses = chain.poses.messages
    assert [p.start_index for p in poses] == list(range(len(poses)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_program_within_two_seconds_with_code_0(graph, tiny_checkpoint: Path, number: int) -> None:
    programs = [graph.start(name) for name in ("motion_generator", "pose_publisher", "motion_captioner")]
    graph.wait(lambda: graph.node.count_publishers("/diagnostics") == 3, "three programs")
    for program in programs:  # the first and the last are still loading their models
        program.send_signal(number)
    began = time.monotonic()
    assert [program.wait(5) for program in programs] == [0, 0, 0]
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    ("program", "parameters", "reason"),
    [
        ("motion_generator", {"checkpoint": "no-such-model"}, "no-such-model"),
        ("motion_generator", {"lead_time": -1}, "lead_time"),
        ("pose_publisher", {"robot": "no_such_robot"}, "unitree_g1"),
        ("pose_publisher", {"target_depth": 0}, "target_depth"),
    ],
)
def test_a_wrong_parameter_ends_the_program_with_code_1_and_a_reason(
    graph, program: str, parameters: dict[str, object], reason: str
) -> None:
    process = graph.start(program, **parameters)
    assert process.wait(15) == 1
    assert reason in graph.log(program)
    assert "Traceback" not in graph.log(program)


def test_the_pose_publisher_does_without_pytorch() -> None:
    code = "import sys, llamo_ros.nodes.pose_publisher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def test_poses_convert_back_to_clips(chain) -> None:
    chain.texts.publish(String(data="a person walks forward"))
    chain.wait(lambda: len(chain.poses.messages) > 5, "poses")
    clip = from_human_motion(chain.poses.messages[-1])
    assert len(clip) == 1
    assert clip.root_positions[0, 1] == pytest.approx(0.9, abs=0.2)  # y is up again: the pelvis of a standing person
