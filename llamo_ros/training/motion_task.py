"""Training of the motion side: sequences of all tasks, with the text side and the VAE frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from llamo_ros.core.errors import DatasetError
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.sequence import Markers, Part, collated
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.training.losses import LossSettings, SequenceLosses, SequenceNoise
from llamo_ros.training.motion_data import MIN_LATENTS, LatentClip
from llamo_ros.training.motion_samples import MotionSample, SampleDrawer, TaskMix
from llamo_ros.training.processes import Processes


class MotionTask:
    """Draws steps of samples and computes their losses; see :class:`~llamo_ros.training.loop.TrainingTask`.

    Every process draws the whole step and computes its own share of the rows, so that the loss does not depend on how
    many processes there are.

    Args:
        model: With the statistics of its latents set, and with ``requires_grad`` where it is to learn.
        tokenizer: Of its text side.
        train: Clips to learn from.
        val: Clips to validate on.
        batch_size: Sequences per step, over all processes.
        mix: Which tasks.
        losses: Choices of the losses.
        processes: Those that train together.

    Raises:
        DatasetError: no training clip has words, or no validation clip a caption.
    """

    def __init__(
        self,
        model: Llamo,
        tokenizer: TextTokenizer,
        train: Sequence[LatentClip],
        val: Sequence[LatentClip],
        batch_size: int = 16,
        mix: TaskMix | None = None,
        losses: LossSettings | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model, self.batch_size = model, batch_size
        self.losses = SequenceLosses(model, losses or LossSettings())
        self.forward_pass: torch.nn.Module = self.losses  # an engine puts itself around it
        self.drawer = SampleDrawer(model, tokenizer, train, mix or TaskMix())
        if not any(clip.captions for clip in val):
            raise DatasetError(
                f"no validation clip has a caption and {MIN_LATENTS * FRAMES_PER_LATENT} frames, so the best weights "
                "cannot be told; pack data with such clips of split val."
            )
        self.val = val
        self._markers = Markers.of(model, tokenizer.bos, tokenizer.eos)
        self._processes = processes or Processes()

    def loss(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~llamo_ros.training.loop.TrainingTask`."""
        return self.loss_of(self.drawer.draw(self.batch_size, rng))

    def loss_of(self, samples: Sequence[MotionSample]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the samples of one step, over all processes, and its parts.

        Its gradient is right once averaged over the processes, which is what engines of parallel training do.
        """
        return self._loss_of_own(self._processes.share_of(samples))

    def _loss_of_own(self, own: Sequence[MotionSample]) -> tuple[Tensor, dict[str, float]]:
        """The same, given only the samples that this process computes."""
        batch, noise = self._ready([sample.parts for sample in own], [sample.seed for sample in own])
        counts = self._processes.summed(self.losses.counts(batch, self.losses.settings.draws))
        sums = self.forward_pass(batch, noise, counts)
        loss = self.losses.total(sums, counts)
        parts = self._processes.summed(torch.stack([sums.flow, sums.exit, sums.text]).detach().double())
        whole = self.losses.total(sums._replace(flow=parts[0], exit=parts[1], text=parts[2]), counts)
        figures = {
            name: (part / count).item()
            for name, part, count in zip(("flow", "exit", "nll"), parts, counts, strict=True)
            if count > 0
        }
        return loss * self._processes.count, {"loss": whole.item()} | figures

    def _ready(self, rows: Sequence[Sequence[Part]], seeds: Sequence[int]):
        batch = collated(rows, self._markers).to(self.model.latent_mean.device)
        return batch, SequenceNoise.drawn(batch, self.losses.settings, seeds)

    def validate(self) -> dict[str, float]:
        """Flow, exit and caption losses on the validation clips, by source; ``score`` is the mean flow loss."""
        figures = {}
        for source in sorted({clip.source for clip in self.val if clip.captions}):
            clips = sorted((c for c in self.val if c.source == source and c.captions), key=lambda c: len(c.latents))
            figures |= {f"{source}_flow": 0.0, f"{source}_exit": 0.0, f"{source}_nll": 0.0}
            for names, rows_of in (
                ((f"{source}_flow", f"{source}_exit"), self.drawer.prompted),
                ((f"{source}_nll",), self.drawer.captioned),
            ):
                for name, value in zip(names, self._validated(clips, rows_of), strict=True):
                    figures[name] = value
        figures["score"] = float(np.mean([value for name, value in figures.items() if name.endswith("_flow")]))
        return figures

    def _validated(self, clips: Sequence[LatentClip], rows_of: Callable[[LatentClip, str], list[Part]]) -> list[float]:
        """Mean of each loss that the rows have targets for."""
        sums, counts = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for start in range(0, len(clips), self.batch_size):
            rows = [rows_of(clip, clip.captions[0]) for clip in clips[start : start + self.batch_size]]
            seeds = range(start, start + len(rows))
            mine = slice(self._processes.rank, None, self._processes.count)
            has_none = not rows[mine]  # then this process goes along with one row that does not count
            batch, noise = self._ready(rows[mine] or rows[:1], seeds[mine] or seeds[:1])
            part = self.losses(batch, noise.without_input_noise())
            if not has_none:
                sums += torch.stack([part.flow, part.exit, part.text]).double().cpu()
                counts += part.counts.cpu()
        sums, counts = self._processes.summed(sums), self._processes.summed(counts)
        return [float(total / count) for total, count in zip(sums, counts, strict=True) if count > 0]
