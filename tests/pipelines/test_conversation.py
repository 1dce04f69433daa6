from __future__ import annotations

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import ParameterError, PromptError
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.sequence import Markers, MotionPart, TextPart, collated
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import concatenated
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.pipelines.conversation import Conversation
from llamo_ros.pipelines.instructions import Instructions, TaskTemplates
from llamo_ros.pipelines.text_to_motion import TextToMotion
from llamo_ros.training.motion_data import LatentClip
from llamo_ros.training.motion_samples import SampleDrawer, TaskMix

SHORT = {"flow_steps": 4, "min_duration": 0.8, "max_duration": 0.8}


@pytest.fixture(scope="module")
def pipeline(tiny: Llamo, tokenizer: TextTokenizer) -> TextToMotion:
    return TextToMotion(tiny, tokenizer)


def test_the_tokens_of_a_follow_up_are_those_of_trainings_sequences(
    tiny: Llamo, tokenizer: TextTokenizer, pipeline: TextToMotion
) -> None:
    talk = Conversation(pipeline)
    talk.say("a person walks forward", **SHORT)
    latents = talk.turns[0].latents
    slower = torch.zeros(9, 8)
    clip = LatentClip(
        ("a person walks forward",),
        "",
        "",
        "bandai",
        True,
        "a",
        latents=tiny.denormalise_latents(latents),
        slower=slower,
    )
    drawer = SampleDrawer(tiny, tokenizer, [clip], TaskMix(shares={"follow_up_slower": 1.0}))
    loaded = Instructions.load()
    first = {task: TaskTemplates(loaded.by_task[task].templates[:1]) for task in ("follow_up_slower", "text_to_motion")}
    drawer._instructions = Instructions({**loaded.by_task, **first})
    sample = drawer.draw(1, np.random.default_rng(0))[0]
    batch = collated([sample.parts], Markers.of(tiny, tokenizer.bos, tokenizer.eos))
    prompt = talk._request("now slower", talk.turns).prompt
    row = [*batch.prefix[0].tolist(), *batch.tokens[0].tolist()]
    assert [tokenizer.bos, *prompt.ids, tiny.begin_motion, *[MOTION] * 9] == row
    torch.testing.assert_close(prompt.latents, latents, rtol=0, atol=0)


