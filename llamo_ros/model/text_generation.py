"""Text from text, token by token: what the base language model would write. Knows token ids, no text."""

# V vocabulary

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.numbers import checked_count, real_number
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache


@dataclass(frozen=True)
class TextOptions:
    """How text is written.

    Attributes:
        temperature: 0 takes the most likely token each time (greedy); above, tokens are drawn.
        max_tokens: The text is cut here.

    Raises:
        ParameterError: an option is no number, or out of range.
    """

    temperature: float = 0.0
    max_tokens: int = 256

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)
        checked_count("max_tokens", self.max_tokens)


class TextMemory:
    """A text as the model has read it: keys and values are kept, so that only what is new is read.

    Only the text side of the model is used: the logits are the base language model's, and [BOM] and [EOM] have none.

    Attributes:
        limit: Most tokens it holds.
    """

    def __init__(self, model: Llamo, limit: int = 4096) -> None:
        """Nothing read yet. Memory grows with the text."""
        self._model = model
        self.limit = min(limit, model.config.backbone.max_positions)
        self._tokens: list[int] = []
        self._cache = self._new_cache(min(256, self.limit))

    def __len__(self) -> int:
        return len(self._tokens)

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Tensor:
        """Logits (V,) of the token that follows ``ids``, float32.

        What ``ids`` has in common with the text read so far is kept, and the rest of that text forgotten.

        Raises:
            ParameterError: there are no ids, or more than ``limit``.
        """
        if not 0 < len(ids) <= self.limit:
            raise ParameterError(f"{len(ids)} tokens are to be read, expected 1 to {self.limit}.")
        kept = 0
        for old, new in zip(self._tokens, ids[:-1], strict=False):  # the last one is read again: it gives the logits
            if old != new:
                break
            kept += 1
        if len(ids) > self._cache.capacity:
            self._grow(min(self.limit, max(2 * self._cache.capacity, len(ids))))
        self._cache.length = kept
        self._tokens = list(ids[:kept])  # until the pass is over, which Ctrl-C may prevent
        tokens = torch.tensor([ids[kept:]], device=self._model.latent_mean.device)
        logits_V = self._model.text_logits(tokens, self._cache, last_only=True)[0, -1]
        self._tokens = list(ids)
        return logits_V.float()

    def _new_cache(self, capacity: int) -> KeyValueCache:
        table = self._model.backbone.text.embed_tokens.weight
        return KeyValueCache(self._model.config.backbone, 1, capacity, table.dtype, table.device)

    def _grow(self, capacity: int) -> None:
        old, length = self._cache, self._cache.length
        self._cache = self._new_cache(capacity)
        self._cache.keys[..., :length, :] = old.keys[..., :length, :]
        self._cache.values[..., :length, :] = old.values[..., :length, :]
        self._cache.length = length


def generate_text(
    memory: TextMemory,
    ids: Sequence[int],
    stop_ids: Collection[int],
    options: TextOptions,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Token ids that follow ``ids``, as soon as each is made; one of ``stop_ids`` comes last unless the text is cut.

    Args:
        memory: What the model has read so far; grows.
        ids: The whole text, from [BOS] on.
        stop_ids: Ids that end a text.
        options: See :class:`TextOptions`.
        generator: Draws the tokens, on the CPU; None is PyTorch's own.

    Raises:
        ParameterError: ``ids`` is empty or too long for the memory.
    """
    text = list(ids)
    if len(text) > memory.limit:
        raise ParameterError(f"{len(text)} tokens are to be continued, expected 1 to {memory.limit}.")
    for _ in range(min(options.max_tokens, memory.limit - len(text) + 1)):
        token = next_token(memory.read(text), options.temperature, generator)
        yield token
        if token in stop_ids:
            return
        text.append(token)


def next_token(logits_V: Tensor, temperature: float, generator: torch.Generator | None = None) -> int:
    """The most likely id at temperature 0, a drawn one above."""
    if is_greedy(logits_V, temperature):
        return int(logits_V.argmax())
    probabilities = torch.softmax(logits_V / temperature, dim=-1).cpu()
    return int(torch.multinomial(probabilities, 1, generator=generator))


def checked_temperature(temperature: float) -> float:
    """The temperature as a plain number.

    Raises:
        ParameterError: it is not a number from 0 to below 100.
    """
    number = real_number(temperature)
    if not 0 <= number < 100:
        raise ParameterError(f"temperature is {temperature!r}, expected a number from 0 to below 100.")
    return number


def is_greedy(logits_V: Tensor, temperature: float) -> bool:
    """Whether the most likely id is to be taken: temperature 0, or so low that float32 cannot hold what it makes."""
    return temperature == 0 or not torch.isfinite((logits_V / temperature).max())
