"""Convolutional body of the motion VAE: the causal autoencoder of MotionStreamer, which LLaMo takes over.

Frame rate is halved twice on the way in and doubled twice on the way out. ReLU throughout, no normalisation. At the
paper's size (width 1024, dilations 9, 3, 1) encoder and decoder have about 38 M parameters each; a latent sees 172
frames before its own, a frame 43 or 44 latents before its own.
"""

# B batch, T frames, L latents (T = 4 L), F features, W width, C latent channels

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.kernels.causal_stack import Add, Keep, Operation, Relu, Repeat
from llamo_ros.model.causal_layers import CausalBody, CausalLinear, Pasts, pointwise

HALVINGS = 2  # of the frame rate: 30 Hz, 15 Hz, 7.5 Hz

Layer = TypeVar("Layer", bound=nn.Module)


class ConvBlock(nn.Module):
    """x + pointwise(ReLU(dilated causal conv(ReLU(x))))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.temporal = _initialised(CausalLinear(width, width, kernel=3, dilation=dilation), after_relu=True)
        self.mix = _initialised(nn.Linear(width, width), after_relu=True)
        with torch.no_grad():
            self.mix.weight.mul_(0.3)

    def forward(self, x: Tensor, pasts: Pasts) -> Tensor:
        """Rows of the same shape (B, rows, W)."""
        return x + self.mix(F.relu(pasts(self.temporal, F.relu(x))))

    def operations(self) -> list[Operation]:
        """The same for a compiled stack."""
        return [Keep(), Relu(), self.temporal.operation(), Relu(), pointwise(self.mix), Add()]


class ConvStage(nn.Module):
    """The part between two frame rates: a ResNet, with a strided convolution before it or an upsampling one after it.

    ``reverse`` doubles the frame rate, otherwise it is halved.
    """

    def __init__(self, width: int, dilations: tuple[int, ...], reverse: bool, after_relu: bool) -> None:
        super().__init__()
        self.reverse = reverse
        if not reverse:
            self.resample = _initialised(CausalLinear(width, width, kernel=4, stride=2), after_relu)
        self.blocks = nn.ModuleList(ConvBlock(width, dilation) for dilation in dilations)
        if reverse:
            self.resample = _initialised(CausalLinear(width, width, kernel=3), after_relu)

    def forward(self, x: Tensor, pasts: Pasts) -> Tensor:
        """Half or twice as many rows."""
        if not self.reverse:
            x = pasts(self.resample, x)
        for block in self.blocks:
            x = block(x, pasts)
        return pasts(self.resample, x.repeat_interleave(2, dim=1)) if self.reverse else x

    def operations(self) -> list[Operation]:
        """The same for a compiled stack."""
        blocks = [operation for block in self.blocks for operation in block.operations()]
        resample = self.resample.operation()
        return [*blocks, Repeat(2), resample] if self.reverse else [resample, *blocks]


class ConvEncoder(CausalBody):
    """Frames (B, T, F) to rows (B, T / 4, outputs)."""

    def __init__(self, features: int, width: int, outputs: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.input = _initialised(CausalLinear(features, width, kernel=3))
        self.stages = nn.ModuleList(
            ConvStage(width, dilations, reverse=False, after_relu=number == 0) for number in range(HALVINGS)
        )
        self.last = _initialised(CausalLinear(width, width, kernel=3))
        self.output = _initialised(nn.Linear(width, outputs))

    def run(self, x: Tensor, pasts: Pasts) -> Tensor:
        """Rows (B, T / 4, outputs)."""
        x = F.relu(pasts(self.input, x))
        for stage in self.stages:
            x = stage(x, pasts)
        return self.output(pasts(self.last, x))

    def operations(self) -> list[Operation]:
        """See :class:`CausalBody`."""
        stages = [operation for stage in self.stages for operation in stage.operations()]
        return [self.input.operation(), Relu(), *stages, self.last.operation(), pointwise(self.output)]


class ConvDecoder(CausalBody):
    """Latents (B, L, C) to frames (B, 4 L, F)."""

    def __init__(self, latent_dim: int, width: int, features: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.widen = _initialised(nn.Linear(latent_dim, width))
        self.input = _initialised(CausalLinear(width, width, kernel=3))
        self.stages = nn.ModuleList(
            ConvStage(width, dilations, reverse=True, after_relu=False) for _ in range(HALVINGS)
        )
        self.last = _initialised(CausalLinear(width, width, kernel=3))
        self.output = _initialised(CausalLinear(width, features, kernel=3), after_relu=True)

    def run(self, z_BLC: Tensor, pasts: Pasts) -> Tensor:
        """Frames (B, 4 L, F)."""
        x = F.relu(pasts(self.input, self.widen(z_BLC)))
        for stage in self.stages:
            x = stage(x, pasts)
        return pasts(self.output, F.relu(pasts(self.last, x)))

    def operations(self) -> list[Operation]:
        """See :class:`CausalBody`."""
        stages = [operation for stage in self.stages for operation in stage.operations()]
        first = [pointwise(self.widen), self.input.operation(), Relu()]
        return [*first, *stages, self.last.operation(), Relu(), self.output.operation()]


def _initialised(layer: Layer, after_relu: bool = False) -> Layer:
    """The layer with weights that keep the variance of its input: without normalisation nothing else would."""
    linear = layer.linear if isinstance(layer, CausalLinear) else layer
    if not linear.weight.is_meta:
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu" if after_relu else "linear")
    nn.init.zeros_(linear.bias)
    return layer
