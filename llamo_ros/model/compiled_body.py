"""CompiledBody: encoder or decoder of the motion VAE on the compiled kernels."""

# B batch, T rows in, C channels in

from __future__ import annotations

import torch
from torch import Tensor

from llamo_ros.kernels.causal_stack import CausalStack
from llamo_ros.model.causal_layers import CausalBody
from llamo_ros.model.stream_state import StreamState


class CompiledBody:
    """The weights of a body as they are now; when they change, build a new one. Safe to call from several threads."""

    def __init__(self, body: CausalBody, *, backend: str, precision: str) -> None:
        """Pack the weights.

        Args:
            body: With weights in float32.
            backend: See :class:`~llamo_ros.kernels.causal_stack.CausalStack`.
            precision: See there.

        Raises:
            ParameterError: a weight is not finite.
            BackendError: backend or precision cannot run here.
        """
        operations = body.operations()
        self._stack = CausalStack(operations, backend=backend, precision=precision)
        self._inputs = operations[0].inputs
        self._looks_back = [rows > 0 for rows, _ in body.state_shapes()]

    @property
    def operation(self) -> CausalStack:
        """The layers as kernels run them."""
        return self._stack

    def __call__(self, x_BTC: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Output rows and the state for the rows that follow, as the body gives them but for the folding of frames.

        Args:
            x_BTC: Normalised frames or latents, of which the body's kind is known to fit.
            state: From the rows before, or an empty one.
        """
        given = [past for past, looks_back in zip(state, self._looks_back, strict=True) if looks_back]
        # Under inference mode or not, the kernels take plain float32.
        out, new = self._stack(x_BTC.to(torch.float32).reshape(len(x_BTC), -1, self._inputs), given)
        made = iter(new)
        return out, [
            next(made) if looks_back else past for past, looks_back in zip(state, self._looks_back, strict=True)
        ]
