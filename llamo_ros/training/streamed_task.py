"""Training of the motion side on shards: clips are read, and encoded by the frozen VAE, as they are needed.

The order of the shards takes the place of balanced drawing. Every process reads and encodes its own rows only.
Follow-ups, which need a second motion that belongs to the first, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.losses import LossSettings
from llamo_ros.training.motion_data import LatentClip
from llamo_ros.training.motion_samples import TaskMix
from llamo_ros.training.motion_task import MotionTask
from llamo_ros.training.processes import Processes
from llamo_ros.training.shard_order import ShardOrder
from llamo_ros.training.shard_stream import Sample, ShardStream
from llamo_ros.training.shards import ShardSet

# Clips that the statistics of latents are taken from, and those validated on.
STATISTICS_CLIPS = 4096
VALIDATION_CLIPS = 2000
ENCODED_AT_ONCE = 32


class StreamedMotionTask(MotionTask):
    """A :class:`~llamo_ros.training.motion_task.MotionTask` whose samples come from a stream.

    Args:
        model: With the statistics of its latents set, and with ``requires_grad`` where it is to learn.
        tokenizer: Of its text side.
        stream: Draws of clips.
        some: A few of them, encoded.
        val: Clips to validate on.
        batch_size: Sequences per step, over all processes.
        mix: Which tasks.
        losses: Choices of the losses.
        processes: Those that train together.
        seed: Of the tasks and their wording.
    """

    def __init__(
        self,
        model: Llamo,
        tokenizer: TextTokenizer,
        stream: ShardStream,
        some: Sequence[LatentClip],
        val: Sequence[LatentClip],
        batch_size: int,
        mix: TaskMix,
        losses: LossSettings,
        processes: Processes,
        seed: int,
    ) -> None:
        super().__init__(model, tokenizer, some, val, batch_size, mix, losses, processes)
        self._stream, self._seed = stream, seed
        self._position = 0

    def go_to(self, position: int) -> None:
        """See :class:`~llamo_ros.training.loop.OrderedTask`."""
        self._position = position
        self._stream.go_to(position)

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`."""
        clips = encoded(self.model.vae, next(self._stream))
        group = self.drawer.draw_group(np.random.default_rng([self._seed, self._position]))
        rows = [np.random.default_rng([self._seed, self._position, row]) for row in self._stream.rows]
        self._position += 1
        return self._loss_of_own([self.drawer.of_clip(clip, group, row) for clip, row in zip(clips, rows, strict=True)])


@torch.no_grad()
def encoded(vae: MotionVae, samples: Sequence[Sample]) -> list[LatentClip]:
    """Clips as latents, all at once; the encoder is causal, so what pads the shorter ones changes nothing."""
    device = vae.feature_mean.device
    with torch.autocast(device.type, enabled=False):
        counts = [len(features) // FRAMES_PER_LATENT for features, _ in samples]
        frames = [torch.from_numpy(f[: n * FRAMES_PER_LATENT]) for (f, _), n in zip(samples, counts, strict=True)]
        latents = vae.encode(pad_sequence(frames, batch_first=True).to(device))[0].float().cpu()
    return [
        LatentClip(**vars(words), latents=row[:count])
        for (_, words), row, count in zip(samples, latents, counts, strict=True)
    ]


def some_clips(vae: MotionVae, shards: ShardSet, seed: int, count: int = STATISTICS_CLIPS) -> list[LatentClip]:
    """Training clips of an order of its own, the same in every process, for statistics."""
    train = shards.shards["train"]
    order = ShardOrder([range(len(shard.lengths)) for shard in train], [shard.lengths for shard in train], 1, seed)
    places = [order.sample(number, 0) for number in range(min(count, order.count))]
    return _encoded_places(vae, shards, "train", places)


def validation_clips(vae: MotionVae, shards: ShardSet, count: int = VALIDATION_CLIPS) -> list[LatentClip]:
    """The first clips of the validation shards."""
    places = [(index, n) for index, shard in enumerate(shards.shards["val"]) for n in range(len(shard.lengths))]
    return _encoded_places(vae, shards, "val", places[:count])


def _encoded_places(
    vae: MotionVae, shards: ShardSet, split: str, places: Sequence[tuple[int, int]]
) -> list[LatentClip]:
    clips: list[LatentClip] = []
    for start in range(0, len(places), ENCODED_AT_ONCE):
        part = places[start : start + ENCODED_AT_ONCE]
        clips += encoded(vae, [shards.read(split, *place) for place in part])
    return clips
