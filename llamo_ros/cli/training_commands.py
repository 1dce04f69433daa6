"""Subcommands that train and export."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamo_ros.cli.device import device_of
from llamo_ros.core.errors import ParameterError

if TYPE_CHECKING:
    from llamo_ros.model.llamo import Llamo
    from llamo_ros.model.text_tokenizer import TextTokenizer
    from llamo_ros.training.runs import StageSettings


def train_vae(options: argparse.Namespace) -> None:
    """Train the motion VAE."""
    from llamo_ros.model.config import preset
    from llamo_ros.training import stages
    from llamo_ros.training.vae_recipe import chosen_vae, default_loss, vae_recipe

    names = ("body", "width", "latent_dim", "variance", "sigma_per", "sigma_max")
    choices = {name: getattr(options, name) for name in names}
    config = chosen_vae(preset(options.preset).vae, choices)
    recipe = vae_recipe(options.loss or default_loss(config))
    settings = _stage_settings(options, recipe.training, recipe.batch_size)
    chosen = config if any(value is not None for value in choices.values()) else None
    _print_figures(stages.train_vae(settings, options.decoder_of, chosen, options.loss))


def train_text(options: argparse.Namespace) -> None:
    """Train tokenizer and text branch."""
    from llamo_ros.training import stages

    settings = _stage_settings(options, stages.DEFAULTS["text"], stages.BATCH_SIZES["text"])
    _print_figures(stages.train_text(settings, options.source, options.start))


def train_motion(options: argparse.Namespace) -> None:
    """Train one of the three stages of the motion side, in as many processes as the launcher started."""
    if os.environ.get("RANK", "0") != "0":
        os.environ["TQDM_DISABLE"] = "1"  # one of the processes shows progress
    from llamo_ros.training.engine import engine_of_launch
    from llamo_ros.training.motion_beginning import MotionBeginning
    from llamo_ros.training.motion_stages import train_motion as train
    from llamo_ros.training.motion_stages import without_mixture
    from llamo_ros.training.stage_config import motion_stage

    number, start = options.motion_stage, options.start
    options.out = options.out or Path("runs", f"motion{number}")
    if options.base is not None and start is not None:
        raise ParameterError("--base makes the motion side anew and --start trains it further; give one of them.")
    if options.base is not None and number > 1:
        raise ParameterError(
            f"--base is for stage 1, which makes the motion side anew; stage {number} goes on from the stage before. "
            f"Leave it out, or give --start, a run of stage {number - 1}."
        )
    if start is None and number > 1:
        start = str(options.out.parent / f"motion{number - 1}")
        _require_stage_before(number, Path(start))
    if start is None and options.base is None:  # as `llamo train vae` and `llamo train text` leave them
        options.vae = options.vae or Path("runs/vae")
        options.text = options.text or Path("runs/text")
    if number == 3 and start is not None:
        _require_joint(start)
    options.preset = _preset_name(options.preset, options.base, start)
    stage = motion_stage(number, options.preset, options.config)
    if options.without_mixture:
        stage = without_mixture(stage)
    begin = MotionBeginning(start, options.base, options.vae, options.text, with_mixture=not options.without_mixture)
    engine = engine_of_launch(device_of(options.device))
    settings = _stage_settings(options, stage.training, stage.batch_size, engine.device)
    figures = train(settings, stage, begin, _draw_samples if options.samples else None, engine)
    if engine.processes.is_first:
        _print_figures(figures)
    engine.close()


def _require_stage_before(number: int, run: Path) -> None:
    from llamo_ros.training.runs import is_run

    if not is_run(run):
        raise ParameterError(
            f"stage {number} goes on from stage {number - 1}, and {run} is no run of it. Run "
            f"`llamo train motion --stage {number - 1} --out {run}` first, or give --start, its run or a checkpoint."
        )


def _require_joint(start: str) -> None:
    """Refuse a motion run of stage 1 to begin stage 3 from: its motion branch has learned nothing yet."""
    from llamo_ros.training.runs import is_run, record_of

    record = record_of(Path(start)) if is_run(Path(start)) else {}
    if record.get("stage") == "motion" and record.get("motion_stage") not in ("2", "3"):
        raise ParameterError(
            f"{start} is a run of stage {record.get('motion_stage', 'unknown')}, and stage 3 trains the heads alone. "
            "Run `llamo train motion --stage 2` first, and give its run, one of stage 3, or a checkpoint as --start."
        )


def train_all(options: argparse.Namespace) -> None:
    """Train everything in order and write the checkpoint; what is finished is not trained again."""
    from llamo_ros.model.config import preset
    from llamo_ros.training import stages
    from llamo_ros.training.motion_beginning import MotionBeginning
    from llamo_ros.training.motion_stages import train_motion as train
    from llamo_ros.training.runs import is_finished
    from llamo_ros.training.stage_config import STAGES, motion_stage
    from llamo_ros.training.vae_recipe import default_loss, vae_recipe

    out = options.out

    def settings_of(name: str, values: Mapping[str, Any], batch_size: int) -> StageSettings:
        options.out = out / name
        return _stage_settings(options, _shortened(values, options.share), batch_size)

    planned: list[tuple[str, StageSettings, Callable[[StageSettings], dict[str, float]]]] = []
    vae_run = text_run = None
    if options.base is None:
        vae_run, text_run = out / "vae", out / "text"
        recipe = vae_recipe(default_loss(preset(options.preset).vae))
        planned.append(("vae", settings_of("vae", recipe.training, recipe.batch_size), stages.train_vae))
        text_settings = settings_of("text", stages.DEFAULTS["text"], stages.BATCH_SIZES["text"])
        planned.append(("text", text_settings, lambda settings: stages.train_text(settings, options.source)))
    options.preset = _preset_name(options.preset, options.base, None)
    begin = MotionBeginning(base=options.base, vae_run=vae_run, text_run=text_run)
    on_validation = _draw_samples if options.samples else None
    for number in STAGES:
        stage = motion_stage(number, options.preset)
        settings = settings_of(f"motion{number}", stage.training, stage.batch_size)
        train_stage = partial(train, stage=stage, begin=begin, on_validation=on_validation)
        planned.append((f"motion, stage {number}", settings, train_stage))
        begin = MotionBeginning(start=str(settings.out))
    for _, settings, _ in planned:  # all of them before hours are spent on the first
        _require_as_asked(settings, options)
    for name, settings, train_stage in planned:
        if is_finished(settings.out):
            print(f"{name}: already finished, in {settings.out}")
            continue
        print(f"== {name}, in {settings.out}")
        _print_figures(train_stage(settings))
    _export(planned[-1][1].out, out / "checkpoint", options.name)


def _require_as_asked(settings: StageSettings, options: argparse.Namespace) -> None:
    """Refuse what is in a run folder, finished or begun, if it was trained with something else than is asked for."""
    from llamo_ros.training.runs import can_resume, differences, is_finished, is_run

    run = settings.out
    if not is_run(run) or not (is_finished(run) or can_resume(run)):
        return
    given = {"text": {"source": str(options.source)}, "motion1": {"base": options.base or ""}}.get(run.name, {})
    if found := differences(run, settings, given):
        raise ParameterError(
            f"the run in {run} was trained with {'; '.join(found)}. Ask for what it was trained with, choose another "
            f"folder with --out, or delete {run} to train it again."
        )


def _shortened(values: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Values of a stage with ``share`` of its steps, or minutes; the warm-up is no longer than it was."""
    if values.get("steps"):
        warmup = round(values["warmup_steps"] * min(1.0, share))
        return dict(values) | {"steps": max(1, round(values["steps"] * share)), "warmup_steps": warmup}
    return dict(values) | {"minutes": values["minutes"] * share}


