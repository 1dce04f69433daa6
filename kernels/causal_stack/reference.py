"""A stack of causal layers over rows in time, in plain PyTorch: the definition of every fast version."""

# B batch, T rows in, L rows out, C channels

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.kernels.causal_stack.operations import Add, Convolution, Keep, Norm, Operation, Relu, Repeat, Silu


def causal_stack(
    operations: Sequence[Operation], x_BTC: Tensor, state: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Output rows (B, L, outputs), and the state to give with the rows that follow.

    Args:
        operations: What is done to the rows, in order.
        x_BTC: Rows, shape (B, T, C).
        state: Past input of each convolution that looks back, shape (B, lookback, channels) each.
    """
    pasts: Iterator[Tensor] = iter(state)
    new: list[Tensor] = []
    kept: list[Tensor] = []
    for operation in operations:
        match operation:
            case Convolution(weight, bias, kernel, dilation, stride):
                history = torch.cat([next(pasts), x_BTC], dim=1) if operation.lookback else x_BTC
                rows = x_BTC.shape[1]
                taps = [history[:, k * dilation : k * dilation + rows : stride] for k in range(kernel)]
                if operation.lookback:
                    new.append(history[:, -operation.lookback :])
                x_BTC = F.linear(torch.cat(taps, dim=-1), weight, bias)
            case Norm(weight, epsilon):
                x_BTC = weight * x_BTC * torch.rsqrt(x_BTC.square().mean(-1, keepdim=True) + epsilon)
            case Silu():
                x_BTC = F.silu(x_BTC)
            case Relu():
                x_BTC = F.relu(x_BTC)
            case Repeat(times):
                x_BTC = x_BTC.repeat_interleave(times, dim=1)
            case Keep():
                kept.append(x_BTC)
            case Add():
                x_BTC = x_BTC + kept.pop()
    return x_BTC, new
