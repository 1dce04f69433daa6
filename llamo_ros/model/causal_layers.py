"""Causal layers with exact streaming state, and what a body of the motion VAE is made of.

A causal layer needs some rows of its past input. In one go they are zeros (silence before the clip); in streaming they
are the last rows of the part before. Both give the same output, so a clip may come in parts of any size.
"""

# B batch, T rows in, L rows out (T = stride L)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor, nn

from llamo_ros.kernels.causal_stack import Convolution, Operation


class CausalLinear(nn.Module):
    """Causal convolution over time written as one matrix product on shifted copies of the input.

    The past is (kernel - 1) * dilation + 1 - stride rows, MotionStreamer's left padding: with a stride, the last of
    each ``stride`` rows is the newest that an output sees.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.inputs, self.kernel, self.dilation, self.stride = inputs, kernel, dilation, stride
        self.linear = nn.Linear(inputs * kernel, outputs)

    @property
    def lookback(self) -> int:
        """Rows of past input that the next output depends on."""
        return (self.kernel - 1) * self.dilation + 1 - self.stride

    def operation(self) -> Convolution:
        """The same for a compiled stack."""
        return Convolution(self.linear.weight, self.linear.bias, self.kernel, self.dilation, self.stride)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (B, L, outputs) of rows (B, T, inputs), and the past to give with the next rows; None is silence."""
        if past is None:
            past = x.new_zeros(x.shape[0], self.lookback, x.shape[2])
        history = torch.cat([past, x], dim=1)
        starts = range(0, self.kernel * self.dilation, self.dilation)
        taps = [history[:, start : start + x.shape[1] : self.stride] for start in starts]
        return self.linear(torch.cat(taps, dim=-1)), history[:, history.shape[1] - self.lookback :]


def pointwise(layer: nn.Linear) -> Convolution:
    """A linear layer for a compiled stack."""
    return Convolution(layer.weight, layer.bias)


class Pasts:
    """Hands each causal layer its past, in the order of calls, and keeps the pasts for the next part in ``new``."""

    def __init__(self, state: list[Tensor] | None) -> None:
        self._given: Iterator[Tensor | None] = repeat(None) if state is None else iter(state)
        self.new: list[Tensor] = []

    def __call__(self, layer: CausalLinear, x: Tensor) -> Tensor:
        """Output of the layer."""
        x, past = layer(x, next(self._given))
        self.new.append(past)
        return x


class CausalBody(nn.Module, ABC):
    """An encoder or decoder of causal layers; ``run`` calls each of them once, in the order they were made."""

    @abstractmethod
    def run(self, x: Tensor, pasts: Pasts) -> Tensor:
        """Output of the body; every causal layer goes through ``pasts``."""

    @abstractmethod
    def operations(self) -> list[Operation]:
        """The same row by row, for a compiled stack."""

    def forward(self, x: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Output, and the state to give with the next part; None is the state before a clip."""
        pasts = Pasts(state)
        return self.run(x, pasts), pasts.new

    def state_shapes(self) -> list[tuple[int, int]]:
        """Rows and channels of each tensor of the state."""
        return [(layer.lookback, layer.inputs) for layer in self.modules() if isinstance(layer, CausalLinear)]
