from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from llamo_ros.core.errors import BackendError, ParameterError, ShapeError
from llamo_ros.model.caption_generation import CaptionOptions, CaptionToken, MotionPrefix
from llamo_ros.model.caption_runtime import CaptionRuntime
from llamo_ros.model.llamo import MOTION, Llamo

BOS, EOS, PAD = 1, 2, 0


def read(model: Llamo, latents: torch.Tensor, parts: list[int] | None = None) -> MotionPrefix:
    prefix = MotionPrefix(CaptionRuntime(model), BOS, capacity=20)
    for part in latents.split(parts or [len(latents)]):
        prefix.extend(part)
    return prefix


def written(prefix: MotionPrefix, **options: float) -> list[CaptionToken]:
    return list(prefix.caption({EOS}, (PAD, BOS), CaptionOptions(**{"max_tokens": 12, **options})))


def recomputed(model: Llamo, latents: torch.Tensor, most: int) -> list[CaptionToken]:
    """Greedy caption without any cache."""
    tokens, made = [BOS, model.begin_motion, *[MOTION] * len(latents), model.end_motion], []
    while len(made) < most and (not made or made[-1].id != EOS):
        logits = model.backbone.text.logits(model(torch.tensor([tokens]), latents)[0, -1])
        logits[[PAD, BOS]] = -torch.inf
        log_probabilities = logits.log_softmax(-1)
        made.append(CaptionToken(int(logits.argmax()), float(log_probabilities.max())))
        tokens.append(made[-1].id)
    return made


def same(first: list[CaptionToken], second: list[CaptionToken]) -> bool:
    close = all(abs(a.log_probability - b.log_probability) < 1e-3 for a, b in zip(first, second, strict=False))
    return [t.id for t in first] == [t.id for t in second] and close  # logits of other batching, around 1


def test_a_greedy_caption_is_the_most_likely_token_each_time(tiny: Llamo) -> None:
    latents = torch.randn(5, 8)
    made = written(read(tiny, latents))
    assert same(made, recomputed(tiny, latents, 12))
    assert not {PAD, BOS} & {token.id for token in made}


def test_a_caption_of_a_motion_that_grew_is_that_of_the_whole_motion(tiny: Llamo) -> None:
    latents = torch.randn(9, 8)
    prefix = MotionPrefix(CaptionRuntime(tiny), BOS, capacity=9)
    for count in (2, 1, 4, 2):
        prefix.extend(latents[len(prefix) : len(prefix) + count])
        assert same(written(prefix), written(read(tiny, latents[: len(prefix)])))


def test_a_caption_left_half_way_leaves_no_trace(tiny: Llamo) -> None:
    prefix = read(tiny, torch.randn(5, 8))
    expected = written(prefix)
    half = prefix.caption({EOS}, (PAD, BOS))
    next(half)
    prefix_again = written(prefix)
    next(half, None)
    assert same(expected, prefix_again)
    assert same(expected, written(prefix))


def test_a_caption_may_go_on_while_the_motion_grows(tiny: Llamo) -> None:
    latents = torch.randn(8, 8)
    prefix = read(tiny, latents[:5])
    tokens = prefix.caption({EOS}, (PAD, BOS), CaptionOptions(max_tokens=12))
    made = [next(tokens)]
    prefix.extend(latents[5:])
    made += tokens
    assert same(made, written(read(tiny, latents[:5])))


def test_sampling_follows_its_seed_and_cold_sampling_is_greedy(tiny: Llamo) -> None:
    prefix = read(tiny, torch.randn(5, 8))
    first, again = (written(prefix, temperature=1.0, seed=3) for _ in range(2))
    others = [written(prefix, temperature=1.0, seed=seed) for seed in range(4, 10)]
    assert same(first, again)
    assert any(not same(first, other) for other in others)
    assert same(written(prefix, temperature=1e-3, seed=3), written(prefix))
    assert same(written(prefix, temperature=5.0, top_p=1e-6, seed=3), written(prefix))


