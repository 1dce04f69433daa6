"""Messages leave at their time, also while nobody else gets the interpreter."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from rclpy.publisher import Publisher
from std_msgs.msg import Int32

from llamo_ros.nodes.realtime import PunctualPublisher, set_time_slice
from llamo_ros.nodes.runtime import STREAM_QOS


class Wire:
    """A topic with a publisher and a subscription that notes what came and when the middleware had it."""

    def __init__(self, graph) -> None:
        self.numbers: list[int] = []
        self.received: list[float] = []  # [s] since the epoch
        self.publisher: Publisher = graph.node.create_publisher(Int32, "wire", STREAM_QOS)
        graph.node.create_subscription(Int32, "wire", self._on_number, STREAM_QOS)
        self.spin = graph.spin
        graph.wait(lambda: self.publisher.get_subscription_count() > 0, "match")
        self._graph = graph

    def wait_for(self, *numbers: int) -> None:
        """Wait until exactly these have come; fails with what came instead."""
        self._graph.wait(lambda: len(self.numbers) >= len(numbers), f"{len(numbers)} messages", 10.0)
        assert self.numbers == list(numbers)

    def _on_number(self, message: Int32, info: dict[str, int]) -> None:
        self.numbers.append(message.data)
        self.received.append(info["received_timestamp"] / 1e9)


@pytest.fixture
def wire(graph) -> Wire:
    return Wire(graph)


@pytest.fixture
def sender(wire: Wire) -> Iterator[PunctualPublisher]:
    sender = PunctualPublisher(wire.publisher, priority=0)
    yield sender
    sender.close()


def test_messages_leave_at_their_times_in_their_order(wire: Wire, sender: PunctualPublisher) -> None:
    start, start_of_epoch = time.monotonic(), time.time()
    for number in range(5):
        sender.publish_at(Int32(data=number), start + 0.1 + 0.05 * number, 10.0)
    assert sender.published == 0
    wire.wait_for(0, 1, 2, 3, 4)
    for number, received in enumerate(wire.received):
        assert received - start_of_epoch >= 0.1 + 0.05 * number - 1e-3  # two clocks
    sender.close()  # a message may be here before its sender has counted it
    assert sender.published == 5
    assert sender.handed_in_late == 0
    assert sender.take_error() == ""


def test_a_message_leaves_while_the_interpreter_is_kept(wire: Wire, sender: PunctualPublisher) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100.0)  # no thread of Python gets a turn from now on
    try:
        sender.publish_at(Int32(data=7), time.monotonic() + 0.05, 10.0)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass
        end_of_epoch = time.time()
    finally:
        sys.setswitchinterval(interval)
    wire.wait_for(7)
    assert wire.received[0] < end_of_epoch


def test_what_is_due_already_leaves_at_once_and_is_counted(wire: Wire, sender: PunctualPublisher) -> None:
    sender.publish_at(Int32(data=1), time.monotonic() - 0.25, 10.0)
    wire.wait_for(1)
    sender.close()
    assert sender.handed_in_late == 1
    assert sender.take_lateness() >= 0.25
    assert sender.take_lateness() == 0.0


def test_what_is_too_late_is_dropped(wire: Wire, sender: PunctualPublisher) -> None:
    sender.publish_at(Int32(data=1), time.monotonic() - 2.0, 1.0)
    sender.publish_at(Int32(data=2), time.monotonic(), 10.0)
    wire.wait_for(2)
    sender.close()
    assert sender.published == 1


def test_closing_ends_it_at_once_and_drops_what_waits(wire: Wire, sender: PunctualPublisher) -> None:
    sender.publish_at(Int32(data=1), time.monotonic() + 3600.0, 10.0)
    start = time.monotonic()
    sender.close()
    sender.close()
    assert time.monotonic() - start < 10.0
    with pytest.raises(RuntimeError, match="closed"):
        sender.publish_at(Int32(data=2), time.monotonic(), 10.0)
    wire.spin(0.2)
    assert wire.numbers == []


def test_what_could_not_be_published_is_told(graph) -> None:
    publisher = graph.node.create_publisher(Int32, "other", STREAM_QOS)
    sender = PunctualPublisher(publisher, priority=0)
    graph.context.shutdown()
    sender.publish_at(Int32(data=1), time.monotonic(), 10.0)
    end, error = time.monotonic() + 10.0, ""
    while not error and time.monotonic() < end:
        error = sender.take_error()
    sender.close()
    assert "context" in error
    assert sender.published == 0


def test_a_real_time_priority_is_had_or_it_is_told_what_is(wire: Wire) -> None:
    sender = PunctualPublisher(wire.publisher, priority=5)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        expected = {"real-time priority 5"}
    except PermissionError:
        expected = {"short time slices", "ordinary scheduling"}
    assert sender.scheduling in expected
    sender.close()


def test_time_slices_hold_for_threads_that_are_started_later() -> None:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(set_time_slice(0.003)))
    thread.start()
    thread.join()
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert results == [sys.platform == "linux" and release >= (6, 12)]
