"""What an importer yields, and how a take becomes clips: at 30 FPS, on the floor, cut where its captions say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.placement import canonicalised
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.training.importing.texts import FileTexts
from llamo_ros.training.source_data import TimedCaption

# Of motion capture, [Hz]; what is outside is a damaged file.
FRAME_RATES = (1.0, 2000.0)


@dataclass(frozen=True)
class ImportedClip:
    """One clip of a collection.

    Attributes:
        id: Name, unique in the collection.
        motion: The motion at 30 FPS, floor of its take at y = 0, first frame at x = z = 0, facing +z.
        captions: Its captions; times are seconds inside the clip.
        take: The recording that it is a piece of.
        source_file: Path of its file inside the collection.
        start_s: Where the clip begins in its file, [s].
        split: ``train``, ``val`` or ``test`` if the collection says so; empty leaves it to the hash of the take.
        content: Label of what is done, or empty.
        style: Label of how it is done, or empty.
    """

    id: str
    motion: MotionClip
    captions: tuple[TimedCaption, ...]
    take: str
    source_file: str
    start_s: float = 0.0
    split: str = ""
    content: str = ""
    style: str = ""


@dataclass(frozen=True)
class Rejected:
    """One clip or file of a collection that cannot be imported, and why in a sentence."""

    id: str
    source_file: str
    reason: str
    text: str


class Collection(Protocol):
    """A motion collection on disk.

    Attributes:
        origin: What it is, for the index rows, e.g. ``AMASS``.
        notes: What the import leaves out or does not know, one sentence each.
    """

    origin: str
    notes: tuple[str, ...]

    def keys(self) -> Iterator[str]:
        """Names of the parts that are read one by one, in an order that is the same at every call."""
        ...

    def read(self, key: str) -> Sequence[ImportedClip | Rejected]:
        """All clips of one part.

        Raises:
            LlamoError: the part cannot be read.
        """
        ...


def take_on_floor(clip: MotionClip) -> MotionClip:
    """A take at 30 FPS, with its floor at y = 0 and its first frame at x = z = 0, facing +z.

    Raises:
        MotionDataError: its frame rate is none of motion capture; resampled, it might not fit into memory.
    """
    least, most = FRAME_RATES
    if not least <= clip.frame_rate <= most:
        raise MotionDataError(
            f"its frame rate is {clip.frame_rate:g} Hz, expected {least:g} to {most:g}; correct the file or remove it."
        )
    return canonicalised(clip.resampled(FRAME_RATE))


def piece(take: MotionClip, start: int, stop: int) -> MotionClip:
    """Frames ``start`` to ``stop`` (not included) of a take on its floor, moved to x = z = 0 and turned to face +z."""
    part = take.sliced(max(0, start), max(0, stop))
    placed = canonicalised(part)
    roots = placed.root_positions.copy()
    roots[:, 1] = part.root_positions[:, 1]  # the floor is that of the take: a piece on a chair stays on the chair
    return replace(placed, root_positions=roots)


def clips_of_file(
    name: str, source_file: str, take: MotionClip, texts: FileTexts, longest_s: float
) -> list[ImportedClip]:
    """All clips of a file that is one take.

    Args:
        name: Name of the file, unique in the collection; pieces get a number behind it.
        source_file: Its path inside the collection.
        take: Its motion at 30 FPS, on its floor.
        texts: What is said of it.
        longest_s: Longest piece of a take without captions, [s].
    """
    pieces = list(cut(take, texts.captions, longest_s))
    return [
        ImportedClip(
            id=name if len(pieces) == 1 else f"{name}_{number:03d}",
            motion=motion,
            captions=captions,
            take=texts.take or name,
            source_file=source_file,
            start_s=start_s,
            split=texts.split,
            content=texts.content,
            style=texts.style,
        )
        for number, (start_s, motion, captions) in enumerate(pieces)
    ]


def cut(
    take: MotionClip, captions: Sequence[TimedCaption], longest_s: float
) -> Iterator[tuple[float, MotionClip, tuple[TimedCaption, ...]]]:
    """Clips of a take: one for each time span that has a caption, and the whole.

    The whole take is a clip where a caption stands for all of it, and where no caption has a time. Without any caption
    it is cut into equal pieces of at most ``longest_s``, [s].

    Args:
        take: The take, on its floor.
        captions: Its captions; times are seconds inside the take.
        longest_s: Longest piece of a take without captions, [s].

    Yields:
        Where the clip begins in the take, [s], its motion, and its captions.
    """
    whole = tuple(caption for caption in captions if caption.start is None or caption.end is None)
    spans: dict[tuple[float, float], list[TimedCaption]] = {}
    for caption in captions:
        if caption.start is not None and caption.end is not None:
            spans.setdefault((caption.start, caption.end), []).append(TimedCaption(caption.text))
    if whole:
        yield 0.0, take, tuple(TimedCaption(caption.text) for caption in whole)
    for (start_s, end_s), texts in spans.items():
        motion = piece(take, round(start_s * take.frame_rate), round(end_s * take.frame_rate))
        if len(motion):
            yield start_s, motion, tuple(texts)
    if not captions and len(take):
        count = max(1, math.ceil(take.duration / longest_s))
        edges = [round(number * len(take) / count) for number in range(count + 1)]
        for start, stop in pairwise(edges):
            yield start / take.frame_rate, piece(take, start, stop) if count > 1 else take, ()
