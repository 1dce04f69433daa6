"""PlaybackBuffer: streams of human motion in, at their own pace; one frame per call out, without a gap.

The buffer is a time line of frames at 30 FPS. Behind its last frame lie a braking tail and then rest, so that the pose
at every future index is known at any time: when frames run out playback brakes and holds, when they come it fades in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.splicing import Splice, braked, fade_length

FloatArray = NDArray[np.float64]

SPLICE_MARGIN = 2  # frames that are still played as they are before anything changes
# Frames of holding that are committed ahead: motion that goes on behind them must not change what a robot may have
# reached when it hears of it, which is one frame behind the one that is sent, and one more where that is late.
HOLD_AHEAD = 3
MAX_BUFFERED = 1800  # frames; a minute of motion. A source that sends more has no pacing
# Larger steps between two frames are refused. Of 81,458 frames of motion capture (600 clips drawn at random)
# 0.04 % turn a joint further and the root never moves more than 0.16 m.
MAX_JOINT_STEP = 1.5  # [rad] per frame, 45 rad/s
MAX_ROOT_STEP = 0.4  # [m] per frame, 12 m/s
_REMEMBERED_STREAMS = 32


class PlayMode(Enum):
    """What playback does in a frame."""

    RUN = "run"
    BLEND = "blend"
    HOLD = "hold"


@dataclass(frozen=True)
class StreamChunk:
    """Consecutive frames of one stream.

    Attributes:
        stream_id: The unbroken stream they belong to.
        start_index: Index of the first frame in the stream.
        clip: The frames at 30 FPS; may be empty in the last chunk.
        is_final: Whether the stream ends with this chunk.
        append: Whether the stream waits for the end of the one before instead of replacing it.
        text: Prompt, or empty.
        prompt_id: Its id, or empty.
    """

    stream_id: str
    start_index: int
    clip: MotionClip
    is_final: bool = False
    append: bool = False
    text: str = ""
    prompt_id: str = ""


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


@dataclass
class PlaybackCounters:
    """What happened so far, in frames unless it says otherwise."""

    received: int = 0
    doubled: int = 0
    lost: int = 0
    rejected_chunks: int = 0
    underruns: int = 0


@dataclass
class _Stream:
    """A stream on its way to the time line: frames wait until there are enough of them."""

    stream_id: str
    append: bool
    text: str
    prompt_id: str
    expected: int
    is_final: bool = False
    waiting: list[MotionClip] = field(default_factory=list)
    last: MotionClip | None = None

    @property
    def depth(self) -> int:
        return sum(len(clip) for clip in self.waiting)


class _Frame(NamedTuple):
    """A frame on the time line, and the frame of its stream that it was made from."""

    rotations: FloatArray
    root: FloatArray
    mode: PlayMode
    stream: _Stream
    raw_rotations: FloatArray
    raw_root: FloatArray


class PlaybackBuffer:
    """Orders, joins and paces streams of human motion. Not thread-safe: the caller holds a lock.

    Frames that were handed out by :meth:`commit` are played as they are, whatever comes; changes begin behind them.

    Args:
        target_depth: Frames to collect before playback of a stream begins or resumes.
        blend_speed: Joint speed that a cross-fade may add, [rad/s].

    Raises:
        ParameterError: a value is out of range.
    """

    def __init__(self, target_depth: int = 8, blend_speed: float = 4.0) -> None:
        if not 1 <= target_depth <= MAX_BUFFERED // 2:
            raise ParameterError(f"target_depth is {target_depth}, expected 1 to {MAX_BUFFERED // 2} frames.")
        if not (np.isfinite(blend_speed) and blend_speed > 0):
            raise ParameterError(f"blend_speed is {blend_speed}, expected a positive number of rad/s.")
        self.target_depth, self.blend_speed = target_depth, blend_speed
        self.counters = PlaybackCounters()
        self._frames: deque[_Frame] = deque()  # some played ones too: the last two tell the velocity
        self._tail: list[_Frame] = []
        self._begin = 0  # index of the first of _frames
        self._next = 0
        self._committed = 0
        self._splice: Splice | None = None
        self._playing: _Stream | None = None  # feeds the time line directly
        self._pending: deque[_Stream] = deque()
        self._retired: deque[str] = deque(maxlen=_REMEMBERED_STREAMS)
        self._paused = False

    @property
    def next_index(self) -> int:
        """Index of the frame that the next :meth:`pop` returns."""
        return self._next

    @property
    def depth(self) -> int:
        """Frames of motion that are ready to be played."""
        return max(0, self._end - self._next)

    @property
    def waiting(self) -> int:
        """Frames that wait for the target depth, or for the motion before them to end."""
        return sum(stream.depth for stream in self._pending)

    @property
    def started(self) -> bool:
        """Whether the first motion has begun."""
        return bool(self._frames)

    @property
    def paused(self) -> bool:
        """Whether playback is held by :meth:`pause`."""
        return self._paused

    def check_size(self, frames: int) -> None:
        """Whether so many more frames fit.

        Raises:
            MotionDataError: they do not; they are counted as a rejected chunk.
        """
        if self.depth + self.waiting + frames > MAX_BUFFERED:
            self.counters.rejected_chunks += 1
            raise MotionDataError(
                f"{frames} frames do not fit: {MAX_BUFFERED} may wait to be played, and {self.depth + self.waiting} "
                "do. Send motion at its own pace."
            )

    def push(self, chunk: StreamChunk) -> None:
        """Take the next chunk of a stream.

        Doubled frames are dropped. Where frames were lost playback goes on with a cross-fade. A chunk of a new stream
        begins that stream: with ``append`` after the present one, otherwise in its place. A new stream that ends
        without a frame and does not append stops playback: brake, then hold.

        Raises:
            MotionDataError: frames jump, are too many, or are not at 30 FPS; the chunk is dropped and counted.
        """
        if chunk.stream_id in self._retired:
            self.counters.doubled += len(chunk.clip)
            return
        stream = self._stream_of(chunk)
        new = self._checked(chunk, stream)
        if stream is not self._playing and stream not in self._pending:
            self._enqueue(stream)
        self.counters.received += len(chunk.clip)
        self.counters.doubled += len(chunk.clip) - len(new)
        is_first = stream.last is None
        lost = 0 if is_first or not len(new) else chunk.start_index - stream.expected
        stream.expected = max(stream.expected, chunk.start_index + len(chunk.clip))
        stream.is_final = stream.is_final or chunk.is_final
        if is_first and stream.is_final and not len(new) and not stream.append:
            self.stop()
            return
        if lost > 0:
            self.counters.lost += lost
            self._wait_again(stream)
        if len(new):
            stream.last = new.sliced(len(new) - 1)
            if stream is self._playing:
                self._append(new)
            else:
                stream.waiting.append(new)
        self._begin_ready_streams()

    def _begin_ready_streams(self) -> None:
        while (stream := self._ready_stream()) is not None:
            self._pending.remove(stream)
            if self._playing is not None:
                self._retired.append(self._playing.stream_id)
            clip, stream.waiting = concatenated(stream.waiting), []
            self._begin_stream(stream, clip)
            self._append(clip)

    def commit(self, until: int) -> list[PlayedFrame]:
        """Frames that will be played for certain: those of motion before ``until`` that were not handed out yet.

        Where motion has run out, ``HOLD_AHEAD`` frames of braking and holding are among them.
        """
        stop = max(min(until, self._end), self._next + HOLD_AHEAD) if self._frames else self._committed
        frames = [self._played(index) for index in range(max(self._committed, self._next), stop)]
        self._committed = max(self._committed, stop)
        self._check_for_end(self._committed)
        return frames

    def recommit(self, index: int) -> None:
        """Take the frames before ``index`` for handed out, and :meth:`commit` those from there on anew."""
        self._committed = max(index, self._next)
        self._check_for_end(self._committed)

    def pop(self) -> PlayedFrame | None:
        """The next frame; to be called 30 times a second. None before the first motion has begun."""
        if not self._frames:
            return None
        frame = self._played(self._next)
        self._next += 1
        self._check_for_end(self._next)
        while self._next - self._begin > 3 and len(self._frames) > 2:
            self._frames.popleft()
            self._begin += 1
        self._begin_ready_streams()
        return frame

    def stop(self, keep_until: int | None = None) -> None:
        """Drop what is not played yet, brake and hold. Streams in progress are ignored from now on.

        Args:
            keep_until: Frames from this index on are dropped even if they are committed; by default these are played.
        """
        for stream in [self._playing, *self._pending]:
            if stream is not None:
                self._retired.append(stream.stream_id)
        self._playing = None
        self._pending.clear()
        if keep_until is None:
            self._cut(self._next + SPLICE_MARGIN)
        else:
            self._committed = max(keep_until, self._next)
            self._cut(self._committed)

    def clear(self) -> None:
        """Forget all motion, for as long as no frame was played. Streams in progress are ignored from now on.

        Raises:
            ParameterError: frames were played already; :meth:`stop` brakes from them.
        """
        if self._next:
            raise ParameterError("frames were played already; stop instead of clearing.")
        self.stop()
        self._committed = 0
        self._frames.clear()
        self._tail, self._splice, self._begin = [], None, 0

    def ignore(self, stream_id: str) -> None:
        """Drop whatever comes of a stream from now on."""
        if stream_id not in self._retired:
            self._retired.append(stream_id)

    def pause(self) -> None:
        """Brake and hold; what is not played yet is kept for :meth:`resume`."""
        if self._paused:
            return
        self._paused = True
        cut = max(self._next + SPLICE_MARGIN, self._committed)
        rest: list[_Stream] = []
        for stream, group in groupby(self._frames_from(cut), key=lambda frame: frame.stream):
            frames = list(group)
            clip = MotionClip(np.stack([f.raw_rotations for f in frames]), np.stack([f.raw_root for f in frames]))
            stream.waiting.insert(0, clip)
            stream.append = bool(rest)
            rest.append(stream)
            if stream.stream_id in self._retired:
                self._retired.remove(stream.stream_id)
        if self._playing is not None and self._playing not in rest:
            rest.append(self._playing)
        self._pending = deque([*rest, *(stream for stream in self._pending if stream not in rest)])
        self._playing = None
        self._cut(cut)

    def resume(self) -> None:
        """Go on after :meth:`pause`, with a cross-fade."""
        self._paused = False
        self._begin_ready_streams()

    # --- streams ----------------------------------------------------------------------------------------------------

    def _stream_of(self, chunk: StreamChunk) -> _Stream:
        for stream in [self._playing, *self._pending]:
            if stream is not None and stream.stream_id == chunk.stream_id:
                return stream
        return _Stream(chunk.stream_id, chunk.append, chunk.text, chunk.prompt_id, chunk.start_index)

    def _enqueue(self, stream: _Stream) -> None:
        if not stream.append:
            self._retired.extend(old.stream_id for old in self._pending)
            self._pending.clear()
        self._pending.append(stream)

    def _checked(self, chunk: StreamChunk, stream: _Stream) -> MotionClip:
        """The frames of a chunk that are new, if they can be played."""
        clip, problem = chunk.clip, ""
        new = clip.sliced(min(max(0, stream.expected - chunk.start_index), len(clip)))
        self.check_size(len(new))
        if len(clip) and clip.frame_rate != FRAME_RATE:
            problem = f"has {clip.frame_rate:g} FPS, expected 30; resample it first"
        elif len(new):
            continues = stream.last is not None and chunk.start_index <= stream.expected
            both = concatenated([stream.last, new]) if continues else new
            turn = geodesic_angle(both.rotations[:-1], both.rotations[1:]).max(initial=0.0)
            step = np.linalg.norm(np.diff(both.root_positions, axis=0), axis=-1).max(initial=0.0)
            if turn > MAX_JOINT_STEP or step > MAX_ROOT_STEP:
                problem = (
                    f"jumps by {turn:.2f} rad and {step:.2f} m from one frame to the next, "
                    f"at most {MAX_JOINT_STEP:g} rad and {MAX_ROOT_STEP:g} m are played"
                )
        if problem:
            self.counters.rejected_chunks += 1
            raise MotionDataError(f"chunk {chunk.start_index} of stream {chunk.stream_id!r} {problem}.")
        return new

    def _ready_stream(self) -> _Stream | None:
        """The waiting stream that may begin now."""
        while self._pending and self._pending[0].is_final and not self._pending[0].depth:
            self._retired.append(self._pending.popleft().stream_id)
        if self._paused or not self._pending:
            return None
        stream, playing = self._pending[0], self._playing
        enough = stream.depth >= self.target_depth or stream.is_final
        is_its_turn = not stream.append or playing is None or playing.is_final
        return stream if enough and stream.depth and is_its_turn else None

    def _wait_again(self, stream: _Stream) -> None:
        """Frames of the stream are missing: play what is there, collect the target depth anew, then fade in."""
        stream.waiting.clear()
        if stream is self._playing:
            stream.append = True
            self._playing = None
            self._pending.appendleft(stream)

    def _check_for_end(self, index: int) -> None:
        """Note that motion has ended or run out, if frames of the tail before ``index`` are played or committed."""
        if self._playing is None or index <= self._end:
            return
        stream, self._playing = self._playing, None
        if stream.is_final:
            self._retired.append(stream.stream_id)
            return
        self.counters.underruns += 1
        if self._pending:  # whoever waits for the end of a stream that stays away need not wait longer
            self._retired.append(stream.stream_id)
        else:
            stream.append = False
            self._pending.append(stream)

    # --- time line --------------------------------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        """Index behind the last frame of motion."""
        return self._begin + len(self._frames)

    def _at(self, index: int) -> _Frame:
        if index < self._end:
            return self._frames[index - self._begin]
        return self._tail[min(index - self._end, len(self._tail) - 1)]

    def _played(self, index: int) -> PlayedFrame:
        frame = self._at(index)
        stream = frame.stream if frame.mode is not PlayMode.HOLD else None
        text, prompt_id = (stream.text, stream.prompt_id) if stream is not None else ("", "")
        return PlayedFrame(index, frame.rotations, frame.root, frame.mode, text, prompt_id)

    def _frames_from(self, index: int) -> list[_Frame]:
        frames = list(self._frames)[max(index - self._begin, 0) :]
        return [frame for frame in frames if frame.mode is not PlayMode.HOLD]

    def _span(self, start: int, count: int) -> MotionClip:
        frames = [self._at(index) for index in range(start, start + count)]
        return MotionClip(np.stack([f.rotations for f in frames]), np.stack([f.root for f in frames]))

    def _begin_stream(self, stream: _Stream, clip: MotionClip) -> None:
        if self._frames:
            index = max(self._next + SPLICE_MARGIN, self._committed)
            if stream.append:
                index = max(index, self._end)
            length = fade_length(self._span(index, 1), clip, self.blend_speed)
            self._splice = Splice(self._span(index - 1, 1), self._span(index, length))
            self._end_at(index)
        self._playing = stream

    def _append(self, clip: MotionClip) -> None:
        fading, placed = 0, clip
        if self._splice is not None:
            fading, placed = self._splice.fading, self._splice.carry_over(clip)
        index = self._end if self._frames else self._next
        self._begin = self._begin if self._frames else index
        self._frames.extend(
            _Frame(
                placed.rotations[k],
                placed.root_positions[k],
                PlayMode.BLEND if k < fading else PlayMode.RUN,
                self._playing,
                clip.rotations[k],
                clip.root_positions[k],
            )
            for k in range(len(clip))
        )
        self._make_tail()

    def _cut(self, index: int) -> None:
        """Let motion end before ``index`` and behind the committed frames, in a braking tail."""
        index = max(index, self._committed, self._begin + 1)
        if self._frames and index < self._end:
            self._end_at(index)

    def _end_at(self, index: int) -> None:
        """Let the frames end before ``index``: later ones are dropped, those of the tail before it become frames."""
        first = max(self._begin, min(index, self._next) - 3)
        self._frames = deque([self._at(i) for i in range(first, index)])
        self._begin = first
        self._make_tail()

    def _make_tail(self) -> None:
        last = self._frames[-1]
        clip = braked(self._span(max(self._begin, self._end - 2), min(2, len(self._frames))))
        self._tail = [
            last._replace(rotations=rotations, root=root, mode=PlayMode.HOLD)
            for rotations, root in zip(clip.rotations, clip.root_positions, strict=True)
        ]
