"""The processes that train one model together; one process alone is the plain case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from llamo_ros.core.errors import ParameterError

Item = TypeVar("Item")


class Processes:
    """This process among those of ``torch.distributed``, if it is initialised.

    Args:
        device: Where tensors must lie for the processes to exchange them: a GPU for NCCL.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.count = dist.get_world_size() if together else 1
        self._device = torch.device(device)

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    def share_of(self, items: Sequence[Item]) -> list[Item]:
        """Those of the step's items that this process computes.

        Raises:
            ParameterError: there are fewer items than processes.
        """
        if len(items) < self.count:
            raise ParameterError(f"a step of {len(items)} samples is less than one for each of {self.count} processes.")
        return list(items[self.rank :: self.count])

    def summed(self, values: Tensor) -> Tensor:
        """Sum of ``values`` over all processes, on each of them."""
        if self.count == 1:
            return values
        total = values.detach().to(self._device, copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def agreed(self, flag: bool, seconds: float) -> tuple[bool, float]:
        """Whether the flag is set in any process, and the time of the first: clocks differ, and all do the same."""
        own = torch.tensor([float(flag), seconds if self.is_first else 0.0], dtype=torch.float64)
        flags, of_first = self.summed(own).tolist()
        return flags > 0, of_first

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self.summed(torch.zeros(1))
