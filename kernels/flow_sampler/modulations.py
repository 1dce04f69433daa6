"""The modulations of all steps and rows of a latent in one matrix product, by far its largest."""

# P rows (steps times rows where modulations do not come apart), W width, M modulations of a row

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ModulationLayer"]


class ModulationLayer:
    """A linear layer with fixed weights: Triton's ``mod_gemm`` where the flow sampler is Triton's, else PyTorch's.

    Attributes:
        backend: "triton", or "reference" (PyTorch).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, backend: str, precision: str = "float32") -> None:
        """Prepare the weights. They are copied only where they are rounded.

        Args:
            weight: Float32, shape (M, W).
            bias: Float32, shape (M,), or None.
            backend: What a flow sampler chose: "triton", or another, for which PyTorch multiplies.
            precision: That of the sampler's blocks. In Triton all but "float32" make this product in bfloat16, with
                sums in float32.

        Raises:
            BackendError: Triton's kernels cannot run on the device of the weights.
        """
        self.backend = "triton" if backend == "triton" else "reference"
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        if self.backend == "triton":
            from llamo_ros.kernels.flow_sampler.triton_kernel import mod_gemm  # Triton need not be installed

            self._gemm = mod_gemm
            self._weight = self._weight if precision == "float32" else self._weight.bfloat16()

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
        return self._gemm(rows_PW, self._weight, self._bias).unflatten(0, activations.shape[:-1])
