"""Messages that leave at their time, whatever Python is busy with; computation that lets others go first."""

from __future__ import annotations

import os
import signal

from rclpy.publisher import Publisher
from rclpy.serialization import serialize_message

from llamo_ros import _realtime  # after rclpy, which brings the library it is linked to


def set_time_slice(seconds: float) -> bool:
    """Ask for time slices of a length: a thread that wakes up preempts one with longer slices at once.

    This changes whose turn it is and not how much time anybody gets, and needs no privilege. Holds for this thread and
    for those that it starts.

    Args:
        seconds: 0.0001 to 0.1. Linux's own is 0.0007 to 0.003, by the number of cores.

    Returns:
        Whether the system does that; Linux does from 6.12 on.
    """
    return _realtime.set_time_slice(_nanoseconds(seconds))


def end_with(parent: int) -> None:
    """End this process, by SIGTERM, when another one ends that started it, even if that is killed. Only on Linux.

    Args:
        parent: Its process id.
    """
    _realtime.end_with_parent()
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signal.SIGTERM)


class PunctualPublisher:
    """Publishes messages at absolute times from a thread outside the interpreter.

    The thread asks for the real-time priority; where the system refuses, for short time slices (Linux 6.12 or newer),
    which need no privilege. :attr:`scheduling` tells what it got.

    Args:
        publisher: What to publish with. It must not be destroyed before :meth:`close`.
        priority: Real-time priority (SCHED_FIFO), 1 to 99; 0 does not ask for one.
    """

    def __init__(self, publisher: Publisher, priority: int) -> None:
        self._publisher = publisher  # kept alive
        self._sender = _realtime.PunctualPublisher(publisher.handle.pointer, priority)

    @property
    def scheduling(self) -> str:
        """How the system schedules the thread, such as "real-time priority 20", for a log line."""
        return self._sender.scheduling

    @property
    def published(self) -> int:
        """Messages that have been published; one that is just leaving may reach a subscriber before it counts here."""
        return self._sender.published

    def publish_at(self, message: object, due: float, longest_delay: float) -> None:
        """Publish a message at a time; returns at once. Messages leave in the order in which they were handed in.

        Args:
            message: A message of the publisher's type. Later changes to it have no effect.
            due: When, [s] on ``time.monotonic()``; a time that is over means now.
            longest_delay: A message that could not leave until so long after `due`, [s], is dropped.

        Raises:
            RuntimeError: :meth:`close` was called.
        """
        too_late = due + longest_delay
        self._sender.publish_at(serialize_message(message), _nanoseconds(due), _nanoseconds(too_late))

    @property
    def handed_in_late(self) -> int:
        """Messages that were handed in after their time."""
        return self._sender.handed_in_late

    def take_lateness(self) -> float:
        """Largest time from `due` to the end of publishing since the last call, [s]."""
        return self._sender.take_lateness()

    def take_error(self) -> str:
        """Why a message could not be published since the last call; empty if all could."""
        return self._sender.take_error()

    def close(self) -> None:
        """End the thread. Messages that still wait are dropped; what has been counted is final from now on."""
        self._sender.close()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
