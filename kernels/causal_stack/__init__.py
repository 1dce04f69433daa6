"""Causal layers over rows in time with exact streaming state: encoder or decoder of a motion VAE, part by part.

A body is a list of operations. Most convolutions need some rows of their past input; those are the state, zeros before
the first row. Rows may come in parts of any size and give what they give in one go.

    stack = CausalStack([Convolution(weight, bias, kernel=3), Silu(), Convolution(last)])  # once: packs the weights
    frames, state = stack(latents, stack.empty_state(batch=1))
"""

# B batch, T rows in, L rows out, C channels

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.kernels.backends import choose, compiled_kernels
from llamo_ros.kernels.causal_stack import reference
from llamo_ros.kernels.causal_stack.operations import Add, Convolution, Keep, Norm, Operation, Relu, Repeat, Silu

__all__ = ["Add", "CausalStack", "Convolution", "Keep", "Norm", "Operation", "Relu", "Repeat", "Silu"]


class CausalStack:
    """Runs rows through fixed operations. Safe to call from several threads at once.

    Attributes:
        backend: "reference" or "cpu", what "auto" became.
        instruction_set: What the "cpu" backend runs on; None for "reference".
        precision: In which the weights of convolutions are kept.
        state_shapes: Rows and channels of each tensor of the state.
        outputs: Channels out.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        *,
        backend: str = "auto",
        instruction_set: str | None = None,
        precision: str = "float32",
    ) -> None:
        """Copy and pack the weights.

        Args:
            operations: In order; the first is a convolution. Weights are float32, all on one device.
            backend: "auto" (the compiled kernel for tensors in main memory, the reference elsewhere), "reference"
                (PyTorch) or "cpu" (compiled, one thread).
            instruction_set: For the "cpu" backend: one of those of this machine. None takes the fastest.
            precision: For the "cpu" backend: "float32", "bfloat16" or "int8". Sums are float32, of int8 exact.

        Raises:
            ShapeError: channels do not fit from one operation to the next.
            ParameterError: the list is empty or does not begin with a convolution, Keep and Add do not pair up, a
                number is out of range, or a tensor is not float32, not finite, or on another device than the first.
            BackendError: backend, instruction set or precision cannot run here, or the kernels are not built.
        """
        if not operations or not isinstance(operations[0], Convolution):
            raise ParameterError("the first operation has to be a Convolution, which says how many channels there are.")
        convolutions = [operation for operation in operations if isinstance(operation, Convolution)]
        self._device = convolutions[0].weight.device
        self.outputs, self._strides = _checked(operations, self._device)
        self._inputs = convolutions[0].inputs
        self.state_shapes = [(c.lookback, c.inputs) for c in convolutions if c.lookback]
        self.backend, self.instruction_set, self.precision = choose(backend, self._device, instruction_set, precision)
        if self.backend == "cpu":
            kernels = compiled_kernels("causal_stack")
            self._stack = kernels.CausalStack(self._inputs, self.instruction_set, precision)
            for operation in operations:
                _add(self._stack, operation)
            self._run = kernels.causal_stack
        else:
            self._operations = [_copied(operation) for operation in operations]

    def empty_state(self, batch: int) -> list[Tensor]:
        """State of ``batch`` streams before their first row."""
        return [torch.zeros(batch, *shape, device=self._device) for shape in self.state_shapes]

    @torch.no_grad()
    def __call__(self, x_BTC: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Output rows (B, L, outputs), and the state to give with the rows that follow; all fresh memory.

        Args:
            x_BTC: Rows, float32, shape (B, T, inputs); T is such that every stride divides the rows before it.
            state: From the rows before, or :meth:`empty_state`.

        Raises:
            ShapeError: a shape does not fit.
            ParameterError: a tensor is not float32, or elsewhere than the weights.
        """
        if x_BTC.ndim != 3 or x_BTC.shape[2] != self._inputs or x_BTC.shape[1] % self._strides:
            wanted = f"(B, {self._strides} n, {self._inputs})" if self._strides > 1 else f"(B, T, {self._inputs})"
            raise ShapeError("rows", x_BTC.shape, wanted, "Channels are those of the first convolution.")
        expected = [(len(x_BTC), *shape) for shape in self.state_shapes]
        if [tuple(past.shape) for past in state] != expected:
            shapes = [tuple(past.shape) for past in state]
            raise ParameterError(
                f"the state has shapes {shapes}, expected {expected}; give what came with the last rows."
            )
        for tensor in (x_BTC, *state):
            if tensor.dtype != torch.float32 or tensor.device != self._device:
                raise ParameterError(
                    f"rows or state are {tensor.dtype} on {tensor.device}, expected torch.float32 on {self._device}."
                )
        if self.backend == "reference":
            return reference.causal_stack(self._operations, x_BTC, state)
        out, new = self._run(
            self._stack, x_BTC.detach().contiguous().numpy(), [past.detach().contiguous().numpy() for past in state]
        )
        return torch.from_numpy(out), [torch.from_numpy(past) for past in new]


