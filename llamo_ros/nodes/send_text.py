"""Sends one prompt to a running motion generator: ``python -m llamo_ros.nodes.send_text "a person jumps"``."""

from __future__ import annotations

import argparse
import sys
import time

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String

TOPIC, MOTION = "/motion_generator/text", "/motion_generator/human_motion"


def main(arguments: list[str] | None = None) -> int:
    """Wait for the generator, send the words of the command line, and leave once they have been received."""
    parser = argparse.ArgumentParser(prog="send_text", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="+", help="what to do, such as: a person jumps")
    parser.add_argument("--listeners", type=int, default=0, help="wait until so many nodes listen to the motion")
    parser.add_argument("--patience", type=float, default=60.0, help="how long to wait, [s] (default: %(default)s)")
    options = parser.parse_args(remove_ros_args(sys.argv if arguments is None else ["send_text", *arguments])[1:])
    rclpy.init(args=arguments)
    node = Node("send_text")
    try:
        publisher = node.create_publisher(String, TOPIC, 1)
        deadline = time.monotonic() + options.patience
        while not publisher.get_subscription_count() or node.count_subscribers(MOTION) < options.listeners:
            if time.monotonic() > deadline:
                found = node.count_subscribers(MOTION)
                print(
                    f"{publisher.get_subscription_count()} nodes listen on {TOPIC} and {found} on {MOTION}; expected "
                    f"1 and {options.listeners}. Start motion_generator and the others first.",
                    file=sys.stderr,
                )
                return 1
            time.sleep(0.05)
        publisher.publish(String(data=" ".join(options.words)))
        publisher.wait_for_all_acked(Duration(seconds=5))
        return 0
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
