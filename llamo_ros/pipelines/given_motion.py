"""GivenMotion: a clip that a prompt holds, as the model reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from llamo_ros.core.errors import MotionDataError
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.llamo import Llamo
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import encode_clip
from llamo_ros.motion.skeleton import FRAME_RATE

MIN_GIVEN = 2  # latents, the fewest that in-between is learned with


@dataclass(frozen=True)
class GivenMotion:
    """What the model reads of a clip.

    Attributes:
        clip: Those frames, at 30 FPS, whole groups of four.
        latents: Normalised latents of them, shape (L, C), L = frames / 4.
    """

    clip: MotionClip
    latents: Tensor


def resampled_to_end(clip: MotionClip) -> MotionClip:
    """The clip at 30 FPS, with its last frame as it is; without, resampling ends up to one frame early."""
    return _reversed(_reversed(clip).resampled(FRAME_RATE))


def read_end_of(clip: MotionClip, most: int) -> MotionClip:
    """The newest frames of a clip, at 30 FPS, in groups of four, at most ``most`` groups; the last frame is the clip's.

    Raises:
        MotionDataError: there are fewer than 8 frames.
    """
    clip = resampled_to_end(clip)
    return clip.sliced(len(clip) - _frames_read(clip, most))


def read_beginning_of(clip: MotionClip, most: int) -> MotionClip:
    """The first frames of a clip, likewise; the first frame is the clip's."""
    clip = clip.resampled(FRAME_RATE)
    return clip.sliced(0, _frames_read(clip, most))


def _frames_read(clip: MotionClip, most: int) -> int:
    groups = min(len(clip) // FRAMES_PER_LATENT, most)
    if groups < MIN_GIVEN:
        raise MotionDataError(
            f"a given clip has {len(clip)} frames at 30 FPS, at least {MIN_GIVEN * FRAMES_PER_LATENT} are needed to "
            "see how it moves. Give a longer part of the motion."
        )
    return groups * FRAMES_PER_LATENT


def _reversed(clip: MotionClip) -> MotionClip:
    return replace(clip, rotations=clip.rotations[::-1], root_positions=clip.root_positions[::-1])


@torch.inference_mode()
def given_motion(model: Llamo, clip: MotionClip) -> GivenMotion:
    """Encode frames that :func:`read_end_of` or :func:`read_beginning_of` has cut."""
    features = torch.from_numpy(encode_clip(clip).astype(np.float32))[None].to(model.latent_mean.device)
    return GivenMotion(clip, model.normalise_latents(model.vae.encode(features)[0])[0].float())
