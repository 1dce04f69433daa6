"""Sends one prompt to a running motion generator: ``python -m llamo_ros.nodes.send_text "a person jumps"``."""

from __future__ import annotations

import sys
import time

import rclpy
from rclpy.node import Node
from std_msgs.msg import String

TOPIC = "/motion_generator/text"
_PATIENCE = 60.0  # [s]; the generator listens when it has loaded its model


def main(arguments: list[str] | None = None) -> int:
    """Wait for the generator, send the words of the command line, and leave once they have been received."""
    rclpy.init(args=arguments)
    words = rclpy.utilities.remove_ros_args(sys.argv if arguments is None else ["send_text", *arguments])[1:]
    node = Node("send_text")
    try:
        if not words:
            print('Say what to do: python -m llamo_ros.nodes.send_text "a person jumps"', file=sys.stderr)
            return 2
        publisher = node.create_publisher(String, TOPIC, 1)
        deadline = time.monotonic() + _PATIENCE
        while not publisher.get_subscription_count():
            if time.monotonic() > deadline:
                print(f"Nobody listens on {TOPIC}; start motion_generator first.", file=sys.stderr)
                return 1
            time.sleep(0.05)
        publisher.publish(String(data=" ".join(words)))
        publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=5))
        return 0
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
