"""LatentSampler: follows the flow head's velocity field from noise (flow time 0) to latents (flow time 1).

"euler" is the paper's solver (supplement, 50 steps). "midpoint" (Runge-Kutta, order 2) looks half a step ahead before
it goes: each of its steps asks for the velocity twice, so 25 steps cost what 50 Euler steps cost.
"""

# B latents, R rows (B, or 2 B with guidance), C latent channels, W width, D condition width, K flow times
# M modulations of a row (3 W blocks + 2 W)

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.numbers import whole_number
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler
from llamo_ros.kernels.flow_sampler.modulations import ModulationLayer
from llamo_ros.model.flow_head import FlowHead

SOLVERS = ("euler", "midpoint")
MAX_STEPS = 1000
_TABLES_KEPT = 8  # of flow times; at most 14 MB each for llamo-mini


class LatentSampler:
    """Noise to latents with a head's weights as they are now; solver and number of steps are chosen per call.

    Runs in float32 whatever the head's dtype. Everything that depends on flow time alone is computed once per number of
    steps and kept, which is exact; per latent only the condition's part and the loop remain. Safe to call from several
    threads at once.
    """

    def __init__(
        self,
        head: FlowHead,
        steps: int = 50,
        solver: str = "euler",
        backend: str = "auto",
        precision: str = "float32",
        threads: int = 1,
    ) -> None:
        """Pack the weights. When those of ``head`` change, build a new sampler: only part of them is copied.

        Args:
            head: The flow head.
            steps: Steps of a call that names none.
            solver: Solver of a call that names none, one of ``SOLVERS``.
            backend: Of the velocity field, see :class:`~llamo_ros.kernels.flow_sampler.FlowSampler`.
            precision: See there.
            threads: See there.

        Raises:
            ParameterError: ``steps``, ``solver`` or ``threads`` is out of range, or a weight is not finite.
            BackendError: backend, precision or threads cannot run here.
        """
        self.steps, self.solver = check_solver(steps, solver)
        if head.dtype != torch.float32:
            head = copy.deepcopy(head).float()
        blocks = head.blocks
        weights = FlowHeadWeights(
            input_weight=head.input.weight,
            input_bias=head.input.bias,
            first_weight=torch.stack([block.l1.weight for block in blocks]),
            first_bias=torch.stack([block.l1.bias for block in blocks]),
            second_weight=torch.stack([block.l2.weight for block in blocks]),
            second_bias=torch.stack([block.l2.bias for block in blocks]),
            output_weight=head.output.weight,
            output_bias=head.output.bias,
        )
        self._head = head
        self._field = FlowSampler(weights, backend=backend, precision=precision, threads=threads)
        # What is multiplied for each latent: the condition's part, or where that does not come apart all of it.
        layer = head.condition_modulation if head.config.modulation == "separable" else head.time_modulation
        self._modulations = ModulationLayer(
            layer.weight,
            layer.bias,
            backend=self._field.backend,
            precision=self._field.precision,
            instruction_set=self._field.instruction_set,
        )
        self._tables: OrderedDict[tuple[int, str], tuple[Tensor, Tensor | None]] = OrderedDict()

    @property
    def backend(self) -> str:
        """Which implementation of the velocity field runs, for both solvers: "cpu", "triton" or "reference"."""
        return self._field.backend

    @property
    def operation(self) -> FlowSampler:
        """The velocity field as kernels run it."""
        return self._field

    @torch.no_grad()
    def __call__(
        self,
        noise_BC: Tensor,
        condition_RD: Tensor,
        guidance_scale: float = 1.0,
        steps: int | None = None,
        solver: str | None = None,
    ) -> Tensor:
        """Latents (B, C), float32.

        Args:
            noise_BC: Where the flow starts, shape (B, C).
            condition_RD: Projected hidden states, shape (B, D) without guidance, (2 B, D) with: conditional, then null.
            guidance_scale: 1 is no guidance.
            steps: Steps of the solver; None for the sampler's own.
            solver: One of ``SOLVERS``; None for the sampler's own.

        Raises:
            ParameterError: ``steps`` or ``solver`` is out of range, or the latents are not finite.
            ShapeError: a shape does not fit.
        """
        steps, solver = check_solver(self.steps if steps is None else steps, solver or self.solver)
        with torch.autocast(noise_BC.device.type, enabled=False):  # in training samples are drawn under autocast
            return self._sampled(noise_BC, condition_RD, guidance_scale, steps, solver)

    def _sampled(
        self, noise_BC: Tensor, condition_RD: Tensor, guidance_scale: float, steps: int, solver: str
    ) -> Tensor:
        head, noise_BC = self._head, noise_BC.float()
        guidance = None if guidance_scale == 1.0 else guidance_scale
        embedding_KW, time_KM = self._table(steps, solver)
        embedded_RW = head.condition(condition_RD.float())
        if time_KM is not None:
            condition_RM = folded(head, self._modulations(F.silu(embedded_RW)), constant=False)
            tables = {"time_modulations": time_KM, "condition_modulations": condition_RM}
        else:
            joint_KRM = self._modulations(F.silu(embedding_KW[:, None] + embedded_RW))
            tables = {"modulations": folded(head, joint_KRM)}
        if solver == "euler":
            return self._field(noise_BC, **tables, guidance_scale=guidance)
        return self._midpoint(noise_BC, tables, steps, guidance)

    def _midpoint(self, x_BC: Tensor, tables: dict[str, Tensor], steps: int, guidance: float | None) -> Tensor:
        """The compiled loop knows Euler only, but one Euler step of length 1 from x ends at x + v: that gives v."""

        def velocity(x: Tensor, k: int) -> Tensor:
            here = {name: t if name == "condition_modulations" else t[k : k + 1] for name, t in tables.items()}
            return self._field(x, **here, guidance_scale=guidance) - x

        for k in range(0, 2 * steps, 2):
            half_BC = x_BC + velocity(x_BC, k) * (0.5 / steps)
            x_BC = x_BC + velocity(half_BC, k + 1) / steps
        return x_BC

    @torch.no_grad()
    def _table(self, steps: int, solver: str) -> tuple[Tensor, Tensor | None]:
        """Embeddings (K, W) of all flow times of a solver, and the time part of the modulations (K, M) if separable."""
        head, key = self._head, (steps, solver)
        table = self._tables.get(key)
        if table is None:
            count = steps if solver == "euler" else 2 * steps
            t_K = torch.arange(count, device=head.input.weight.device) / count
            embedding_KW = head.time_embedding(t_K)
            separable = head.config.modulation == "separable"
            time_KM = folded(head, head.time_modulation(F.silu(embedding_KW))) if separable else None
            table = self._tables[key] = (embedding_KW, time_KM)
            while len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        return table


