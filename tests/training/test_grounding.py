from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.config import preset
from llamo_ros.model.mixture_of_transformers import TEXT_ONLY, MixtureOfTransformers
from llamo_ros.training.grounding import PARTS, GroundedText, Grounding, raw_summary
from llamo_ros.training.pack import Pack, open_pack
from llamo_ros.training.text_task import initialise_text


@pytest.fixture
def pack(packed_folder: Path) -> Pack:
    return open_pack(packed_folder)


@pytest.fixture
def text() -> GroundedText:
    torch.manual_seed(0)
    base = MixtureOfTransformers(preset("tiny").backbone)
    initialise_text(base)
    return GroundedText(base, summary_dim=5)


def test_a_summary_holds_the_mean_of_each_part_and_the_spread() -> None:
    features = np.zeros((8, 272))
    features[:, 1] = [0, 2, 4, 6, 8, 10, 12, 14]
    summary = raw_summary(features, np.zeros(272), np.full(272, 2.0)).reshape(PARTS + 1, 74)
    np.testing.assert_allclose(summary[:, 1], [0.5, 2.5, 4.5, 6.5, np.std([0, 1, 2, 3, 4, 5, 6, 7])])
    assert not summary[:, 0].any()


def test_drawn_summaries_have_no_mean_and_unit_spread(pack: Pack) -> None:
    grounding = Grounding(pack, seed=0)
    rng = np.random.default_rng(1)
    texts, summaries = zip(*(grounding.draw(1, rng) for _ in range(1000)), strict=True)  # independent draws
    values = torch.cat(summaries)
    assert values.shape == (1000, grounding.dim)
    assert all(text for part in texts for text in part)
    # 1,000 draws of a few clips: the mean of unit variance is within 5 standard errors.
    assert values.mean(0).abs().max() < 5 / 1000**0.5
    torch.testing.assert_close(values.std(0), torch.ones(grounding.dim), rtol=0.15, atol=0)


def test_clips_without_words_ground_nothing(pack: Pack) -> None:
    wordless = [
        replace(row, id=f"w{row.id}", kind="mine", captions=(), content="")
        for row in pack.sequences
        if row.split == "train"
    ]
    grounding = Grounding(replace(pack, sequences=(*pack.sequences, *wordless)), seed=0)
    texts, _ = grounding.draw(64, np.random.default_rng(0))
    assert all(texts)
    with pytest.raises(DatasetError, match="no training clip"):
        Grounding(replace(pack, sequences=(*pack.split("val"), *wordless)), seed=0)


def test_what_is_predicted_does_not_depend_on_the_padding(text: GroundedText) -> None:
    row, last = [1, 7, 9, 4], torch.tensor([3])
    alone = text.summaries(torch.tensor([row]), last)
    padded = text.summaries(torch.tensor([[*row, 0, 0, 0]]), last)
    assert alone.shape == (len(text.text.layers), 1, 2, 5)
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-6)


def test_the_begin_token_is_the_mean_embedding_behind_the_prompt(text: GroundedText) -> None:
    tokens = torch.tensor([[1, 7, 9]])
    embedded = torch.cat([text.text.embed_tokens(tokens), text.text.embed_tokens.weight.mean(0)[None, None]], dim=1)
    expected = text.grounding[-1](text(embedded, TEXT_ONLY)[:, -1])
    torch.testing.assert_close(text.summaries(tokens, torch.tensor([2]))[-1, :, 1], expected)


def test_grounding_sets_words_apart_that_next_token_prediction_leaves_together(text: GroundedText) -> None:
    """Two prompts that differ in one word and stand for opposite motions."""
    tokens, last = torch.tensor([[1, 7, 20], [1, 7, 21]]), torch.tensor([2, 2])
    with torch.no_grad():
        text.text.embed_tokens.weight[21] = text.text.embed_tokens.weight[20] * 1.01
    summary = torch.tensor([[1.0], [-1.0]]).expand(2, 5)

    def likeness() -> float:
        with torch.no_grad():
            hidden = text(text.text.embed_tokens(tokens), TEXT_ONLY)[:, -1]
        return torch.cosine_similarity(hidden[0], hidden[1], dim=0).item()

    assert likeness() > 0.99
    optimizer = torch.optim.Adam(text.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = text.grounding_loss(tokens, last, summary)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    assert likeness() < 0.5
