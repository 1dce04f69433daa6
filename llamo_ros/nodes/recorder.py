"""What a listener in its own process receives of a motion: the person, the robot, the caption, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.msg import HumanMotion, MotionCaption, MotionPrompt, MotionReference
from llamo_ros.nodes.conversions import from_human_motion, from_time
from llamo_ros.nodes.runtime import STREAM_QOS
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion


@dataclass
class Arrivals:
    """Messages of one topic by the time of their frame, [ns], and when they came.

    Attributes:
        messages: By the time of their frame, [ns].
        times: When this process got round to each message, [s] on the monotonic clock.
        received: When the middleware of this process received it, [s] since the epoch.
    """

    messages: dict[int, object] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)

    def add(self, message: object, info: dict[str, int]) -> None:
        """Take a message with a header, and what the middleware says of it."""
        self.times.append(time.monotonic())
        self.received.append(info["received_timestamp"] / 1e9)
        self.messages[from_time(message.header.stamp)] = message


class Recorder:
    """Listens to the three nodes and sends them prompts.

    Args:
        node: What listens.
        with_robot: Whether to listen to the robot's topics too, which is most of the work.
    """

    def __init__(self, node: Node, with_robot: bool = True) -> None:
        self.generated: list[HumanMotion] = []
        self.generated_frames = self.played_frames = 0
        self.poses, self.states, self.roots = Arrivals(), Arrivals(), Arrivals()
        self.references: dict[int, MotionReference] = {}
        self.captions: list[MotionCaption] = []
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.asked = 0.0
        self._node = node
        self._prompts = node.create_publisher(MotionPrompt, "/motion_generator/prompt", 10)
        self._subscriptions = [
            node.create_subscription(HumanMotion, "/motion_generator/human_motion", self._on_motion, STREAM_QOS),
            node.create_subscription(HumanMotion, "/pose_publisher/human_pose", self._on_pose, STREAM_QOS),
            node.create_subscription(MotionCaption, "/motion_captioner/caption", self.captions.append, STREAM_QOS),
        ]
        if with_robot:
            self._subscriptions += [
                node.create_subscription(JointState, "/pose_publisher/joint_states", self.states.add, STREAM_QOS),
                node.create_subscription(PoseStamped, "/pose_publisher/root_pose", self.roots.add, STREAM_QOS),
                node.create_subscription(MotionReference, "/pose_publisher/reference", self._on_reference, STREAM_QOS),
            ]
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @property
    def is_ready(self) -> bool:
        """Whether all three nodes listen and are listened to; generator and captioner then have their models."""
        return (
            self._prompts.get_subscription_count() > 0
            and all(subscription.get_publisher_count() > 0 for subscription in self._subscriptions)
            and self._node.count_subscribers("/motion_generator/human_motion") >= 3  # this one, player, captioner
        )

    @property
    def missing(self) -> list[str]:
        """Topics that nobody publishes yet."""
        return [s.topic_name for s in self._subscriptions if not s.get_publisher_count()]

    @property
    def is_generated(self) -> bool:
        """Whether the whole motion has been received."""
        return bool(self.generated) and self.generated[-1].is_final

    @property
    def played(self) -> list[HumanMotion]:
        """Poses that belong to a prompt, without those of holding."""
        return [message for message in self.poses.messages.values() if message.prompt_id]

    @property
    def is_holding(self) -> bool:
        """Whether the newest pose belongs to no prompt."""
        return bool(self.poses.messages) and not next(reversed(self.poses.messages.values())).prompt_id

    @property
    def is_played(self) -> bool:
        """Whether the motion has been played to its end."""
        return self.is_generated and self.is_holding and self.played_frames > 0

    @property
    def final_caption(self) -> MotionCaption | None:
        """Caption of the whole motion, once it is there."""
        return next((caption for caption in self.captions if caption.is_final), None)

    @property
    def first_pose_latency(self) -> float:
        """Time from the prompt to the first pose, [s]."""
        return self.poses.times[0] - self.asked

    def ask(self, prompt: MotionPrompt) -> None:
        """Send a prompt."""
        self.asked = time.monotonic()
        self._prompts.publish(prompt)

    def reading(self, node: str, key: str) -> str:
        """A value of a node's diagnostics, or '-' before it is there."""
        return self.diagnostics.get(node, {}).get(key, "-")

    def human_clip(self, text: str) -> MotionClip:
        """The person as played.

        Raises:
            MotionDataError: nothing was played.
        """
        if not self.played:
            raise MotionDataError("no pose of the motion was received.")
        clip = concatenated([from_human_motion(message) for message in self.played])
        return MotionClip(clip.rotations, clip.root_positions, FRAME_RATE, text)

    def robot_motion(self, robot: Robot) -> RobotMotion:
        """The robot as commanded, in the same frames as :meth:`human_clip`.

        Raises:
            MotionDataError: a frame of it was not received.
        """
        stamps = [from_time(message.header.stamp) for message in self.played]
        lacking = sum(stamp not in self.states.messages or stamp not in self.roots.messages for stamp in stamps)
        if lacking:
            raise MotionDataError(f"{lacking} of {len(stamps)} frames of the robot were not received.")
        states = [self.states.messages[stamp] for stamp in stamps]
        poses = [self.roots.messages[stamp].pose for stamp in stamps]
        contacts = np.zeros((len(stamps), len(robot.feet)))
        for row, message in zip(contacts, self.played, strict=True):
            reference = self.references.get(_reference_index(message, self.references))
            if reference is not None and len(reference.contacts):
                row[:] = reference.contacts[: len(row)]
        return RobotMotion(
            joint_names=tuple(states[0].name),
            joint_positions=np.array([state.position for state in states]),
            root_positions=np.array([[p.position.x, p.position.y, p.position.z] for p in poses]),
            root_quaternions=np.array(
                [[p.orientation.x, p.orientation.y, p.orientation.z, p.orientation.w] for p in poses]
            ),
            contacts=contacts,
            frame_rate=FRAME_RATE,
        )

    def _on_motion(self, message: HumanMotion) -> None:
        self.generated.append(message)
        self.generated_frames += len(message.root_positions) // 3

    def _on_pose(self, message: HumanMotion, info: dict[str, int]) -> None:
        self.poses.add(message, info)
        self.played_frames += bool(message.prompt_id)

    def _on_reference(self, message: MotionReference) -> None:
        self.references[message.start_index] = message

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self.diagnostics[status.name] = {value.key: value.value for value in status.values}


def _reference_index(message: HumanMotion, references: dict[int, MotionReference]) -> int:
    """Index of the reference frame that lies nearest behind a pose."""
    dt = next(iter(references.values())).dt if references else 1.0
    return int(np.ceil(message.start_index / FRAME_RATE / dt - 1e-6))
