"""What the node programs share: quality of service, a spin that survives, diagnostics, loading in the background."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from llamo_ros.core.errors import LlamoError
from llamo_ros.nodes.realtime import end_with, set_time_slice

# No frame is lost to a subscriber that is busy for three seconds: 100 frames of ~/human_pose.
STREAM_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

PARENT = "LLAMO_ENDS_WITH"  # environment variable: id of the process that a program ends with

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Result = TypeVar("Result")


class Closable(Node):
    """A node that knows when to give up, and what to end.

    Attributes:
        exit_code: Set by the node itself to end its program.
        is_asked_to_end: Set by a signal; whoever waits while the node is made looks at it.
    """

    exit_code: int | None = None
    is_asked_to_end = threading.Event()

    def close(self) -> bool:
        """End threads; returns whether all have ended."""
        return True


def run_node(name: str, make: Callable[[], Closable], arguments: list[str] | None, time_slice: float) -> int:
    """Run a node until SIGINT, SIGTERM or its own ``exit_code``.

    An error in a callback is logged and the node goes on. A signal ends the program with code 0, within
    a second or two: a thread in a long computation is waited for that long at most.

    Args:
        name: Name for messages before the node is there.
        make: Makes the node.
        arguments: Command line; None takes the program's.
        time_slice: Where the system knows such a thing, a program that wakes up has the core at once if its time slices
            are shorter than those of the one that computes there, [s]. A controller or a driver should have it.

    Returns:
        Exit code: 0 after a signal, 1 after an error at start-up.
    """
    set_time_slice(time_slice)
    is_asked_to_end = Closable.is_asked_to_end
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_asked_to_end.set())
    if PARENT in os.environ:
        end_with(int(os.environ[PARENT]))
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node, code, has_ended = None, 0, True
    try:
        node = make()
        # What is there now stays: the collector, which holds up all threads, need not look through it again and again.
        gc.collect()
        gc.freeze()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not is_asked_to_end.is_set() and node.exit_code is None:
            try:
                executor.spin_once(timeout_sec=0.1)
            except Exception as error:  # one bad message must not take the node down
                node.get_logger().error(f"{type(error).__name__} in a callback, the node goes on: {error}")
        code = node.exit_code or 0
    except LlamoError as error:
        if not is_asked_to_end.is_set():
            get_logger(name).fatal(str(error))
            code = 1
    finally:
        if node is not None:
            has_ended = node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    if not has_ended:
        # A thread sits in a long computation, such as loading a model. Everything is closed; leave without it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class Background(Generic[Result]):
    """Computes something slow in a thread; the node stays responsive and looks for the result now and then."""

    def __init__(self, compute: Callable[[], Result]) -> None:
        self._result: Result | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(compute,), name="loading", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether :meth:`result` returns at once."""
        return not self._thread.is_alive()

    def result(self) -> Result:
        """The result; raises what the computation raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, compute: Callable[[], Result]) -> None:
        try:
            self._result = compute()
        except Exception as error:  # raised again by result()
            self._error = error


class Diagnostics:
    """Publishes one status on /diagnostics, once a second."""

    def __init__(self, node: Node, read: Callable[[], tuple[bytes, str, dict[str, object]]]) -> None:
        """Start publishing; ``read`` returns the level, a message and values."""
        self._node, self._read = node, read
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(1.0, self._publish)

    def _publish(self) -> None:
        level, message, values = self._read()
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_name(),
            hardware_id="",
            message=message,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class Throttle:
    """Lets a repeated log line through once in a while, and counts what it held back."""

    def __init__(self, period: float = 2.0) -> None:
        self._period, self._last, self._held_back = period, -period, 0

    def __call__(self, log: Callable[[str], object], message: str) -> None:
        """Log the message, or count it."""
        now = time.monotonic()
        if now - self._last < self._period:
            self._held_back += 1
            return
        suffix = f" ({self._held_back} more such lines since the last one)" if self._held_back else ""
        self._last, self._held_back = now, 0
        log(message + suffix)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
