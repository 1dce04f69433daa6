"""The publisher's playback in this process, where its timing can be disturbed at will."""

from __future__ import annotations

import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from trajectory_msgs.msg import JointTrajectory

from llamo_ros.motion.clip import MotionClip
from llamo_ros.nodes.conversions import from_time
from llamo_ros.nodes.pose_publisher import PosePublisherNode
from llamo_ros.nodes.runtime import STREAM_QOS
from llamo_ros.pipelines.player import Player
from llamo_ros.pipelines.stream import StreamChunk


def test_a_first_frame_that_is_late_does_not_date_all_later_ones_forward(graph, monkeypatch) -> None:
    """A controller that goes by the stamps would otherwise hear of an emergency stop that much later."""
    original, delays = Player.advance, [0.4]

    def advance_late(player: Player, *arguments):
        frame = original(player, *arguments)
        if frame is not None and delays:
            time.sleep(delays.pop())
        return frame

    monkeypatch.setattr(Player, "advance", advance_late)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.domain))
    ahead: list[float] = []

    def on_trajectory(message: JointTrajectory, info: dict[str, int]) -> None:
        ahead.append((from_time(message.header.stamp) - info["received_timestamp"]) / 1e9)

    graph.node.create_subscription(JointTrajectory, "/pose_publisher/joint_trajectory", on_trajectory, STREAM_QOS)
    rclpy.init(args=[])
    node = PosePublisherNode()
    try:
        graph.wait(lambda: node.count_subscribers("/pose_publisher/joint_trajectory") > 0, "match")
        person = MotionClip(np.tile(np.eye(3), (90, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (90, 1)))
        node._player.push(StreamChunk("a", 0, person, is_final=True, text="", prompt_id=""))
        graph.wait(lambda: len(ahead) > 12, "trajectories")
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()
    assert not delays
    assert max(ahead) < 0.01  # a trajectory leaves 3 ms after the moment that it begins with


def test_a_robot_that_touches_itself_is_told_of_once(graph, monkeypatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.domain))
    rclpy.init(args=[])
    node = PosePublisherNode()
    try:
        robot, touches = node._robot, node._player.robot.touches
        crossed = robot.standing.copy()
        crossed[robot.model.joint_index("left_hip_roll_joint")] = -0.4
        crossed[robot.model.joint_index("right_hip_roll_joint")] = 0.4
        assert node._status()[0] == DiagnosticStatus.OK
        touches.look(crossed[None])
        level, message, values = node._status()
        assert level == DiagnosticStatus.WARN and "touches itself" in message
        assert values["frames in self-collision"] == 1 and values["deepest self-collision [m]"] > 0.01
        assert node._status()[0] == DiagnosticStatus.OK
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()
