"""From noise to latents: all Euler steps of the flow head in one call.

The flow head is MAR's MLP with adaptive LayerNorm, which LLaMo (arXiv 2602.12370) uses to generate motion latents.
Every shift, scale and gate depends on flow time and condition alone, so the caller computes them for all steps at once
and only what depends on the latent itself is left for the loop: 37 % of the weights.

    sampler = FlowSampler(weights)  # once: packs the weights
    latents = sampler(noise, time_modulations=time, condition_modulations=condition, guidance_scale=2.0)
"""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps, M = 3WN + 2W

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError, ParameterError, ShapeError
from llamo_ros.core.numbers import real_number
from llamo_ros.kernels.backends import check_threads, choose, compiled_kernels, instruction_sets
from llamo_ros.kernels.flow_sampler import reference

__all__ = ["FlowHeadWeights", "FlowSampler", "instruction_sets"]


@dataclass(frozen=True)
class FlowHeadWeights:
    """The layers of the flow head that see the latent; weights are (outputs, inputs) as in ``torch.nn.Linear``.

    LayerNorms have no weights of their own: fold an affine one into the modulation.

    Attributes:
        input_weight: Latent to width, shape (W, Z).
        input_bias: Shape (W,).
        first_weight: First layer of each block, before SiLU, shape (N, W, W).
        first_bias: Shape (N, W).
        second_weight: Second layer of each block, after SiLU, shape (N, W, W).
        second_bias: Shape (N, W).
        output_weight: Width to velocity of the latent, shape (Z, W).
        output_bias: Shape (Z,).
    """

    input_weight: Tensor
    input_bias: Tensor
    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> FlowHeadWeights:
        """The same weights with `function` applied to each tensor, as in ``weights.map(Tensor.double)``."""
        return FlowHeadWeights(*(function(tensor) for tensor in self.tensors().values()))

    def tensors(self) -> dict[str, Tensor]:
        """Each tensor by its name, in the order above."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class FlowSampler:
    """Samples latents with fixed weights. Safe to call from several threads at once; runs without gradients.

    Attributes:
        backend: "reference", "cpu" or "triton", what "auto" became.
        instruction_set: What the "cpu" backend was compiled for, one of :func:`instruction_sets`; None for the others.
        precision: In which the weights of the blocks are kept.
        device: Where arguments must be.
        latent_channels: Z.
        width: W.
        blocks: N.
        threads: How many share a call.
    """

    def __init__(
        self,
        weights: FlowHeadWeights,
        *,
        backend: str = "auto",
        instruction_set: str | None = None,
        precision: str = "float32",
        persistent: bool = False,
        threads: int = 1,
    ) -> None:
        """Copy and pack the weights. Later changes to `weights` have no effect: build a new sampler.

        Args:
            weights: Float32, all on one device, N >= 1.
            backend: "auto" ("cpu" for tensors in main memory, "triton" for those on an NVIDIA GPU where Triton is
                installed, the reference elsewhere), "reference" (PyTorch), "cpu" (compiled) or "triton".
            instruction_set: For the "cpu" backend: one of :func:`instruction_sets`. None takes the fastest.
            precision: In which the "cpu" and "triton" backends keep the blocks' weights: "float32", "bfloat16", "int8"
                or, in Triton only, "float8". Sums are float32, on the CPU of int8 exact; input and output layer stay
                float32. In Triton activations are float32 too, but bfloat16 with more than 4 rows R, unless the weights
                are float32.
            persistent: For the "triton" backend: whether one kernel does all steps, instead of a CUDA graph of many.
            threads: For the "cpu" backend: how many share a call, the caller included. Latents are the same, bit for
                bit. Helpers take only cores that nobody else wants, and are not waited for: where all others are
                busy nothing is gained, and small layers lose (width 384 in int8: up to a fifth of the speed).

        Raises:
            ShapeError: the shapes do not fit together.
            ParameterError: a tensor is not float32, or not finite, or on another device than the first, or `threads` is
                not from 1 to the cores that this process may use.
            BackendError: the backend, instruction set, precision or threads cannot run here, or the kernels are not
                built, or `persistent` is asked of another backend than "triton".
        """
        _check_weights(weights)
        self.device = weights.input_weight.device
        self.width, self.latent_channels = weights.input_weight.shape
        self.blocks = len(weights.first_weight)
        self.backend, self.instruction_set, self.precision = choose(
            backend, self.device, instruction_set, precision, has_triton=True
        )
        check_threads(threads, self.backend)
        self.threads = threads
        if persistent and self.backend != "triton":
            raise BackendError(f"backend {self.backend!r} has no persistent kernel. Leave it out, or use 'triton'.")
        if self.backend == "triton":
            from llamo_ros.kernels.flow_sampler.triton_kernel import TritonFlowSampler  # Triton need not be installed

            self._sample = TritonFlowSampler(weights, precision, persistent)
        elif self.backend == "cpu":
            kernels = compiled_kernels("flow_sampler")
            arrays = (tensor.detach().contiguous().numpy() for tensor in weights.tensors().values())
            self._weights = kernels.FlowSamplerWeights(
                *arrays, instruction_set=self.instruction_set, precision=precision, threads=threads
            )
            self._sample = kernels.flow_sampler
        else:
            self._weights = weights.map(lambda tensor: tensor.detach().clone())

    @torch.no_grad()
    def __call__(
        self,
        noise: Tensor,
        *,
        time_modulations: Tensor | None = None,
        condition_modulations: Tensor | None = None,
        modulations: Tensor | None = None,
        guidance_scale: float | None = None,
    ) -> Tensor:
        """Follow the velocity field from flow time 0 (noise) to 1 (latents) in S Euler steps of 1 / S.

        A row of modulations holds [shift, scale, gate] for each block, then [shift, scale] for the output, W values
        each. Step k uses flow time k / S. All arguments are float32 on the sampler's device; none is written.

        Args:
            noise: Where to start, shape (B, Z).
            time_modulations: Part that depends on flow time, shape (S, M). Added to `condition_modulations`.
            condition_modulations: Part that depends on the condition, shape (R, M).
            modulations: The sum of both where it does not come apart, shape (S, R, M); instead of the two.
            guidance_scale: None for no guidance, R = B. A number for classifier-free guidance, R = 2B: B conditional
                rows, then B null rows; velocity = null + guidance_scale * (conditional - null).

        Returns:
            Latents, shape (B, Z), fresh memory.

        Raises:
            ShapeError: a shape does not fit the weights or the other arguments.
            ParameterError: modulations are given in neither or both forms, a tensor is not float32 or elsewhere than
                the weights, `guidance_scale` is no finite number, or the latents come out NaN or infinite.
        """
        forms = {
            "time_modulations": time_modulations,
            "condition_modulations": condition_modulations,
            "modulations": modulations,
        }
        given = {name: tensor for name, tensor in forms.items() if tensor is not None}
        if list(given) not in (["time_modulations", "condition_modulations"], ["modulations"]):
            raise ParameterError(
                f"modulations were given as {' and '.join(given) or 'nothing'}. Give either time_modulations (S, M) "
                "together with condition_modulations (R, M), or modulations (S, R, M)."
            )
        if guidance_scale is not None and not math.isfinite(real_number(guidance_scale)):
            raise ParameterError(f"guidance_scale is {guidance_scale!r}, expected a finite number, or None for none.")
        time = modulations if time_modulations is None else time_modulations
        self._check_call(noise, time, condition_modulations, guidance_scale is not None)

        if self.backend == "cpu":
            noise_array, time_array, condition_array = (
                None if tensor is None else tensor.detach().contiguous().numpy()
                for tensor in (noise, time, condition_modulations)
            )
            latents = torch.from_numpy(
                self._sample(self._weights, noise_array, time_array, condition_array, guidance_scale)
            )
        elif self.backend == "triton":
            latents = self._sample(noise, time, condition_modulations, guidance_scale)
        else:
            full = time if condition_modulations is None else time[:, None] + condition_modulations
            latents = reference.flow_sampler(self._weights, noise.clone(), full, guidance_scale)
        # One look at the result instead of one at every argument: the loop lets no NaN or infinity disappear.
        if not torch.isfinite(latents).all():
            _raise_not_finite({"noise": noise, **given})
        return latents

    def _check_call(self, noise: Tensor, time: Tensor, condition: Tensor | None, guided: bool) -> None:
        """Shapes, dtypes and devices of a call; `time` is (S, M), or (S, R, M) when `condition` is None."""
        time_name = "modulations" if condition is None else "time_modulations"
        _check_tensors({"noise": noise, time_name: time, "condition_modulations": condition}, self.device)
        if noise.ndim != 2 or noise.shape[1] != self.latent_channels:
            raise ShapeError("noise", noise.shape, f"(B, {self.latent_channels})", "Latents are rows.")
        rows = len(noise) * (2 if guided else 1)
        row_size = (3 * self.blocks + 2) * self.width
        advice = f"Width {self.width} and {self.blocks} blocks make rows of {row_size}; " + (
            f"guidance makes {rows} rows, {len(noise)} conditional then {len(noise)} null."
            if guided
            else f"{len(noise)} samples make {rows} rows; for twice as many give guidance_scale."
        )
        middle = (rows,) if condition is None else ()
        if time.shape[1:] != (*middle, row_size) or len(time) == 0:
            wanted = ", ".join(str(size) for size in ("S >= 1", *middle, row_size))
            raise ShapeError(time_name, time.shape, f"({wanted})", advice)
        if condition is not None and condition.shape != (rows, row_size):
            raise ShapeError("condition_modulations", condition.shape, f"({rows}, {row_size})", advice)


def _check_weights(weights: FlowHeadWeights) -> None:
    """Raise unless every tensor is finite float32 on one device and the shapes fit together."""
    tensors = weights.tensors()
    _check_tensors(tensors, weights.input_weight.device if isinstance(weights.input_weight, Tensor) else None)
    if weights.input_weight.ndim != 2 or 0 in weights.input_weight.shape:
        raise ShapeError("input_weight", weights.input_weight.shape, "(W, Z)", "W is the width, Z the latent channels.")
    if weights.first_weight.ndim != 3 or len(weights.first_weight) == 0:
        raise ShapeError("first_weight", weights.first_weight.shape, "(N, W, W)", "Stack the layers of the N blocks.")
    width, channels = weights.input_weight.shape
    blocks = len(weights.first_weight)
    expected = {
        "input_bias": (width,),
        "first_weight": (blocks, width, width),
        "first_bias": (blocks, width),
        "second_weight": (blocks, width, width),
        "second_bias": (blocks, width),
        "output_weight": (channels, width),
        "output_bias": (channels,),
    }
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ShapeError(
                name,
                tensors[name].shape,
                str(shape),
                f"input_weight {(width, channels)} says width {width} and {channels} latent channels, "
                f"first_weight says {blocks} blocks.",
            )
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ParameterError(f"{', '.join(broken)} contain NaN or infinite values. Use an undamaged checkpoint.")


def _check_tensors(tensors: dict[str, Tensor | None], device: torch.device | None) -> None:
    """Raise unless each one that is given is a float32 tensor on `device`."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise ParameterError(f"{name} is a {type(tensor).__name__}, expected a torch.Tensor. Convert it first.")
        if tensor.dtype != torch.float32:
            raise ParameterError(f"{name} is {tensor.dtype}, expected torch.float32. Convert it with .float().")
        if tensor.device != device:
            raise ParameterError(f"{name} is on {tensor.device}, expected {device}. Move it with .to('{device}').")


def _raise_not_finite(arguments: dict[str, Tensor]) -> None:
    """Say which argument made the latents NaN or infinite."""
    broken = [name for name, tensor in arguments.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ParameterError(f"{', '.join(broken)} contain NaN or infinite values. Check what computed them.")
    raise ParameterError(
        "the latents left the range of float32, although all arguments are finite. The velocity field diverges: "
        "lower guidance_scale, and check that weights and modulations belong to the same checkpoint."
    )
