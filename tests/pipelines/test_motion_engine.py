from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import ParameterError, PromptError
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import StreamingDecoder
from llamo_ros.pipelines.motion_engine import LINKS, MotionChunk, MotionEngine, MotionStream

FAST = {"flow_steps": 4, "exit_threshold": 2.0}


@pytest.fixture
def engine(tiny: Llamo, tokenizer: TextTokenizer) -> MotionEngine:
    return MotionEngine(tiny, tokenizer)


def run(engine: MotionEngine, ticks: int) -> dict[MotionStream, list[MotionChunk]]:
    made: dict[MotionStream, list[MotionChunk]] = {}
    for _ in range(ticks):
        for stream, chunk in engine.tick():
            made.setdefault(stream, []).append(chunk)
    return made


def clip_of(chunks: list[MotionChunk]) -> MotionClip:
    return concatenated([chunk.clip for chunk in chunks])


def same_motion(first: MotionClip, second: MotionClip) -> None:
    np.testing.assert_allclose(first.rotations, second.rotations, atol=1e-4)  # the contract of a batch
    # Random weights carry the root 100 m away, and what is summed up differs by as many roundings.
    np.testing.assert_allclose(first.root_positions, second.root_positions, rtol=1e-4, atol=1e-3)


def test_a_stream_gives_four_frames_and_their_latent_each_tick(engine: MotionEngine, tiny: Llamo) -> None:
    stream = engine.open("a person walks", max_duration=1.6, min_duration=1.6, **FAST)
    chunks = run(engine, 20)[stream]
    assert [chunk.start_index for chunk in chunks] == list(range(0, 48, 4))
    assert [chunk.is_final for chunk in chunks] == [False] * 11 + [True]
    assert {len(chunk.clip) for chunk in chunks} == {4}
    assert all(chunk.text == "a person walks" and 0 < chunk.exit_probability < 1 for chunk in chunks)
    assert stream.is_done and not engine.streams
    latents = np.stack([chunk.latent for chunk in chunks])
    features = tiny.vae.decode(torch.from_numpy(latents)[None])[0][0].numpy()
    same_motion(clip_of(chunks), StreamingDecoder().decode(features))


def test_streams_that_come_and_go_each_do_what_they_do_alone(
    engine: MotionEngine, tiny: Llamo, tokenizer: TextTokenizer
) -> None:
    dice = random.Random(1)
    plans, made = {}, {}
    for tick in range(24):
        if dice.random() < 0.4:
            options = {
                "seed": tick,
                "guidance_scale": dice.choice([1.0, 2.5]),
                "flow_steps": dice.choice([3, 5]),
                "max_duration": dice.choice([0.3, 1.2, math.inf]),
                "start_heading": dice.random(),
                "exit_threshold": 2.0,
            }
            text = dice.choice(["walk", "a person jumps and turns around to the left", None])
            plans[engine.open(text, **options)] = (text, options)
        if engine.streams and dice.random() < 0.1:
            dice.choice(engine.streams).cancel()
        for stream, chunk in engine.tick():
            made.setdefault(stream, []).append(chunk)
    assert len(made) > 5
    for stream, chunks in made.items():
        text, options = plans[stream]
        alone = MotionEngine(tiny, tokenizer)
        alone.open(text, **options)
        same_motion(clip_of(chunks), clip_of(*run(alone, len(chunks)).values()))


@pytest.mark.parametrize("link", LINKS)
def test_a_changed_prompt_keeps_the_motion_that_was_made_and_goes_on_from_it(engine: MotionEngine, link: str) -> None:
    kept = engine.open("walk", seed=1, max_duration=math.inf, **FAST)
    changed = engine.open("walk", seed=1, max_duration=math.inf, **FAST)
    before = run(engine, 5)
    changed.change("jump", link=link, max_duration=0.8, min_duration=0.8)
    after = run(engine, 6)
    same_motion(clip_of(before[changed]), clip_of(before[kept]))
    assert changed.is_done and len(after[changed]) == 6
    assert {chunk.text for chunk in after[changed]} == {"jump"}
    assert after[changed][0].start_index == 20
    assert not np.allclose(clip_of(after[changed]).rotations, clip_of(after[kept]).rotations, atol=1e-3)


