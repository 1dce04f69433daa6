"""Generation loops beside the model: latents from a prompt, one by one; a caption from latents. They know no text."""

# B batch, R rows (conditional, then null), C latent channels, D width

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.flow_head import LatentSampler
from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache


@dataclass(frozen=True)
class SamplingOptions:
    """How latents are sampled.

    Attributes:
        guidance_scale: 1 follows the text plainly; above 1 exaggerates it against the empty prompt (classifier-free
            guidance, Ho and Salimans 2022); it costs a second row, not a second pass.
        temperature: Scale of the initial noise.
        min_latents: The exit head is not listened to before.
        max_latents: Generation ends here at the latest.
        exit_threshold: Motion ends when the exit probability reaches it; above 1 never.
    """

    guidance_scale: float = 2.0
    temperature: float = 1.0
    min_latents: int = 1
    max_latents: int = 75
    exit_threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.min_latents <= self.max_latents:
            raise ParameterError(
                f"min_latents is {self.min_latents} and max_latents {self.max_latents}; expected 1 <= min <= max."
            )
        if not (0 <= self.guidance_scale < 100 and 0 <= self.temperature < 100):
            raise ParameterError("guidance_scale and temperature must be between 0 and 100.")


@dataclass(frozen=True)
class LatentStep:
    """One step of generation.

    Attributes:
        latents: Normalised latents, shape (B, C).
        exit_probability: Probability that the motion ends with this latent, shape (B,).
        is_final: Whether this is the last step.
    """

    latents: Tensor
    exit_probability: Tensor
    is_final: bool


def prompt_tokens(model: Llamo, prompts: Sequence[Sequence[int]], bos: int) -> tuple[Tensor, Tensor]:
    """[BOS] text [BOM] of each prompt, padded on the left; ids (B, S) and a mask of real tokens (B, S)."""
    rows = [[bos, *ids, model.begin_motion] for ids in prompts]
    longest = max(map(len, rows))
    tokens = torch.tensor([[PADDING] * (longest - len(row)) + row for row in rows], device=model.latent_mean.device)
    return tokens, tokens != PADDING


@torch.inference_mode()
def generate_latents(
    model: Llamo,
    prompts: Sequence[Sequence[int]],
    bos: int,
    sampler: LatentSampler,
    options: SamplingOptions,
    seeds: Sequence[int],
) -> Iterator[LatentStep]:
    """Latents of B prompts, one step at a time, with a KV cache; ends by ``options.max_latents`` or the exit head.

    A batch ends when every row has ended; a caller that wants each row's own end reads ``exit_probability``.

    Args:
        model: The model, in evaluation mode.
        prompts: Token ids of each prompt, without [BOS]; an empty list is the unconditional prompt.
        bos: Id of [BOS].
        sampler: From ``model.flow_head.sampler(steps)``.
        options: See :class:`SamplingOptions`.
        seeds: One seed per prompt; the motion of a row depends on its own seed only.
    """
    batch, guided = len(prompts), options.guidance_scale != 1.0
    rows = [*prompts, *([[]] * batch if guided else [])]
    device = model.latent_mean.device
    tokens, mask = prompt_tokens(model, rows, bos)
    cache = KeyValueCache(
        model.config.backbone, len(rows), tokens.shape[1] + options.max_latents, model.special_tokens.dtype, device
    )
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    hidden = model(tokens, model.latent_mean.new_zeros(0, model.config.vae.latent_dim), cache, mask)[:, -1]
    motion = torch.full((len(rows), 1), MOTION, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    for index in range(1, options.max_latents + 1):
        noise = torch.stack([torch.randn(model.config.vae.latent_dim, generator=g) for g in generators]).to(device)
        latents = sampler(options.temperature * noise, model.projector(hidden), options.guidance_scale)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        hidden = model(motion, latents.repeat(2, 1) if guided else latents, cache, mask)[:, -1]
        exit_probability = torch.sigmoid(model.exit_head(hidden[:batch]))
        if index >= options.min_latents:
            ended |= exit_probability >= options.exit_threshold
        is_final = bool(ended.all()) or index == options.max_latents
        yield LatentStep(latents, exit_probability, is_final)
        if is_final:
            return


@torch.inference_mode()
def generate_caption(
    model: Llamo, latents_LC: Tensor, bos: int, eos: int, forbidden: Sequence[int] = (), max_tokens: int = 40
) -> tuple[list[int], float]:
    """Most likely caption of a motion, token by token (greedy).

    Args:
        model: The model, in evaluation mode.
        latents_LC: Normalised latents, shape (L, C), L >= 1.
        bos: Id of [BOS].
        eos: Id of [EOS], which ends the caption.
        forbidden: Ids that are never written ([BOS], padding).
        max_tokens: The caption is cut here.

    Returns:
        Token ids without [EOS], and the geometric mean probability of the chosen tokens.
    """
    device = latents_LC.device
    tokens = torch.tensor([[bos, model.begin_motion, *[MOTION] * len(latents_LC), model.end_motion]], device=device)
    cache = KeyValueCache(model.config.backbone, 1, tokens.shape[1] + max_tokens, model.special_tokens.dtype, device)
    hidden = model(tokens, latents_LC, cache)[:, -1]
    ids: list[int] = []
    log_probability = 0.0
    while True:
        logits = model.backbone.text.logits(hidden)[0]
        logits[list(forbidden)] = -torch.inf
        log_probabilities = torch.log_softmax(logits, dim=-1)
        token = int(log_probabilities.argmax())
        log_probability += float(log_probabilities[token])
        if token == eos or len(ids) == max_tokens:
            return ids, float(torch.tensor(log_probability / (len(ids) + 1)).exp())
        ids.append(token)
        hidden = model(torch.tensor([[token]], device=device), latents_LC[:0], cache)[:, -1]
