"""PlaybackBuffer: streams of human motion in, at their own pace; one frame per call out, without a gap.

The buffer is a time line of frames at 30 FPS. Behind its last frame lies a braking tail and then rest, so that the pose at
every future index is known at any time: when frames run out playback brakes and holds, when they come back it fades in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.splicing import Splice, braked, fade_length

SPLICE_MARGIN = 2  # frames; gives whoever follows the time line (a retargeter) 67 ms to prepare a change
MAX_BUFFERED = 1800  # frames; a minute of motion. A source that sends more has no pacing
MAX_JOINT_STEP = 1.0  # [rad] per frame, 30 rad/s; the fastest throw in motion capture stays below 25 rad/s
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
        clip: The frame; one frame long.
        mode: What playback does.
        text: Prompt of the motion, or empty.
        prompt_id: Its id, or empty.
    """

    index: int
    clip: MotionClip
    mode: PlayMode
    text: str = ""
    prompt_id: str = ""


@dataclass(frozen=True)
class PlannedFrames:
    """Frames that were put on the time line. From ``index`` on they take the place of what was planned before."""

    index: int
    clip: MotionClip


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


class PlaybackBuffer:
    """Orders, joins and paces streams of human motion. Not thread-safe: the caller holds a lock."""

    def __init__(self, target_depth: int = 8, blend_speed: float = 4.0) -> None:
        """Make an empty buffer.

        Args:
            target_depth: Frames to collect before playback of a stream begins or resumes.
            blend_speed: Joint speed that a cross-fade may add, [rad/s].

        Raises:
            ParameterError: a value is out of range.
        """
        if not 1 <= target_depth <= MAX_BUFFERED // 2:
            raise ParameterError(f"target_depth is {target_depth}, expected 1 to {MAX_BUFFERED // 2} frames.")
        if not (np.isfinite(blend_speed) and blend_speed > 0):
            raise ParameterError(f"blend_speed is {blend_speed}, expected a positive number of rad/s.")
        self.target_depth, self.blend_speed = target_depth, blend_speed
        self.counters = PlaybackCounters()
        self._clips: MotionClip | None = None  # from the frame before the next one on; None before the first motion
        self._modes: list[tuple[PlayMode, str, str]] = []  # of the same frames
        self._tail: MotionClip | None = None
        self._begin = 0  # index on the time line of the first frame in _clips
        self._next = 0
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
        """Frames ready to be played, without those that still wait for the target depth."""
        return max(0, self._end - self._next)

    @property
    def waiting(self) -> int:
        """Frames that are buffered and not yet on the time line."""
        return sum(stream.depth for stream in self._pending)

    @property
    def started(self) -> bool:
        """Whether the first motion has begun."""
        return self._clips is not None

    @property
    def paused(self) -> bool:
        """Whether playback is held by :meth:`pause`."""
        return self._paused

    def push(self, chunk: StreamChunk) -> PlannedFrames | None:
        """Take the next chunk of a stream.

        Doubled frames are dropped. Where frames were lost playback goes on with a cross-fade. A chunk of a new stream
        begins that stream: with ``append`` after the present one, otherwise in its place.

        Returns:
            Frames that are on the time line now, if any.

        Raises:
            MotionDataError: frames jump, or have another rate than 30 FPS; the chunk is dropped and counted.
        """
        if chunk.stream_id in self._retired:
            self.counters.doubled += len(chunk.clip)
            return None
        stream = self._stream_of(chunk)
        chunk_clip = self._checked(chunk, stream)
        self.counters.received += len(chunk.clip)
        self.counters.doubled += len(chunk.clip) - len(chunk_clip)
        lost = chunk.start_index - stream.expected if stream.last is not None else 0
        stream.expected = max(stream.expected, chunk.start_index + len(chunk.clip))
        stream.is_final = stream.is_final or chunk.is_final
        if lost > 0:
            self.counters.lost += lost
            self._wait_again(stream)
        if len(chunk_clip):
            stream.last = chunk_clip.sliced(len(chunk_clip) - 1)
            if stream is self._playing:
                return self._append(chunk_clip)
            stream.waiting.append(chunk_clip)
        elif stream.is_final and not stream.append and stream.last is None:
            self._drop(stream)
            return self.stop()
        return self._begin_pending()

    def pop(self) -> PlayedFrame | None:
        """The next frame; to be called 30 times a second. None before the first motion has begun."""
        self._begin_pending_at_end()
        if self._clips is None:
            return None
        clip, (mode, text, prompt_id) = self._at(self._next)
        frame = PlayedFrame(self._next, clip, mode, text, prompt_id)
        self._next += 1
        if self._next > self._end + 1 and self._playing is not None:
            self._run_out()
        self._forget_played()
        return frame

    def stop(self) -> PlannedFrames | None:
        """Drop everything that is not played yet, brake and hold. Streams in progress are ignored from now on."""
        for stream in [self._playing, *self._pending]:
            if stream is not None:
                self._retired.append(stream.stream_id)
        self._playing = None
        self._pending.clear()
        return self._cut()

    def pause(self) -> PlannedFrames | None:
        """Brake and hold; what is not played yet is kept for :meth:`resume`."""
        if self._paused:
            return None
        self._paused = True
        if self._clips is None:
            return None
        start = min(self._next + SPLICE_MARGIN, self._end) - self._begin
        rest = self._clips.sliced(max(start, 1))
        stream = self._playing
        if len(rest) and stream is None:
            _, text, prompt_id = self._modes[-1]
            stream = _Stream("", False, text, prompt_id, 0, is_final=True)
        if stream is not None:
            stream.waiting.insert(0, rest)
            self._pending.appendleft(stream)
        self._playing = None
        return self._cut()

    def resume(self) -> PlannedFrames | None:
        """Go on after :meth:`pause`, with a cross-fade."""
        self._paused = False
        return self._begin_pending()

    # --- streams ----------------------------------------------------------------------------------------------------

    def _stream_of(self, chunk: StreamChunk) -> _Stream:
        for stream in [self._playing, *self._pending]:
            if stream is not None and stream.stream_id == chunk.stream_id:
                return stream
        stream = _Stream(chunk.stream_id, chunk.append, chunk.text, chunk.prompt_id, chunk.start_index)
        if not chunk.append:
            for old in self._pending:
                self._retired.append(old.stream_id)
            self._pending.clear()
        self._pending.append(stream)
        return stream

    def _drop(self, stream: _Stream) -> None:
        self._retired.append(stream.stream_id)
        if stream in self._pending:
            self._pending.remove(stream)

    def _checked(self, chunk: StreamChunk, stream: _Stream) -> MotionClip:
        clip = chunk.clip
        new = clip.sliced(min(max(0, stream.expected - chunk.start_index), len(clip)))
        problem = ""
        if len(clip) and clip.frame_rate != FRAME_RATE:
            problem = f"has {clip.frame_rate:g} FPS, expected 30; resample it first"
        elif self.depth + self.waiting + len(new) > MAX_BUFFERED:
            problem = f"does not fit: {MAX_BUFFERED} frames are waiting to be played; send motion at its own pace"
        elif len(new):
            continues = stream.last is not None and chunk.start_index <= stream.expected
            both = concatenated([stream.last, new]) if continues else new
            turns = geodesic_angle(both.rotations[:-1], both.rotations[1:])
            steps = np.linalg.norm(np.diff(both.root_positions, axis=0), axis=-1)
            if turns.max(initial=0.0) > MAX_JOINT_STEP or steps.max(initial=0.0) > MAX_ROOT_STEP:
                problem = (
                    f"jumps by {turns.max(initial=0.0):.2f} rad and {steps.max(initial=0.0):.2f} m between two frames, "
                    f"at most {MAX_JOINT_STEP:g} rad and {MAX_ROOT_STEP:g} m are played"
                )
        if problem:
            self.counters.rejected_chunks += 1
            raise MotionDataError(f"chunk {chunk.start_index} of stream {chunk.stream_id!r} {problem}.")
        return new

    def _wait_again(self, stream: _Stream) -> None:
        """Frames of the stream are missing: collect the target depth anew, then fade in."""
        if stream is self._playing:
            self._playing = None
            self._pending.appendleft(stream)
            stream.append = False

    def _run_out(self) -> None:
        stream, self._playing = self._playing, None
        if stream.is_final:
            self._retired.append(stream.stream_id)
        else:
            self.counters.underruns += 1
            stream.append = False
            self._pending.appendleft(stream)

    def _begin_pending(self) -> PlannedFrames | None:
        """Put the first waiting stream on the time line, if it may begin and has enough frames."""
        if self._paused or not self._pending:
            return None
        stream = self._pending[0]
        enough = stream.depth >= self.target_depth or (stream.is_final and stream.depth > 0)
        if not enough or (stream.append and self._playing is not None):
            return None
        self._pending.popleft()
        if self._playing is not None:
            self._retired.append(self._playing.stream_id)
        clip, stream.waiting = concatenated(stream.waiting), []
        index = self._next if self._clips is None else self._next + SPLICE_MARGIN
        if stream.append and self._clips is not None:
            index = max(index, self._end)
        self._start(stream, clip, index)
        return self._append(clip)

    def _begin_pending_at_end(self) -> None:
        """An appended stream may begin once the one before has been received and is about to end."""
        playing = self._playing
        if playing is not None and playing.is_final and self._pending and self._pending[0].append:
            self._retired.append(playing.stream_id)
            self._playing = None

    # --- time line --------------------------------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        """Index behind the last frame of motion."""
        return self._begin + len(self._modes)

    def _at(self, index: int) -> tuple[MotionClip, tuple[PlayMode, str, str]]:
        offset = index - self._begin
        if offset < len(self._modes):
            return self._clips.sliced(offset, offset + 1), self._modes[offset]
        offset = min(offset - len(self._modes), len(self._tail) - 1)
        _, text, prompt_id = self._modes[-1]
        return self._tail.sliced(offset, offset + 1), (PlayMode.HOLD, text, prompt_id)

    def _span(self, start: int, count: int) -> MotionClip:
        return concatenated([self._at(index)[0] for index in range(start, start + count)])

    def _start(self, stream: _Stream, clip: MotionClip, index: int) -> None:
        self._playing = stream
        if self._clips is None:
            self._splice = None
            self._begin = index
            return
        length = fade_length(self._span(index, 1), clip, self.blend_speed)
        self._splice = Splice(self._span(index - 1, 1), self._span(index, length))
        self._keep_until(index)

    def _keep_until(self, index: int) -> None:
        """Fix the time line up to ``index``: frames behind are dropped, frames of the tail before it become its own."""
        kept = self._span(self._begin, index - self._begin)
        modes = [self._at(i)[1] for i in range(self._begin, index)]
        self._set(kept, modes)

    def _append(self, clip: MotionClip) -> PlannedFrames:
        stream, index, fading = self._playing, self._end, 0
        if self._splice is not None:
            fading = self._splice.fading
            clip = self._splice.carry_over(clip)
        modes = [
            (PlayMode.BLEND if k < fading else PlayMode.RUN, stream.text, stream.prompt_id) for k in range(len(clip))
        ]
        before = [] if self._clips is None else [self._clips]
        self._set(concatenated([*before, clip]), [*self._modes, *modes])
        return PlannedFrames(index, clip)

    def _cut(self) -> PlannedFrames | None:
        """Let the time line end as soon as its followers can keep up, in a braking tail."""
        if self._clips is None:
            return None
        index = min(self._next + SPLICE_MARGIN, max(self._end, self._begin + 1))
        if index < self._end:
            self._keep_until(index)
        return PlannedFrames(self._end, self._clips.sliced(0, 0))

    def _set(self, clips: MotionClip, modes: list[tuple[PlayMode, str, str]]) -> None:
        self._clips, self._modes = clips, modes
        self._tail = braked(clips.sliced(max(0, len(clips) - 2)))

    def _forget_played(self) -> None:
        # Two frames before the next one stay: they tell its velocity.
        old = min(self._next - 2 - self._begin, len(self._modes) - 2)
        if old > 30:  # not at every frame: it copies
            self._begin += old
            self._clips, self._modes = self._clips.sliced(old), self._modes[old:]
