"""Gradient checkpointing and bfloat16 bases: what they must not change."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.training.engine import Engine
from llamo_ros.training.loop import Trainer, frozen_digests
from llamo_ros.training.motion_stages import set_trained
from llamo_ros.training.settings import TrainingSettings

spec = importlib.util.spec_from_file_location("parallel_run", Path(__file__).with_name("parallel_run.py"))
parallel_run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parallel_run)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("group", ["text_to_motion", "motion_to_text", "prediction"])
def test_checkpointing_changes_neither_loss_nor_gradient(group: str, dropout: float) -> None:
    task = parallel_run.tiny_task(Engine(), {group: 1.0})
    backbone = task.model.backbone
    backbone.motion_dropout = dropout
    task.model.train()
    calls = 0
    through = backbone._through_layer

    def counted(*arguments):
        nonlocal calls
        calls += 1
        return through(*arguments)

    backbone._through_layer = counted
    seen = []
    for checkpointing in (False, True):
        backbone.checkpointing = checkpointing
        task.model.zero_grad()
        torch.manual_seed(1)
        loss, _ = task.loss(np.random.default_rng(0), 0.0)
        forward_calls, calls = calls, 0
        loss.backward()
        seen.append((loss.item(), {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}))
        assert calls == (backbone.config.layers if checkpointing else 0), "each layer is computed once more"
        assert forward_calls >= backbone.config.layers
        calls = 0
    assert seen[0][0] == pytest.approx(seen[1][0], abs=1e-6)
    assert seen[0][1].keys() == seen[1][1].keys()
    for name, gradient in seen[0][1].items():
        torch.testing.assert_close(seen[1][1][name], gradient, rtol=0, atol=1e-6)


def test_a_bfloat16_base_learns_motion_in_float32_and_keeps_its_language_to_the_bit(tmp_path: Path) -> None:
    task = parallel_run.tiny_task(Engine(), dtype="bfloat16")
    model = task.model
    text = list(model.backbone.text.parameters())
    assert all(parameter.dtype == torch.bfloat16 for parameter in text)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    words = torch.tensor([[1, 5, 9, 40, 7, 200]])
    model.eval()
    with torch.no_grad():
        before = model.text_logits(words)
    digests = frozen_digests(model)
    trainer = Trainer(task, TrainingSettings(steps=30, learning_rate=1e-3, warmup_steps=2, bf16=True), tmp_path)
    losses, optimise = [], trainer._optimise

    def noted():
        figures = optimise()
        losses.append(figures["flow"] if "flow" in figures else None)
        return figures

    trainer._optimise = noted
    figures = trainer.run()
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
    flow = [loss for loss in losses if loss is not None]
    assert sum(flow[-8:]) < sum(flow[:8])
    assert frozen_digests(model) == digests
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.text_logits(words), before)
    assert before.dtype == torch.bfloat16


def test_small_steps_are_not_lost_to_bfloat16() -> None:
    model = Llamo(replace(preset("tiny"), dtype="bfloat16"))
    model.initialise_motion()
    set_trained(model, ("backbone.motion",))
    weight = model.backbone.motion.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1e-4 * before.abs()
    assert (weight != before)[before != 0].all()
    assert torch.equal(before, model.backbone.text.layers[0].mlp.up_proj.weight.float()), "its copy is exact"
