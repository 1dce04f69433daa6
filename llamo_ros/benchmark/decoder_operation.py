"""From a latent to four frames and from features to joints, in several ways: see benchmarks/operations.py."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from llamo_ros.benchmark.candidates import Candidate
from llamo_ros.benchmark.machine import BYTES, Work
from llamo_ros.kernels.causal_stack import CausalStack, Convolution, Operation, Repeat
from llamo_ros.kernels.frame_decoder import FrameDecoder
from llamo_ros.model.config import FRAMES_PER_LATENT, MotionVaeConfig
from llamo_ros.model.motion_vae import MotionVae
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import encode_clip
from llamo_ros.motion.skeleton import JOINT_COUNT, OFFSETS, PARENTS


def vae_decoder_candidates(
    config: MotionVaeConfig, precisions: Sequence[str], instruction_sets: Sequence[str], batch: int = 1
) -> list[Candidate]:
    """Ways to decode one latent of each of `batch` streams to four frames, with random weights; eager PyTorch first."""
    torch.manual_seed(0)
    vae = MotionVae(config).eval()
    operations = vae.decoder.operations()
    latents = torch.randn(batch, 1, config.latent_dim)

    def stack(**choice: str) -> CausalStack:
        return CausalStack(operations, **choice)

    def run(made: CausalStack) -> Tensor:
        state = made.empty_state(batch)
        return made(latents, state)[0]

    def eager() -> Tensor:
        with torch.inference_mode():
            return vae.decoder(latents, vae.empty_decoder_state(batch))[0].reshape(reference_shape)

    reference_shape = run(stack(backend="reference")).shape
    candidates = [Candidate("eager PyTorch", eager)]
    for name in instruction_sets:
        for precision in precisions:
            made = stack(backend="cpu", instruction_set=name, precision=precision)
            work = stack_work(operations, precision, batch)
            candidates.append(Candidate("kernel", lambda made=made: run(made), precision, name, work))
    return candidates


def stack_work(operations: Sequence[Operation], precision: str, batch: int) -> Work:
    """What a row of each stream through the stack cannot do without: all matrices once."""
    weights, products, rate = 0, 0.0, Fraction(batch)
    for operation in operations:
        if isinstance(operation, Convolution):
            rate /= operation.stride
            weights += operation.weight.numel()
            products += float(rate) * operation.weight.numel()
        elif isinstance(operation, Repeat):
            rate *= operation.times
    return Work(weights * BYTES[precision], 1, 2.0 * products)


def frame_decoder_candidates() -> list[Candidate]:
    """Ways from the features of one latent's four frames to the place of every joint; NumPy is the first."""
    generator = np.random.default_rng(0)
    roots = np.array([0.0, 0.9, 0.0]) + 0.01 * generator.normal(size=(FRAMES_PER_LATENT, 3))
    features = encode_clip(MotionClip(np.tile(np.eye(3), (FRAMES_PER_LATENT, JOINT_COUNT, 1, 1)), roots))

    def decoder(backend: str) -> FrameDecoder:
        return FrameDecoder(PARENTS, OFFSETS, backend=backend)

    def run(made: FrameDecoder) -> np.ndarray:
        return made.decode(features, with_joints=True).joint_positions

    numpy, compiled = decoder("reference"), decoder("cpu")
    return [Candidate("NumPy", lambda: run(numpy)), Candidate("kernel", lambda: run(compiled))]
