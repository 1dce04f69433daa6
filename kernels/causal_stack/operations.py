"""What a causal stack is made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Convolution:
    """Causal convolution as a product with the rows that an output sees, the oldest first; kernel 1 is a linear layer.

    Attributes:
        weight: Shape (outputs, kernel * inputs).
        bias: Shape (outputs,), or None.
        kernel: Rows that an output sees.
        dilation: Rows from one of them to the next.
        stride: Rows in per row out; the last of them is the newest that the output sees.
    """

    weight: Tensor
    bias: Tensor | None = None
    kernel: int = 1
    dilation: int = 1
    stride: int = 1

    @property
    def inputs(self) -> int:
        """Channels in."""
        return self.weight.shape[1] // self.kernel

    @property
    def lookback(self) -> int:
        """Rows of past input that the next output depends on."""
        return (self.kernel - 1) * self.dilation + 1 - self.stride


@dataclass(frozen=True)
class Norm:
    """RMSNorm of each row.

    Attributes:
        weight: Shape (C,).
        epsilon: Added to the mean square.
    """

    weight: Tensor
    epsilon: float


@dataclass(frozen=True)
class Silu:
    """x / (1 + exp(-x))."""


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class Repeat:
    """Every row so many times, one after the other."""

    times: int


@dataclass(frozen=True)
class Keep:
    """Keep the rows for the next :class:`Add`; may be nested."""


@dataclass(frozen=True)
class Add:
    """Add the rows that were kept last."""


Operation = Convolution | Norm | Silu | Relu | Repeat | Keep | Add