def test_sampled_tokens_come_from_the_nucleus_as_often_as_their_probabilities_say(tiny: Llamo) -> None:
    prefix = read(tiny, torch.randn(5, 8))
    logits = torch.stack([prefix.log_probabilities([], token, (PAD, BOS))[0] for token in range(300)])
    probabilities, ids = logits.exp().sort(descending=True)
    nucleus = int((probabilities.cumsum(0) < 0.5).sum()) + 1
    kept = probabilities[:nucleus] / probabilities[:nucleus].sum()
    draws = [written(prefix, temperature=1.0, top_p=0.5, seed=s, max_tokens=1)[0] for s in range(300)]
    assert {token.id for token in draws} <= set(ids[:nucleus].tolist())
    share = sum(token.id == int(ids[0]) for token in draws) / 300
    assert share == pytest.approx(float(kept[0]), abs=4 * (0.25 / 300) ** 0.5)  # four standard deviations
    assert all(token.log_probability == pytest.approx(float(logits[token.id]), abs=1e-4) for token in draws)


def test_the_log_probability_of_a_written_caption_is_what_its_tokens_said(tiny: Llamo) -> None:
    prefix = read(tiny, torch.randn(5, 8))
    made = written(prefix)
    ids = [token.id for token in made if token.id != EOS]
    actual = prefix.log_probabilities(ids, EOS, (PAD, BOS))[: len(made)]
    torch.testing.assert_close(actual, torch.tensor([t.log_probability for t in made]), rtol=1e-4, atol=1e-4)


def test_a_caption_is_cut_at_its_longest(tiny: Llamo) -> None:
    assert len(list(read(tiny, torch.randn(5, 8)).caption((), (), CaptionOptions(max_tokens=7)))) == 7


def test_what_makes_no_sense_is_refused(tiny: Llamo) -> None:
    empty = MotionPrefix(CaptionRuntime(tiny), BOS, capacity=3)
    with pytest.raises(ParameterError, match="no motion"):
        empty.caption({EOS})
    with pytest.raises(ParameterError, match="no motion"):
        empty.log_probabilities([5], EOS)
    with pytest.raises(ParameterError, match="room for 3"):
        empty.extend(torch.randn(4, 8))


@pytest.mark.parametrize(
    ("option", "expected", "wrong"),
    [
        ("temperature", "a number from 0 to below 100", [-1.0, 100, float("nan"), "0.5", "warm", None, True, [0.5]]),
        ("top_p", "a number above 0 and at most 1", [0.0, 1.5, float("inf"), "0.9", None, True, (0.9,)]),
        ("seed", r"a whole number from 0 to 2\^63 - 1", [-1, 2**63, 1.0, "1", None, True]),
        ("max_tokens", "a whole number from 1 on", [0, -3, 12.0, "12", None, True, float("nan")]),
    ],
)
def test_an_option_that_cannot_be_is_named_with_what_is_expected(option: str, expected: str, wrong: list) -> None:
    for value in wrong:
        with pytest.raises(ParameterError, match=f"^{option} is {re.escape(repr(value))}, expected {expected}"):
            CaptionOptions(**{option: value})


def test_memory_is_taken_for_no_more_tokens_than_the_model_has_positions(tiny: Llamo) -> None:
    assert next(read(tiny, torch.randn(5, 8)).caption((), (), CaptionOptions(max_tokens=2**40)))


@pytest.mark.parametrize("temperature", [1e-40, 5e-324])
def test_a_temperature_near_zero_writes_the_most_likely_caption(tiny: Llamo, temperature: float) -> None:
    prefix = read(tiny, torch.randn(5, 8))
    assert written(prefix, temperature=temperature) == written(prefix)


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    options = CaptionOptions(temperature=numpy.float32(0.5), top_p=1, seed=numpy.int64(3), max_tokens=numpy.uint8(7))
    assert options == CaptionOptions(temperature=0.5, top_p=1.0, seed=3, max_tokens=7)


