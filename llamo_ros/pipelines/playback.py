"""PlaybackBuffer: streams of human motion in, at their own pace; one frame per call out, without a gap.

When frames run out playback brakes and holds, when they come it fades in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.pipelines.stream import Stream, StreamChunk
from llamo_ros.pipelines.time_line import PlayedFrame, TimeLine

MAX_BUFFERED = 1800  # frames; a minute of motion. A source that sends more has no pacing
_REMEMBERED_STREAMS = 32


@dataclass
class PlaybackCounters:
    """What happened so far, in frames unless it says otherwise."""

    received: int = 0
    doubled: int = 0
    lost: int = 0
    rejected_chunks: int = 0
    underruns: int = 0


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
        self.target_depth = target_depth
        self.counters = PlaybackCounters()
        self._line = TimeLine(blend_speed)
        self._playing: Stream | None = None  # feeds the time line directly
        self._pending: deque[Stream] = deque()
        self._retired: deque[str] = deque(maxlen=_REMEMBERED_STREAMS)
        self._paused = False

    @property
    def next_index(self) -> int:
        """Index of the frame that the next :meth:`pop` returns."""
        return self._line.next_index

    @property
    def depth(self) -> int:
        """Frames of motion that are ready to be played."""
        return max(0, self._line.end - self._line.next_index)

    @property
    def waiting(self) -> int:
        """Frames that wait for the target depth, or for the motion before them to end."""
        return sum(stream.depth for stream in self._pending)

    @property
    def started(self) -> bool:
        """Whether the first motion has begun."""
        return self._line.has_begun

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
                self._line.append(stream, new)
            else:
                stream.waiting.append(new)
        self._begin_ready_streams()

    def _begin_ready_streams(self) -> None:
        while (stream := self._ready_stream()) is not None:
            self._pending.remove(stream)
            if self._playing is not None:
                self._retired.append(self._playing.stream_id)
            clip, stream.waiting = concatenated(stream.waiting), []
            self._line.begin_stream(stream, clip)
            self._playing = stream

    def commit(self, until: int) -> list[PlayedFrame]:
        """Frames that will be played for certain: those of motion before ``until`` that were not handed out yet.

        Where motion has run out, ``HOLD_AHEAD`` frames of braking and holding are among them.
        """
        frames = self._line.commit(until)
        self._check_for_end(self._line.committed)
        return frames

    def recommit(self, index: int) -> None:
        """Take the frames before ``index`` for handed out, and :meth:`commit` those from there on anew."""
        self._line.recommit(index)
        self._check_for_end(self._line.committed)

    def pop(self) -> PlayedFrame | None:
        """The next frame; to be called 30 times a second. None before the first motion has begun."""
        if not self._line.has_begun:
            return None
        frame = self._line.pop()
        self._check_for_end(self._line.next_index)
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
            self._line.cut()
        else:
            self._line.cut_from(keep_until)

    def clear(self) -> None:
        """Forget all motion, for as long as no frame was played. Streams in progress are ignored from now on.

        Raises:
            ParameterError: frames were played already; :meth:`stop` brakes from them.
        """
        if self._line.next_index:
            raise ParameterError("frames were played already; stop instead of clearing.")
        self.stop()
        self._line.clear()

    def ignore(self, stream_id: str) -> None:
        """Drop whatever comes of a stream from now on."""
        if stream_id not in self._retired:
            self._retired.append(stream_id)

    def pause(self) -> None:
        """Brake and hold; what is not played yet is kept for :meth:`resume`."""
        if self._paused:
            return
        self._paused = True
        rest: list[Stream] = []
        for stream, clip in self._line.rest():
            stream.waiting.insert(0, clip)
            stream.append = bool(rest)
            rest.append(stream)
            if stream.stream_id in self._retired:
                self._retired.remove(stream.stream_id)
        if self._playing is not None and self._playing not in rest:
            rest.append(self._playing)
        self._pending = deque([*rest, *(stream for stream in self._pending if stream not in rest)])
        self._playing = None
        self._line.cut()

    def resume(self) -> None:
        """Go on after :meth:`pause`, with a cross-fade."""
        self._paused = False
        self._begin_ready_streams()

    def _stream_of(self, chunk: StreamChunk) -> Stream:
        for stream in [self._playing, *self._pending]:
            if stream is not None and stream.stream_id == chunk.stream_id:
                return stream
        return Stream.of(chunk)

    def _enqueue(self, stream: Stream) -> None:
        if not stream.append:
            self._retired.extend(old.stream_id for old in self._pending)
            self._pending.clear()
        self._pending.append(stream)

    def _checked(self, chunk: StreamChunk, stream: Stream) -> MotionClip:
        """The frames of a chunk that are new, if they can be played."""
        new = stream.new_frames(chunk)
        self.check_size(len(new))
        try:
            stream.check(chunk)
        except MotionDataError:
            self.counters.rejected_chunks += 1
            raise
        return new

    def _ready_stream(self) -> Stream | None:
        """The waiting stream that may begin now."""
        while self._pending and self._pending[0].is_final and not self._pending[0].depth:
            self._retired.append(self._pending.popleft().stream_id)
        if self._paused or not self._pending:
            return None
        stream, playing = self._pending[0], self._playing
        enough = stream.depth >= self.target_depth or stream.is_final
        is_its_turn = not stream.append or playing is None or playing.is_final
        return stream if enough and stream.depth and is_its_turn else None

    def _wait_again(self, stream: Stream) -> None:
        """Frames of the stream are missing: play what is there, collect the target depth anew, then fade in."""
        stream.waiting.clear()
        if stream is self._playing:
            stream.append = True
            self._playing = None
            self._pending.appendleft(stream)

    def _check_for_end(self, index: int) -> None:
        """Note that motion has ended or run out, if frames of the tail before ``index`` are played or committed."""
        if self._playing is None or index <= self._line.end:
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
