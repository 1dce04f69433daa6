"""The URDF that a running robot publishes, between processes."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from llamo_ros.motion.clip import MotionClip
from llamo_ros.msg import HumanMotion
from llamo_ros.nodes.conversions import to_human_motion
from llamo_ros.nodes.runtime import LATCHED_QOS, STREAM_QOS
from llamo_ros.retarget.profile import load_robot


@pytest.fixture
def waiting(graph):
    """A publisher that waits for a description, and starts where the robot is."""
    process = graph.start(
        "pose_publisher", robot="unitree_g1", use_robot_description="true", use_measured_state="true", target_depth=2
    )
    graph.wait(lambda: "waits for a robot description" in graph.log("pose_publisher"), "publisher that waits")
    return process


def test_the_description_on_the_topic_takes_the_place_of_the_profiles_own(graph, waiting) -> None:
    robot, joint = load_robot("unitree_g1"), "left_hip_yaw_joint"
    narrow = robot.description.replace('lower="-2.7576" upper="2.7576"', 'lower="-0.5" upper="0.5"')
    assert narrow != robot.description
    graph.node.create_publisher(String, "/robot_description", LATCHED_QOS).publish(String(data=narrow))
    graph.wait(lambda: "plays motion on unitree_g1" in graph.log("pose_publisher"), "publisher with a robot")
    posture = robot.standing.copy()
    posture[robot.model.joint_index(joint)] = 1.0  # within the profile's own limits
    states = graph.node.create_publisher(JointState, "/joint_states", qos_profile_sensor_data)
    motions = graph.node.create_publisher(HumanMotion, "/motion_generator/human_motion", STREAM_QOS)
    graph.wait(lambda: states.get_subscription_count() > 0 < motions.get_subscription_count(), "match")
    person = MotionClip(np.tile(np.eye(3), (8, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (8, 1)))
    motions.publish(to_human_motion(person, stamp_ns=0, frame_id="map", stream_id="a", start_index=0, is_final=True))
    for _ in range(50):
        states.publish(JointState(name=list(robot.joint_names), position=posture.tolist()))
        graph.spin(0.1)
        if "outside its limits -0.500..0.500" in graph.log("pose_publisher"):
            return
    pytest.fail(graph.log("pose_publisher"))


def test_a_description_of_another_robot_ends_the_program_with_the_reason(graph, waiting) -> None:
    urdf = load_robot("booster_t1").description
    graph.node.create_publisher(String, "/robot_description", LATCHED_QOS).publish(String(data=urdf))
    graph.wait(lambda: waiting.poll() is not None, "end")
    assert waiting.returncode == 1
    assert "pelvis" in graph.log("pose_publisher")


def test_a_publisher_that_waits_ends_when_it_is_told_to(graph, waiting) -> None:
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(5) == 0
