from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.sequence import Markers, MotionPart, Part, SequenceBatch, TextPart, collated
from llamo_ros.training.losses import LossSettings, SequenceLosses, SequenceNoise
from llamo_ros.training.motion_stages import set_trained

TRAINED = ("backbone.motion", "special_tokens", "adapter", "projector", "flow_head", "exit_head")


@pytest.fixture
def model() -> Llamo:
    torch.manual_seed(0)
    model = Llamo(replace(preset("tiny"), motion_dropout=0.0))
    model.initialise_motion()
    for parameter in (*model.flow_head.parameters(), *model.backbone.parameters()):
        if parameter.ndim > 1:  # the head starts as the zero field, which would hide every mistake
            torch.nn.init.normal_(parameter, std=0.1)
    set_trained(model, TRAINED)
    return model


def motion(length: int, is_target: bool = True, ends: bool = True) -> MotionPart:
    return MotionPart(torch.randn(length, 8), is_target, ends)


def rows() -> list[list[Part]]:
    """Plain, unconditional, captioned, and a conversation."""
    return [
        [TextPart((11, 12, 13)), motion(7)],
        [TextPart(()), motion(3, ends=False)],
        [motion(5, is_target=False), TextPart((21, 22), is_target=True)],
        [TextPart((14,)), motion(4), TextPart((15, 16)), motion(6)],
    ]


def batch_of(model: Llamo, parts: list[list[Part]]) -> SequenceBatch:
    return collated(parts, Markers.of(model, 1, 2))


@pytest.mark.parametrize("time_per", ["motion", "latent"])
@pytest.mark.parametrize("flow_time", ["logit-normal", "uniform"])
def test_the_loss_is_that_of_each_sequence_read_whole_and_alone(model: Llamo, flow_time: str, time_per: str) -> None:
    """Words first and without gradient, rows padded beside others: neither may change what is learned."""
    settings = LossSettings(flow_time=flow_time, time_per=time_per)
    losses = SequenceLosses(model, settings)
    parts = rows()
    batch = batch_of(model, parts)
    noise = SequenceNoise.drawn(batch, settings, range(4))
    sums = losses(batch, noise)
    flow, exits, text = [], [], []
    for index, own in enumerate(parts):
        one = batch_of(model, [own])
        size = one.tokens.shape[1]
        tokens = torch.cat([one.prefix, one.tokens], dim=1)
        inputs = (one.latents + noise.inputs[index : index + 1, :size])[one.tokens < 0]
        hidden = model(tokens, inputs)[0, one.prefix.shape[1] :]
        for place in one.flow_target[0].nonzero()[:, 0].tolist():
            for draw in range(settings.draws):
                t = noise.t[draw, index, place if time_per == "latent" else 0]
                start, latent = noise.flow[draw, index, place], one.latents[0, place]
                velocity = model.flow_head((1 - t) * start + t * latent, t, model.projector(hidden[place - 1]))
                flow.append((velocity - (latent - start)).square().sum())
            label = one.exit_label[0, place].float()
            weight = torch.tensor(settings.exit_positive)
            logit = model.exit_head(hidden[place])
            exits.append(F.binary_cross_entropy_with_logits(logit, label, pos_weight=weight))
        for place in one.text_target[0].nonzero()[:, 0].tolist():
            logits = model.backbone.text.logits(hidden[place - 1])
            text.append(F.cross_entropy(logits, one.tokens[0, place]))
    assert sums.counts.tolist() == [len(flow) * settings.draws / settings.draws * 8, len(exits), len(text)]
    for value, terms in ((sums.flow, flow), (sums.exit, exits), (sums.text, text)):  # float32 sums in another order
        torch.testing.assert_close(value, torch.stack(terms).sum(), rtol=1e-4, atol=1e-4)


def test_a_trainable_text_branch_gives_the_same_loss_and_learns(model: Llamo) -> None:
    """The words are then read with gradient, in one pass with the rest."""
    settings = LossSettings()
    losses, batch = SequenceLosses(model, settings), batch_of(model, rows())
    noise = SequenceNoise.drawn(batch, settings, range(4))
    frozen = losses(batch, noise)
    set_trained(model, (*TRAINED, "backbone.text"))
    free = losses(batch, noise)
    torch.testing.assert_close(free.flow, frozen.flow, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(free.text, frozen.text, rtol=1e-4, atol=1e-4)
    free.flow.backward()
    assert model.backbone.text.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


def test_every_trained_part_learns_and_the_frozen_ones_do_not(model: Llamo) -> None:
    settings = LossSettings()
    losses, batch = SequenceLosses(model, settings), batch_of(model, rows())
    sums = losses(batch, SequenceNoise.drawn(batch, settings, range(4)))
    losses.total(sums, sums.counts).backward()
    for name, parameter in model.named_parameters():
        if name.startswith(TRAINED):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    assert (model.special_tokens.grad.abs().amax(1) > 0).all(), "[BOM] and [EOM] both learn in a conversation"


def test_the_loss_does_not_depend_on_which_rows_share_a_batch(model: Llamo) -> None:
    settings = LossSettings(time_per="latent")
    losses, parts = SequenceLosses(model, settings), rows()
    together = batch_of(model, parts)
    whole = losses(together, SequenceNoise.drawn(together, settings, range(4)))
    totals = torch.zeros(3)
    for own in ([0, 2], [1, 3]):
        batch = batch_of(model, [parts[index] for index in own])
        part = losses(batch, SequenceNoise.drawn(batch, settings, own))
        totals += torch.stack([part.flow, part.exit, part.text])
    torch.testing.assert_close(totals, torch.stack([whole.flow, whole.exit, whole.text]), rtol=1e-5, atol=1e-4)


def test_flow_time_has_the_distribution_asked_for() -> None:
    batch = SequenceBatch(
        torch.zeros(1, 1), torch.zeros(1, 4000), torch.zeros(1, 4000, 8), *(torch.zeros(1, 4000, dtype=torch.bool),) * 3
    )
    uniform = SequenceNoise.drawn(batch, LossSettings(flow_time="uniform", time_per="latent"), [0]).t.flatten()
    normal = SequenceNoise.drawn(batch, LossSettings(flow_time="logit-normal", time_per="latent"), [0]).t.flatten()
    # 16,000 draws: the standard error of the mean is 0.002, of the spreads less.
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert torch.logit(normal).mean().item() == pytest.approx(0.0, abs=0.03)
    assert torch.logit(normal).std().item() == pytest.approx(1.0, abs=0.03)


def test_validation_reads_clean_latents() -> None:
    batch = SequenceBatch(
        torch.zeros(1, 1), torch.zeros(1, 5), torch.zeros(1, 5, 8), *(torch.zeros(1, 5, dtype=torch.bool),) * 3
    )
    noise = SequenceNoise.drawn(batch, LossSettings(input_noise=0.5), [3])
    assert noise.inputs.abs().max() > 0
    clean = noise.without_input_noise()
    assert clean.inputs.abs().max() == 0
    assert torch.equal(clean.flow, noise.flow)


@pytest.mark.parametrize("wrong", [{"flow_time": "gamma"}, {"time_per": "clip"}, {"draws": 0}])
def test_settings_outside_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ParameterError):
        LossSettings(**wrong)