def test_an_appended_prompt_follows_the_end_of_the_motion(engine: MotionEngine) -> None:
    stream = engine.open("walk", max_duration=0.4, min_duration=0.4, **FAST)
    stream.append("jump", max_duration=0.27, min_duration=0.27)
    stream.append("turn", max_duration=0.13, min_duration=0.13)
    assert stream.waiting == 2
    chunks = run(engine, 10)[stream]
    assert [chunk.text for chunk in chunks] == ["walk"] * 3 + ["jump"] * 2 + ["turn"]
    assert [chunk.ends_prompt for chunk in chunks] == [False, False, True, False, True, True]
    assert [chunk.is_final for chunk in chunks] == [False] * 5 + [True]


def test_the_root_goes_on_from_where_it_was_when_the_prompt_changes(engine: MotionEngine, tiny: Llamo) -> None:
    stream = engine.open("walk", max_duration=math.inf, start_heading=1.0, start_xz=(5.0, -3.0), **FAST)
    chunks = run(engine, 6)[stream]
    stream.change("jump", link="context")
    chunks += run(engine, 6)[stream]
    latents = torch.from_numpy(np.stack([chunk.latent for chunk in chunks]))
    features = tiny.vae.decode(latents[None])[0][0].numpy()
    same_motion(clip_of(chunks), StreamingDecoder(1.0, (5.0, -3.0)).decode(features))  # one decoder, one integral


def test_two_minutes_of_motion_hold_no_more_memory_than_ten_seconds(engine: MotionEngine) -> None:
    stream = engine.open("walk", max_duration=math.inf, flow_steps=1, exit_threshold=2.0)
    run(engine, 75)
    capacity = engine._latents._cache.capacity
    chunks = run(engine, 825)[stream]
    assert stream.frames == 3600
    assert all(np.isfinite(chunk.clip.root_positions).all() for chunk in chunks)
    assert engine._latents._cache.capacity == capacity


def test_options_that_are_not_given_stay_when_the_prompt_changes(engine: MotionEngine) -> None:
    stream = engine.open("walk", guidance_scale=1.0, temperature=0.0, max_duration=math.inf, **FAST)
    stream.change("jump", flow_steps=3)
    options = stream._latents._present.options
    assert (options.guidance_scale, options.temperature, options.flow_steps) == (1.0, 0.0, 3)
    assert options.max_latents is None


def test_prompts_and_options_that_cannot_be_performed_are_refused_and_change_nothing(engine: MotionEngine) -> None:
    with pytest.raises(PromptError):
        engine.open("")
    for options in ({"max_duration": 601}, {"min_duration": 4, "max_duration": 3}, {"solver": "x"}, {"flow_steps": 0}):
        with pytest.raises(ParameterError):
            engine.open("walk", **options)
    for name in ("guidance_scale", "temperature", "flow_steps", "exit_threshold", "min_duration", "max_duration"):
        for wrong in ("2", True):
            with pytest.raises(ParameterError, match=f"{name} is {wrong!r}|{name} {wrong!r}"):
                engine.open("walk", **{name: wrong})
    for seed in (-1, 2**70, 0.5):
        with pytest.raises(ParameterError, match="seed"):
            engine.open("walk", seed=seed)
    assert not engine.streams
    stream = engine.open("walk", max_duration=0.4, min_duration=0.4, **FAST)
    for verb in (stream.change, stream.append):
        with pytest.raises(PromptError):
            verb(" ")
        with pytest.raises(ParameterError):
            verb("jump", link="telepathy")
    assert [chunk.text for chunk in run(engine, 5)[stream]] == ["walk"] * 3
    with pytest.raises(ParameterError, match="has ended"):
        stream.change("jump")
