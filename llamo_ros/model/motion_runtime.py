"""MotionRuntime: the parts of a model that make motion, packed once to run fast, for all that generate with it."""

from __future__ import annotations

from torch import Tensor

from llamo_ros.kernels.backends import checked_threads, choose_backend
from llamo_ros.model.compiled_body import CompiledBody
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.latent_sampler import LatentSampler
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.readers import CompiledReader, reader_of
from llamo_ros.model.stream_state import StreamState


class MotionRuntime:
    """The weights of a model as they are now; when they change, build a new one. Safe to call from several threads.

    With "auto" a backbone in bfloat16 runs in PyTorch on the CPU. On an NVIDIA GPU latents are sampled and read by
    Triton kernels; prompts and the decoder go through PyTorch.

    Attributes:
        model: The model, in evaluation mode.
        read: New tokens of sequences to hidden states, one of the readers of :mod:`~llamo_ros.model.readers`.
        sampler: Noise to latents.
        precision: In which the kernels keep weights.
    """

    def __init__(self, model: Llamo, backend: str = "auto", precision: str | None = None, threads: int = 1) -> None:
        """Pack the weights.

        Args:
            model: In evaluation mode.
            backend: "auto" (compiled kernels on the CPU, Triton on an NVIDIA GPU if it is installed), "cpu" or "triton"
                (those, or an error), or "reference" (PyTorch).
            precision: "float32", "bfloat16", "int8", or in Triton "float8"; None takes the checkpoint's, where kernels
                run.
            threads: That share the compiled loop of the flow head, see
                :class:`~llamo_ros.kernels.flow_sampler.FlowSampler`; the other compiled kernels take one. What runs in
                PyTorch has those of ``torch.set_num_threads``.

        Raises:
            ParameterError: there is no such precision or number of threads, or a weight is not finite.
            BackendError: backend or precision cannot run here, or "cpu" is asked for and the backbone is in bfloat16.
        """
        self.model = model
        shared = checked_threads(threads)
        sampler_backend = choose_backend(backend, model.latent_mean.device, has_triton=True)
        is_compiled = sampler_backend == "cpu"
        if precision is None:
            precision = "float32" if sampler_backend == "reference" else model.config.generation.precision
        self.precision = precision
        self.sampler = LatentSampler(
            model.flow_head, backend=backend, precision=precision, threads=shared if is_compiled else 1
        )
        self.read = reader_of(model, backend, precision)
        self._decoder = CompiledBody(model.vae.decoder, backend=backend, precision=precision) if is_compiled else None

    @property
    def is_compiled(self) -> bool:
        """Whether compiled kernels run all that is large, and only small products are left to PyTorch."""
        return isinstance(self.read, CompiledReader) and self._decoder is not None

    @property
    def operations(self) -> dict[str, object]:
        """What kernels run of the model, by the name of the operation's folder; each says its backend and precision."""
        parts = {"flow_sampler": self.sampler, "backbone_step": self.read, "causal_stack": self._decoder}
        held = {name: None if part is None else part.operation for name, part in parts.items()}
        return {name: operation for name, operation in held.items() if operation is not None}

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
