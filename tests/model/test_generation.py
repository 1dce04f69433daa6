from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.model.config import preset
from llamo_ros.model.generation import LatentEngine, LatentStep, LatentStream
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.passages import Passage, Prompt, SamplingOptions
from llamo_ros.model.readers import CompiledReader

BOS = 1
ENDLESS = {"max_latents": None, "exit_threshold": 2.0}


def engine_of(model: Llamo, window: int = 40, context: int = 6) -> LatentEngine:
    return LatentEngine(MotionRuntime(model), BOS, window, context)


def passage(ids: list[int], link: str = "context", context: int = 0, **options: float | str | None) -> Passage:
    options = {"flow_steps": 10, **ENDLESS, **options}
    return Passage(Prompt(tuple(ids)), SamplingOptions(**options), link, context)


def run(engine: LatentEngine, ticks: int) -> dict[LatentStream, list[LatentStep]]:
    steps: dict[LatentStream, list[LatentStep]] = {}
    for _ in range(ticks):
        for step in engine.tick():
            steps.setdefault(step.stream, []).append(step)
    return steps


def latents_of(steps: list[LatentStep]) -> torch.Tensor:
    return torch.stack([step.latent for step in steps])


def made_alone(model: Llamo, first: Passage, seed: int, ticks: int, **engine: int) -> torch.Tensor:
    own = engine_of(model, **engine)
    stream = own.open(first, seed)
    return latents_of(run(own, ticks)[stream])


class Recomputed:
    """Generation without any cache: the whole sequence is read again for each latent, one plain Euler loop."""

    def __init__(self, model: Llamo, rows: list[list[int]], seed: int, options: SamplingOptions) -> None:
        self.model, self.rows, self.options = model, rows, options
        self.noise = torch.Generator().manual_seed(seed)
        self.made = torch.zeros(0, 8)
        self.given = 0  # MOTION places of the first row that hold other latents than those made

    def extend(self, count: int) -> torch.Tensor:
        o = self.options
        for _ in range(count):
            context = self.made[len(self.made) - self.rows[0].count(MOTION) + self.given :]
            hidden = [self.model(torch.tensor([row]), context)[:, -1] for row in self.rows]
            conditions = [self.model.projector(h) for h in hidden]
            x = o.temperature * torch.randn(8, generator=self.noise)[None]
            for k in range(o.flow_steps):
                v, *null = (self.model.flow_head(x, torch.full((1,), k / o.flow_steps), c) for c in conditions)
                x = x + (null[0] + o.guidance_scale * (v - null[0]) if null else v) / o.flow_steps
            self.made = torch.cat([self.made, x])
            self.rows = [[*row, MOTION] for row in self.rows]
        return self.made


def rows_of(model: Llamo, ids: list[int], latents: int = 0) -> list[list[int]]:
    return [[BOS, *text, model.begin_motion, *[MOTION] * latents] for text in (ids, [])]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_generation_with_a_cache_equals_recomputing_everything_with_the_same_noise(
    tiny: Llamo, guidance: float
) -> None:
    first = passage([5, 6, 7], guidance_scale=guidance)
    rows = rows_of(tiny, [5, 6, 7])[: 1 if guidance == 1.0 else 2]
    expected = Recomputed(tiny, rows, 3, first.options).extend(6)
    torch.testing.assert_close(made_alone(tiny, first, 3, 6), expected, rtol=1e-3, atol=1e-3)  # the contract


