"""MotionRuntime: the parts of a model that make motion, packed once to run fast, for all that generate with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamo_ros.kernels.backends import choose_backend
from llamo_ros.model.compiled_body import CompiledBody
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.latent_sampler import LatentSampler
from llamo_ros.model.llamo import PADDING, Llamo
from llamo_ros.model.slots import SlotWindow
from llamo_ros.model.stream_state import StreamState
from llamo_ros.model.token_reader import compiled_reader


class MotionRuntime:
    """The weights of a model as they are now; when they change, build a new one. Safe to call from several threads.

    With "auto" a backbone in bfloat16 runs in PyTorch. On an NVIDIA GPU only the sampler has kernels, in Triton.

    Attributes:
        model: The model, in evaluation mode.
        sampler: Noise to latents.
        precision: In which the kernels keep weights.
    """

    def __init__(self, model: Llamo, backend: str = "auto", precision: str | None = None) -> None:
        """Pack the weights.

        Args:
            model: In evaluation mode.
            backend: "auto" (compiled kernels on the CPU, Triton on an NVIDIA GPU if it is installed), "cpu" or "triton"
                (those, or an error), or "reference" (PyTorch). "triton" samples latents; all else is PyTorch there.
            precision: "float32", "bfloat16", "int8", or in Triton "float8"; None takes the checkpoint's, where kernels
                run.

        Raises:
            ParameterError: there is no such precision, or a weight is not finite.
            BackendError: backend or precision cannot run here, or "cpu" is asked for and the backbone is in bfloat16.
        """
        self.model = model
        sampler_backend = choose_backend(backend, model.latent_mean.device, has_triton=True)
        is_compiled = sampler_backend == "cpu"
        if precision is None:
            precision = "float32" if sampler_backend == "reference" else model.config.generation.precision
        self.precision = precision
        self.sampler = LatentSampler(model.flow_head, backend=backend, precision=precision)
        self._reader = compiled_reader(model, backend, precision)
        self._decoder = CompiledBody(model.vae.decoder, backend=backend, precision=precision) if is_compiled else None

    @property
    def reads_cheaply(self) -> bool:
        """Whether a pass over a few tokens costs about as much as so many tokens in a long pass.

        So it is where the weights come from a cache; where they come from memory anew in each pass, and on a GPU, one
        long pass is cheaper than several.
        """
        return self._reader is not None

    def read(self, sequences: Sequence[Sequence[int]], latents_LC: Tensor, window: SlotWindow) -> Tensor:
        """Hidden states (R, D) of the last of each sequence's new tokens; the window is advanced.

        Args:
            sequences: New tokens of each of the R sequences, at least one each.
            latents_LC: Normalised latents of all ``MOTION`` places in reading order.
            window: Of the sequences, with room for the longest, and with the count of each.
        """
        if self._reader is not None:
            return self._reader(sequences, latents_LC, window)
        longest = max(map(len, sequences))
        padded = [[*sequence, *[PADDING] * (longest - len(sequence))] for sequence in sequences]
        hidden_RSD = self.model(torch.tensor(padded, device=latents_LC.device), latents_LC, window)
        return torch.stack([hidden_RSD[row, len(sequence) - 1] for row, sequence in enumerate(sequences)])

    def decode(self, z_BLC: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        """Frames (B, 4 L, 272) and the state, as :meth:`llamo_ros.model.motion_vae.MotionVae.decode`."""
        vae = self.model.vae
        if self._decoder is None:
            return vae.decode(z_BLC, state)
        vae.check_decoded(z_BLC, state)
        state = vae.empty_decoder_state(len(z_BLC)) if state is None else state
        out, state = self._decoder(z_BLC, state)
        frames = out.reshape(len(z_BLC), FRAMES_PER_LATENT * z_BLC.shape[1], len(vae.feature_mean))
        return vae.denormalise(frames), state
