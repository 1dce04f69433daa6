"""Exit head: probability that the motion ends with the latent just read. [EOM] is never sampled (LLaMo supplement)."""

from __future__ import annotations

from torch import Tensor, nn


class ExitHead(nn.Module):
    """Five linear layers with Swish."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        sizes = [inputs, width, width, width, width, 1]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (...,) of hidden states (..., D) at motion tokens, in the dtype of the weights."""
        return self.layers(hidden.to(self.layers[0].weight.dtype))[..., 0]
