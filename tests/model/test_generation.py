from __future__ import annotations

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.generation import SamplingOptions, generate_caption, generate_latents, prompt_tokens
from llamo_ros.model.llamo import MOTION, Llamo

BOS, EOS = 1, 2


def latents_of(model: Llamo, prompts: list[list[int]], seeds: list[int], **options: float) -> torch.Tensor:
    settings = SamplingOptions(max_latents=6, exit_threshold=2.0, **options)
    steps = generate_latents(model, prompts, BOS, model.flow_head.sampler(10), settings, seeds)
    return torch.stack([step.latents for step in steps], dim=1)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_generation_with_a_cache_equals_recomputing_everything_with_the_same_noise(
    tiny: Llamo, guidance: float
) -> None:
    prompt, count = [5, 6, 7], 6
    cached = latents_of(tiny, [prompt], [3], guidance_scale=guidance)[0]
    generator = torch.Generator().manual_seed(3)
    made = torch.zeros(0, 8)
    for _ in range(count):
        conditions = []
        for ids in [prompt] if guidance == 1.0 else [prompt, []]:
            tokens, _ = prompt_tokens(tiny, [ids], BOS)
            tokens = torch.cat([tokens, torch.full((1, len(made)), MOTION)], dim=1)
            conditions.append(tiny.projector(tiny(tokens, made)[:, -1]))
        x = torch.randn(8, generator=generator)[None]
        for k in range(10):
            velocities = [tiny.flow_head(x, torch.full((1,), k / 10), c) for c in conditions]
            v = velocities[0] if guidance == 1.0 else velocities[1] + guidance * (velocities[0] - velocities[1])
            x = x + v / 10
        made = torch.cat([made, x])
    torch.testing.assert_close(cached, made, rtol=1e-3, atol=1e-3)  # the contract


def test_a_prompt_in_a_batch_gives_the_motion_it_gives_alone(tiny: Llamo) -> None:
    together = latents_of(tiny, [[5, 6, 7], [9], []], [3, 4, 5])
    for row, (prompt, seed) in enumerate([([5, 6, 7], 3), ([9], 4), ([], 5)]):
        torch.testing.assert_close(together[row], latents_of(tiny, [prompt], [seed])[0], rtol=1e-3, atol=1e-3)


def test_the_same_seed_gives_the_same_motion_and_another_seed_another(tiny: Llamo) -> None:
    first, again, other = (latents_of(tiny, [[5, 6]], [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_exit_head_ends_the_motion_but_not_before_the_minimum(tiny: Llamo) -> None:
    options = SamplingOptions(min_latents=3, max_latents=8, exit_threshold=0.0)  # wants to end at once
    steps = list(generate_latents(tiny, [[5]], BOS, tiny.flow_head.sampler(2), options, [0]))
    assert [step.is_final for step in steps] == [False, False, True]


def test_a_motion_ends_at_its_maximum_when_the_exit_head_never_fires(tiny: Llamo) -> None:
    options = SamplingOptions(max_latents=4, exit_threshold=2.0)
    steps = list(generate_latents(tiny, [[5]], BOS, tiny.flow_head.sampler(2), options, [0]))
    assert [step.is_final for step in steps] == [False, False, False, True]


def test_a_caption_ends_and_has_a_probability_and_no_forbidden_token(tiny: Llamo) -> None:
    ids, confidence = generate_caption(tiny, torch.randn(5, 8), BOS, EOS, forbidden=(0, BOS), max_tokens=12)
    assert len(ids) <= 12
    assert not {0, BOS, EOS} & set(ids)
    assert 0 < confidence <= 1


@pytest.mark.parametrize(
    "options",
    [{"min_latents": 0}, {"min_latents": 9, "max_latents": 8}, {"guidance_scale": -1.0}, {"temperature": float("nan")}],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ParameterError):
        SamplingOptions(**options)
