"""What runs the steps of a training: one process, or several with Hugging Face Accelerate (DDP, FSDP2, DeepSpeed).

The launcher decides which: ``torchrun`` gives DDP, ``accelerate launch`` what its configuration says; those in
``config/training/`` are tested. Weights and optimiser states leave an engine whole and by name, so that a run goes on
with another engine, or with another number of processes, than it began with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.training.processes import Processes


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several, or asks for an engine."""
    asked = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return _world_size() > 1 or any(os.environ.get(name) == "true" for name in asked)


def _world_size() -> int:
    """Number of processes that the launcher says it started.

    Raises:
        ParameterError: it says no number.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not (size.isascii() and size.isdigit() and int(size) > 0):
        raise ParameterError(
            f"the environment variable WORLD_SIZE is {size!r}, expected the number of processes that train together. "
            "Unset it, or start the command with torchrun or accelerate launch, which set it."
        )
    return int(size)


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, sharing its memory; all of it unless FSDP2 shards it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Engine:
    """One process and nothing around the model.

    Attributes:
        processes: All that train together.
        device: Where the model is to be.
        parameters: What learns, by name.
        optimizer: Of the parameters.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.processes = Processes(device)
        self.parameters: dict[str, nn.Parameter] = {}
        self.optimizer: Any = None

    def prepare(self, task: Any, groups: Iterable[dict[str, Any]], bf16: bool, clip_norm: float, **adam: Any) -> None:
        """Take over the model of a task, and make its optimiser.

        Args:
            task: A :class:`~llamo_ros.training.loop.TrainingTask`.
            groups: Parameter groups of the optimiser.
            bf16: Whether steps run under autocast.
            clip_norm: Largest norm of the gradient.
            adam: Further arguments of AdamW.
        """
        self.optimizer = torch.optim.AdamW(groups, fused=True, **adam)
        self.parameters = trained_parameters(task.model)

    def accumulating(self, is_last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward pass of a draw; processes exchange gradients only in the last one of a step."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss of a draw, divided already by the number of draws."""
        loss.backward()

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def update(self, clip_norm: float) -> float:
        """Move the weights by the gradient, clipped to ``clip_norm``, unless it is not finite.

        Returns:
            The norm of the gradient of all processes before it was clipped.
        """
        norm = float(_whole(nn.utils.clip_grad_norm_(self.parameters.values(), clip_norm)))
        if math.isfinite(norm):
            self.optimizer.step()
        return norm

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on the CPU, in the first process; the others help, and get nothing.

        Args:
            tensors: As :meth:`prepare` left them, or parts of this process with the same name as a parameter.
        """
        whole = {}
        for name, tensor in tensors.items():
            full = _whole(self._like_parameter(name, tensor)).detach().cpu()
            if self.processes.is_first:
                whole[name] = full
        return whole

    def scatter(self, whole: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`gathered`: copy whole tensors, known to all processes, into their places."""
        with torch.no_grad():
            for name, place in into.items():
                local_part(place).copy_(self._part_of(name, whole[name]))
        self.weights_changed()

    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        """State of the optimiser by name of parameter, whole, on the CPU, in the first process."""
        states = {name: self.optimizer.state.get(p, {}) for name, p in self.parameters.items()}
        kinds = sorted({kind for state in states.values() for kind in state})
        whole: dict[str, dict[str, Tensor]] = {}
        for kind in kinds:
            values = {name: state[kind] for name, state in states.items() if kind in state}
            for name, value in self.gathered(values).items():
                whole.setdefault(name, {})[kind] = value
        return whole

    def load_optimizer_state(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Inverse of :meth:`optimizer_state`, with states known to all processes."""
        for name, parameter in self.parameters.items():
            if name in states:
                self.optimizer.state[parameter] = {
                    kind: self._like_parameter(name, self._part_of(name, value).to(parameter.device, copy=True))
                    for kind, value in states[name].items()
                }

    def weights_changed(self) -> None:
        """To be called after weights were written to directly."""

    def whole_model(self, model: nn.Module) -> nn.Module | None:
        """The model for the first process to use alone, in evaluation mode; None in the others."""
        return model if self.processes.is_first else None

    def close(self) -> None:
        """All processes have come to the end together."""

    def _part_of(self, name: str, whole: Tensor) -> Tensor:
        """What this process keeps of a whole tensor that belongs to a parameter."""
        parameter = self.parameters[name]
        if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
            return whole
        on_device = whole.to(parameter.to_local().device)
        return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None).to_local()

    def _like_parameter(self, name: str, tensor: Tensor) -> Tensor:
        """A part of this process as what it is a part of; single numbers, as the count of steps, are whole already."""
        parameter = self.parameters.get(name)
        if isinstance(tensor, DTensor) or not isinstance(parameter, DTensor) or tensor.ndim == 0 != parameter.ndim:
            return tensor
        return DTensor.from_local(
            tensor,
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )


class AccelerateEngine(Engine):
    """Several processes with Hugging Face Accelerate: DDP, or FSDP2 where the launch configuration says so."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        super().__init__(str(accelerator.device))

    def prepare(self, task: Any, groups: Iterable[dict[str, Any]], bf16: bool, clip_norm: float, **adam: Any) -> None:
        """See :meth:`Engine.prepare`."""
        module = forward_of(task)
        optimizer = torch.optim.AdamW(groups, fused=True, **adam)
        task.forward_pass, _ = self.accelerator.prepare(module, optimizer)
        self.optimizer = optimizer
        self.parameters = trained_parameters(task.model)
        self._around = task.forward_pass

    @contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """See :meth:`Engine.accumulating`."""
        if isinstance(self._around, FSDPModule):
            self._around.set_requires_gradient_sync(is_last)
            yield
            return
        with nullcontext() if is_last else self._around.no_sync():
            yield

    def weights_changed(self) -> None:
        """See :meth:`Engine.weights_changed`; what FSDP2 gathered for a pass without gradient would be used again."""
        for module in self._around.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def whole_model(self, model: nn.Module) -> nn.Module | None:
        """See :meth:`Engine.whole_model`; with FSDP2 it is a copy on the CPU."""
        if not isinstance(self._around, FSDPModule):
            return super().whole_model(model)
        self.weights_changed()  # the weights in their parts again
        tensors = self.gathered(model.state_dict())
        if not self.processes.is_first:
            return None
        with torch.device("meta"):
            copy = type(model)(model.config)
        copy.load_state_dict(tensors, assign=True)
        return copy.eval()

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self.processes.wait()
        self.accelerator.end_training()


def engine_of_launch(device: str) -> Engine:
    """The engine that the launcher asks for; the plain one without a launcher.

    Args:
        device: ``cpu`` or ``cuda``.

    Raises:
        ParameterError: Accelerate is missing, or the launch configuration asks for what is not supported.
    """
    if not is_launched():
        return Engine(device)
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.utils import DistributedType
    except ImportError as error:
        raise ParameterError(
            "training in several processes needs Hugging Face Accelerate: pip install 'llamo-ros[training]'."
        ) from error
    _check_launch(os.environ)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]  # no step needs all heads
    on_cpu = device == "cpu" and not _wants("DEEPSPEED")  # told of a CPU, Accelerate would leave DeepSpeed out
    accelerator = Accelerator(mixed_precision="no", cpu=on_cpu, kwargs_handlers=handlers)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from llamo_ros.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(accelerator)
    if _wants("FSDP") and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Accelerate takes the plugin on accelerators only; PyTorch's FSDP2 itself runs on CPUs too.
        from accelerate import FullyShardedDataParallelPlugin

        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
    return AccelerateEngine(accelerator)


def alone(stage: str) -> Engine:
    """The plain engine, for what is trained in one process.

    Raises:
        ParameterError: a launcher has started several.
    """
    if is_launched():
        raise ParameterError(f"training of stage {stage} runs in one process; start it without torchrun or accelerate.")
    return Engine()


def _wants(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"


def _check_launch(environment: Mapping[str, str]) -> None:
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no":
        raise ParameterError(
            f"mixed_precision of the launch configuration is {precision}, expected 'no': --bf16 of the command decides."
        )
    if _wants("FSDP") and environment.get("FSDP_VERSION") != "2":
        raise ParameterError("the launch configuration asks for FSDP 1; set fsdp_version: 2 in it.")


def forward_of(task: Any) -> nn.Module:
    """What a task calls once per draw, for an engine to put itself around.

    Raises:
        ParameterError: the task has no such thing.
    """
    module = getattr(task, "forward_pass", None)
    if module is None:
        raise ParameterError("this stage is trained in one process; start it without torchrun or accelerate launch.")
    return module


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