def test_a_changed_prompt_is_read_with_the_last_latents_as_context(tiny: Llamo) -> None:
    engine = engine_of(tiny)
    stream = engine.open(passage([5, 6, 7]), seed=3)
    first = latents_of(run(engine, 5)[stream])
    stream.change(passage([9, 8], context=2))
    second = latents_of(run(engine, 4)[stream])
    plain = Recomputed(tiny, rows_of(tiny, [5, 6, 7]), 3, passage([5]).options)
    torch.testing.assert_close(first, plain.extend(5), rtol=1e-3, atol=1e-3)
    plain.rows = rows_of(tiny, [9, 8], latents=2)
    torch.testing.assert_close(second, plain.extend(4)[5:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("link", ["context", "conversation"])
def test_an_appended_prompt_begins_where_the_motion_before_ends(tiny: Llamo, link: str) -> None:
    engine = engine_of(tiny)
    stream = engine.open(passage([5, 6, 7], max_latents=4), seed=3)
    stream.append(passage([9, 8], link, context=2, max_latents=3))
    steps = run(engine, 9)[stream]
    assert [step.passage for step in steps] == [0] * 4 + [1] * 3
    assert [step.ends_passage for step in steps] == [False] * 3 + [True] + [False] * 2 + [True]
    assert [step.is_final for step in steps] == [False] * 6 + [True]
    plain = Recomputed(tiny, rows_of(tiny, [5, 6, 7]), 3, passage([5]).options)
    plain.extend(4)
    if link == "conversation":
        plain.rows = [
            [*row, tiny.end_motion, *ids, tiny.begin_motion] for row, ids in zip(plain.rows, ([9, 8], []), strict=True)
        ]
    else:
        plain.rows = rows_of(tiny, [9, 8], latents=2)
    torch.testing.assert_close(latents_of(steps), plain.extend(3), rtol=1e-3, atol=1e-3)


def test_streams_that_come_and_go_at_random_each_do_what_they_do_alone(tiny: Llamo) -> None:
    dice = random.Random(0)
    engine = engine_of(tiny, window=9, context=4)
    plans, steps = {}, {}
    for tick in range(30):
        if tick < 20 and dice.random() < 0.7:
            first = passage(
                [dice.randrange(3, 300) for _ in range(dice.randrange(6))],
                guidance_scale=dice.choice([1.0, 2.0, 3.0]),
                temperature=dice.choice([0.5, 1.0]),
                flow_steps=dice.choice([4, 7]),
                solver=dice.choice(["euler", "midpoint"]),
                max_latents=dice.choice([1, 5, 14, None]),
            )
            plans[engine.open(first, seed=tick)] = (first, tick)
        for stream in engine.streams:
            if dice.random() < 0.04:
                stream.cancel()
        for step in engine.tick():
            steps.setdefault(step.stream, []).append(step)
    assert len(plans) > 8
    assert max(len(made) for made in steps.values()) > 14  # some were read anew
    for stream, made in steps.items():
        first, seed = plans[stream]
        expected = made_alone(tiny, first, seed, len(made), window=9, context=4)
        torch.testing.assert_close(latents_of(made), expected, rtol=1e-4, atol=1e-4)  # the contract of a batch


def test_a_model_of_16_bits_makes_latents_in_float32_close_to_those_of_32_bits() -> None:
    models = []
    for dtype in ("float32", "bfloat16"):
        model = Llamo(dataclasses.replace(preset("tiny"), dtype=dtype)).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * noise + (1.0 if parameter.ndim == 1 else 0.0))
        models.append(model)
    plain, rounded = (made_alone(model, passage([5, 6, 7]), 3, 5) for model in models)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - plain).norm() < 0.1 * plain.norm()  # bfloat16 keeps 8 bits of each hidden state


