"""Rows of streaming states: streams that start and stop at different times share one forward pass.

A state of :meth:`~llamo_ros.model.motion_vae.MotionVae.encode` or ``decode`` is a list of tensors, each with the batch
as its first dimension; row i of all of them is the whole past of stream i, and no row sees another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError

StreamState = list[Tensor]


def take_rows(state: StreamState, rows: Sequence[int] | Tensor) -> StreamState:
    """State of some of the streams, in the order of ``rows``; a copy."""
    return [past[_index(rows, past)] for past in state]


def put_rows(state: StreamState, rows: Sequence[int] | Tensor, part: StreamState) -> StreamState:
    """A copy of ``state`` in which stream ``rows[i]`` has row i of ``part``: undoes :func:`take_rows`."""
    return [past.index_copy(0, _index(rows, past), new) for past, new in zip(state, part, strict=True)]


def join_states(states: Sequence[StreamState]) -> StreamState:
    """One state of all streams, one after the other.

    Raises:
        ParameterError: there are no states, or they are not of one body and direction.
    """
    shapes = {tuple(past.shape[1:] for past in state) for state in states}
    if len(shapes) != 1:
        raise ParameterError(
            f"{len(states)} states of {len(shapes)} kinds cannot be joined. Give at least one, all of encode or all of "
            "decode of one VAE."
        )
    return [torch.cat(pasts) for pasts in zip(*states, strict=True)]


def _index(rows: Sequence[int] | Tensor, past: Tensor) -> Tensor:
    return torch.as_tensor(rows, dtype=torch.long, device=past.device)
