"""Pretraining of the text model of ``mini``: next-token prediction on captions, grounded in the motion they tell of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.mixture_of_transformers import TEXT_ONLY
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.captions import Paraphrases, mirrored_text
from llamo_ros.training.grounding import GroundedText, Grounding
from llamo_ros.training.pack import Pack

TEXTS = "texts_humanml3d.jsonl"
MAX_TOKENS = 48
# Share of steps that ground prompts in motion; the others predict the next token of captions.
GROUNDING_SHARE = 0.7
# Words that swap places in mirrored captions. A corpus that holds every caption and its mirror image says nothing about
# which is which, so their embeddings fall together (cosine 0.99 was measured) and no motion can be told apart by them.
MIRROR_WORDS = ("left", "right")
MOST_ALIKE = 0.3


def caption_corpus(pack: Pack, source: Path) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Captions to train on and to validate on, grouped by clip: the captions of a group say the same thing.

    Text-only rows and clips of each split, both sides, and our own wordings. Captions of test clips, and of clips held
    out by the text file, are in neither list.
    """
    clips = [row.captions for row in pack.split("train") if row.captions]
    train = text_only_captions(source, "train") + clips + Paraphrases().groups()
    return train + [tuple(map(mirrored_text, group)) for group in train], text_only_captions(source, "val")


def text_only_captions(source: Path, split: str) -> list[tuple[str, ...]]:
    """Captions of a split of the text file of a source folder, grouped by clip: their motions are not there.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    try:
        rows = [json.loads(line) for line in (source / TEXTS).read_text(encoding="utf-8").splitlines()]
        groups = (tuple(caption["text"] for caption in row["captions"]) for row in rows if row["split"] == split)
        return [group for group in groups if group]
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{source / TEXTS} cannot be read ({error!r}).") from error


class TextTask:
    """Batches of captions, half of them in pairs that describe one clip; only the text branch learns.

    A pair is [BOS] caption [EOS] other caption of the same clip [EOS]: saying the same thing twice teaches the model to
    carry what was said. The embeddings of ``MIRROR_WORDS`` are kept apart by a hinge on their cosine.
    """

    def __init__(
        self,
        model: GroundedText,
        tokenizer: TextTokenizer,
        train: list[tuple[str, ...]],
        val: list[tuple[str, ...]],
        grounding: Grounding,
        batch_size: int,
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.grounding = grounding
        model.motion.requires_grad_(False)
        self.train, self.val = self._tokenised(train), self._tokenised(val)
        self.train.sort(key=lambda group: len(group[0]))
        # The token that carries each word: the first one after a space.
        self.mirror_tokens = [tokenizer.encode(f"a {word}")[len(tokenizer.encode("a"))] for word in MIRROR_WORDS]

    def _tokenised(self, groups: list[tuple[str, ...]]) -> list[list[list[int]]]:
        eos = self.tokenizer.eos
        return [[[*self.tokenizer.encode(text)[: MAX_TOKENS - 2], eos] for text in group] for group in groups]

    def _padded(self, rows: list[list[int]]) -> Tensor:
        """Rows padded on the right, shape (B, S)."""
        tokens = torch.full((len(rows), max(map(len, rows))), self.tokenizer.pad)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
        return tokens.to(self.model.text.norm.weight.device)

    def _loss(self, rows: list[list[int]]) -> Tensor:
        tokens = self._padded(rows)
        hidden = self.model(self.model.text.embed_tokens(tokens[:, :-1]), TEXT_ONLY)
        target = tokens[:, 1:]
        kept = target != self.tokenizer.pad
        return F.cross_entropy(self.model.text.logits(hidden[kept]).float(), target[kept])

    def _row(self, group: list[list[int]], rng: np.random.Generator, paired: bool) -> list[int]:
        first, second = rng.integers(len(group)), rng.integers(len(group))
        return [self.tokenizer.bos, *group[first], *(group[second] if paired else [])]

    def _grounding_loss(self, texts: list[str], summary_BG: Tensor) -> Tensor:
        rows = [[self.tokenizer.bos, *self.tokenizer.encode(text)[: MAX_TOKENS - 2]] for text in texts]
        tokens = self._padded(rows)
        last = torch.tensor([len(row) - 1 for row in rows], device=tokens.device)
        return self.model.grounding_loss(tokens, last, summary_BG.to(tokens.device))

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`: prompts to ground, or captions to continue."""
        if rng.random() < GROUNDING_SHARE:
            loss = self._grounding_loss(*self.grounding.draw(self.batch_size, rng))
            return loss, {"grounding": loss.item()}
        window = min(8 * self.batch_size, len(self.train))  # captions of similar length
        start = rng.integers(0, len(self.train) - window + 1)
        picks = start + rng.choice(window, self.batch_size, replace=window < self.batch_size)
        paired = bool(rng.random() < 0.5)
        loss = self._loss([self._row(self.train[pick], rng, paired) for pick in picks])
        rows = self.model.text.embed_tokens.weight[self.mirror_tokens]
        alike = F.cosine_similarity(rows[0], rows[1], dim=0)
        return loss + F.relu(alike - MOST_ALIKE), {"pair_nll" if paired else "nll": loss.item(), "alike": alike.item()}

    def validate(self) -> dict[str, float]:
        """Figures on held-out data; ``score`` is the mean negative log-likelihood plus the grounding error.

        Negative log-likelihood per token of captions, alone and in pairs, [nat]; error of the motion summaries that
        captions of validation clips predict; the mean motion has 1 on the training mix.
        """
        figures = {}
        for name, paired in (("nll", False), ("pair_nll", True)):
            rng = np.random.default_rng(0)
            rows = sorted((self._row(group, rng, paired) for group in self.val), key=len)
            parts = [rows[i : i + 64] for i in range(0, len(rows), 64)]
            counts = [sum(len(row) - 1 for row in part) for part in parts]
            total = sum(self._loss(part).item() * count for part, count in zip(parts, counts, strict=True))
            figures[name] = total / sum(counts)
        figures["grounding"] = self._grounding_loss(*self.grounding.validation()).item()
        return figures | {"score": 0.5 * (figures["nll"] + figures["pair_nll"]) + figures["grounding"]}


def initialise_text(model: nn.Module) -> None:
    """Normal weights of standard deviation 0.02, as Llama."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
