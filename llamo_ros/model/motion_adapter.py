"""Motion adapter (latent -> token) and motion projector (hidden state -> condition of the flow head)."""

from __future__ import annotations

from torch import Tensor, nn


class MotionMlp(nn.Module):
    """Two linear layers with GELU, then RMSNorm (LLaMo supplement: adapter and projector alike)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, outputs)
        self.output = nn.Linear(outputs, outputs)
        self.norm = nn.RMSNorm(outputs, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., inputs) to (..., outputs), in the dtype of the weights."""
        x = self.output(nn.functional.gelu(self.input(x.to(self.input.weight.dtype))))
        return self.norm(x.to(self.norm.weight.dtype))  # of another one under autocast
