from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llamo_ros.model.config import preset
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.motion_data import LatentClip
from llamo_ros.training.motion_task import MotionLossSettings, MotionTask, PromptedMotions

TEXTS = ["a person walks forward slowly", "", "a person bows"]


@pytest.fixture
def task() -> MotionTask:
    torch.manual_seed(0)
    model = Llamo(preset("tiny"))
    model.initialise_motion()
    for parameter in (*model.flow_head.parameters(), *model.backbone.parameters()):
        if parameter.ndim > 1:  # the head starts as the zero field, which would hide every mistake
            torch.nn.init.normal_(parameter, std=0.1)
    tokenizer = TextTokenizer.train(TEXTS * 20, model.config.backbone.vocab_size)
    clips = [LatentClip(("a person bows",), "bow", "", "bandai", True, torch.randn(length, 8)) for length in (7, 3, 12)]
    return MotionTask(model, tokenizer, clips, clips, batch_size=3)


def batch_of(task: MotionTask) -> PromptedMotions:
    return task.text_to_motion_batch(task.sampler.clips, TEXTS, np.random.default_rng(0))


def test_the_loss_is_that_of_each_sequence_read_whole_and_alone(task: MotionTask) -> None:
    """Prompt first and without gradient, motion padded beside others: neither may change what is learned."""
    task.model.eval()
    batch = batch_of(task)
    torch.manual_seed(1)
    flow, exit_loss = task.flow_and_exit_loss(batch, noisy=False)
    draws, (rows, longest) = task.settings.draws, batch.real.shape
    torch.manual_seed(1)
    noise = torch.randn(draws, rows, longest, 8)
    t = torch.sigmoid(torch.randn(draws, rows, 1, 1)).expand(-1, -1, longest, 1)
    model, errors, logits, ends = task.model, [], [], []
    for row, (clip, text) in enumerate(zip(task.sampler.clips, TEXTS, strict=True)):
        count = len(clip.latents)
        latents = model.normalise_latents(clip.latents)
        prefix = [task.tokenizer.bos, *task.tokenizer.encode(text), model.begin_motion]
        hidden = model(torch.tensor([[*prefix, *[MOTION] * count]]), latents)[0, len(prefix) - 1 :]
        own_noise, own_t = noise[:, row, :count], t[:, row, :count]
        x = (1 - own_t) * own_noise + own_t * latents
        velocity = model.flow_head(x, own_t[..., 0], model.projector(hidden[:-1]))
        errors.append((velocity - (latents - own_noise)).square().flatten())
        logits.append(model.exit_head(hidden[1:]))
        ends += [*[0.0] * (count - 1), 1.0]
    expected_exit = F.binary_cross_entropy_with_logits(
        torch.cat(logits), torch.tensor(ends), pos_weight=torch.tensor(task.settings.exit_positive)
    )
    # Float32 sums in another order.
    torch.testing.assert_close(flow, torch.cat(errors).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exit_loss, expected_exit, rtol=1e-4, atol=1e-5)


def test_prompts_train_the_motion_side_and_the_begin_token_but_not_the_text_branch(task: MotionTask) -> None:
    flow, exit_loss = task.flow_and_exit_loss(batch_of(task))
    (flow + exit_loss).backward()
    model = task.model
    assert all(p.grad is None for p in model.backbone.text.parameters())
    assert all(p.grad is None for p in model.vae.parameters())
    assert model.special_tokens.grad[0].abs().max() > 0
    for name, parameter in model.backbone.motion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_motion_that_is_cut_short_does_not_end(task: MotionTask) -> None:
    task.settings = MotionLossSettings(max_latents=5)
    batch = batch_of(task)
    assert batch.real.sum(1).tolist() == [5, 3, 5]
    assert batch.ends[1].tolist() == [False, False, True, False, False]
    for seed in range(20):  # the crop is random; only one that reaches the end of the clip may say so
        motion, complete = task._cropped(task.sampler.clips[2], np.random.default_rng(seed))
        assert complete == torch.equal(motion[-1], task.sampler.clips[2].latents[-1])
