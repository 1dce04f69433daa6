from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.sequence import MotionPart, TextPart
from llamo_ros.training.engine import Engine
from llamo_ros.training.loop import OrderedTask
from llamo_ros.training.motion_beginning import MotionBeginning, model_at_start
from llamo_ros.training.motion_samples import TASKS, SampleDrawer, TaskMix
from llamo_ros.training.motion_stages import train_motion
from llamo_ros.training.pack import open_pack
from llamo_ros.training.runs import StageSettings
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.shards import ShardSet, write_shards
from llamo_ros.training.stage_config import motion_stage
from llamo_ros.training.streamed_task import encoded, some_clips, validation_clips

spec = importlib.util.spec_from_file_location("parallel_run", Path(__file__).with_name("parallel_run.py"))
parallel_run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parallel_run)


@pytest.fixture(scope="module")
def shards(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return write_shards(open_pack(packed_folder), tmp_path_factory.mktemp("shards"), samples_per_shard=5)


def test_clips_encoded_together_are_those_encoded_alone(shards: ShardSet) -> None:
    vae = parallel_run.tiny_model()[0].vae
    samples = [shards.read("train", 0, position) for position in range(5)]
    assert len({len(features) for features, _ in samples}) > 1
    together = encoded(vae, samples)
    for sample, clip in zip(samples, together, strict=True):
        (alone,) = encoded(vae, [sample])
        assert (clip.key, clip.captions) == (sample[1].key, sample[1].captions)
        # Matrix products of another size: float32 rounding.
        torch.testing.assert_close(clip.latents, alone.latents, rtol=1e-5, atol=1e-5)


def test_every_clip_gives_a_sample_whatever_task_a_draw_is_for(shards: ShardSet) -> None:
    model, tokenizer = parallel_run.tiny_model()
    clips = some_clips(model.vae, shards, 0)
    assert len(clips) == sum(len(shard.lengths) for shard in shards.shards["train"])
    drawer = SampleDrawer(model, tokenizer, clips, TaskMix(dict.fromkeys(TASKS, 1.0)))
    rng = np.random.default_rng(0)
    silent = replace(clips[0], captions=(), content="", describable=False)
    seen = set()
    for group in ("plain", "caption", "interleaved"):
        for clip in (*clips, *clips, silent):
            sample = drawer.of_clip(clip, group, rng)
            assert not sample.task.startswith("follow_up")
            assert sample.parts[-1].is_target
            assert isinstance(sample.parts[-1], TextPart if sample.task == "motion_to_text" else MotionPart)
            seen.add(sample.task)
    assert drawer.of_clip(silent, "caption", rng).task == "unconditional"
    assert {"motion_to_text", "text_to_motion", "prediction", "in_between", "unconditional"} <= seen


def test_a_task_goes_on_at_any_draw_as_if_it_had_drawn_those_before(shards: ShardSet) -> None:
    def losses(start: int) -> list[float]:
        task = parallel_run.streamed_task(Engine(), shards.folder)
        assert isinstance(task, OrderedTask)
        task.go_to(start)
        return [task.loss(np.random.default_rng(0), 0.0)[1]["loss"] for _ in range(start, 6)]

    whole = losses(0)
    assert len(set(whole)) == 6
    assert losses(4) == whole[4:]


def test_a_stage_is_trained_on_shards_with_statistics_of_their_latents(shards: ShardSet, tmp_path: Path) -> None:
    model, tokenizer = parallel_run.tiny_model()
    save_checkpoint(model, tokenizer, tmp_path / "base", {"licence": "Apache-2.0"}, dtype=None)
    training = TrainingSettings(steps=3, bf16=False, checkpointing=True)
    settings = StageSettings(shards.folder, tmp_path / "run", training, "tiny", batch_size=4, workers=0)
    figures = train_motion(settings, motion_stage(1, "tiny"), MotionBeginning(base=str(tmp_path / "base")))
    assert np.isfinite(figures["score"])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["sequences"] == len(shards)
    assert record["processes"] == 1
    start = model_at_start(tmp_path / "run")[0]
    latents = torch.cat([clip.latents for clip in some_clips(start.vae, shards, 0)])
    torch.testing.assert_close(start.latent_mean, latents.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(start.latent_std, latents.std(0), rtol=1e-4, atol=1e-5)
    for wrong in (
        replace(settings, batch_size=5),
        replace(settings, training=replace(training, accumulate=2, steps=5)),
        replace(settings, training=replace(training, seed=1, steps=5)),
    ):
        with pytest.raises(ParameterError, match="lost and doubled"):
            train_motion(wrong, motion_stage(1, "tiny"), MotionBeginning(base=str(tmp_path / "base")))
    assert len(validation_clips(start.vae, shards)) == sum(len(shard.lengths) for shard in shards.shards["val"])