def _preset_name(given: str, base: str | None, start: str | None) -> str:
    """Name of the preset whose stage values count: that of the model to train, where there is one already."""
    from llamo_ros.model.checkpoint import checkpoint_folder, read_config
    from llamo_ros.training.runs import is_run, record_of

    if start is not None and is_run(Path(start)):
        return record_of(Path(start))["preset"]
    model = base or start
    return given if model is None else read_config(checkpoint_folder(model))[0].name


SAMPLE_PROMPTS = ("a person walks forward", "a person waves the right hand", "a person turns to the left")


def _draw_samples(model: Llamo, tokenizer: TextTokenizer, run: Path, step: int) -> None:
    """Pictures of a few motions as the model makes them at this step, in the run folder."""
    from llamo_ros.pipelines.text_to_motion import TextToMotion
    from llamo_ros.viewer.render import render

    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    pipeline = TextToMotion(model, tokenizer)
    for prompt in SAMPLE_PROMPTS:
        clip = pipeline(prompt, max_duration=3.0)
        render(clip, folder / f"{step:06d}_{prompt.replace(' ', '_')}.png", prompt)


def export_checkpoint(options: argparse.Namespace) -> None:
    """Write the checkpoint folder of a motion run."""
    _export(options.motion, options.out, options.name, options.decoder)


def _export(run: Path, out: Path, name: str, decoder: Path | None = None) -> None:
    from llamo_ros.training.stages import export

    folder = export(run, out, name, decoder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB. Try it: llamo generate 'a person walks' -o walk.bvh --checkpoint {folder}")


def _print_figures(figures: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def _stage_settings(
    options: argparse.Namespace, values: Mapping[str, Any], batch_size: int, device: str | None = None
) -> StageSettings:
    """Settings of a stage: its own values, and what the command line says otherwise."""
    import torch

    from llamo_ros.training.runs import StageSettings
    from llamo_ros.training.settings import TrainingSettings

    device = device or device_of(options.device)
    bf16 = options.bf16
    if bf16 is None:  # without instructions for it, bfloat16 on a CPU is many times slower than float32
        bf16 = device.startswith("cuda") or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    names = ("minutes", "steps", "learning_rate", "accumulate", "checkpointing")
    given = {name: getattr(options, name, None) for name in names}
    values = dict(values) | {name: value for name, value in given.items() if value is not None}
    if given["minutes"] is not None:
        values["steps"] = 0
    training = TrainingSettings(seed=options.seed, threads=options.threads, device=device, bf16=bf16, **values)
    batch_size = options.batch_size or batch_size
    common = (options.data, options.out, training, options.preset, batch_size, options.compile)
    return StageSettings(*common, workers=getattr(options, "workers", 0))
