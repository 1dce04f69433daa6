"""CaptionWindows: collects streams of human motion into spans of time that are worth a caption."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.skeleton import FRAME_RATE

MAX_WINDOW_S = 10.0  # the longest motion that the model has seen in training
MIN_WINDOW_S = 8 / FRAME_RATE
_MAX_STREAMS = 32


@dataclass(frozen=True)
class CaptionJob:
    """A span of motion to be captioned.

    Attributes:
        stream_id: Stream it belongs to.
        body_id: Person it belongs to, or empty.
        frame_id: Coordinate frame of the motion.
        clip: The frames.
        start_index: Index in the stream of the first one.
        start_ns: Time of the first frame, [ns].
        is_final: Whether the span is closed.
    """

    stream_id: str
    body_id: str
    frame_id: str
    clip: MotionClip
    start_index: int
    start_ns: int
    is_final: bool

    @property
    def end_index(self) -> int:
        """Index in the stream of the last frame."""
        return self.start_index + len(self.clip) - 1

    @property
    def end_ns(self) -> int:
        """Time of the last frame, [ns]."""
        return self.start_ns + round((len(self.clip) - 1) / self.clip.frame_rate * 1e9)


@dataclass
class _Window:
    frame_id: str
    start_index: int
    start_ns: int
    frame_rate: float
    touched: float
    asked: float
    clips: list[MotionClip] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return sum(len(clip) for clip in self.clips)

    @property
    def room(self) -> int:
        """Frames until it is full."""
        return math.ceil(MAX_WINDOW_S * self.frame_rate) - self.frames

    @property
    def duration(self) -> float:
        return self.frames / self.frame_rate


class CaptionWindows:
    """Spans of motion, one per stream and person. Not thread-safe: the caller holds a lock.

    A span is closed when its stream ends, stays away, loses frames or is 10 s long; before that it is captioned
    provisionally now and then.

    Args:
        interval: Time between provisional captions of a span, [s]; 0 for none.
        silence: A stream that stays away this long has ended, [s].
    """

    def __init__(self, interval: float = 2.0, silence: float = 1.0) -> None:
        self._interval, self._silence = interval, silence
        self._windows: dict[tuple[str, str], _Window] = {}
        self._closed: list[CaptionJob] = []

    def add(
        self,
        stream_id: str,
        body_id: str,
        frame_id: str,
        clip: MotionClip,
        start_index: int,
        start_ns: int,
        is_final: bool,
        now: float,
    ) -> None:
        """Take the next frames of a stream; ``now`` is the time on any steady clock, [s]."""
        key = (stream_id, body_id)
        window = self._windows.get(key)
        if window is not None and len(clip):
            expected = window.start_index + window.frames
            if start_index < expected and start_index + len(clip) <= expected:
                clip = clip.sliced(len(clip))  # doubled
            elif start_index != expected or clip.frame_rate != window.frame_rate:
                self._close(key)
                window = None
        while len(clip):
            if window is None:
                if len(self._windows) >= _MAX_STREAMS:
                    self._close(min(self._windows, key=lambda k: self._windows[k].touched))
                window = _Window(frame_id, start_index, start_ns, clip.frame_rate, now, now)
                self._windows[key] = window
            part = clip.sliced(0, window.room)
            window.clips.append(part)
            window.touched = now
            if not window.room:
                self._close(key)
                window = None
            clip = clip.sliced(len(part))
            start_index, start_ns = start_index + len(part), start_ns + round(len(part) / part.frame_rate * 1e9)
        if window is not None and is_final:
            self._close(key)

    def due(self, now: float) -> list[CaptionJob]:
        """Spans to be captioned now, closed ones first; each closed span is returned once."""
        for key in [key for key, window in self._windows.items() if now - window.touched >= self._silence]:
            self._close(key)
        jobs, self._closed = self._closed, []
        for key, window in self._windows.items():
            if self._interval > 0 and now - window.asked >= self._interval and window.duration >= MIN_WINDOW_S:
                window.asked = now
                jobs.append(_job(key, window, is_final=False))
        return jobs

    def _close(self, key: tuple[str, str]) -> None:
        window = self._windows.pop(key)
        if window.duration >= MIN_WINDOW_S:
            self._closed.append(_job(key, window, is_final=True))


def _job(key: tuple[str, str], window: _Window, is_final: bool) -> CaptionJob:
    clip = concatenated(window.clips)
    return CaptionJob(*key, window.frame_id, clip, window.start_index, window.start_ns, is_final)
