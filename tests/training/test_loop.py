from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llamo_ros.core.errors import CheckpointError, ParameterError, TrainingError
from llamo_ros.training.loop import Trainer
from llamo_ros.training.settings import TrainingSettings


class Regression:
    """A small net with dropout and batches from the generator, one frozen layer and one buffer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1))
        self.model[2].requires_grad_(False)
        self.model.register_buffer("statistics", torch.ones(3))
        self.seen: list[float] = []
        self.poison: Callable[[int], bool] = lambda call: False
        self.calls = 0

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        assert self.model.training
        assert not self.model[2].training, "what is frozen does not drop out"
        x = torch.from_numpy(rng.standard_normal((16, 4)).astype(np.float32))
        loss = (self.model(x)[:, 0] - x.sum(1)).square().mean()
        if self.poison(self.calls):
            loss = loss * torch.nan
        self.calls += 1
        self.seen.append(loss.item())
        return loss, {"error": loss.item()}

    def validate(self) -> dict[str, float]:
        assert not any(module.training for module in self.model.modules())
        torch.manual_seed(99)  # whatever validation does with random numbers, training goes on unmoved
        x = torch.ones(1, 4)
        return {"score": (self.model(x) - 4).square().item()}


def settings(**changes) -> TrainingSettings:
    return TrainingSettings(**({"steps": 30, "warmup_steps": 5, "bf16": False} | changes))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.parameters.items()}


def test_training_learns_and_validates_the_averaged_weights(tmp_path: Path) -> None:
    task = Regression()
    trainer = Trainer(task, settings(steps=300, learning_rate=3e-2, ema_decay=0.9), tmp_path)
    figures = trainer.run()
    assert np.mean(task.seen[-20:]) < 0.5 * np.mean(task.seen[:20])
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["figures"] == figures
    assert any(not torch.equal(best["average"][name], value) for name, value in weights(trainer).items())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_that_is_resumed_is_the_run_that_was_not_interrupted(tmp_path: Path, accumulate: int) -> None:
    whole = Regression()
    unbroken = Trainer(whole, settings(accumulate=accumulate), tmp_path / "whole")
    unbroken.run()
    losses: list[float] = []
    for stop in (7, 18, 30):
        task = Regression()
        trainer = Trainer(task, settings(accumulate=accumulate), tmp_path / "parts")
        trainer.resume()
        step = trainer._optimise

        def until(step=step, trainer=trainer, stop=stop):
            if trainer.step + 1 == stop < 30:
                os.kill(os.getpid(), signal.SIGINT)
            return step()

        trainer._optimise = until
        trainer.run()
        assert trainer.step == stop
        losses += task.seen
    assert losses == whole.seen
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(trainer)[name])
        assert torch.equal(unbroken.average[name], trainer.average[name])


def test_accumulated_draws_give_the_mean_of_their_gradients(tmp_path: Path) -> None:
    task = Regression()
    task.model[1].p = 0.0
    trainer = Trainer(task, settings(accumulate=4, clip_norm=1e9), tmp_path)
    trainer._train_mode()
    trainer._optimise()
    got = {name: p.grad.clone() for name, p in trainer.parameters.items()}
    expected = dict.fromkeys(got, 0.0)
    for draw in range(4):
        task.model.zero_grad()
        other = Regression()
        other.model[1].p = 0.0
        other.model[2].eval()
        rng = np.random.default_rng([0, 0, draw])
        rng.integers(2**62)  # the seed of PyTorch is drawn first
        other.loss(rng, 0.0)[0].backward()
        for name, p in other.model.named_parameters():
            if p.requires_grad:
                expected[name] = expected[name] + p.grad / 4
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name])


def test_modules_learn_at_their_own_rates(tmp_path: Path) -> None:
    task = Regression()
    trainer = Trainer(task, settings(module_rates={"4": 0.1, "0": 0.0}, warmup_steps=1, steps=1), tmp_path)
    before = weights(trainer)
    trainer.run()
    change = {name: (p.detach() - before[name]).abs().max().item() for name, p in trainer.parameters.items()}
    assert change["0.weight"] == change["0.bias"] == 0.0
    # Adam's first step is the learning rate, whatever the gradient.
    assert change["3.weight"] == pytest.approx(1e-3, rel=0.05)
    assert change["4.weight"] == pytest.approx(1e-4, rel=0.05)
    with pytest.raises(ParameterError, match="no parameter"):
        Trainer(Regression(), settings(module_rates={"flow": 0.5}), tmp_path)


def test_one_bad_batch_is_skipped_and_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    task = Regression()
    task.poison = lambda call: call in (3, 4, 9)
    trainer = Trainer(task, settings(patience=3), tmp_path / "few")
    trainer.run()
    assert trainer.step == 30
    assert all(torch.isfinite(p).all() for p in trainer.parameters.values())
    task = Regression()
    task.poison = lambda call: call >= 10
    trainer = Trainer(task, settings(patience=3), tmp_path / "many")
    with pytest.raises(TrainingError, match="3 steps in a row"):
        trainer.run()
    state = torch.load(tmp_path / "many" / "state.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["parameters"].values())


@pytest.mark.parametrize("name", ["2.weight", "statistics"])
def test_a_frozen_tensor_that_changes_is_found(tmp_path: Path, name: str) -> None:
    task = Regression()
    tensor = task.model.get_buffer(name) if name == "statistics" else task.model.get_parameter(name)
    plain = task.loss

    def meddling(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        tensor.data[0] += 1e-6
        return plain(rng, progress)

    task.loss = meddling
    with pytest.raises(TrainingError, match=name):
        Trainer(task, settings(), tmp_path).run()


def test_figures_are_kept_in_the_log_and_for_tensorboard(tmp_path: Path) -> None:
    calls: list[int] = []
    Trainer(Regression(), settings(steps=40), tmp_path, calls.append).run()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train" in row] == [20, 40]
    assert all({"loss", "error", "norm", "rate"} <= row["train"].keys() for row in rows if "train" in row)
    assert [row["validation"].keys() for row in rows if "validation" in row] == [{"score"}]
    assert calls == [40]
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    scalars = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "validation/score"} <= set(scalars.Tags()["scalars"])
    assert [event.step for event in scalars.Scalars("train/loss")] == [20, 40]


def test_the_log_of_a_run_that_was_killed_goes_on_from_its_last_state(tmp_path: Path) -> None:
    def steps() -> list[int]:
        rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        return [row["step"] for row in rows if "train" in row]

    Trainer(Regression(), settings(steps=40), tmp_path).run()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 60, "train": {"loss": 1.0}}\n{"step": 80, "tr')
    trainer = Trainer(Regression(), settings(steps=60), tmp_path)
    assert trainer.resume()
    trainer.run()
    assert steps() == [20, 40, 60]
    (tmp_path / "state.pt").unlink()
    Trainer(Regression(), settings(steps=20), tmp_path).run()
    assert steps() == [20]


@pytest.mark.parametrize("wrong", [{"steps": 0, "minutes": 0.0}, {"accumulate": 0}, {"patience": 0}, {"threads": True}])
def test_settings_outside_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ParameterError):
        TrainingSettings(**wrong)


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(Regression(), settings(steps=4), tmp_path)
    trainer.run()
    before = (tmp_path / "state.pt").read_bytes()

    def full_disk(content: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match=r"state.pt cannot be written .* Make room"):
        trainer.save()
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
