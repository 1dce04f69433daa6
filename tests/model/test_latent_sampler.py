from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import FlowHeadConfig
from llamo_ros.model.flow_head import FlowHead
from llamo_ros.model.latent_sampler import LatentSampler


def random_head(scale: float = 0.2, **choices: object) -> FlowHead:
    head = FlowHead(FlowHeadConfig(width=32, blocks=2, **choices), latent_dim=8, condition_dim=20)
    for parameter in head.requires_grad_(False).parameters():
        parameter.normal_(std=scale)
    return head


def guided_field(
    head: FlowHead, condition: torch.Tensor, null: torch.Tensor, guidance: float
) -> Callable[[torch.Tensor, float], torch.Tensor]:
    def field(x: torch.Tensor, t: float) -> torch.Tensor:
        v, v_null = (head(x, torch.full((len(x),), t), rows) for rows in (condition, null))
        return v if guidance == 1.0 else v_null + guidance * (v - v_null)

    return field


def followed(
    field: Callable[[torch.Tensor, float], torch.Tensor], x: torch.Tensor, steps: int, solver: str
) -> torch.Tensor:
    """The solvers as in a textbook."""
    h = 1 / steps
    for k in range(steps):
        if solver == "euler":
            x = x + h * field(x, k * h)
        else:
            x = x + h * field(x + h / 2 * field(x, k * h), k * h + h / 2)
    return x


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("affine_norm", [False, True])
@pytest.mark.parametrize("modulation", ["separable", "joint"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_sampler_follows_the_velocity_field(
    modulation: str, affine_norm: bool, backend: str, solver: str, guidance: float
) -> None:
    torch.manual_seed(0)
    head = random_head(modulation=modulation, affine_norm=affine_norm)
    noise, condition, null = torch.randn(3, 8), torch.randn(3, 20), torch.randn(3, 20)
    expected = followed(guided_field(head, condition, null, guidance), noise, 12, solver)
    sampler = LatentSampler(head, backend=backend)
    assert sampler.backend == backend
    rows = condition if guidance == 1.0 else torch.cat([condition, null])
    torch.testing.assert_close(sampler(noise, rows, guidance, 12, solver), expected, rtol=1e-4, atol=1e-4)  # float32


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("modulation", ["separable", "joint"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_what_is_taken_out_of_the_loop_changes_nothing(modulation: str, backend: str, guidance: float) -> None:
    torch.manual_seed(0)
    head = random_head(scale=0.1, modulation=modulation, affine_norm=True)
    noise, condition, null = torch.randn(3, 8), torch.randn(3, 20), torch.randn(3, 20)
    expected = followed(guided_field(head, condition, null, guidance), noise, 50, "euler")
    rows = condition if guidance == 1.0 else torch.cat([condition, null])
    made = LatentSampler(head, backend=backend)(noise, rows, guidance, 50)
    assert (made - expected).abs().max() <= 1e-6 * expected.abs().max()  # the contract, in float32


def test_training_may_draw_samples_under_autocast() -> None:
    for modulation in ("separable", "joint"):
        sampler = LatentSampler(random_head(modulation=modulation, affine_norm=False))
        noise, condition = torch.randn(3, 8), torch.randn(3, 20)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under_autocast = sampler(noise, condition)
        torch.testing.assert_close(under_autocast, sampler(noise, condition), rtol=0, atol=0)


class LinearField:
    """A head whose field is linear on a circle, so that its flow is known: dx/dt = omega J x, a rotation.

    The input layer makes [x, -x], whose mean is 0 and whose mean square is 1 where |x| = sqrt(2): there the LayerNorm
    is the identity. Blocks add nothing, the output layer turns by a right angle, and x stays on the circle.
    """

    omega = 2.0

    def __init__(self) -> None:
        head = FlowHead(FlowHeadConfig(width=4, blocks=1), latent_dim=2, condition_dim=3).requires_grad_(False)
        for parameter in head.parameters():
            parameter.zero_()
        head.input.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))
        skew = self.omega / 2 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        head.output.weight.copy_(torch.cat([skew, -skew], dim=1))
        self.head = head

    def solution(self, x: torch.Tensor) -> torch.Tensor:
        c, s = math.cos(self.omega), math.sin(self.omega)
        return x @ torch.tensor([[c, s], [-s, c]])


def error(solver: str, steps: int) -> float:
    field = LinearField()
    angles = torch.linspace(0, 6, 5)
    x = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1)
    actual = LatentSampler(field.head)(x, torch.zeros(5, 3), steps=steps, solver=solver)
    return (actual - field.solution(x)).norm(dim=1).max().item()


def test_many_steps_reach_the_exact_solution_of_a_rotation() -> None:
    assert error("euler", 1000) < 0.01  # order 1: omega^2 / 2 / steps * radius = 0.003
    assert error("midpoint", 100) < 0.001  # order 2


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_half_the_step_divides_the_error_by_two_to_the_order(solver: str, order: int) -> None:
    coarse, fine = error(solver, 20), error(solver, 40)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)  # the next order's share at this step


def test_a_midpoint_step_is_better_than_the_two_euler_steps_it_costs() -> None:
    assert error("midpoint", 10) < 0.2 * error("euler", 20)


def test_solver_and_steps_are_chosen_per_call_and_defaults_stay() -> None:
    torch.manual_seed(0)
    head = random_head()
    noise, condition = torch.randn(2, 8), torch.randn(2, 20)
    sampler = LatentSampler(head, steps=5, solver="midpoint")
    before = sampler(noise, condition)
    for steps in range(1, 30):
        sampler(noise, condition, steps=steps, solver="euler")
    torch.testing.assert_close(sampler(noise, condition), before, rtol=0, atol=0)
    torch.testing.assert_close(before, LatentSampler(head)(noise, condition, 1.0, 5, "midpoint"), rtol=0, atol=0)
    assert not torch.allclose(before, sampler(noise, condition, solver="euler"))


def test_a_head_of_16_bits_is_sampled_in_float32() -> None:
    torch.manual_seed(0)
    head = random_head(affine_norm=True).bfloat16()
    noise, condition = torch.randn(2, 8).bfloat16(), torch.randn(2, 20).bfloat16()
    latents = LatentSampler(head)(noise, condition)
    assert latents.dtype == torch.float32
    assert head.dtype == torch.bfloat16
    expected = LatentSampler(head.float())(noise.float(), condition.float())
    torch.testing.assert_close(latents, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "choice", [{"steps": 0}, {"steps": 1001}, {"steps": "2"}, {"steps": True}, {"solver": "heun"}], ids=str
)
def test_an_unknown_solver_or_number_of_steps_is_refused(choice: dict) -> None:
    with pytest.raises(ParameterError):
        LatentSampler(random_head(), **choice)
    with pytest.raises(ParameterError):
        LatentSampler(random_head())(torch.randn(1, 8), torch.randn(1, 20), **choice)
