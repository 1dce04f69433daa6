"""The URDF that a running robot publishes, as robot_state_publisher does."""

from __future__ import annotations

import time

from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String

from llamo_ros.core.errors import RobotError
from llamo_ros.nodes.runtime import LATCHED_QOS, Closable

TOPIC = "robot_description"
_REMINDER = 5.0  # [s]


def received_description(node: Closable) -> str:
    """Wait for the URDF on ``robot_description``, for as long as it takes; the node is not spinning yet.

    Raises:
        RobotError: the program is asked to end before there is one.
    """
    texts: list[str] = []
    subscription = node.create_subscription(String, TOPIC, lambda message: texts.append(message.data), LATCHED_QOS)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    reminded = -_REMINDER
    try:
        while not texts:
            if node.is_asked_to_end.is_set():
                raise RobotError(f"asked to end before a robot description came on {subscription.topic_name}.")
            if time.monotonic() - reminded > _REMINDER:
                reminded = time.monotonic()
                node.get_logger().info(f"waits for a robot description on {subscription.topic_name}")
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.remove_node(node)
        executor.shutdown()
        node.destroy_subscription(subscription)
    return texts[-1]
