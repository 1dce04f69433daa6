"""The order in which samples of shards are learned from, a function of the seed alone.

Row ``i`` of draw ``n`` is sample ``n * rows + i`` of a stream of epochs, each a permutation of all samples, so nothing
is lost or doubled and every place of the order can be found at once, by any process. A row of the draws is a lane: in
each epoch it reads a few shards of its own, one after the other, so that processes and workers that share out the rows
also share out the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import DatasetError


class ShardOrder:
    """Which sample each row of each draw is.

    Args:
        samples: Positions of the samples to use, by shard.
        lengths: Their lengths, by shard, in any unit.
        rows: Rows of a draw.
        seed: Of the order.
        block: Samples of a lane that are shuffled among each other.
        window: Draws within which every lane sorts its samples so that a draw holds samples of similar length.

    Raises:
        DatasetError: there is no sample.
    """

    def __init__(
        self,
        samples: Sequence[Sequence[int]],
        lengths: Sequence[Sequence[int]],
        rows: int,
        seed: int,
        block: int = 1024,
        window: int = 32,
    ) -> None:
        self._samples = [np.asarray(positions, dtype=np.int64) for positions in samples]
        self._lengths = [np.asarray(own, dtype=np.int64) for own in lengths]
        self._sizes = np.array([len(own) for own in self._samples])
        self.count = int(self._sizes.sum())
        if not self.count:
            raise DatasetError("the shards hold no sample to learn from.")
        self._rows, self._seed, self._block, self._window = rows, seed, block, window
        self._epoch = lru_cache(maxsize=4)(self._find_epoch)
        self._shuffled = lru_cache(maxsize=4 * rows)(self._find_shuffled)
        self._places = lru_cache(maxsize=4 * rows)(self._find_places)

    def sample(self, draw: int, row: int) -> tuple[int, int]:
        """Shard and position within it of a row of a draw, both counted from 0."""
        return self._places(row, draw // self._window)[draw % self._window]

    def _find_places(self, row: int, window: int) -> list[tuple[int, int]]:
        """Samples of a lane in a window of draws, ordered so that lanes have samples of similar length at a time."""
        draws = np.arange(window * self._window, (window + 1) * self._window)
        epochs = (draws * self._rows + row) // self.count
        rank_of = np.random.default_rng([self._seed, 1, window]).permutation(self._window)
        places: list[tuple[int, int]] = [(0, 0)] * self._window
        for epoch in np.unique(epochs):  # samples stay in their epoch
            slots = np.flatnonzero(epochs == epoch)
            own = [self._in_epoch(int(epoch), int(draw) * self._rows + row) for draw in draws[slots]]
            own.sort(key=lambda place: self._lengths[place[0]][place[2]])
            for slot, (shard, position, _) in zip(slots[np.argsort(rank_of[slots])], own, strict=True):
                places[slot] = (shard, position)
        return places

    def _in_epoch(self, epoch: int, number: int) -> tuple[int, int, int]:
        """Shard, position in it and index among its used samples, of a sample of the stream before windows."""
        order, ends = self._epoch(epoch)
        lane, nth = (number - epoch * self.count) % self._rows, (number - epoch * self.count) // self._rows
        share, left = divmod(self.count, self._rows)
        begin, size = lane * share + min(lane, left), share + (lane < left)
        block = nth // self._block
        in_block = min(self._block, size - block * self._block)
        index = begin + block * self._block + int(self._shuffled(epoch, lane, block, in_block)[nth % self._block])
        which = int(np.searchsorted(ends, index, side="right"))
        shard = int(order[which])
        offset = index - int(ends[which] - self._sizes[shard])
        return shard, int(self._samples[shard][offset]), offset

    def _find_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shards in the order of an epoch, and how many samples there are up to each."""
        order = np.random.default_rng([self._seed, 2, epoch]).permutation(len(self._sizes))
        return order, np.cumsum(self._sizes[order])

    def _find_shuffled(self, epoch: int, lane: int, block: int, size: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, 3, epoch, lane, block]).permutation(size)
