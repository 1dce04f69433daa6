"""Training from packed data to a checkpoint that generates, at the smallest sizes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llamo_ros.core.errors import CheckpointError, DatasetError, ParameterError, TrainingError
from llamo_ros.model.checkpoint import load_checkpoint, read_config, save_checkpoint
from llamo_ros.pipelines.motion_to_text import MotionToText
from llamo_ros.pipelines.text_to_motion import TextToMotion
from llamo_ros.training.motion_beginning import MotionBeginning
from llamo_ros.training.motion_data import DESCRIBABLE_SHARES, FAMILIES, SEGMENT_SHARES, SHARES, worded_clips
from llamo_ros.training.motion_samples import TaskMix
from llamo_ros.training.motion_stages import train_motion, without_mixture
from llamo_ros.training.pack import open_pack, pack_data
from llamo_ros.training.runs import StageSettings
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.stage_config import motion_stage
from llamo_ros.training.stages import export, train_text, train_vae

STEPS = 6


def stage_settings(data: Path, out: Path, steps: int = STEPS) -> StageSettings:
    return StageSettings(data, out, TrainingSettings(steps=steps, bf16=False), preset="tiny", batch_size=3)


# Everything that the made-up clips have what it takes for.
JOINT = replace(motion_stage(2, "tiny"), mix=TaskMix({"text_to_motion": 0.6, "motion_to_text": 0.3, "prediction": 0.1}))


def of_runs(folder: Path) -> MotionBeginning:
    return MotionBeginning(vae_run=folder / "vae", text_run=folder / "text")


@pytest.fixture(scope="module")
def runs(source_folder: Path, packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all three stages, and their export."""
    folder = tmp_path_factory.mktemp("runs")
    train_vae(stage_settings(packed_folder, folder / "vae"))
    train_text(stage_settings(packed_folder, folder / "text"), source_folder)
    train_motion(stage_settings(packed_folder, folder / "motion"), JOINT, of_runs(folder))
    export(folder / "motion", folder / "checkpoint", "made-up")
    return folder


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("stage", ["vae", "text", "motion"])
def test_a_run_records_how_it_came_about(runs: Path, stage: str) -> None:
    record = record_of(runs / stage)
    assert record["stage"] == stage
    assert record["preset"] == "tiny"
    assert record["training"]["seed"] == 0
    assert record["licence_set"] == "noncommercial"
    assert record["steps"] == STEPS
    assert record["commit"]
    assert np.isfinite(record["validation"]["score"])


def test_the_exported_model_generates_and_captions(runs: Path) -> None:
    model, tokenizer = load_checkpoint(runs / "checkpoint")
    generate = partial(
        TextToMotion(model, tokenizer), "a person walks", max_duration=2.0, min_duration=1.5, flow_steps=4
    )
    clip, again, other = (generate(seed=seed) for seed in (1, 1, 2))
    assert 1.5 <= clip.duration <= 2.0
    np.testing.assert_array_equal(clip.rotations, again.rotations)
    assert not np.array_equal(clip.rotations[:40], other.rotations[:40])
    caption = MotionToText(model, tokenizer)(clip)
    assert caption == MotionToText(*load_checkpoint(runs / "checkpoint"))(again)
    assert 0.0 < caption.confidence < 1.0


def test_the_exported_model_says_what_it_was_trained_on(runs: Path) -> None:
    config, metadata = read_config(runs / "checkpoint")
    assert config.name == "tiny"
    assert metadata["name"] == "made-up"
    assert metadata["licence"] == "CC-BY-NC-4.0"
    assert "Bandai" in metadata["data"]
    assert metadata["steps"] == str(STEPS)


def test_the_exported_model_holds_the_frozen_parts_unchanged(runs: Path) -> None:
    model, _ = load_checkpoint(runs / "checkpoint")
    weights = model.state_dict()
    for run, prefix in (("vae", "vae."), ("text", "backbone.")):
        for name, value in torch.load(runs / run / "best.pt", weights_only=True)["average"].items():
            if name.startswith("grounding."):  # serves the training of the text branch only
                continue
            # Shards hold bfloat16, which keeps 8 bits of the mantissa.
            torch.testing.assert_close(weights[prefix + name], value, rtol=2**-8, atol=1e-6)
    assert (model.latent_std > 0).all()
    assert not torch.equal(model.latent_std, torch.ones_like(model.latent_std))