@pytest.mark.parametrize(
    ("latents", "error", "says"),
    [
        (torch.full((2, 8), torch.nan), ParameterError, "NaN or infinite. Check the motion"),
        (torch.tensor([[0.0] * 7 + [torch.inf]]), ParameterError, "NaN or infinite"),
        (torch.zeros(2, 7), ShapeError, r"latents has shape \(2, 7\), expected \(L, 8\)"),
        (torch.zeros(8), ShapeError, r"expected \(L, 8\)"),
        (torch.zeros(2, 8).double(), ParameterError, r"torch.float64 on cpu, expected a tensor of torch.float32"),
        (torch.zeros(2, 8, device="meta"), ParameterError, "torch.float32 on meta, expected .* on cpu"),
        ([[0.0] * 8], ParameterError, "latents are list, expected a tensor"),
    ],
    ids=str,
)
def test_latents_that_are_none_are_refused_and_not_read(
    tiny: Llamo, latents: object, error: type[Exception], says: str
) -> None:
    prefix = MotionPrefix(CaptionRuntime(tiny), BOS)
    with pytest.raises(error, match=says):
        prefix.extend(latents)
    assert len(prefix) == 0


@pytest.mark.parametrize("wrong", [-1, 300, 5.0, "5", None, True], ids=repr)
def test_ids_that_are_none_are_refused(tiny: Llamo, wrong: object) -> None:
    prefix = read(tiny, torch.randn(2, 8))
    for name, call in {
        "bos": lambda: MotionPrefix(CaptionRuntime(tiny), wrong),
        "stops": lambda: prefix.caption({wrong}),
        "forbidden": lambda: prefix.caption({EOS}, [PAD, wrong]),
        "ids": lambda: prefix.log_probabilities([5, wrong], EOS),
        "eos": lambda: prefix.log_probabilities([5], wrong),
    }.items():
        with pytest.raises(ParameterError, match=f"{name} has {wrong!r}, expected ids of tokens, .* from 0 to 299"):
            call()


@pytest.mark.parametrize("capacity", [0, -3, 2.5, "9", None, True], ids=repr)
def test_a_capacity_that_cannot_be_is_refused(tiny: Llamo, capacity: object) -> None:
    with pytest.raises(ParameterError, match=f"capacity is {capacity!r}, expected a whole number from 1 on"):
        MotionPrefix(CaptionRuntime(tiny), BOS, capacity)
    most = tiny.config.backbone.max_positions - 2
    with pytest.raises(ParameterError, match=f"expected at most {most}"):
        MotionPrefix(CaptionRuntime(tiny), BOS, most + 1)


def test_compiled_kernels_read_and_encode_as_pytorch_does(tiny: Llamo) -> None:
    latents, frames = torch.randn(5, 8), torch.randn(1, 24, 272)
    told, encoded = [], []
    for backend in ("reference", "cpu"):
        runtime = CaptionRuntime(tiny, backend)
        prefix = MotionPrefix(runtime, BOS)
        prefix.extend(latents)
        told.append(prefix.log_probabilities([5, 6, 7], EOS))
        first, state = runtime.encode(frames[:, :8], None)
        encoded.append(torch.cat([first, runtime.encode(frames[:, 8:], state)[0]], dim=1))
    torch.testing.assert_close(told[1], told[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoded[1], encoded[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoded[1], tiny.vae.encode(frames)[0], rtol=1e-4, atol=1e-4)


def test_compiled_kernels_for_a_bfloat16_backbone_are_refused_by_name(tiny: Llamo) -> None:
    rounded = Llamo(dataclasses.replace(tiny.config, dtype="bfloat16")).eval().requires_grad_(False)
    with pytest.raises(BackendError, match="backbone in bfloat16"):
        CaptionRuntime(rounded, "cpu")
    for unknown in ("triton", "cpuu"):
        with pytest.raises(BackendError):
            CaptionRuntime(tiny, unknown)
    prefix = MotionPrefix(CaptionRuntime(rounded), BOS)
    prefix.extend(torch.randn(3, 8))
    assert torch.isfinite(prefix.log_probabilities([5], EOS)).all()
