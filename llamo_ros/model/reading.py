"""Reading: what the backbone holds of a stream, and what it has yet to read before the next latent."""

# C latent channels, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llamo_ros.model.llamo import MOTION
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.slots import Slot, SlotCache


@dataclass(eq=False)
class Reading:
    """The rows of one stream: that of its prompt and, if it is guided, that of the null prompt.

    Attributes:
        unread: Token ids that each row has yet to read.
        context: Latents (C,) at the ``MOTION`` places of those, for each row.
        slots: Place of each row in the cache; none until the first tokens are read.
        hidden: Hidden state (D,) of the newest token of each row; none until then.
    """

    unread: list[list[int]]
    context: list[list[Tensor]]
    slots: list[Slot] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """One, or two with guidance."""
        return len(self.unread)

    @property
    def longest_unread(self) -> int:
        """Tokens that are left to read in the longest row."""
        return max(map(len, self.unread))

    @property
    def length(self) -> int:
        """Tokens of the longest row when all is read."""
        return max((slot.length for slot in self.slots), default=0) + self.longest_unread

    def extend(self, row: int, tokens: Sequence[int], latents: Sequence[Tensor]) -> None:
        """More to read for a row."""
        self.unread[row].extend(tokens)
        self.context[row].extend(latents)

    def take(self, row: int, count: int) -> tuple[list[int], list[Tensor]]:
        """The next ``count`` tokens of a row and their latents, which count as read from now on.

        Words come at once up to the next latent, so that a pass seldom needs the text branch.
        """
        unread = self.unread[row]
        count = max(count, unread.index(MOTION) if MOTION in unread else len(unread))
        tokens, self.unread[row] = self.unread[row][:count], self.unread[row][count:]
        latents = tokens.count(MOTION)
        taken, self.context[row] = self.context[row][:latents], self.context[row][latents:]
        return tokens, taken


def read(readings: Sequence[tuple[Reading, int]], cache: SlotCache, runtime: MotionRuntime) -> None:
    """Read so many tokens, or what :meth:`Reading.take` makes of it, in each row of some streams, all in one pass."""
    rows: list[tuple[Reading, int, int]] = []
    for reading, count in readings:
        if not reading.slots:
            reading.slots = [cache.open() for _ in range(reading.rows)]
            reading.hidden = [torch.empty(0)] * reading.rows
        rows += [(reading, row, count) for row in range(reading.rows) if reading.unread[row]]
    if not rows:
        return
    rows.sort(key=lambda item: item[0].slots[item[1]].row)  # those that follow one another in the cache are not copied
    pieces = [reading.take(row, count) for reading, row, count in rows]
    sequences = [tokens for tokens, _ in pieces]
    latents = [latent for _, taken in pieces for latent in taken]
    nothing = runtime.model.latent_mean.new_zeros(0, len(runtime.model.latent_mean))
    counts = [len(tokens) for tokens in sequences]
    window = cache.window([reading.slots[row] for reading, row, _ in rows], max(counts), counts)
    hidden_RD = runtime.read(sequences, torch.stack(latents) if latents else nothing, window)
    for place, (reading, row, _) in enumerate(rows):
        reading.hidden[row] = hidden_RD[place]
