"""CaptionRuntime: the parts of a model that read motion and write words, packed once for all that caption with it."""

# B batch, T frames, L latents, S tokens, C latent channels, D width

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamo_ros.kernels.backends import choose_backend
from llamo_ros.model.compiled_body import CompiledBody
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache
from llamo_ros.model.readers import compiled_reader
from llamo_ros.model.stream_state import StreamState


class CaptionRuntime:
    """The weights of a model as they are now; when they change, build a new one. Safe to call from several threads.

    With "auto" a backbone in bfloat16 runs in PyTorch, and so does everything on another device than the CPU. Weights
    are kept in float32, or in bfloat16 where the checkpoint says that its motion is made so. Not in int8: what was
    measured of captions was without.

    Attributes:
        model: The model, in evaluation mode.
    """

    def __init__(self, model: Llamo, backend: str = "auto") -> None:
        """Pack the weights.

        Args:
            model: In evaluation mode.
            backend: "auto" (compiled kernels on the CPU), "cpu" (those, or an error) or "reference" (PyTorch).

        Raises:
            ParameterError: a weight is not finite.
            BackendError: the backend cannot run here, or "cpu" is asked for and the backbone is in bfloat16.
        """
        self.model = model
        precision = "bfloat16" if model.config.generation.precision == "bfloat16" else "float32"
        is_compiled = choose_backend(backend, model.latent_mean.device) == "cpu"
        self._reader = compiled_reader(model, backend, precision)
        self._encoder = CompiledBody(model.vae.encoder, backend=backend, precision=precision) if is_compiled else None

    @property
    def is_compiled(self) -> bool:
        """Whether compiled kernels run all layers, and only the choice of words is left to PyTorch."""
        return self._reader is not None and self._encoder is not None

    def read(self, tokens: Sequence[int], latents_LC: Tensor, cache: KeyValueCache) -> Tensor:
        """Hidden states (S, D) of tokens behind those of the cache, which is extended.

        Args:
            tokens: Token ids, ``MOTION`` where a latent stands.
            latents_LC: Normalised latents of those places.
            cache: Of one sequence.
        """
        if self._reader is not None:
            return self._reader.hidden([tokens], latents_LC, cache)
        return self.model(torch.tensor([tokens], device=latents_LC.device), latents_LC, cache)[0]

    def encode(self, features_BTF: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        """Latents (B, T / 4, C) and the state, as :meth:`llamo_ros.model.motion_vae.MotionVae.encode`."""
        vae = self.model.vae
        if self._encoder is None:
            return vae.encode(features_BTF, state)
        vae.check_encoded(features_BTF, state)
        state = vae.empty_encoder_state(len(features_BTF)) if state is None else state
        posterior, state = self._encoder(vae.normalise(features_BTF), state)
        return posterior[..., : vae.config.latent_dim], state