def test_the_same_seed_gives_the_same_motion_and_another_seed_another(tiny: Llamo) -> None:
    first, again, other = (made_alone(tiny, passage([5, 6]), seed, 4) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_exit_head_ends_the_motion_but_not_before_the_minimum(tiny: Llamo) -> None:
    engine = engine_of(tiny)
    stream = engine.open(passage([5], min_latents=3, max_latents=8, exit_threshold=0.0))  # wants to end at once
    assert [step.is_final for step in run(engine, 9)[stream]] == [False, False, True]
    assert stream.is_done
    assert engine.tick() == []


def test_a_motion_ends_at_its_maximum_when_the_exit_head_never_fires(tiny: Llamo) -> None:
    engine = engine_of(tiny)
    stream = engine.open(passage([5], max_latents=4))
    assert [step.is_final for step in run(engine, 9)[stream]] == [False, False, False, True]


def test_endless_motion_holds_a_bounded_number_of_tokens(tiny: Llamo) -> None:
    engine = engine_of(tiny, window=12, context=4)
    stream = engine.open(passage([5, 6]), seed=1)
    lengths = []
    for _ in range(100):
        engine.tick()
        lengths.append(max((slot.length for slot in stream._reading.slots), default=0))
    assert max(lengths) == 4 + 11  # prompt, then all latents of the window but the newest
    assert engine._cache.capacity == 128
    assert not stream.is_done


@pytest.mark.parametrize(("window", "context"), [(12, 4), (30, 14), (9, 0), (9, 1), (40, 39)])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_window_read_ahead_is_the_window_read_at_once(
    tiny: Llamo, window: int, context: int, guidance: float
) -> None:
    made = []
    for ticks_ahead in (0, 15):
        engine = engine_of(tiny, window=window, context=context)
        assert engine.ticks_ahead == 15
        engine.ticks_ahead = ticks_ahead
        stream = engine.open(passage([5, 6, 7], guidance_scale=guidance, max_latents=60), seed=1)
        stream.append(passage([9, 8], "conversation", guidance_scale=guidance, max_latents=31))
        stream.append(passage([4], context=min(3, window - 1), guidance_scale=guidance))
        other = engine.open(passage([9], max_latents=25), seed=2)  # its rows are given back in between
        steps = run(engine, 130)
        made.append((latents_of(steps[stream]), latents_of(steps[other])))
        assert engine._cache.rows <= (1 if guidance == 1.0 else 2) * 2
    torch.testing.assert_close(made[0], made[1], rtol=1e-3, atol=1e-3)  # the contract


def test_a_stream_that_is_changed_or_ends_while_it_reads_ahead_gives_its_rows_back(tiny: Llamo) -> None:
    engine = engine_of(tiny, window=30, context=14)
    stream = engine.open(passage([5, 6], guidance_scale=2.0), seed=1)
    run(engine, 24)
    assert engine._cache.rows == 4
    stream.change(passage([7], "conversation", guidance_scale=2.0))
    assert engine._cache.rows == 2
    run(engine, 4)
    assert engine._cache.rows == 4
    stream.change(passage([7], context=2, guidance_scale=2.0))
    assert engine._cache.rows == 0
    run(engine, 22)
    assert engine._cache.rows == 4
    stream.cancel()
    assert engine._cache.rows == 0


def test_no_tick_reads_much_more_than_the_others(tiny: Llamo, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(tiny, window=75, context=30)
    counts: list[list[int]] = []
    whole = CompiledReader.__call__

    def counted(self: CompiledReader, sequences: list[list[int]], *rest: object) -> torch.Tensor:
        counts.append(sorted(map(len, sequences)))
        return whole(self, sequences, *rest)

    monkeypatch.setattr(CompiledReader, "__call__", counted)
    engine.open(passage(list(range(3, 15)), guidance_scale=2.0), seed=1)
    run(engine, 170)
    assert counts[0] == [2, 14]  # [BOS], the prompt, [BOM]; without a prompt
    assert counts[1:61] == [[1, 1]] * 60
    assert counts[61] == [1, 1, 2, 14]  # beside them, the prompts of the next window
    assert max(max(passes) for passes in counts[62:76]) <= 3
    assert sum(sum(passes) for passes in counts[1:]) == 2 * 170 + 3 * (2 + 14 + 2 * 30)


def test_a_turn_goes_on_with_the_conversation_also_when_the_window_was_full_just_now(tiny: Llamo) -> None:
    engine = engine_of(tiny, window=9, context=4)
    stream = engine.open(passage([5, 6, 7]), seed=3)
    run(engine, 9)
    stream.change(passage([9, 8], "conversation", context=2))
    made = latents_of(run(engine, 3)[stream])
    plain = Recomputed(tiny, rows_of(tiny, [5, 6, 7]), 3, passage([5]).options)
    plain.extend(9)
    plain.rows = [
        [*row, tiny.end_motion, *ids, tiny.begin_motion]
        for row, ids in zip(rows_of(tiny, [5, 6, 7], latents=4), ([9, 8], []), strict=True)
    ]
    torch.testing.assert_close(made, plain.extend(3)[9:], rtol=1e-3, atol=1e-3)  # the contract


def test_a_turn_that_is_read_anew_keeps_no_latents_of_the_turn_before(tiny: Llamo) -> None:
    engine = engine_of(tiny, window=9, context=4)
    stream = engine.open(passage([5, 6, 7]), seed=3)
    run(engine, 7)
    stream.change(passage([9, 8], "conversation"))
    made = latents_of(run(engine, 4)[stream])
    plain = Recomputed(tiny, rows_of(tiny, [5, 6, 7]), 3, passage([5]).options)
    plain.extend(7)
    plain.rows = [
        [*row, tiny.end_motion, *ids, tiny.begin_motion] for row, ids in zip(plain.rows, ([9, 8], []), strict=True)
    ]
    plain.extend(2)
    plain.rows = rows_of(tiny, [9, 8], latents=2)
    torch.testing.assert_close(made, plain.extend(2)[7:], rtol=1e-3, atol=1e-3)  # the contract


def test_a_conversation_that_would_run_out_of_positions_is_read_anew(tiny: Llamo) -> None:
    engine = engine_of(tiny, window=2000, context=4)
    stream = engine.open(passage([5], max_latents=2))
    for _ in range(8):
        stream.append(passage([7] * 500, "conversation", context=1, max_latents=2))
    for _ in range(18):
        engine.tick()
        assert all(slot.length <= engine.positions - 2000 + 2 for slot in stream._reading.slots)
    assert stream.is_done


def test_a_change_forgets_what_was_to_follow_and_takes_new_options(tiny: Llamo) -> None:
    engine = engine_of(tiny)
    stream = engine.open(passage([5], max_latents=3, guidance_scale=2.0))
    stream.append(passage([6], max_latents=3))
    engine.tick()
    stream.change(passage([7], max_latents=2, guidance_scale=1.0))
    assert stream.waiting == 0
    steps = run(engine, 5)[stream]
    assert [step.is_final for step in steps] == [False, True]
    assert engine._cache.rows == 0


def test_a_cancelled_stream_makes_nothing_more_and_frees_its_rows(tiny: Llamo) -> None:
    engine = engine_of(tiny)
    stream, other = engine.open(passage([5])), engine.open(passage([6]))
    engine.tick()
    stream.cancel()
    stream.cancel()
    assert [step.stream for step in engine.tick()] == [other]
    assert engine._cache.rows == 2
    for verb in (stream.change, stream.append):
        with pytest.raises(ParameterError, match="has ended"):
            verb(passage([5]))


@pytest.mark.parametrize(
    "options",
    [
        {"min_latents": 0},
        {"min_latents": 9, "max_latents": 8},
        {"guidance_scale": -1.0},
        {"temperature": float("nan")},
        {"flow_steps": 0},
        {"flow_steps": 2.5},
        {"exit_threshold": -0.1},
        {"exit_threshold": float("nan")},
        {"solver": "rk4"},
        {"guidance_scale": "2"},
        {"guidance_scale": True},
        {"temperature": "1"},
        {"min_latents": 1.5},
        {"max_latents": True},
        {"flow_steps": "50"},
        {"flow_steps": True},
        {"exit_threshold": "0.5"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ParameterError, match="|".join(options)):
        SamplingOptions(**options)


def test_what_does_not_fit_the_model_is_refused(tiny: Llamo) -> None:
    engine = engine_of(tiny)
    with pytest.raises(ParameterError, match="shorten"):
        engine.open(passage([5] * 5000))
    with pytest.raises(ParameterError, match="less than the window"):
        engine.open(passage([5], context=40))
    with pytest.raises(ParameterError, match="link"):
        passage([5], "telepathy")
    with pytest.raises(ParameterError, match="context < window"):
        engine_of(tiny, window=5, context=5)


def given_passage(model: Llamo, **options: float | str | None) -> Passage:
    """A prompt that holds three latents, against a null that begins with two of them."""
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(5))
    prompt = Prompt((5, model.begin_motion, *[MOTION] * 3, model.end_motion, 6), latents)
    return Passage(prompt, SamplingOptions(flow_steps=10, **{**ENDLESS, **options}), null=Prompt(lead=latents[1:]))


class WithGiven:
    """A model that puts the given latents of a row before those that were made."""

    def __init__(self, model: Llamo, given: dict[int, torch.Tensor]) -> None:
        self.projector, self.flow_head = model.projector, model.flow_head
        self._model, self._given = model, given  # by the token behind [BOS]

    def __call__(self, tokens: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        given = self._given[tokens[0, 1].item()]
        return self._model(tokens, torch.cat([given, made]))


def test_given_motion_is_read_in_its_place_and_the_null_prompt_has_latents_of_its_own(tiny: Llamo) -> None:
    first = given_passage(tiny, guidance_scale=2.5)
    prompt, lead = first.prompt, first.null.lead
    model = WithGiven(tiny, {prompt.ids[0]: prompt.latents, tiny.begin_motion: lead})
    rows = [[BOS, *prompt.ids, tiny.begin_motion], [BOS, tiny.begin_motion, MOTION, MOTION]]
    plain = Recomputed(model, rows, 3, first.options)
    plain.given = 3
    torch.testing.assert_close(made_alone(tiny, first, 3, 6), plain.extend(6), rtol=1e-3, atol=1e-3)  # the contract


def test_at_the_end_of_the_window_given_motion_stays_and_a_lead_is_forgotten(tiny: Llamo) -> None:
    first = given_passage(tiny)
    engine = engine_of(tiny, window=8, context=2)
    engine.ticks_ahead = 0  # so that all of it is left to be read when the window is full
    stream = engine.open(Passage(first.prompt, first.options, null=first.null), seed=3)
    run(engine, 8)
    assert stream._reading.unread[0] == [BOS, *first.prompt.ids, tiny.begin_motion, MOTION, MOTION]
    assert stream._reading.unread[1] == [BOS, tiny.begin_motion, MOTION, MOTION]
    assert [len(row) for row in stream._reading.context] == [5, 2]
    lead = engine.open(Passage(Prompt((5,), lead=first.prompt.latents), first.options), seed=3)
    run(engine, 4)
    assert len(lead._recent) == 7
    run(engine, 1)
    assert lead._reading.unread[0] == [BOS, 5, tiny.begin_motion, MOTION, MOTION]


@pytest.mark.parametrize("link", ["context", "conversation"])
@pytest.mark.parametrize(
    ("made", "window", "kept"),  # latents before, and those kept where the window is full after the first of the turn
    [(5, 40, None), (7, 9, 4)],
    ids=["goes on", "window full"],
)
def test_a_later_passage_begins_with_its_lead_and_has_a_null_of_its_own(
    tiny: Llamo, link: str, made: int, window: int, kept: int | None
) -> None:
    lead = torch.randn(3, 8, generator=torch.Generator().manual_seed(5))
    options = passage([5]).options
    engine = engine_of(tiny, window=window, context=4)
    stream = engine.open(passage([5, 6, 7]), seed=3)
    run(engine, made)
    stream.change(Passage(Prompt((9, 8), lead=lead), options, link, context=2, null=Prompt((4,), lead=lead)))
    actual = latents_of(run(engine, 4)[stream])

    plain = Recomputed(tiny, rows_of(tiny, [5, 6, 7]), 3, options)
    plain.extend(made)
    plain.made = torch.cat([plain.made, lead])  # as if they had been made
    turns = [[*ids, tiny.begin_motion] for ids in ([9, 8], [4])]
    if link == "conversation":
        plain.rows = [[*r, tiny.end_motion, *t, *[MOTION] * 3] for r, t in zip(plain.rows, turns, strict=True)]
        plain.extend(1 if kept else 4)
        if kept:
            plain.rows = [[BOS, *turn, *[MOTION] * kept] for turn in turns]
            plain.extend(3)
    else:
        plain.rows = [[BOS, *turn, *[MOTION] * (2 + 3)] for turn in turns]
        plain.extend(4)
    torch.testing.assert_close(actual, plain.made[-4:], rtol=1e-3, atol=1e-3)  # the contract


def test_given_motion_that_does_not_fit_is_refused(tiny: Llamo) -> None:
    engine, options = engine_of(tiny, window=40), SamplingOptions()
    with pytest.raises(ParameterError, match="less than the window"):
        engine.open(Passage(Prompt(lead=torch.zeros(40, 8)), options))
    with pytest.raises(ParameterError, match="at most"):
        engine.open(Passage(Prompt(), options, null=Prompt((5,) * engine.positions)))


def test_compiled_kernels_that_are_asked_for_run_or_are_refused(tiny: Llamo) -> None:
    rounded = Llamo(dataclasses.replace(tiny.config, dtype="bfloat16")).eval().requires_grad_(False)
    rounded.load_state_dict(tiny.state_dict())
    with pytest.raises(BackendError, match="backbone in bfloat16"):
        MotionRuntime(rounded, backend="cpu")
    latents = torch.randn(2, 3, tiny.config.vae.latent_dim, generator=torch.Generator().manual_seed(0))
    expected = tiny.vae.decode(latents)[0]
    for model, backend in ((rounded, "auto"), (tiny, "cpu"), (tiny, "reference")):
        torch.testing.assert_close(MotionRuntime(model, backend).decode(latents, None)[0], expected)