def _checked(operations: Sequence[Operation], device: torch.device) -> tuple[int, int]:
    """Channels out, and the number that rows in have to be a multiple of; raise unless everything fits together."""
    _check_numbers(operations[0], 0)
    channels, multiple, rate = operations[0].inputs, 1, Fraction(1)  # rate: rows at present per row in
    kept: list[tuple[int, Fraction]] = []
    for index, operation in enumerate(operations):
        place = _check_numbers(operation, index)
        for tensor in (value for value in vars(operation).values() if isinstance(value, Tensor)):
            if tensor.dtype != torch.float32 or tensor.device != device:
                raise ParameterError(
                    f"{place} is {tensor.dtype} on {tensor.device}, expected torch.float32 on {device}."
                )
            if not torch.isfinite(tensor).all():
                raise ParameterError(f"{place} has weights that are NaN or infinite. Use an undamaged model.")
        if isinstance(operation, Convolution):
            if operation.weight.shape[1] != operation.kernel * channels:
                wanted = f"(outputs, {operation.kernel * channels})"
                raise ShapeError(place, operation.weight.shape, wanted, "See the one before.")
            if operation.bias is not None and operation.bias.shape != operation.weight.shape[:1]:
                raise ShapeError(place, operation.bias.shape, f"({len(operation.weight)},)", "A bias per output.")
            channels, rate = len(operation.weight), rate / operation.stride
            multiple = math.lcm(multiple, rate.denominator)
        elif isinstance(operation, Norm) and operation.weight.shape != (channels,):
            raise ShapeError(place, operation.weight.shape, f"({channels},)", "One weight per channel.")
        elif isinstance(operation, Repeat):
            rate *= operation.times
        elif isinstance(operation, Keep):
            kept.append((channels, rate))
        elif isinstance(operation, Add) and (not kept or kept.pop() != (channels, rate)):
            raise ParameterError(
                f"{place} has nothing to add, or rows of other channels or of another rate; put a Keep before it."
            )
    if kept:
        raise ParameterError("a Keep has no Add behind it.")
    return channels, multiple


def _check_numbers(operation: Operation, index: int) -> str:
    """The operation's place in messages; raise if a number of it is out of range or its weight is no matrix."""
    place = f"{type(operation).__name__} (number {index})"
    if isinstance(operation, Convolution):
        kernel, stride = operation.kernel, operation.stride
        if min(kernel, operation.dilation, stride) < 1 or operation.lookback < 0:
            raise ParameterError(f"{place} has kernel {kernel}, stride {stride}; expected a stride up to its kernel.")
        if operation.weight.ndim != 2:
            raise ShapeError(place, operation.weight.shape, "(outputs, kernel * inputs)", "Rows are outputs.")
    elif isinstance(operation, Repeat) and operation.times < 1:
        raise ParameterError(f"{place} has times {operation.times}, expected 1 or more.")
    return place


def _copied(operation: Operation) -> Operation:
    copies = {name: value.detach().clone() for name, value in vars(operation).items() if isinstance(value, Tensor)}
    return replace(operation, **copies)


def _add(stack: object, operation: Operation) -> None:
    """Hand an operation to the compiled stack, which packs its weights."""
    arrays = {
        name: value.detach().contiguous().numpy() for name, value in vars(operation).items() if torch.is_tensor(value)
    }
    match operation:
        case Convolution():
            bias = arrays.get("bias")
            stack.add_convolution(arrays["weight"], bias, operation.kernel, operation.dilation, operation.stride)
        case Norm():
            stack.add_norm(arrays["weight"], operation.epsilon)
        case Repeat():
            stack.add_repeat(operation.times)
        case _:
            stack.add_plain(type(operation).__name__.lower())
