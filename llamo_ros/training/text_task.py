"""Pretraining of the text model of ``mini``: next-token prediction on captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.mixture_of_transformers import TEXT_ONLY, MixtureOfTransformers
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.captions import Paraphrases, mirrored_text
from llamo_ros.training.pack import Pack

TEXTS = "texts_humanml3d.jsonl"
MAX_TOKENS = 48


def caption_corpus(pack: Pack, source: Path) -> tuple[list[str], list[str]]:
    """Captions to train on and to validate on: text-only rows and clips of each split, both sides, and our wordings.

    Captions of test clips, and of clips held out by the text file, are in neither list.
    """
    try:
        rows = [json.loads(line) for line in (source / TEXTS).read_text(encoding="utf-8").splitlines()]
        texts = {s: [c["text"] for row in rows if row["split"] == s for c in row["captions"]] for s in ("train", "val")}
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{source / TEXTS} cannot be read ({error!r}).") from error
    clips = {s: [text for row in pack.split(s) for text in row.captions] for s in ("train", "val")}
    train = texts["train"] + clips["train"] * 2 + Paraphrases().all_texts() * 2
    return train + [mirrored_text(text) for text in train], texts["val"]


class TextTask:
    """Batches of whole captions, [BOS] text [EOS]; only the text branch learns."""

    def __init__(
        self, model: MixtureOfTransformers, tokenizer: TextTokenizer, train: list[str], val: list[str], batch_size: int
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        model.motion.requires_grad_(False)
        self.train, self.val = self._tokenised(train), self._tokenised(val)
        self.train.sort(key=len)

    def _tokenised(self, texts: list[str]) -> list[list[int]]:
        ends = self.tokenizer
        return [[ends.bos, *ends.encode(text)[: MAX_TOKENS - 2], ends.eos] for text in texts]

    def _loss(self, rows: list[list[int]]) -> Tensor:
        longest = max(map(len, rows))
        tokens = torch.full((len(rows), longest), self.tokenizer.pad)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
        tokens = tokens.to(self.model.text.norm.weight.device)
        hidden = self.model(self.model.text.embed_tokens(tokens[:, :-1]), TEXT_ONLY)
        target = tokens[:, 1:]
        kept = target != self.tokenizer.pad
        return F.cross_entropy(self.model.text.logits(hidden[kept]).float(), target[kept])

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`. A batch holds captions of similar length."""
        start = rng.integers(0, max(1, len(self.train) - 8 * self.batch_size))
        picks = start + rng.choice(min(8 * self.batch_size, len(self.train)), self.batch_size, replace=False)
        loss = self._loss([self.train[pick] for pick in picks])
        return loss, {"nll": loss.item()}

    def validate(self) -> dict[str, float]:
        """Mean negative log-likelihood per token of held-out captions, [nat]."""
        rows = sorted(self.val, key=len)
        losses = [
            (self._loss(rows[i : i + 64]).item(), sum(len(r) - 1 for r in rows[i : i + 64]))
            for i in range(0, len(rows), 64)
        ]
        return {"score": sum(loss * count for loss, count in losses) / sum(count for _, count in losses)}


def initialise_text(model: nn.Module) -> None:
    """Normal weights of standard deviation 0.02, as Llama."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