def test_a_run_goes_on_where_it_stopped(runs: Path, packed_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "motion", tmp_path / "motion")
    settings = stage_settings(packed_folder, tmp_path / "motion", steps=STEPS + 3)
    # The other runs are gone: a resumed motion run has their weights in its own folder.
    train_motion(settings, JOINT, of_runs(tmp_path / "nothing"))
    record = record_of(tmp_path / "motion")
    assert record["resumed_at_step"] == STEPS
    assert record["steps"] == STEPS + 3


def unfinished(run: Path, folder: Path) -> Path:
    """A copy of a run whose record says that its schedule did not come to an end."""
    shutil.copytree(run, folder)
    (folder / "run.json").write_text(json.dumps(record_of(folder) | {"finished": False}))
    return folder


def test_a_run_that_was_broken_off_goes_on_with_what_it_began_with_alone(
    runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    run = unfinished(runs / "motion", tmp_path / "motion")
    settings, before = stage_settings(packed_folder, run), (run / "run.json").read_bytes()

    def differing(**changes: object) -> StageSettings:
        return replace(settings, training=replace(settings.training, **changes))

    other = repacked(source_folder, tmp_path / "other", lambda row: row | {"captions": row["captions"] * 2})
    mix = replace(JOINT, mix=TaskMix({"text_to_motion": 0.6, "motion_to_text": 0.4}))
    for wrong, stage, says in (
        (replace(settings, data=other), JOINT, "data .*packed.*, not .*other"),
        (replace(settings, batch_size=4), JOINT, "batch_size 3, not 4"),
        (differing(seed=1), JOINT, "seed 0, not 1"),
        (differing(learning_rate=0.5, accumulate=2), JOINT, "learning_rate 0.001, not 0.5; accumulate 1, not 2"),
        (differing(steps=STEPS + 1), JOINT, f"steps {STEPS}, not {STEPS + 1}"),
        (differing(steps=0, minutes=1.0), JOINT, f"steps {STEPS}, not 0"),
        (settings, replace(JOINT, stage=1), "motion_stage 2, not 1"),
        (settings, mix, "mix.shares.motion_to_text 0.3, not 0.4; mix.shares.prediction 0.1, not none"),
    ):
        with pytest.raises(ParameterError, match=says) as caught:
            train_motion(wrong, stage, of_runs(runs))
        assert "--out" in str(caught.value)
        assert (run / "run.json").read_bytes() == before
    shutil.copytree(packed_folder, tmp_path / "moved")
    free = replace(differing(save_minutes=2.0, validate_minutes=1.0), data=tmp_path / "moved")
    train_motion(free, JOINT, of_runs(runs))
    assert record_of(run)["resumed_at_step"] == STEPS


def test_a_finished_run_is_made_longer_on_the_same_data_alone(
    runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "text", tmp_path / "text")
    longer = stage_settings(packed_folder, tmp_path / "text", STEPS + 1)
    with pytest.raises(ParameterError, match="seed 0, not 1"):
        train_text(replace(longer, training=replace(longer.training, seed=1)), source_folder)
    shutil.copytree(source_folder, tmp_path / "source")
    with pytest.raises(ParameterError, match="source .*, not .*source"):
        train_text(longer, tmp_path / "source")
    train_text(longer, source_folder)
    assert record_of(tmp_path / "text")["steps"] == STEPS + 1


def test_a_motion_run_records_the_shares_that_clips_are_drawn_by(runs: Path) -> None:
    record = record_of(runs / "motion")
    assert json.loads(record["source_shares"]) == SHARES
    assert json.loads(record["describable_shares"]) == DESCRIBABLE_SHARES
    assert json.loads(record["segment_shares"]) == SEGMENT_SHARES
    families = json.loads(record["family_shares"])
    assert {tuple(labels.split(", ")): share for labels, share in families.items()} == FAMILIES


def test_the_same_seed_gives_the_same_weights(runs: Path, packed_folder: Path, tmp_path: Path) -> None:
    train_vae(stage_settings(packed_folder, tmp_path / "vae"))
    first, second = (torch.load(run / "vae" / "best.pt", weights_only=True)["average"] for run in (runs, tmp_path))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)


