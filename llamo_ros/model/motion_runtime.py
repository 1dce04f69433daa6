"""MotionRuntime: the parts of a model that make motion, packed once to run fast, for all that generate with it."""

from __future__ import annotations

import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError
from llamo_ros.kernels.backends import choose_backend
from llamo_ros.kernels.causal_stack import CausalStack
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.latent_sampler import LatentSampler
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.motion_step import MotionStep
from llamo_ros.model.slots import SlotWindow
from llamo_ros.model.stream_state import StreamState


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
        self._step, self._decoder = None, None
        if backend == "cpu" and model.special_tokens.dtype != torch.float32:
            raise BackendError(
                f"backend 'cpu' was asked for, and it has no kernel for a backbone in {model.config.dtype}. "
                "Load the model with dtype='float32', or use backend='auto', which runs the backbone in PyTorch."
            )
        if is_compiled and model.special_tokens.dtype == torch.float32:
            self._step = MotionStep(model, backend=backend, precision=precision)
        if is_compiled:
            self._decoder = CausalStack(model.vae.decoder.operations(), backend=backend, precision=precision)
            self._looks_back = [rows > 0 for rows, _ in model.vae.decoder.state_shapes()]

    def step(self, latents_RC: Tensor, window: SlotWindow) -> Tensor:
        """Hidden states (R, D) of latents (normalised), one behind each sequence of the window, which is advanced."""
        if self._step is not None:
            return self._step(latents_RC, window)
        tokens_R1 = torch.full((len(latents_RC), 1), MOTION, device=latents_RC.device)
        return self.model(tokens_R1, latents_RC, window)[:, 0]

    def decode(self, z_BLC: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        """Frames (B, 4 L, 272) and the state, as :meth:`llamo_ros.model.motion_vae.MotionVae.decode`."""
        vae = self.model.vae
        if self._decoder is None:
            return vae.decode(z_BLC, state)
        vae.check_decoded(z_BLC, state)
        state = vae.empty_decoder_state(len(z_BLC)) if state is None else state
        given = [past for past, looks_back in zip(state, self._looks_back, strict=True) if looks_back]
        out, new = self._decoder(z_BLC.float(), given)
        made = iter(new)
        state = [next(made) if looks_back else past for past, looks_back in zip(state, self._looks_back, strict=True)]
        frames = out.reshape(len(z_BLC), FRAMES_PER_LATENT * z_BLC.shape[1], len(vae.feature_mean))
        return vae.denormalise(frames), state
