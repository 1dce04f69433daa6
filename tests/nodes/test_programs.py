"""The three node programs as separate processes, talked to over topics and services as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from llamo_ros.msg import HumanMotion, MotionCaption, MotionPrompt, MotionReference
from llamo_ros.nodes.conversions import from_time
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


class Chain:
    """The three programs and what they publish. Starting them takes seconds, so that tests share one chain."""

    def __init__(self, graph, checkpoint: Path) -> None:
        self.graph, self.wait, self.spin, self.call, self.log = graph, graph.wait, graph.spin, graph.call, graph.log
        graph.start("motion_generator", checkpoint=checkpoint)
        graph.start("motion_captioner", checkpoint=checkpoint, interval=1.0)
        graph.start("pose_publisher", start_blend=0.5)
        self.motions = Listener(graph, HumanMotion, "/motion_generator/human_motion")
        self.poses = Listener(graph, HumanMotion, "/pose_publisher/human_pose")
        self.trajectories = Listener(graph, JointTrajectory, "/pose_publisher/joint_trajectory")
        self.joint_states = Listener(graph, JointState, "/pose_publisher/joint_states")
        self.references = Listener(graph, MotionReference, "/pose_publisher/reference")
        self.captions = Listener(graph, MotionCaption, "/motion_captioner/caption")
        self.listeners = (
            self.motions,
            self.poses,
            self.trajectories,
            self.joint_states,
            self.references,
            self.captions,
        )
        self.prompts = graph.node.create_publisher(MotionPrompt, "/motion_generator/prompt", 10)
        self.texts = graph.node.create_publisher(String, "/motion_generator/text", 10)
        self.wait(
            lambda: (
                all(listener.is_matched for listener in self.listeners)
                and self.prompts.get_subscription_count() > 0
                and self.texts.get_subscription_count() > 0
                # publisher, captioner and this test have been found
                and graph.node.count_subscribers("/motion_generator/human_motion") == 3
            ),
            "chain of generator, publisher and captioner",
        )

    def begin(self) -> None:
        """Come to rest after whatever the test before has done, and forget it."""
        self.call(Trigger, "/motion_generator/stop", Trigger.Request())
        if self.poses.messages:
            self.wait(lambda: self.references.messages[-1].mode == MotionReference.HOLD, "rest")
            self.spin(0.5)  # brakes within it; captions of what was stopped come too
        for listener in self.listeners:
            listener.messages.clear()
            listener.times.clear()

    def played(self, prompt_id: str) -> list[HumanMotion]:
        return [pose for pose in self.poses.messages if pose.prompt_id == prompt_id]


@pytest.fixture(scope="module")
def running_chain(shared_graph, tiny_checkpoint: Path) -> Chain:
    return Chain(shared_graph, tiny_checkpoint)


@pytest.fixture
def chain(running_chain: Chain) -> Chain:
    running_chain.begin()
    yield running_chain
    indices = [pose.start_index for pose in running_chain.poses.messages]
    assert indices == list(range(indices[0], indices[0] + len(indices)))  # whatever happened, no frame lost or doubled


def test_a_prompt_becomes_motion_poses_and_a_caption(chain: Chain) -> None:
    asked = time.monotonic()
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="first", seed=3))
    chain.wait(lambda: chain.played("first"), "first pose")
    assert time.monotonic() - asked < 1.0  # the promise: first pose at most 1 s after the prompt
    chain.wait(lambda: any(m.is_final and len(m.root_positions) for m in chain.motions.messages), "end of the motion")
    chain.wait(lambda: len(chain.played("first")) == 88 and not chain.poses.messages[-1].prompt_id, "end of playback")

    motions = [m for m in chain.motions.messages if m.prompt_id]
    assert {(m.stream_id, m.text) for m in motions} == {(motions[0].stream_id, "a person walks forward")}
    frames = [len(m.root_positions) // 3 for m in motions]
    assert [m.start_index for m in motions] == list(np.cumsum([0, *frames[:-1]]))
    assert sum(frames) == 88  # round(3 s * 7.5 latents/s) latents of 4 frames

    poses = chain.poses.messages
    assert len({p.stream_id for p in poses}) == 1
    stamps = np.array([from_time(p.header.stamp) for p in poses])
    np.testing.assert_allclose(np.diff(stamps), 1e9 / 30, atol=1)  # rounding to whole nanoseconds
    # Behind the cross-fade, 45 frames at most, the joints are the generated ones; float32 on the wire, twice.
    generated = np.concatenate([m.joint_rotations for m in motions]).reshape(88, 22, 4)[45:, 1:]
    played = np.array([p.joint_rotations for p in chain.played("first")]).reshape(88, 22, 4)[45:, 1:]
    np.testing.assert_allclose(played, generated, atol=1e-6)

    chain.wait(lambda: any(c.is_final for c in chain.captions.messages), "final caption")
    last = next(c for c in chain.captions.messages if c.is_final)
    assert (last.start_index, last.end_index, last.stream_id) == (0, 87, motions[0].stream_id)
    assert 0.0 <= last.confidence <= 1.0
    # each chunk has the stamp of its first frame on the generator's clock, and the span is that of the frames
    assert from_time(last.end_time) - from_time(last.start_time) == pytest.approx(87 / 30 * 1e9, abs=1e6)


def test_trajectories_are_safe_to_hand_to_a_controller(chain: Chain) -> None:
    robot = load_robot("unitree_g1")
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="walk"))
    chain.wait(lambda: len(chain.played("walk")) == 88 and not chain.poses.messages[-1].prompt_id, "motion")
    chain.spin(0.5)

    told: dict[int, np.ndarray] = {}  # what the controller does at each time, [ns]: the newest message holds
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
        start = from_time(message.header.stamp)
        told = {stamp: point for stamp, point in told.items() if stamp < start - 1_000_000}
        told |= dict(zip((start + np.round(times * 1e9).astype(int)).tolist(), positions, strict=True))
    assert len(chain.trajectories.messages) >= 15  # 88 frames, planned in blocks of four and at first of eight

    # A controller that follows the newest message goes exactly where the publisher says that the robot goes.
    stamps = np.array(sorted(told))
    compared, before = 0, None
    for state in chain.joint_states.messages:
        stamp = from_time(state.header.stamp)
        nearest = stamps[np.abs(stamps - stamp).argmin()]
        if abs(nearest - stamp) < 1_000_000:  # rounding of nanoseconds; frames are 33 ms apart
            np.testing.assert_array_equal(state.position, told[nearest])
            compared += 1
        elif before is not None:  # where no trajectory reaches the robot is at rest
            np.testing.assert_array_equal(state.position, before)
        before = state.position
    assert compared > 30
    states = np.array([m.position for m in chain.joint_states.messages])
    assert (np.abs(np.diff(states, axis=0)) * 30 <= robot.velocity_limits + 1e-9).all()
    np.testing.assert_array_equal(states[-1], chain.trajectories.messages[-1].points[-1].positions)

    references = chain.references.messages
    first = references[0].sequence_id
    assert [m.sequence_id for m in references] == list(range(first, first + len(references)))
    assert all(len(m.positions) == len(m.root_poses) * 29 == len(m.velocities) for m in references)
    assert all((len(m.root_poses) - 1) * m.dt >= 0.2 - 1e-9 for m in references)  # trackers look 200 ms ahead
    assert references[-1].mode == MotionReference.HOLD


def test_a_second_prompt_takes_over_without_a_jump(chain: Chain) -> None:
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="a", max_duration=10.0))
    chain.wait(lambda: len(chain.played("a")) > 30, "poses of the first prompt")
    asked = time.monotonic()
    chain.prompts.publish(MotionPrompt(text="someone jumps", prompt_id="b"))
    chain.wait(lambda: chain.played("b"), "poses of the second prompt")
    assert time.monotonic() - asked < 1.0  # the promise holds for every prompt
    chain.spin(0.7)
    poses = [pose for pose in chain.poses.messages if pose.prompt_id]
    ids = [pose.prompt_id for pose in poses]
    assert ids == sorted(ids)  # all of "a", then all of "b"
    roots = np.array([pose.root_positions for pose in poses])
    own = np.array([m.root_positions for m in chain.motions.messages if len(m.root_positions)]).reshape(-1, 4, 3)
    largest = np.linalg.norm(np.diff(own, axis=1), axis=-1).max()
    # Fading between two heights may add to the step of either; both are inside the range of this trembling model.
    assert np.linalg.norm(np.diff(roots, axis=0), axis=-1).max() <= 1.5 * largest


def test_an_appended_prompt_follows_the_one_before(chain: Chain) -> None:
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="a", max_duration=1.0))
    chain.prompts.publish(MotionPrompt(text="someone jumps", prompt_id="b", mode=MotionPrompt.APPEND, max_duration=1.0))
    chain.wait(lambda: len(chain.played("b")) == 32 and not chain.poses.messages[-1].prompt_id, "both motions")
    ids = [pose.prompt_id for pose in chain.poses.messages]
    assert ids[ids.index("a") :][:64] == ["a"] * 32 + ["b"] * 32  # round(1 s * 7.5) latents each, no pause between


def test_bad_input_is_refused_with_one_line_each_and_the_nodes_live_on(chain: Chain) -> None:
    refused = chain.log("motion_generator").count("is not performed")
    for text in ("", "   ", LONG):
        chain.texts.publish(String(data=text))
    for bad in (MotionPrompt(text="a person jumps", max_duration=float("nan")), MotionPrompt(text="")):
        chain.prompts.publish(bad)
    chain.wait(lambda: chain.log("motion_generator").count("is not performed") >= refused + 5, "refusals in the log")
    motions = chain.graph.node.create_publisher(HumanMotion, "/motion_generator/human_motion", STREAM_QOS)
    chain.wait(lambda: motions.get_subscription_count() == 3, "a second source of motion")
    identity = np.tile([0.0, 0.0, 0.0, 1.0], 22 * 4)
    good = {"frame_rate": 30.0, "root_positions": np.tile([0.0, 0.0, 0.9], 4), "joint_rotations": identity}
    for message in (
        HumanMotion(stream_id="nan", **{**good, "root_positions": [float("nan")] * 12}),
        HumanMotion(stream_id="short", **{**good, "joint_rotations": identity[:7]}),
        HumanMotion(stream_id="norm", **{**good, "joint_rotations": 3.0 * identity}),
        HumanMotion(stream_id="rate", **{**good, "frame_rate": 0.0}),
        HumanMotion(stream_id="none", frame_rate=30.0),
    ):
        motions.publish(message)
    for name in ("pose_publisher", "motion_captioner"):
        chain.wait(lambda name=name: "motion is rejected" in chain.log(name), f"rejection in the log of {name}")
    chain.graph.node.destroy_publisher(motions)
    assert not any(pose.prompt_id for pose in chain.poses.messages)
    assert all(program.poll() is None for program in chain.graph.programs)

    chain.texts.publish(String(data="a person waves the right hand"))
    chain.wait(lambda: chain.references.messages and chain.references.messages[-1].text, "motion after bad input")
    assert "Traceback" not in "".join(chain.log(name) for name in ("motion_generator", "pose_publisher"))
    assert chain.log("motion_generator").count("is not performed") == refused + 5


def test_an_emergency_stop_brakes_and_stays_until_it_is_reset(chain: Chain) -> None:
    stops = chain.graph.node.create_publisher(Bool, "/pose_publisher/estop", LATCHED_QOS)
    chain.wait(lambda: stops.get_subscription_count() > 0, "subscription to the stop")
    chain.prompts.publish(MotionPrompt(text="a person walks forward", prompt_id="walk"))
    chain.wait(lambda: len(chain.played("walk")) > 40, "poses")
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
    chain.prompts.publish(MotionPrompt(text="someone jumps", prompt_id="after"))
    chain.wait(lambda: len(chain.played("after")) > 10, "motion after the reset")
    states = np.array([m.position for m in chain.joint_states.messages])
    assert (np.abs(np.diff(states, axis=0)) * 30 <= load_robot("unitree_g1").velocity_limits + 1e-9).all()
    chain.graph.node.destroy_publisher(stops)


def test_stop_and_pause_brake_to_rest(chain: Chain) -> None:
    chain.prompts.publish(
        MotionPrompt(text="a person walks forward", prompt_id="long", max_duration=20.0, min_duration=20.0)
    )
    chain.wait(lambda: len(chain.played("long")) > 30, "poses")
    assert chain.call(SetBool, "/pose_publisher/pause", SetBool.Request(data=True)).success
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.HOLD, "pause")
    assert chain.call(SetBool, "/pose_publisher/pause", SetBool.Request(data=False)).success
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.RUN, "motion after the pause")
    assert chain.call(Trigger, "/motion_generator/stop", Trigger.Request()).success
    chain.wait(lambda: chain.references.messages[-1].mode == MotionReference.HOLD, "rest", timeout=1.5)
    assert chain.motions.messages[-1].is_final


def test_diagnostics_tell_what_each_node_does(chain: Chain) -> None:
    diagnostics: dict[str, DiagnosticStatus] = {}

    def keep(array: DiagnosticArray) -> None:
        diagnostics.update({status.name: status for status in array.status})

    subscription = chain.graph.node.create_subscription(DiagnosticArray, "/diagnostics", keep, 10)
    chain.wait(lambda: len(diagnostics) == 3, "diagnostics of three nodes")
    chain.graph.node.destroy_subscription(subscription)
    assert {value.key for value in diagnostics["pose_publisher"].values} >= {"buffer depth [frames]", "underruns"}
    assert all(status.message for status in diagnostics.values())


def test_send_text_waits_for_the_generator_and_is_heard(chain: Chain) -> None:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(chain.graph.domain)}
    command = [sys.executable, "-m", "llamo_ros.nodes.send_text", "--listeners", "3", "it's", "a: 'jump'"]
    assert subprocess.run(command, env=environment, timeout=20, check=False).returncode == 0
    chain.wait(lambda: any(m.text == "it's a: 'jump'" for m in chain.motions.messages), "motion of the text")
    chain.wait(lambda: chain.poses.messages, "poses")


def test_a_signal_ends_every_program_within_two_seconds_with_code_0(graph, tiny_checkpoint: Path) -> None:
    signals = {
        graph.start("motion_generator", checkpoint=tiny_checkpoint): signal.SIGINT,
        graph.start("motion_captioner", checkpoint=tiny_checkpoint): signal.SIGTERM,
        graph.start("pose_publisher"): signal.SIGINT,
        graph.start("pose_publisher"): signal.SIGTERM,
    }
    graph.wait(lambda: graph.node.count_publishers("/diagnostics") == 4, "four programs")
    for program, number in signals.items():  # the first two are still loading their models
        program.send_signal(number)
    began = time.monotonic()
    assert [program.wait(5) for program in signals] == [0, 0, 0, 0]
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
