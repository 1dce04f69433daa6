"""How well a model still speaks: next-token loss of its text side on held-out sentences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer

BATCH = 64
MAX_TOKENS = 128


@torch.inference_mode()
def text_loss(model: Llamo, tokenizer: TextTokenizer, texts: Sequence[str]) -> float:
    """Mean negative log-likelihood per token of ``texts``, each between [BOS] and [EOS], [nat].

    exp of it is the perplexity. The text-only path is used, which reads no motion weight: two models give the same
    figure if, and only if, their text sides give the same logits.

    Raises:
        ParameterError: there are no texts.
    """
    if not texts:
        raise ParameterError("there are no texts to measure the loss on; give at least one.")
    device = model.latent_mean.device
    rows = sorted(
        ([tokenizer.bos, *tokenizer.encode(text)[: MAX_TOKENS - 2], tokenizer.eos] for text in texts), key=len
    )
    total, count = 0.0, 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        longest = len(part[-1])
        tokens = torch.tensor([row + [tokenizer.eos] * (longest - len(row)) for row in part], device=device)
        real = torch.arange(1, longest, device=device) < torch.tensor([[len(row)] for row in part], device=device)
        logits = model.text_logits(tokens[:, :-1])  # what pads a row lies behind it and is never attended to
        total += F.cross_entropy(logits[real].float(), tokens[:, 1:][real], reduction="sum").item()
        count += int(real.sum())
    return total / count
