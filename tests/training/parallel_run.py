"""Trains a tiny model as the launcher of this script says, for ``test_engine.py``.

Usage: parallel_run.py FOLDER key=value ...; see :func:`train`. The first process writes ``result<steps>.pt``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.engine import Engine, engine_of_launch
from llamo_ros.training.leaving import leave
from llamo_ros.training.loop import Trainer
from llamo_ros.training.losses import LossSettings
from llamo_ros.training.motion_data import LatentClip
from llamo_ros.training.motion_samples import TaskMix
from llamo_ros.training.motion_stages import set_trained
from llamo_ros.training.motion_task import MotionTask
from llamo_ros.training.settings import TrainingSettings
from llamo_ros.training.shard_stream import ShardStream
from llamo_ros.training.shards import open_shards
from llamo_ros.training.streamed_task import StreamedMotionTask, some_clips

TRAINED = ("backbone.motion", "special_tokens", "adapter", "projector", "flow_head", "exit_head")
SHARES = {"text_to_motion": 0.5, "prediction": 0.2, "motion_to_text": 0.3}
WORDS = ("a person bows", "a person walks forward slowly", "a person waves the left hand")
STEPS, BATCH = 9, 6


def tiny_model(dtype: str = "float32") -> tuple[Llamo, TextTokenizer]:
    """The preset of the tests without dropout, which differs between processes, and with a head that is not zero."""
    torch.manual_seed(0)
    model = Llamo(replace(preset("tiny"), motion_dropout=0.0, dtype=dtype))
    model.initialise_motion()
    for parameter in (*model.flow_head.parameters(), *model.backbone.parameters()):
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    set_trained(model, TRAINED)
    model.vae.eval()
    return model, TextTokenizer.train(list(WORDS) * 20, model.config.backbone.vocab_size)


def tiny_task(engine: Engine, shares: dict[str, float] = SHARES, dtype: str = "float32") -> MotionTask:
    """On clips in memory."""
    model, tokenizer = tiny_model(dtype)
    clips = [
        LatentClip((WORDS[n % 3],), "", "", "bandai", True, f"clip{n}", latents=torch.randn(6 + n, 8)) for n in range(9)
    ]
    losses = LossSettings(caption_weight=1.0, exit_weight=1.0)
    return MotionTask(model, tokenizer, clips, clips[:5], BATCH, TaskMix(shares), losses, engine.processes)


def streamed_task(engine: Engine, shards: Path, seen: Path | None = None) -> StreamedMotionTask:
    """On shards; what each process draws is noted in ``seen``."""
    model, tokenizer = tiny_model()
    data = open_shards(shards)
    stream = ShardStream(data, BATCH, 0, engine.processes)
    some = some_clips(model.vae, data, 0, 30)
    val = [clip for clip in some if clip.describable][:4]
    common = (val, BATCH, TaskMix(SHARES), LossSettings(), engine.processes)
    task = StreamedMotionTask(model, tokenizer, stream, some, *common, seed=0)
    if seen is not None:
        order, loss = stream.order, task.loss

        def noted(*arguments):
            draw = stream.state_dict()["position"]
            places = [[draw, row, *order.sample(draw, row)] for row in stream.rows]
            with (seen / f"{engine.processes.count}_{engine.processes.rank}.jsonl").open("a") as file:
                file.write("".join(json.dumps(place) + "\n" for place in places))
            return loss(*arguments)

        task.loss = noted
    return task


def train(
    folder: Path,
    engine: Engine,
    until: int = STEPS,
    shards: str = "",
    kill: bool = False,
    fail: bool = False,
    dtype: str = "float32",
    shares: dict[str, float] = SHARES,
    **changes,
) -> Trainer:
    """Train or go on, to step ``until`` of the nine of the schedule.

    Args:
        folder: Run folder.
        engine: Runs the steps.
        until: The last process gets SIGTERM in the step before, and all are to stop and save.
        shards: Folder to stream from.
        kill: SIGKILL instead, so that nothing is saved.
        fail: An error in the last process instead.
        dtype: Of the text branch.
        shares: Of the tasks.
        changes: Of the settings.
    """
    values = {"steps": STEPS, "warmup_steps": 2, "bf16": False, "accumulate": 2, "validate_minutes": 1e-9}
    # A validation after every step: what it loads and gathers must not show in the training.
    settings = TrainingSettings(**(values | changes))
    task = streamed_task(engine, Path(shards), folder) if shards else tiny_task(engine, shares, dtype)
    trainer = Trainer(task, settings, folder, engine=engine)
    trainer.resume()
    losses, optimise = [], trainer._optimise
    is_last = engine.processes.rank == engine.processes.count - 1

    def one_step() -> dict[str, float]:
        if trainer.step + 1 == until < STEPS and is_last:
            if fail:
                raise DatasetError("this clip is damaged")
            os.kill(os.getpid(), signal.SIGKILL if kill else signal.SIGTERM)
        figures = optimise()
        losses.append(figures["loss"])
        return figures

    trainer._optimise = one_step
    trainer.run()
    whole = engine.whole_model(task.model)
    if whole is not None:
        torch.save({"losses": losses, "weights": whole.state_dict()}, folder / f"result{trainer.step}.pt")
    return trainer


if __name__ == "__main__":
    options = {name: json.loads(value) for name, value in (word.split("=", 1) for word in sys.argv[2:])}
    launched = engine_of_launch("cpu")
    assert dist.get_world_size() == 2
    train(Path(sys.argv[1]), launched, **options)
    launched.close()
    leave(0)
