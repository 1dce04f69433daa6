"""A stream of human motion on its way to playback: its chunks, what is new in them, and whether that can be played."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE

# Larger steps between two frames are refused. Of 81,458 frames of motion capture (600 clips drawn at random)
# 0.04 % turn a joint further and the root never moves more than 0.16 m.
MAX_JOINT_STEP = 1.5  # [rad] per frame, 45 rad/s
MAX_ROOT_STEP = 0.4  # [m] per frame, 12 m/s


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


@dataclass(eq=False)
class Stream:
    """What has come of a stream; frames wait here until there are enough of them.

    Attributes:
        stream_id: Its id.
        append: Whether it waits for the end of the one before.
        text: Prompt, or empty.
        prompt_id: Its id, or empty.
        expected: Index of the frame that comes next.
        is_final: Whether it has ended.
        waiting: Frames that are not on the time line yet.
        last: The last frame that has come; None before any.
    """

    stream_id: str
    append: bool
    text: str
    prompt_id: str
    expected: int
    is_final: bool = False
    waiting: list[MotionClip] = field(default_factory=list)
    last: MotionClip | None = None

    @classmethod
    def of(cls, chunk: StreamChunk) -> Stream:
        """The stream that begins with a chunk."""
        return cls(chunk.stream_id, chunk.append, chunk.text, chunk.prompt_id, chunk.start_index)

    @property
    def depth(self) -> int:
        """How many frames wait."""
        return sum(len(clip) for clip in self.waiting)

    def new_frames(self, chunk: StreamChunk) -> MotionClip:
        """The frames of a chunk that have not come before; nothing is noted yet."""
        return chunk.clip.sliced(min(max(0, self.expected - chunk.start_index), len(chunk.clip)))

    def check(self, chunk: StreamChunk) -> None:
        """Whether the new frames of a chunk can be played.

        Raises:
            MotionDataError: they are not at 30 FPS, or jump.
        """
        where, new = f"chunk {chunk.start_index} of stream {chunk.stream_id!r}", self.new_frames(chunk)
        if len(chunk.clip) and chunk.clip.frame_rate != FRAME_RATE:
            raise MotionDataError(f"{where} has {chunk.clip.frame_rate:g} FPS, expected 30; resample it first.")
        if not len(new):
            return
        continues = self.last is not None and chunk.start_index <= self.expected
        both = concatenated([self.last, new]) if continues else new
        turn = geodesic_angle(both.rotations[:-1], both.rotations[1:]).max(initial=0.0)
        step = np.linalg.norm(np.diff(both.root_positions, axis=0), axis=-1).max(initial=0.0)
        if turn > MAX_JOINT_STEP or step > MAX_ROOT_STEP:
            raise MotionDataError(
                f"{where} jumps by {turn:.2f} rad and {step:.2f} m from one frame to the next, "
                f"at most {MAX_JOINT_STEP:g} rad and {MAX_ROOT_STEP:g} m are played."
            )