def folded(head: FlowHead, modulations: Tensor, constant: bool = True) -> Tensor:
    """Modulations (..., M) that do to a plain LayerNorm what the given ones do to the blocks' affine one; exact.

    With n = w * LN(x) + b, n * (1 + scale) + shift = LN(x) * (1 + scale') + shift', where scale' = w * scale + (w - 1)
    and shift' = shift + b * scale + (b). Terms in brackets are constant: where modulations are the sum of two parts,
    one of them is folded with ``constant`` and the other without.
    """
    if not head.config.affine_norm:
        return modulations
    parts = list(modulations.split(head.config.width, dim=-1))
    for index, block in enumerate(head.blocks):
        weight, bias = block.norm.weight, block.norm.bias
        shift, scale = parts[3 * index], parts[3 * index + 1]
        parts[3 * index] = shift + bias * (scale + constant)
        parts[3 * index + 1] = weight * scale + (weight - 1) * constant
    return torch.cat(parts, dim=-1)


def check_solver(steps: int, solver: str) -> tuple[int, str]:
    """The two, the number of steps as a plain one.

    Raises:
        ParameterError: there is no such solver, or the number of steps is not 1 to 1000.
    """
    if solver not in SOLVERS:
        raise ParameterError(f"solver is {solver!r}, expected one of {', '.join(SOLVERS)}.")
    number = whole_number(steps)
    if number is None or not 1 <= number <= MAX_STEPS:
        raise ParameterError(f"flow_steps is {steps!r}, expected a whole number from 1 to {MAX_STEPS}.")
    return number, solver