@pytest.fixture(scope="module")
def three_stages(runs: Path, packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages 1 to 3 on the text branch and VAE of a checkpoint, each going on from the one before."""
    folder = tmp_path_factory.mktemp("three")
    begin = MotionBeginning(base=str(runs / "checkpoint"))
    for number in (1, 2, 3):
        stage = replace(JOINT if number == 2 else motion_stage(number, "tiny"), stage=number)
        if number != 2:
            names = ("text_to_motion", "motion_to_text") if number == 1 else ("text_to_motion",)
            stage = replace(stage, mix=TaskMix(dict.fromkeys(names, 0.5)))
        run = folder / f"motion{number}"
        train_motion(stage_settings(packed_folder, run), stage, begin)
        begin = MotionBeginning(str(run))
    export(folder / "motion3", folder / "checkpoint", "three")
    return folder


def test_each_stage_changes_what_it_trains_and_nothing_else(runs: Path, three_stages: Path) -> None:
    """Compared in the float32 of the runs; what a stage trains is what its file says."""
    before = load_file(three_stages / "motion1" / "start.safetensors")
    for number in (1, 2, 3):
        trained = motion_stage(number, "tiny").trained
        best = torch.load(three_stages / f"motion{number}" / "best.pt", weights_only=True)["average"]
        assert set(best) == {name for name in before if name.startswith(trained)}
        start = load_file(three_stages / f"motion{number}" / "start.safetensors")
        assert all(torch.equal(value, start[name]) for name, value in before.items()), "begins where the last one ended"
        # A weight whose gradient is zero does not move: the part of the head that never sees its input is one.
        changed = {name for name, value in best.items() if not torch.equal(value, before[name])}
        for prefix in trained:
            assert any(name.startswith(prefix) for name in changed), (number, prefix)
        before |= best


def test_three_stages_leave_the_text_side_and_the_vae_as_they_were_to_the_bit(runs: Path, three_stages: Path) -> None:
    base, after = (load_checkpoint(folder / "checkpoint")[0] for folder in (runs, three_stages))
    weights = after.state_dict()
    for name, value in base.state_dict().items():
        if name.startswith(("backbone.text.", "vae.")):
            assert torch.equal(value, weights[name]), name
    assert not torch.equal(base.special_tokens, after.special_tokens)
    tokens = torch.randint(0, 300, (2, 9))
    assert torch.equal(base.text_logits(tokens), after.text_logits(tokens))


def test_a_model_without_the_mixture_trains_its_text_branch(runs: Path, packed_folder: Path, tmp_path: Path) -> None:
    stage = without_mixture(replace(JOINT, training={}))
    begin = MotionBeginning(base=str(runs / "checkpoint"), with_mixture=False)
    train_motion(stage_settings(packed_folder, tmp_path / "motion"), stage, begin)
    export(tmp_path / "motion", tmp_path / "checkpoint", "no-mot")
    base, after = (load_checkpoint(folder / "checkpoint")[0] for folder in (runs, tmp_path))
    assert not any(name.startswith("backbone.motion") for name in after.state_dict())
    tokens = torch.randint(0, 300, (2, 9))
    assert not torch.equal(base.text_logits(tokens), after.text_logits(tokens)), "its language has changed"


def test_training_goes_on_from_a_checkpoint(
    runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    start = str(runs / "checkpoint")
    train_vae(stage_settings(packed_folder, tmp_path / "decoder"), decoder_of=start)
    train_text(stage_settings(packed_folder, tmp_path / "text"), source_folder, start)
    begin = MotionBeginning(start, text_run=tmp_path / "text")
    train_motion(stage_settings(packed_folder, tmp_path / "motion"), JOINT, begin)
    export(tmp_path / "motion", tmp_path / "checkpoint", "further", tmp_path / "decoder")
    before, after = (load_checkpoint(folder / "checkpoint")[0].state_dict() for folder in (runs, tmp_path))
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert {name for name in before if name.startswith("vae.encoder.")} <= same
    # Adam moves a weight by at most about the learning rate in each step; a fresh start would be far away.
    for part in (
        "vae.decoder.output",
        "backbone.text.layers.0.mlp.up_proj",
        "backbone.motion.layers.0.mlp.up_proj",
        "flow_head.input",
    ):
        assert 0 < (after[f"{part}.weight"] - before[f"{part}.weight"]).abs().max() < 2 * STEPS * 1e-3
    assert record_of(tmp_path / "motion")["start"] == start


def test_a_run_that_began_from_a_checkpoint_goes_on_without_it(
    runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "checkpoint", tmp_path / "checkpoint")
    start = str(tmp_path / "checkpoint")

    def train(steps: int, start: str | None) -> None:
        train_vae(stage_settings(packed_folder, tmp_path / "decoder", steps), decoder_of=start)
        train_text(stage_settings(packed_folder, tmp_path / "text", steps), source_folder, start)
        train_motion(stage_settings(packed_folder, tmp_path / "motion", steps), JOINT, MotionBeginning(start))

    train(STEPS, start)
    tokenizer = (tmp_path / "text" / "tokenizer.json").read_bytes()
    shutil.rmtree(tmp_path / "checkpoint")
    train(STEPS + 2, None)
    for run in ("decoder", "text", "motion"):
        record = record_of(tmp_path / run)
        assert record["resumed_at_step"] == STEPS
        assert start in (record.get("start"), record.get("decoder_of"))
    average = torch.load(tmp_path / "decoder" / "best.pt", weights_only=True)["average"]
    assert all(name.startswith("decoder.") for name in average)
    assert (tmp_path / "text" / "tokenizer.json").read_bytes() == tokenizer


def test_weights_stay_non_commercial_whatever_they_are_trained_on_further(
    runs: Path, source_folder: Path, tmp_path: Path
) -> None:
    pack_data(source_folder, tmp_path / "packed", "open")
    settings = stage_settings(tmp_path / "packed", tmp_path / "motion")
    train_motion(settings, JOINT, MotionBeginning(str(runs / "checkpoint")))
    _, metadata = read_config(export(tmp_path / "motion", tmp_path / "checkpoint", "x"))
    assert metadata["licence"] == "CC-BY-NC-4.0"
    assert "Bandai" in metadata["data"]


def test_what_cannot_be_gone_on_from_is_named(
    runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    settings = replace(stage_settings(packed_folder, tmp_path / "text"), preset="mini")
    with pytest.raises(CheckpointError, match="not that of preset mini"):
        train_text(settings, source_folder, str(runs / "checkpoint"))
    with pytest.raises(ParameterError, match="nothing to begin from"):
        train_motion(stage_settings(packed_folder, tmp_path / "x"), JOINT, MotionBeginning(vae_run=runs / "vae"))
    with pytest.raises(CheckpointError, match="expected one of stage motion"):
        train_motion(stage_settings(packed_folder, tmp_path / "x"), JOINT, MotionBeginning(str(runs / "vae")))
    with pytest.raises(CheckpointError, match="did not train a decoder alone"):
        export(runs / "motion", tmp_path / "checkpoint", "x", runs / "vae")
    with pytest.raises(ParameterError, match="whole VAE"):
        train_vae(stage_settings(packed_folder, runs / "vae"), decoder_of=str(runs / "checkpoint"))
    # A decoder of the same size, but of a VAE with other latents.
    other = replace(stage_settings(packed_folder, tmp_path / "vae"), training=TrainingSettings(steps=STEPS, seed=1))
    train_vae(other)
    model, tokenizer = load_checkpoint(runs / "checkpoint")
    model.vae.load_state_dict(torch.load(tmp_path / "vae" / "best.pt", weights_only=True)["average"], strict=False)
    save_checkpoint(model, tokenizer, tmp_path / "other", read_config(runs / "checkpoint")[1])
    train_vae(stage_settings(packed_folder, tmp_path / "decoder"), decoder_of=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="belongs to another VAE"):
        export(runs / "motion", tmp_path / "checkpoint", "x", tmp_path / "decoder")


def test_a_run_of_another_preset_is_refused(runs: Path, packed_folder: Path) -> None:
    settings = replace(stage_settings(packed_folder, runs / "vae"), preset="mini")
    with pytest.raises(CheckpointError):
        train_vae(settings)


def test_the_open_licence_set_trains_without_the_noncommercial_clips(source_folder: Path, tmp_path: Path) -> None:
    pack = pack_data(source_folder, tmp_path / "packed", "open")
    assert {row.kind for row in pack.sequences} == {"h3d"}
    figures = train_vae(stage_settings(tmp_path / "packed", tmp_path / "vae"))
    assert np.isfinite(figures["score"])
    assert not any(name.startswith("bandai") for name in figures)


def test_missing_inputs_are_named(runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="llamo data pack"):
        train_vae(stage_settings(tmp_path / "nothing", tmp_path / "vae"))
    with pytest.raises(DatasetError, match="texts_humanml3d"):
        train_text(stage_settings(packed_folder, tmp_path / "text"), tmp_path)
    with pytest.raises(CheckpointError, match="llamo train vae"):
        begin = MotionBeginning(vae_run=tmp_path / "vae", text_run=runs / "text")
        train_motion(stage_settings(packed_folder, tmp_path / "motion"), JOINT, begin)
    with pytest.raises(CheckpointError, match="Make one with `llamo train motion`"):
        export(tmp_path / "nothing", tmp_path / "checkpoint", "x")
    with pytest.raises(CheckpointError, match="run of stage vae"):
        export(runs / "vae", tmp_path / "checkpoint", "x")


def repacked(source: Path, folder: Path, change: Callable[[dict], dict | None]) -> Path:
    """A pack of the source folder with changed rows; those that become None are left out."""
    shutil.copytree(source, folder / "source")
    index = folder / "source" / "index.jsonl"
    rows = (change(json.loads(line)) for line in index.read_text().splitlines())
    index.write_text("".join(json.dumps(row) + "\n" for row in rows if row))
    pack_data(folder / "source", folder / "packed")
    return folder / "packed"


def test_a_folder_whose_first_try_failed_begins_from_what_is_given_then(
    runs: Path, packed_folder: Path, tmp_path: Path
) -> None:
    settings = stage_settings(packed_folder, tmp_path / "motion")
    wrong = replace(settings, training=replace(settings.training, module_rates={"nothing": 2.0}))
    train_vae(replace(stage_settings(packed_folder, tmp_path / "vae"), training=TrainingSettings(steps=1, seed=1)))
    with pytest.raises(ParameterError, match="module_rates"):
        train_motion(wrong, JOINT, MotionBeginning(vae_run=tmp_path / "vae", text_run=runs / "text"))
    begin = MotionBeginning(base=str(runs / "checkpoint"))
    train_motion(settings, JOINT, begin)
    start, base = load_file(tmp_path / "motion" / "start.safetensors"), load_checkpoint(runs / "checkpoint")[0]
    frozen = [name for name in start if name.startswith(("vae.", "backbone.text."))]
    assert all(torch.equal(start[name], base.state_dict()[name].float()) for name in frozen)
    (tmp_path / "motion" / "start.safetensors").unlink()
    with pytest.raises(CheckpointError, match="start.safetensors cannot be read"):
        train_motion(settings, JOINT, begin)


def test_a_run_folder_belongs_to_one_stage(
    runs: Path, packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    for stage in ("vae", "text", "motion"):
        shutil.copytree(runs / stage, tmp_path / stage)
        before = {path.name for path in (tmp_path / stage).iterdir()}
        settings = stage_settings(packed_folder, tmp_path / stage, STEPS + 1)
        trainings = {
            "vae": lambda settings: train_vae(settings),
            "text": lambda settings: train_text(settings, source_folder),
            "motion": lambda settings: train_motion(settings, JOINT, of_runs(runs)),
        }
        for other in trainings.keys() - {stage}:
            with pytest.raises(CheckpointError, match=f"run of stage {stage}, expected one of stage {other}"):
                trainings[other](settings)
        assert {path.name for path in (tmp_path / stage).iterdir()} == before
        trainings[stage](settings)
        assert record_of(tmp_path / stage)["resumed_at_step"] == STEPS


def test_the_best_weights_of_a_run_that_begins_again_are_not_those_of_before(
    runs: Path, packed_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "motion", tmp_path / "motion")
    (tmp_path / "motion" / "state.pt").unlink()
    diverging = TrainingSettings(steps=2, learning_rate=float("inf"), patience=1, bf16=False)
    broken = replace(stage_settings(packed_folder, tmp_path / "motion"), training=diverging)
    with pytest.raises(TrainingError):
        train_motion(broken, JOINT, of_runs(runs))
    assert not (tmp_path / "motion" / "best.pt").exists()


def test_a_run_with_a_mixture_does_not_go_on_without_it(runs: Path, packed_folder: Path, tmp_path: Path) -> None:
    begin = MotionBeginning(start=str(runs / "motion"), with_mixture=False)
    with pytest.raises(ParameterError, match="has a motion branch"):
        train_motion(stage_settings(packed_folder, tmp_path / "motion"), without_mixture(JOINT), begin)


def test_data_that_cannot_be_learned_from_are_refused_before_training(
    runs: Path, source_folder: Path, tmp_path: Path
) -> None:
    data = repacked(source_folder, tmp_path / "val", lambda row: row if row["split"] == "train" else None)
    with pytest.raises(DatasetError, match="no validation clip has a caption"):
        train_motion(stage_settings(data, tmp_path / "motion"), JOINT, of_runs(runs))
    data = repacked(source_folder, tmp_path / "short", lambda row: row | {"length": 15})
    with pytest.raises(DatasetError, match="16 frames"):
        train_motion(stage_settings(data, tmp_path / "motion"), JOINT, of_runs(runs))
    with pytest.raises(DatasetError, match="16 frames"):
        train_vae(stage_settings(data, tmp_path / "vae"))


def test_a_text_file_without_captions_to_validate_on_is_refused(
    packed_folder: Path, source_folder: Path, tmp_path: Path
) -> None:
    rows = (source_folder / "texts_humanml3d.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "texts_humanml3d.jsonl").write_text("".join(row for row in rows if json.loads(row)["split"] == "train"))
    with pytest.raises(DatasetError, match="no captions of split val"):
        train_text(stage_settings(packed_folder, tmp_path / "text"), tmp_path)


def test_damaged_weights_are_named_without_advice_for_programmers(
    runs: Path, packed_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "motion", tmp_path / "motion")
    for name in ("best.pt", "state.pt"):
        (tmp_path / "motion" / name).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="best.pt cannot be read") as caught:
        export(tmp_path / "motion", tmp_path / "made", "made")
    assert "weights_only" not in str(caught.value)
    with pytest.raises(CheckpointError, match="state.pt cannot be resumed") as caught:
        train_motion(stage_settings(packed_folder, tmp_path / "motion"), JOINT, of_runs(runs))
    assert "weights_only" not in str(caught.value)


def test_captions_that_say_nothing_are_passed_over(runs: Path, source_folder: Path, tmp_path: Path) -> None:
    nothing = [{"text": text, "start": None, "end": None} for text in ("", " . ", ";")]
    data = repacked(
        source_folder, tmp_path, lambda row: row | {"captions": [*nothing, *row["captions"]], "content": ""}
    )
    train = [words for _, words in worded_clips(open_pack(data), "train", mirrored=True)]
    assert all(len(words.captions) == 1 and words.captions[0].strip(" .;") for words in train)
    figures = train_motion(stage_settings(data, tmp_path / "motion", 12), JOINT, of_runs(runs))
    assert np.isfinite(figures["score"])


def test_settings_outside_their_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="preset"):
        StageSettings(tmp_path, tmp_path, TrainingSettings(steps=1), preset="huge")
    with pytest.raises(ParameterError, match="batch size"):
        StageSettings(tmp_path, tmp_path, TrainingSettings(steps=1), batch_size=0)
