"""TimeLine: the pose at every frame from now on, known at any time.

Behind the last frame of motion lie a braking tail and then rest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.splicing import Splice, braked, fade_length
from llamo_ros.pipelines.stream import Stream

FloatArray = NDArray[np.float64]

SPLICE_MARGIN = 2  # frames that are still played as they are before anything changes
# Frames of holding that are committed ahead: motion that goes on behind them must not change what a robot may have
# reached when it hears of it, which is one frame behind the one that is sent, and one more where that is late.
HOLD_AHEAD = 3
_KEPT = 3  # frames that were played; the last two tell the velocity


class PlayMode(Enum):
    """What playback does in a frame."""

    RUN = "run"
    BLEND = "blend"
    HOLD = "hold"


@dataclass(frozen=True)
class PlayedFrame:
    """One frame as it is played.

    Attributes:
        index: Index on the time line; grows by one with every frame and never restarts.
        rotations: Local joint rotations, shape (22, 3, 3).
        root_position: Pelvis in the world, shape (3,), [m].
        mode: What playback does.
        text: Prompt of the motion, or empty.
        prompt_id: Its id, or empty.
    """

    index: int
    rotations: FloatArray
    root_position: FloatArray
    mode: PlayMode
    text: str = ""
    prompt_id: str = ""


class _Frame(NamedTuple):
    """A frame on the time line, and the frame of its stream that it was made from."""

    rotations: FloatArray
    root: FloatArray
    mode: PlayMode
    stream: Stream
    raw_rotations: FloatArray
    raw_root: FloatArray


class TimeLine:
    """Frames at 30 FPS. Committed ones are played as they are, whatever comes; changes begin behind them.

    Args:
        blend_speed: Joint speed that a cross-fade may add, [rad/s].
    """

    def __init__(self, blend_speed: float) -> None:
        self._blend_speed = blend_speed
        self._next = self._committed = 0
        self._forget()

    @property
    def next_index(self) -> int:
        """Index of the frame that is played next."""
        return self._next

    @property
    def committed(self) -> int:
        """Index behind the last committed frame."""
        return self._committed

    @property
    def end(self) -> int:
        """Index behind the last frame of motion."""
        return self._begin + len(self._frames)

    @property
    def has_begun(self) -> bool:
        """Whether there is any motion, played or not."""
        return bool(self._frames)

    def commit(self, until: int) -> list[PlayedFrame]:
        """Commit the frames of motion before ``until`` and return them; where motion has run out, ``HOLD_AHEAD`` more.

        Nothing is committed before motion has begun.
        """
        if not self._frames:
            return []
        stop = max(min(until, self.end), self._next + HOLD_AHEAD)
        frames = [self._played(index) for index in range(max(self._committed, self._next), stop)]
        self._committed = max(self._committed, stop)
        return frames

    def recommit(self, index: int) -> None:
        """Take the frames before ``index`` for committed, and none behind them."""
        self._committed = max(index, self._next)

    def pop(self) -> PlayedFrame:
        """Play the next frame. There must be motion."""
        frame = self._played(self._next)
        self._next += 1
        while self._next - self._begin > _KEPT and len(self._frames) > 2:
            self._frames.popleft()
            self._begin += 1
        return frame

    def begin_stream(self, stream: Stream, clip: MotionClip) -> None:
        """Let a stream follow that begins with a clip: behind all motion if it appends, as soon as may be otherwise."""
        if self._frames:
            index = self._next_change
            if stream.append:
                index = max(index, self.end)
            length = fade_length(self._span(index, 1), clip, self._blend_speed)
            self._splice = Splice(self._span(index - 1, 1), self._span(index, length))
            self._end_at(index)
        self.append(stream, clip)

    def append(self, stream: Stream, clip: MotionClip) -> None:
        """Put frames of the stream that began last behind its others."""
        fading, placed = 0, clip
        if self._splice is not None:
            fading, placed = self._splice.fading, self._splice.carry_over(clip)
        if not self._frames:
            self._begin = self._next
        self._frames.extend(
            _Frame(
                placed.rotations[k],
                placed.root_positions[k],
                PlayMode.BLEND if k < fading else PlayMode.RUN,
                stream,
                clip.rotations[k],
                clip.root_positions[k],
            )
            for k in range(len(clip))
        )
        self._make_tail()

    def rest(self) -> list[tuple[Stream, MotionClip]]:
        """The motion that :meth:`cut` would drop, as it came, by stream."""
        rest, frames = [], list(self._frames)[max(self._next_change - self._begin, 0) :]
        running = (frame for frame in frames if frame.mode is not PlayMode.HOLD)
        for stream, group in groupby(running, key=lambda frame: frame.stream):
            rotations, roots = zip(*((frame.raw_rotations, frame.raw_root) for frame in group), strict=True)
            rest.append((stream, MotionClip(np.stack(rotations), np.stack(roots))))
        return rest

    def cut(self) -> None:
        """Let motion end in a braking tail as soon as may be."""
        self._cut_at(self._next_change)

    def cut_from(self, index: int) -> None:
        """Let motion end before ``index`` in a braking tail; later frames are dropped even if they are committed."""
        self.recommit(index)
        self._cut_at(self._committed)

    def clear(self) -> None:
        """Forget all motion; only for as long as nothing was played."""
        self._committed = 0
        self._forget()

    def _forget(self) -> None:
        self._frames: deque[_Frame] = deque()  # some played ones too
        self._tail: list[_Frame] = []
        self._begin = 0  # index of the first of _frames
        self._splice: Splice | None = None

    @property
    def _next_change(self) -> int:
        """Index of the first frame that may still change."""
        return max(self._next + SPLICE_MARGIN, self._committed)

    def _at(self, index: int) -> _Frame:
        if index < self.end:
            return self._frames[index - self._begin]
        return self._tail[min(index - self.end, len(self._tail) - 1)]

    def _played(self, index: int) -> PlayedFrame:
        frame = self._at(index)
        is_holding = frame.mode is PlayMode.HOLD
        text, prompt_id = ("", "") if is_holding else (frame.stream.text, frame.stream.prompt_id)
        return PlayedFrame(index, frame.rotations, frame.root, frame.mode, text, prompt_id)

    def _span(self, start: int, count: int) -> MotionClip:
        frames = [self._at(index) for index in range(start, start + count)]
        return MotionClip(np.stack([f.rotations for f in frames]), np.stack([f.root for f in frames]))

    def _cut_at(self, index: int) -> None:
        index = max(index, self._begin + 1)
        if self._frames and index < self.end:
            self._end_at(index)

    def _end_at(self, index: int) -> None:
        """Let the frames end before ``index``: later ones are dropped, those of the tail before it become frames."""
        first = max(self._begin, min(index, self._next) - _KEPT)
        self._frames = deque([self._at(i) for i in range(first, index)])
        self._begin = first
        self._make_tail()

    def _make_tail(self) -> None:
        last = self._frames[-1]
        clip = braked(self._span(max(self._begin, self.end - 2), min(2, len(self._frames))))
        self._tail = [
            last._replace(rotations=rotations, root=root, mode=PlayMode.HOLD)
            for rotations, root in zip(clip.rotations, clip.root_positions, strict=True)
        ]
