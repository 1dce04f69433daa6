from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from llamo_ros.core.errors import MotionDataError, ParameterError, PromptError
from llamo_ros.model.config import FRAMES_PER_LATENT, MotionVaeConfig, preset
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.sequence import Markers, collated
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import decode_features
from llamo_ros.motion.rotations import geodesic_angle, rotation_about_y
from llamo_ros.pipelines.given_motion import given_motion
from llamo_ros.pipelines.instructions import Instructions, TaskTemplates
from llamo_ros.pipelines.motion_completion import MOST_BESIDE_GAP, MOST_GIVEN, MotionCompletion
from llamo_ros.pipelines.text_to_motion import TextToMotion
from llamo_ros.training.motion_data import LatentClip
from llamo_ros.training.motion_samples import SampleDrawer, TaskMix

FAR = {"flow_steps": 4, "exit_threshold": 2.0, "max_duration": 4.0}
FAST = {"flow_steps": 4, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def pipeline(tiny: Llamo, tokenizer: TextTokenizer) -> TextToMotion:
    return TextToMotion(tiny, tokenizer)


@pytest.fixture(scope="module")
def completion(pipeline: TextToMotion) -> MotionCompletion:
    return MotionCompletion(pipeline, "instruction")


def walk(random_clip: Callable[..., MotionClip], frames: int = 96, frame_rate: float = 30.0) -> MotionClip:
    """Moves all joints while it goes in a circle, far from the origin."""
    clip = random_clip(seed=3, frames=frames, frame_rate=frame_rate)
    time = np.arange(frames) / frame_rate
    rotations = clip.rotations.copy()
    rotations[:, 0] = rotation_about_y(2.0 + 0.6 * time) @ rotations[:, 0]
    roots = clip.root_positions + np.stack([5.0 + np.sin(time), 0.0 * time, -3.0 + np.cos(time)], axis=-1)
    return replace(clip, rotations=rotations, root_positions=roots)


class LosslessVae(nn.Module):
    """Four frames are one latent of 4 x 272 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(272))

    def encode(self, features: torch.Tensor, state: list | None = None) -> tuple[torch.Tensor, list]:
        return features.reshape(len(features), -1, 4 * 272), [torch.zeros(len(features), 1)]

    def decode(self, latents: torch.Tensor, state: list | None = None) -> tuple[torch.Tensor, list]:
        return latents.reshape(len(latents), -1, 272), [torch.zeros(len(latents), 1)]


class Foresight:
    """In place of the flow head: makes the latents that are known to come."""

    def __init__(self, latents: torch.Tensor) -> None:
        self._latents = iter(latents)

    def __call__(self, noise: torch.Tensor, *_: object) -> torch.Tensor:
        return next(self._latents)[None]


@pytest.fixture
def foreseen(tokenizer: TextTokenizer) -> Callable[[MotionClip, int], MotionCompletion]:
    """A function ``(clip, frame)``: a completion by a model that makes the clip's own latents from that frame on."""

    def make(clip: MotionClip, frame: int) -> MotionCompletion:
        torch.manual_seed(0)
        config = replace(preset("tiny"), vae=MotionVaeConfig(latent_dim=4 * 272, width=32))
        model = Llamo(config).eval().requires_grad_(False)
        model.vae = LosslessVae()
        pipeline = TextToMotion(model, tokenizer, backend="reference")
        pipeline._runtime.sampler = Foresight(given_motion(model, clip).latents[frame // FRAMES_PER_LATENT :])
        return MotionCompletion(pipeline)

    return make


def apart(first: MotionClip, second: MotionClip) -> float:
    assert len(first) == len(second)
    return float(np.abs(first.joint_positions() - second.joint_positions()).max())


def test_a_model_that_makes_the_clips_own_latents_gives_the_clip_in_its_place_and_heading(
    random_clip: Callable[..., MotionClip], foreseen: Callable[..., MotionCompletion]
) -> None:
    clip = walk(random_clip)
    made = foreseen(clip, 40).predict(clip.sliced(0, 40), seconds=56 / 30)
    assert apart(made, clip.sliced(40)) < 1e-4  # features are float32


def test_the_same_between_two_clips_needs_neither_moving_nor_bending(
    random_clip: Callable[..., MotionClip], foreseen: Callable[..., MotionCompletion]
) -> None:
    clip = walk(random_clip)
    filled = foreseen(clip, 32).between(clip.sliced(0, 32), clip.sliced(72), seconds=40 / 30)
    assert apart(filled.middle, clip.sliced(32, 72)) < 1e-4
    # Where the next frame would stand is extrapolated: off by the acceleration of one frame.
    assert filled.distance < 0.01 and abs(filled.turn) < 0.02 and filled.joint_turn < 0.1
    assert apart(filled.moved(), clip) < 0.05
    assert apart(filled.bent(), clip) < 0.05


@pytest.mark.parametrize("layout", ["repeated", "instruction", "prefix"])
def test_what_is_made_goes_on_without_a_jump_though_the_vae_is_far_off(
    random_clip: Callable[..., MotionClip], pipeline: TextToMotion, layout: str
) -> None:
    clip = walk(random_clip)
    completion = MotionCompletion(pipeline, layout)
    start = completion.given(clip)
    chunks = list(completion.stream_prediction(clip, "a person walks", seconds=1.2, **FAST))
    made = concatenated([chunk.clip for chunk in chunks])
    # The random VAE makes another posture of the last frame; the first made one differs from the given one by what the
    # VAE moves in a frame, plus the first 2 % of the fade.
    with torch.inference_mode():
        latents = torch.cat(
            [
                pipeline.model.denormalise_latents(given_motion(pipeline.model, start).latents),
                torch.from_numpy(np.stack([chunk.latent for chunk in chunks])),
            ]
        )
        features = pipeline.model.vae.decode(latents[None])[0][0].numpy()
    decoded = decode_features(features)
    frame = len(start)
    own = geodesic_angle(decoded.rotations[frame - 1, 1:], decoded.rotations[frame, 1:])
    joint = geodesic_angle(clip.rotations[-1, 1:], made.rotations[0, 1:])
    np.testing.assert_allclose(joint, own, atol=0.1)
    far = geodesic_angle(clip.rotations[-1, 1:], decoded.rotations[frame, 1:])
    assert far.max() > 0.5, "the test needs a VAE that is off"
    late = slice(12, None)  # the fade is over
    np.testing.assert_allclose(made.rotations[late, 1:], decoded.rotations[frame:][late, 1:], atol=1e-4)


def canonical(task: str, **words: str) -> Instructions:
    """Instructions whose templates of a task are the canonical one alone, as ``default`` picks it."""
    loaded = Instructions.load()
    entry = loaded.by_task[task].templates
    template = next((t for t in entry if "caption" in t.placeholders), entry[0]) if words else entry[0]
    return Instructions({**loaded.by_task, task: TaskTemplates((template,))})


@pytest.mark.parametrize("task", ["prediction", "in_between"])
@pytest.mark.parametrize("caption", [None, "a person walks forward"])
def test_the_tokens_are_those_of_trainings_sequences(
    tiny: Llamo, tokenizer: TextTokenizer, completion: MotionCompletion, task: str, caption: str | None
) -> None:
    latents = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    clip = LatentClip(("a person walks forward",), "walk", "", "bandai", True, "a", latents=latents)
    drawer = SampleDrawer(tiny, tokenizer, [clip], TaskMix(shares={task: 1.0}))
    drawer._prompts.share = 0.0  # its caption, no paraphrase
    drawer._instructions = canonical(task, **({"caption": caption} if caption else {}))
    rng = np.random.default_rng(0)
    needs = len(tokenizer.encode(caption)) if caption else 0
    sample = None
    while sample is None:  # half of the samples have no caption
        try:
            sample = drawer.draw(1, rng)[0]
        except ParameterError:
            assert needs, "a template without caption needs none"
    batch = collated([sample.parts], Markers.of(tiny, tokenizer.bos, tokenizer.eos))
    row = [*batch.prefix[0].tolist(), *batch.tokens[0].tolist()]
    given = 8 if task == "prediction" else 4
    motions = {"start": tiny.normalise_latents(latents[:given]), "end": tiny.normalise_latents(latents[-given:])}
    prompt = completion._prompt(task, caption, motions)
    made = 20 - given * (1 if task == "prediction" else 2)
    assert [tokenizer.bos, *prompt.ids, tiny.begin_motion, *[MOTION] * made] == row
    places = (batch.tokens[0] == MOTION).nonzero()[: len(prompt.latents), 0]
    torch.testing.assert_close(batch.latents[0, places], prompt.latents, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layout", "begin"), [("repeated", 10), ("instruction", 0), ("prefix", 10)], ids=lambda value: str(value)
)
def test_the_given_beginning_stands_where_the_layout_says(
    random_clip: Callable[..., MotionClip],
    pipeline: TextToMotion,
    tokenizer: TextTokenizer,
    tiny: Llamo,
    layout: str,
    begin: int,
) -> None:
    clip, engine = walk(random_clip, 40), pipeline.engine()
    latents = given_motion(tiny, clip).latents
    stream = MotionCompletion(pipeline, layout).open_prediction(engine, clip, "a person walks", guidance_scale=2.0)
    row, null = stream._latents._reading.unread
    assert null == [tokenizer.bos, tiny.begin_motion, *[MOTION] * 10]
    assert row[len(row) - begin - 1 :] == [tiny.begin_motion, *[MOTION] * begin]
    among = row[: len(row) - begin - 1].count(MOTION)
    assert among == (0 if layout == "prefix" else 10)
    expected = latents.repeat((among + begin) // 10, 1)
    torch.testing.assert_close(torch.stack(stream._latents._reading.context[0]), expected, rtol=0, atol=0)


def test_the_same_seed_makes_the_same_continuation(
    random_clip: Callable[..., MotionClip], completion: MotionCompletion
) -> None:
    clip = walk(random_clip, 40)
    first, again, other = (completion.predict(clip, seed=seed, seconds=1.0, **FAST) for seed in (1, 1, 2))
    assert apart(first, again) == 0.0
    assert not np.allclose(first.rotations, other.rotations, atol=1e-3)


def test_only_the_newest_part_of_a_long_clip_is_read_and_it_is_told_which(
    random_clip: Callable[..., MotionClip], completion: MotionCompletion
) -> None:
    clip = walk(random_clip, 211)
    given = completion.given(clip)
    assert len(given) == 4 * MOST_GIVEN
    np.testing.assert_array_equal(given.rotations[-1], clip.rotations[-1])
    whole, part = (completion.predict(c, seconds=1.0, **FAST) for c in (clip, given))
    assert apart(whole, part) == 0.0
    start, end = completion.given_ends(clip, clip)
    assert len(start) == len(end) == 4 * MOST_BESIDE_GAP
    np.testing.assert_array_equal(start.rotations[-1], clip.rotations[-1])
    np.testing.assert_array_equal(end.rotations[0], clip.rotations[0])
    assert len(completion.given(clip.sliced(0, 43))) == 40, "whole groups of four, from the end on"


def test_a_clip_at_another_rate_is_continued_from_its_last_frame(
    random_clip: Callable[..., MotionClip], completion: MotionCompletion
) -> None:
    clip = walk(random_clip, 96, frame_rate=50.0)
    given = completion.given(clip)
    assert given.frame_rate == 30.0 and len(given) == 56
    np.testing.assert_allclose(given.rotations[-1], clip.rotations[-1], atol=1e-9)
    made = completion.predict(clip, seconds=0.4, **FAST)
    assert (made.frame_rate, len(made)) == (30.0, 12)


@pytest.mark.parametrize("where", ["moved", "bent"])
def test_the_second_clip_is_met_where_it_stands_or_moved_to_where_the_middle_leads(
    random_clip: Callable[..., MotionClip], completion: MotionCompletion, where: str
) -> None:
    clip = walk(random_clip)
    filled = completion.between(clip.sliced(0, 32), clip.sliced(64), "a person walks", seconds=1.6, **FAST)
    whole = getattr(filled, where)()
    assert len(whole) == 32 + 48 + 32 and whole.text == "a person walks"
    assert apart(whole.sliced(0, 32), clip.sliced(0, 32)) == 0.0
    end = whole.sliced(80)
    if where == "bent":
        assert apart(end, clip.sliced(64)) == 0.0
        assert apart(whole.sliced(32, 36), filled.middle.sliced(0, 4)) < 0.02 * (1.0 + filled.distance)
    else:
        assert apart(whole.sliced(32, 68), filled.middle.sliced(0, 36)) < 1e-9, "bent in its last 12 frames only"
        steps = np.linalg.norm(np.diff(whole.root_positions[:, [0, 2]], axis=0), axis=-1)
        assert steps[79] == pytest.approx(steps[78], rel=0.1, abs=0.01), "the second clip begins where it would step"
    turns = geodesic_angle(whole.rotations[:-1, 1:], whole.rotations[1:, 1:]).max(axis=-1)
    assert turns[79] < max(turns[75], turns[80]) + 0.1, "no jump of a joint where the second clip begins"


def test_beside_other_streams_a_completion_is_what_it_is_alone_and_its_prompt_can_change(
    random_clip: Callable[..., MotionClip], completion: MotionCompletion, pipeline: TextToMotion
) -> None:
    clip, endless = walk(random_clip, 40), {"flow_steps": 4, "exit_threshold": 2.0, "max_duration": math.inf}
    engine = pipeline.engine()
    made: dict[object, list[MotionClip]] = {}

    def run(ticks: int) -> None:
        for _ in range(ticks):
            for stream, chunk in engine.tick():
                made.setdefault(stream, []).append(chunk.clip)

    first = completion.open_prediction(engine, clip, seed=1, **endless)
    plain = engine.open("walk", seed=2, **endless)
    run(3)
    second = completion.open_between(engine, clip, clip, "a person walks", seed=3, **endless)
    plain.cancel()
    run(3)
    third = completion.open_prediction(engine, clip, seed=1, **endless)
    first.change("a person jumps", link="blend")
    run(3)
    alone = {
        second: completion.stream_between(clip, clip, "a person walks", seed=3, **FAR),
        third: completion.stream_prediction(clip, seed=1, **FAR),
    }
    for stream, chunks in alone.items():
        expected = concatenated([chunk.clip for _, chunk in zip(made[stream], chunks, strict=False)])
        # The contract is 1e-4 per latent; the roundings of six latents add up.
        np.testing.assert_allclose(concatenated(made[stream]).rotations, expected.rotations, atol=6e-4)
    before, after = concatenated(made[first][:6]), concatenated(made[first][6:])
    np.testing.assert_allclose(before.sliced(0, 12).rotations, concatenated(made[third]).rotations, atol=6e-4)
    jump = geodesic_angle(before.rotations[-1], after.rotations[0]).max()
    assert jump < geodesic_angle(before.rotations[-2], before.rotations[-1]).max() + 0.2, "the change is cross-faded"


def test_options_are_those_of_prompts(random_clip: Callable[..., MotionClip], completion: MotionCompletion) -> None:
    clip = walk(random_clip, 40)
    ended = completion.predict(clip, flow_steps=2, exit_threshold=0.0)
    assert len(ended) == 12, "the exit head is not listened to for 0.4 s"
    assert len(completion.predict(clip, flow_steps=2, min_duration=1.2, max_duration=1.2, solver="midpoint")) == 36
    still = completion.predict(clip, flow_steps=2, temperature=0.0, seconds=0.4, seed=1)
    assert apart(still, completion.predict(clip, flow_steps=2, temperature=0.0, seconds=0.4, seed=2)) == 0.0


def test_what_cannot_be_completed_is_refused_at_once(
    random_clip: Callable[..., MotionClip], completion: MotionCompletion, pipeline: TextToMotion
) -> None:
    clip = walk(random_clip, 40)
    for ask in (completion.stream_prediction, lambda clip, **o: completion.stream_between(clip, clip, **o)):
        with pytest.raises(MotionDataError, match="7 frames at 30 FPS, at least 8"):
            ask(clip.sliced(0, 7))
        with pytest.raises(PromptError):
            ask(clip, caption=" ")
        for wrong in ({"seconds": 601.0}, {"max_duration": math.inf}):
            with pytest.raises(ParameterError, match="between 0 and 600"):
                ask(clip, **wrong)
    with pytest.raises(ParameterError, match="no place"):
        MotionCompletion(pipeline, "prefix").stream_between(clip, clip)
    with pytest.raises(ParameterError, match="telepathy"):
        MotionCompletion(pipeline, "telepathy")
