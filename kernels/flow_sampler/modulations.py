"""The modulations of all steps and rows of a latent in one matrix product, by far its largest."""

# P rows (steps times rows where modulations do not come apart), W width, M modulations of a row

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.kernels.backends import compiled_kernels

__all__ = ["ModulationLayer"]


class ModulationLayer:
    """A linear layer with fixed weights, by the kernels of the flow sampler's backend.

    Attributes:
        backend: "cpu" (compiled), "triton" (``mod_gemm``) or "reference" (PyTorch).
        precision: In which the weights are kept: "float32", or "bfloat16" where the sampler's blocks have less. Sums
            are float32. Checkpoints hold bfloat16, so that nothing is lost.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        backend: str,
        precision: str = "float32",
        instruction_set: str | None = None,
    ) -> None:
        """Prepare the weights. They are copied where they are packed or rounded.

        Args:
            weight: Float32, shape (M, W).
            bias: Float32, shape (M,), or None.
            backend: What a flow sampler chose: "cpu", "triton" or "reference".
            precision: That of the sampler's blocks.
            instruction_set: For "cpu": what the sampler chose.

        Raises:
            BackendError: the kernels of that backend cannot run on the device of the weights.
        """
        self.backend = backend
        self.precision = "float32" if precision == "float32" else "bfloat16"
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        if backend == "triton":
            from llamo_ros.kernels.flow_sampler.triton_kernel import mod_gemm  # Triton need not be installed

            self._gemm = mod_gemm
            self._weight = self._weight if self.precision == "float32" else self._weight.bfloat16()
        elif backend == "cpu":
            kernels = compiled_kernels("flow_sampler")
            self._modulate = kernels.modulate
            self._packed = kernels.ModulationWeights(
                self._weight.contiguous().numpy(),
                None if self._bias is None else self._bias.contiguous().numpy(),
                instruction_set=instruction_set,
                precision=self.precision,
            )
            self._width, self._weight, self._bias = weight.shape[1], None, None

    @torch.no_grad()
    def __call__(self, activations: Tensor) -> Tensor:
        """Modulations (..., M), float32.

        Args:
            activations: SiLU of the embeddings, shape (..., W), float32. The weight is read once for all rows.

        Raises:
            ShapeError: the shape does not fit the weight.
            ParameterError: they are not float32, or elsewhere than the weight.
        """
        if self.backend == "reference":
            return F.linear(activations, self._weight, self._bias)
        rows_PW = activations.reshape(-1, activations.shape[-1])
        if self.backend == "triton":
            rows_PM = self._gemm(rows_PW, self._weight, self._bias)
        else:
            if rows_PW.shape[1] != self._width:
                raise ShapeError("activations", activations.shape, f"(..., {self._width})", "One row per condition.")
            if rows_PW.dtype != torch.float32 or rows_PW.device.type != "cpu":
                raise ParameterError(f"activations are {rows_PW.dtype} on {rows_PW.device}, expected float32 on cpu.")
            rows_PM = torch.from_numpy(self._modulate(self._packed, rows_PW.detach().contiguous().numpy()))
        return rows_PM.reshape(*activations.shape[:-1], rows_PM.shape[-1])
