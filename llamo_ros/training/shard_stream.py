"""Samples of shards, drawn one after the other by worker processes, each process of a training reading its own rows.

The order is a function of the number of the draw (:mod:`~llamo_ros.training.shard_order`), so that number is the whole
state: a stream goes on anywhere, with any number of processes and workers. (``torchdata``'s ``StatefulDataLoader`` ties
its state to the number of workers and to the process.)
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from llamo_ros.training.motion_data import WordedClip
from llamo_ros.training.processes import Processes
from llamo_ros.training.shard_order import ShardOrder
from llamo_ros.training.shards import ShardSet

Sample = tuple[NDArray[np.float32], WordedClip]


class ShardRows(IterableDataset):
    """The rows of this process in each draw, from a draw on, without end; see :class:`ShardStream`."""

    def __init__(self, shards: ShardSet, order: ShardOrder, rows: Sequence[int], start: int) -> None:
        self._shards, self._order, self._rows, self._start = shards, order, rows, start

    def __iter__(self) -> Iterator[list[Sample]]:
        worker = get_worker_info()
        draw, step = (self._start + worker.id, worker.num_workers) if worker else (self._start, 1)
        while True:
            yield [self._shards.read("train", *self._order.sample(draw, row)) for row in self._rows]
            draw += step


class ShardStream:
    """Draws of training samples.

    Args:
        shards: Where they are.
        batch_size: Rows of a draw, over all processes.
        seed: Of the order.
        processes: Those that train together; each reads every ``count``-th row.
        workers: Processes that read ahead for this one; 0 reads in this one.
        drop_static: Whether samples without expressive motion are left out.

    Raises:
        DatasetError: there is no sample.
        ParameterError: a draw has fewer rows than there are processes.
    """

    def __init__(
        self,
        shards: ShardSet,
        batch_size: int,
        seed: int,
        processes: Processes | None = None,
        workers: int = 0,
        drop_static: bool = False,
    ) -> None:
        train = shards.shards["train"]
        used = [[n for n, static in enumerate(shard.static) if not (static and drop_static)] for shard in train]
        lengths = [[shard.lengths[n] for n in own] for shard, own in zip(train, used, strict=True)]
        self.order = ShardOrder(used, lengths, batch_size, seed)
        self.rows = (processes or Processes()).share_of(range(batch_size))
        self._shards, self._workers = shards, workers
        self._position = 0
        self._rows_of_draws: Iterator[list[Sample]] | None = None

    def __next__(self) -> list[Sample]:
        """This process's rows of the next draw."""
        if self._rows_of_draws is None:
            rows = ShardRows(self._shards, self.order, self.rows, self._position)
            loader = DataLoader(
                rows, batch_size=None, num_workers=self._workers, collate_fn=_as_it_is, worker_init_fn=_leave_interrupts
            )
            self._rows_of_draws = iter(loader)
        drawn = next(self._rows_of_draws)
        self._position += 1
        return drawn

    def go_to(self, position: int) -> None:
        """The next draw is number ``position``, counted from 0."""
        if position != self._position:
            self._position, self._rows_of_draws = position, None

    def state_dict(self) -> dict[str, int]:
        """All there is to know to go on."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Inverse of :meth:`state_dict`, also of a stream of another number of processes or workers."""
        self.go_to(state["position"])


def _as_it_is(rows: list[Sample]) -> list[Sample]:
    return rows


def _leave_interrupts(_: int) -> None:
    """Ctrl-C is for the process that trains: it saves first, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
