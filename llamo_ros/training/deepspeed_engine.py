"""DeepSpeed's ZeRO-1 and ZeRO-2 as the engine: every process holds all weights, and its part of the optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.training.engine import Engine, forward_of, trained_parameters


class DeepSpeedEngine(Engine):
    """DeepSpeed through Accelerate.

    It takes a missing gradient for zero where AdamW skips the parameter, so a step without a task moves the heads of
    that task a little, by momentum and weight decay.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        super().__init__(str(accelerator.device))
        config = accelerator.deepspeed_plugin.deepspeed_config
        stage = config.get("zero_optimization", {}).get("stage", 0)
        if stage not in (1, 2):
            raise ParameterError(f"DeepSpeed's ZeRO stage is {stage}, expected 1 or 2; to shard weights use FSDP2.")
        wrong = [name for name in ("bf16", "fp16") if config.get(name, {}).get("enabled") is True]
        if wrong:
            raise ParameterError(f"the DeepSpeed configuration enables {wrong[0]}; leave it out, --bf16 decides.")

    def prepare(self, task: Any, groups: Iterable[dict[str, Any]], bf16: bool, clip_norm: float, **adam: Any) -> None:
        """See :meth:`Engine.prepare`."""
        self.accelerator.deepspeed_plugin.deepspeed_config |= {
            "gradient_clipping": clip_norm,
            "gradient_accumulation_steps": 1,  # the trainer says which draw is the last
            "train_micro_batch_size_per_gpu": 1,  # the tasks batch on their own; DeepSpeed wants a number
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
        }
        module = forward_of(task)
        optimizer = torch.optim.AdamW(groups, **adam)
        self._around, wrapped = self.accelerator.prepare(module, optimizer)
        task.forward_pass = self._around
        self._zero = wrapped.optimizer
        self.optimizer = optimizer
        self.parameters = trained_parameters(task.model)

    @contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """See :meth:`Engine.accumulating`."""
        self._around.set_gradient_accumulation_boundary(is_boundary=is_last)
        yield

    def backward(self, loss: Tensor) -> None:
        """See :meth:`Engine.backward`."""
        self._around.backward(loss)

    def zero_grad(self) -> None:
        """See :meth:`Engine.zero_grad`; DeepSpeed forgets it itself after each step."""

    def update(self, clip_norm: float) -> float:
        """See :meth:`Engine.update`; DeepSpeed clips, and stays where it is if the gradient is not finite."""
        self._around.step()
        return float(self._around.get_global_grad_norm())

    def scatter(self, whole: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
        """See :meth:`Engine.scatter`."""
        from deepspeed.utils import safe_set_full_fp32_param

        super().scatter(whole, into)
        for name, place in into.items():
            if place is self.parameters.get(name):  # DeepSpeed steps from a copy of its own
                safe_set_full_fp32_param(place, whole[name].to(place.device))

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self.processes.wait()
        self.accelerator.end_training()

    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        """See :meth:`Engine.optimizer_state`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        states = list(self.optimizer.state.values())
        if not states:
            return {}
        self._link_moments()
        whole: dict[str, dict[str, Tensor]] = {}
        for name, parameter in self.parameters.items():
            state = {
                kind: safe_get_full_optimizer_state(parameter, kind).detach().cpu().reshape(parameter.shape)
                for kind in ("exp_avg", "exp_avg_sq")
            }
            if self.processes.is_first:
                whole[name] = {"step": states[0]["step"].detach().cpu().clone()} | state
        return whole

    def load_optimizer_state(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """See :meth:`Engine.load_optimizer_state`."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if not states:
            return
        steps = torch.stack([state["step"].float() for state in states.values()]).max()
        for group in self.optimizer.param_groups:
            for flat in group["params"]:
                zeros = {kind: torch.zeros_like(flat) for kind in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[flat] = {"step": steps.clone()} | zeros
        self._link_moments()
        for name, parameter in self.parameters.items():
            for kind in ("exp_avg", "exp_avg_sq"):
                if name in states:
                    safe_set_full_optimizer_state(parameter, states[name][kind].to(parameter.device), kind)

    def _link_moments(self) -> None:
        """Let each parameter know its part of the moments; DeepSpeed 0.19 does so when only one group has some."""
        self._zero._hp_optimizer_states_linked = False
        self._zero._lazy_init_hp_params_optimizer_state()