@pytest.mark.parametrize("null", ["empty", "history", "first"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_conversation_equals_recomputing_every_latent_from_the_whole_sequence(
    tiny: Llamo, tokenizer: TextTokenizer, pipeline: TextToMotion, guidance: float, null: str
) -> None:
    texts = ["a person walks", "now slower", "again"]
    talk = Conversation(pipeline, seed=5, null=null)
    for text in texts:
        talk.say(text, guidance_scale=guidance, temperature=0.7, **SHORT)
    markers = Markers.of(tiny, tokenizer.bos, tokenizer.eos)

    def condition(parts: list, made: torch.Tensor) -> torch.Tensor:
        """Of the next latent, from training's own layout; a latent of zeros stands where it is to come."""
        parts = [*parts, MotionPart(torch.cat([made, torch.zeros(1, 8)]))]
        batch = collated([parts], markers)
        tokens = torch.cat([batch.prefix, batch.tokens], dim=1)[:, :-1]
        latents = batch.latents[:, :-1][batch.tokens[:, :-1] == MOTION]
        return tiny.projector(tiny(tokens, latents)[:, -1])

    history: list = []
    for number, text in enumerate(texts):
        words = [*history, TextPart(tuple(tokenizer.encode(text)))]
        against = {"empty": [], "history": history, "first": history[:1]}[null]
        noise, made = torch.Generator().manual_seed(5 + number), torch.zeros(0, 8)
        for _ in range(6):
            x = 0.7 * torch.randn(8, generator=noise)[None]
            own, plain = condition(words, made), condition(against, made)
            for k in range(4):
                t = torch.full((1,), k / 4)
                v, v_null = tiny.flow_head(x, t, own), tiny.flow_head(x, t, plain)
                x = x + (v_null + guidance * (v - v_null)) / 4
            made = torch.cat([made, x])
        torch.testing.assert_close(
            talk.turns[number].latents, made, rtol=1e-3, atol=1e-3
        )  # random weights: values to 30
        history = [*words, MotionPart(talk.turns[number].latents)]


def test_a_turn_is_cross_faded_from_where_the_one_before_ended(pipeline: TextToMotion) -> None:
    talk = Conversation(pipeline, start_heading=1.0, start_xz=(5.0, -3.0))
    first = talk.say("walk", **SHORT)
    chunks = list(talk.stream("now slower", **SHORT))
    assert [chunk.start_index for chunk in chunks] == list(range(24, 48, 4))
    assert {chunk.text for chunk in chunks} == {"now slower"} and chunks[-1].is_final
    second = concatenated([chunk.clip for chunk in chunks])
    np.testing.assert_array_equal(talk.clip.rotations, np.concatenate([first.rotations, second.rotations]))
    turns = geodesic_angle(talk.clip.rotations[:-1], talk.clip.rotations[1:]).max(axis=-1)
    assert turns[23] < turns[22] + 0.1  # a fade adds 4 rad/s, 0.13 rad a frame, where it is steepest
    assert [turn.text for turn in talk.turns] == ["walk", "now slower"]
    assert talk.turns[1].clip.text == "now slower"


def test_a_turn_that_is_interrupted_counts_as_far_as_it_was_taken(pipeline: TextToMotion) -> None:
    talk = Conversation(pipeline)
    running = talk.stream("walk", **SHORT)
    next(running), next(running)
    talk.say("jump", **SHORT)
    assert [len(turn.clip) for turn in talk.turns] == [8, 24]
    assert [len(turn.latents) for turn in talk.turns] == [2, 6]
    assert list(running) == []
    talk.stream("turn", **SHORT)  # nothing of it is taken
    talk.say("walk", **SHORT)
    assert [turn.text for turn in talk.turns] == ["walk", "jump", "walk"]


def test_the_oldest_turns_are_forgotten_whole(pipeline: TextToMotion, tiny: Llamo, tokenizer: TextTokenizer) -> None:
    talk = Conversation(pipeline, history=13)
    for count, text in enumerate(("walk", "jump", "turn")):
        assert talk.remembered == min(count, 2)
        talk.say(text, **SHORT)
    prompt = talk._request("again", talk.turns).prompt
    assert len(prompt.latents) == 12 and len(talk.turns) == 3
    torch.testing.assert_close(prompt.latents[:6], talk.turns[1].latents, rtol=0, atol=0)
    short = Conversation(pipeline, history=4)
    short.say("walk", **SHORT)
    prompt = short._request("again", short.turns).prompt
    torch.testing.assert_close(prompt.latents, short.turns[0].latents[-4:], rtol=0, atol=0)
    blank = Conversation(pipeline, history=0)
    blank.say("walk", **SHORT)
    assert blank._request("again", blank.turns).prompt.ids == tuple(tokenizer.encode("again"))


def test_the_same_seed_holds_the_same_conversation(pipeline: TextToMotion) -> None:
    clips = []
    for seed in (1, 1, 2):
        talk = Conversation(pipeline, seed=seed)
        for text in ("walk", "again"):
            talk.say(text, **SHORT)
        clips.append(talk.clip)
    np.testing.assert_array_equal(clips[0].rotations, clips[1].rotations)
    assert not np.allclose(clips[0].rotations, clips[2].rotations, atol=1e-3)


def test_what_cannot_be_said_changes_nothing(pipeline: TextToMotion) -> None:
    talk = Conversation(pipeline)
    talk.say("walk", **SHORT)
    for text, options, error in ((" ", {}, PromptError), ("again", {"max_duration": 601.0}, ParameterError)):
        with pytest.raises(error):
            talk.stream(text, **options)
    assert [turn.text for turn in talk.turns] == ["walk"]
    for wrong in ({"history": -1}, {"null": "void"}):
        with pytest.raises(ParameterError, match="expected 0 or more"):
            Conversation(pipeline, **wrong)
