"""Captions of a motion, token by token, from a prefix of latents that may grow. Knows token ids, no text.

The sequence is [BOS] [BOM] latents [EOM] caption [EOS]. The prefix keeps the keys and values of what comes before
[EOM], so a caption of a longer motion reads only the latents that are new.
"""

# L latents, C latent channels, V vocabulary

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.core.numbers import checked_count, real_number, whole_number
from llamo_ros.model.caption_runtime import CaptionRuntime
from llamo_ros.model.llamo import MOTION
from llamo_ros.model.mixture_of_transformers import KeyValueCache
from llamo_ros.model.seeded import checked_seed, seeded_generator
from llamo_ros.model.text_generation import checked_temperature, is_greedy


@dataclass(frozen=True)
class CaptionOptions:
    """How a caption is written.

    Attributes:
        temperature: 0 takes the most likely token each time (greedy); above, tokens are drawn, the more freely the
            higher.
        top_p: Drawn from the fewest tokens that together have at least this probability (nucleus sampling).
        seed: Same seed, same caption.
        max_tokens: The caption is cut here, or at as many as the model has positions.

    Raises:
        ParameterError: an option is no number, or out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 40

    def __post_init__(self) -> None:
        checked_temperature(self.temperature)
        if not 0 < real_number(self.top_p) <= 1:
            raise ParameterError(f"top_p is {self.top_p!r}, expected a number above 0 and at most 1.")
        checked_seed(self.seed)
        checked_count("max_tokens", self.max_tokens)


@dataclass(frozen=True)
class CaptionToken:
    """One token of a caption.

    Attributes:
        id: Its id; [EOS] or another stop ends the caption.
        log_probability: What the model gives it after those before, whatever temperature and top_p are.
    """

    id: int
    log_probability: float


class MotionPrefix:
    """A motion as the captioner has read it so far; grows, and is captioned any number of times."""

    def __init__(self, runtime: CaptionRuntime, bos: int, capacity: int = 80) -> None:
        """An empty motion.

        Args:
            runtime: The model, ready to run.
            bos: Id of [BOS].
            capacity: Latents it can hold.

        Raises:
            ParameterError: ``bos`` is no id of the model's vocabulary, or ``capacity`` not from 1 to what its positions
                hold.
        """
        self._runtime, self._model = runtime, runtime.model
        positions = self._model.config.backbone.max_positions
        self._capacity = checked_count("capacity", capacity)
        if 2 + self._capacity > positions:
            raise ParameterError(
                f"capacity is {capacity} latents, expected at most {positions - 2}, the positions of the model behind "
                "[BOS] and [BOM]."
            )
        (bos,) = self._checked_ids("bos", [bos])
        self._cache = self._new_cache(2 + self._capacity)
        runtime.read([bos, self._model.begin_motion], self._no_latents(), self._cache)

    def __len__(self) -> int:
        return self._cache.length - 2

    @property
    def room(self) -> int:
        """Latents it can still take."""
        return self._capacity - len(self)

    @torch.inference_mode()
    def extend(self, latents_LC: Tensor) -> None:
        """Read further latents, normalised, float32, shape (L, C).

        Raises:
            ShapeError: they are not rows of the model's latent channels.
            ParameterError: there is no room for so many, or they are no tensor, of another type or elsewhere than the
                model's, NaN or infinite.
        """
        self._check_latents(latents_LC)
        if len(latents_LC) > self.room:
            raise ParameterError(f"{len(latents_LC)} latents are to be read, and there is room for {self.room}.")
        if len(latents_LC):
            self._runtime.read([MOTION] * len(latents_LC), latents_LC, self._cache)

    def caption(
        self, stops: Collection[int], forbidden: Collection[int] = (), options: CaptionOptions | None = None
    ) -> Iterator[CaptionToken]:
        """Tokens of a caption, each as soon as it is made; a stop is the last one unless the caption is cut.

        The prefix may grow meanwhile; the caption is of the motion as it was when the first token was asked for.

        Args:
            stops: Ids that end a caption, [EOS] among them.
            forbidden: Ids that are never written ([BOS], padding).
            options: See :class:`CaptionOptions`; greedy if None.

        Raises:
            ParameterError: nothing has been read yet, or an id is none of the model's vocabulary.
        """
        if not len(self):
            raise ParameterError("there is no motion to caption; extend the prefix by at least one latent first.")
        stops, forbidden = self._checked_ids("stops", stops), self._checked_ids("forbidden", forbidden)
        return self._caption(stops, forbidden, options or CaptionOptions())

    @torch.inference_mode()
    def log_probabilities(self, ids: Sequence[int], eos: int, forbidden: Collection[int] = ()) -> Tensor:
        """Log-probability of each token of a given caption and of [EOS] behind it, shape (len(ids) + 1,).

        Raises:
            ParameterError: nothing has been read yet, or an id is none of the model's vocabulary.
        """
        if not len(self):
            raise ParameterError("there is no motion to compare with; extend the prefix by at least one latent first.")
        ids, forbidden = self._checked_ids("ids", ids), self._checked_ids("forbidden", forbidden)
        (eos,) = self._checked_ids("eos", [eos])
        cache = self._copy(1 + len(ids))
        hidden_SD = self._runtime.read([self._model.end_motion, *ids], self._no_latents(), cache)
        logits_SV = self._model.backbone.text.logits(hidden_SD).float()
        logits_SV[:, forbidden] = -torch.inf
        targets_S1 = torch.tensor([*ids, eos], device=logits_SV.device)[:, None]
        return torch.log_softmax(logits_SV, dim=-1).gather(1, targets_S1)[:, 0]

    @torch.inference_mode()
    def _caption(self, stops: Collection[int], forbidden: list[int], options: CaptionOptions) -> Iterator[CaptionToken]:
        generator = seeded_generator(options.seed)
        most = min(options.max_tokens, self._model.config.backbone.max_positions)
        cache = self._copy(1 + most)
        token = self._model.end_motion
        for _ in range(most):
            hidden_SD = self._runtime.read([token], self._no_latents(), cache)
            logits_V = self._model.backbone.text.logits(hidden_SD[-1]).float()
            logits_V[forbidden] = -torch.inf
            log_probabilities_V = torch.log_softmax(logits_V, dim=-1)
            token = _chosen(logits_V, options, generator)
            yield CaptionToken(token, float(log_probabilities_V[token]))
            if token in stops:
                return

    def _checked_ids(self, name: str, ids: Collection[int]) -> list[int]:
        """The ids as plain numbers. [BOM] and [EOM] are none of the vocabulary: they are read, never written."""
        vocabulary = self._model.config.backbone.vocab_size
        for token in ids:
            number = whole_number(token)
            if number is None or not 0 <= number < vocabulary:
                raise ParameterError(
                    f"{name} has {token!r}, expected ids of tokens, whole numbers from 0 to {vocabulary - 1}."
                )
        return [int(token) for token in ids]

    def _check_latents(self, latents: Tensor) -> None:
        device, channels = self._model.latent_mean.device, self._model.config.vae.latent_dim
        if not isinstance(latents, Tensor) or latents.dtype != torch.float32 or latents.device != device:
            found = f"{latents.dtype} on {latents.device}" if isinstance(latents, Tensor) else type(latents).__name__
            raise ParameterError(f"latents are {found}, expected a tensor of torch.float32 on {device}.")
        if latents.ndim != 2 or latents.shape[1] != channels:
            raise ShapeError("latents", latents.shape, f"(L, {channels})", "Channels are those of the model's VAE.")
        if not torch.isfinite(latents).all():
            raise ParameterError("latents are NaN or infinite. Check the motion that was encoded.")

    def _new_cache(self, capacity: int) -> KeyValueCache:
        model = self._model
        return KeyValueCache(model.config.backbone, 1, capacity, model.special_tokens.dtype, model.latent_mean.device)

    def _copy(self, room: int) -> KeyValueCache:
        """What has been read, with room for more tokens. A copy, so that a caption left half-way leaves no trace."""
        cache = self._new_cache(self._cache.length + room)
        cache.keys[..., : self._cache.length, :] = self._cache.keys[..., : self._cache.length, :]
        cache.values[..., : self._cache.length, :] = self._cache.values[..., : self._cache.length, :]
        cache.length = self._cache.length
        return cache

    def _no_latents(self) -> Tensor:
        return self._model.latent_mean.new_zeros(0, self._model.config.vae.latent_dim)


def _chosen(logits_V: Tensor, options: CaptionOptions, generator: torch.Generator) -> int:
    if is_greedy(logits_V, options.temperature):
        return int(logits_V.argmax())
    probabilities_V, ids_V = torch.softmax(logits_V / options.temperature, dim=-1).sort(descending=True)
    # A token stays if those before it do not reach top_p yet; the first one always does.
    probabilities_V[(probabilities_V.cumsum(0) - probabilities_V) >= options.top_p] = 0.0
    return int(ids_V[torch.multinomial(probabilities_V.cpu(), 1, generator=generator).item()])
