"""Readers: more tokens of text and motion into sequences that were read so far, one class per way to run the backbone.

All take the new tokens of each sequence, the latents at their ``MOTION`` places in reading order, and the cache of the
sequences, and give the hidden state of each sequence's last token.
"""

# R sequences, T new tokens of all of them, C latent channels, D width, E head width, P positions

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError
from llamo_ros.kernels.backbone_step import BackboneStep, BranchWeights, LayerWeights
from llamo_ros.kernels.backends import choose_backend
from llamo_ros.model.config import BackboneConfig
from llamo_ros.model.llama import LlamaBranch, rotary_tables
from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.slots import SlotWindow

if TYPE_CHECKING:
    from llamo_ros.kernels.backbone_step.triton_kernel import TritonBackboneStep


class BufferedCache(Protocol):
    """Keys and values of some sequences.

    Attributes:
        buffers: Keys and values, float32, contiguous, shape (layers, rows, K, L, E) each.
        numbers: Row of each sequence in them, and the tokens it holds.
    """

    buffers: tuple[Tensor, Tensor]
    numbers: tuple[list[int], list[int]]

    def advance(self, count: int) -> None:
        """New tokens have been written, at most ``count`` of a sequence."""


class RotaryTables:
    """Cosine and sine of the rotary embedding at any positions, from tables that grow. Safe from several threads."""

    def __init__(self, config: BackboneConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._tables = self._made(256)

    def __call__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cosine and sine (T, E) at positions of T tokens, float32."""
        cosine_PE, sine_PE = self._tables  # read once and set as one: another thread may replace it
        if max(positions) >= len(cosine_PE):
            self._tables = cosine_PE, sine_PE = self._made(2 * max(positions))
        return cosine_PE[positions], sine_PE[positions]

    def _made(self, positions: int) -> tuple[Tensor, Tensor]:
        tables = rotary_tables(self._config, torch.arange(positions, device=self._device), torch.float32)
        return tables[0][0, 0], tables[1][0, 0]


class CompiledReader:
    """The weights of a model as they are now; when they change, build a new one. Safe to call from several threads.

    In int8 the text branch is kept in bfloat16: a prompt is read once, so its speed matters less than its words.

    Attributes:
        reads_cheaply: Whether a few tokens cost about as much in a pass of their own as in a long one. So it is where
            weights come from a cache; where they come from memory anew in each pass, one long pass is cheaper.
    """

    reads_cheaply = True

    def __init__(
        self, model: Llamo, *, backend: str = "auto", precision: str = "float32", instruction_set: str | None = None
    ) -> None:
        """Pack the weights.

        Args:
            model: In evaluation mode, with weights in float32.
            backend: Of the backbone, see :class:`~llamo_ros.kernels.backbone_step.BackboneStep`.
            precision: See there.
            instruction_set: See there.

        Raises:
            ParameterError: the weights are not float32.
            BackendError: backend, precision or instruction set cannot run here.
        """
        self._model = model
        self._config = model.backbone.config
        text = branch_weights(model.backbone.text, self._config)
        motion = branch_weights(model.backbone.motion, self._config) if model.backbone.motion else text
        self._step = BackboneStep(
            motion,
            text if motion is not text else None,
            backend=backend,
            precision=precision,
            text_precision="bfloat16" if precision == "int8" else None,
            instruction_set=instruction_set,
        )
        self._rotary = RotaryTables(self._config, model.latent_mean.device)

    @property
    def backend(self) -> str:
        """Which implementation runs: "cpu" (compiled) or "reference"."""
        return self._step.backend

    @property
    def operation(self) -> BackboneStep:
        """The backbone as kernels run it."""
        return self._step

    def __call__(self, sequences: Sequence[Sequence[int]], latents_LC: Tensor, cache: BufferedCache) -> Tensor:
        """Hidden states (R, D) of the last of each sequence's new tokens; see :meth:`hidden`."""
        last_R = torch.tensor([len(sequence) for sequence in sequences]).cumsum(0) - 1
        return self.hidden(sequences, latents_LC, cache)[last_R]

    @torch.no_grad()
    def hidden(self, sequences: Sequence[Sequence[int]], latents_LC: Tensor, cache: BufferedCache) -> Tensor:
        """Hidden states (T, D) of all new tokens, sequence by sequence; the cache is advanced.

        Args:
            sequences: New tokens of each of the R sequences, at least one each.
            latents_LC: Normalised latents of all ``MOTION`` places in reading order.
            cache: Of the sequences, with room for the longest.
        """
        tokens = [token for sequence in sequences for token in sequence]
        counts = [len(sequence) for sequence in sequences]
        rows = [row for row, count in zip(cache.numbers[0], counts, strict=True) for _ in range(count)]
        lengths = [past + n for past, count in zip(cache.numbers[1], counts, strict=True) for n in range(count)]
        if len(tokens) == len(latents_LC):  # motion alone, as nearly always
            hidden_TD = self._run(self._model.adapter(latents_LC), rows, lengths, cache, text_rows=0)
        else:
            text_first_T = torch.tensor([token == MOTION for token in tokens]).int().argsort(stable=True)
            order = text_first_T.tolist()
            x_TD = self._model.embed(torch.tensor([tokens]), latents_LC)[0, text_first_T]
            text_rows = len(tokens) - len(latents_LC)
            hidden_TD = self._run(x_TD, [rows[t] for t in order], [lengths[t] for t in order], cache, text_rows)
            hidden_TD = hidden_TD[text_first_T.argsort()]
        cache.advance(max(counts))
        return hidden_TD

    def _run(
        self, x_TD: Tensor, rows: Sequence[int], lengths: Sequence[int], cache: BufferedCache, text_rows: int
    ) -> Tensor:
        return self._step(x_TD, *self._rotary(lengths), *cache.buffers, rows, lengths, text_rows)


class TorchReader:
    """More tokens of text and motion through the model as it is.

    Attributes:
        operation: The backbone as kernels run it; None where none do.
    """

    reads_cheaply = False
    operation: TritonBackboneStep | None = None

    def __init__(self, model: Llamo) -> None:
        self._model = model

    def __call__(self, sequences: Sequence[Sequence[int]], latents_LC: Tensor, window: SlotWindow) -> Tensor:
        """Hidden states (R, D) of the last of each sequence's new tokens; the window is advanced.

        Args:
            sequences: New tokens of each of the R sequences, at least one each.
            latents_LC: Normalised latents of all ``MOTION`` places in reading order.
            window: Of the sequences, with room for the longest, and with the count of each.
        """
        longest = max(map(len, sequences))
        padded = [[*sequence, *[PADDING] * (longest - len(sequence))] for sequence in sequences]
        hidden_RSD = self._model(torch.tensor(padded, device=latents_LC.device), latents_LC, window)
        return torch.stack([hidden_RSD[row, len(sequence) - 1] for row, sequence in enumerate(sequences)])


class TritonReader(TorchReader):
    """The same, but one latent behind each sequence, which is nearly every pass, goes through Triton kernels."""

    def __init__(self, model: Llamo, precision: str) -> None:
        """Pack the weights of the motion branch.

        Args:
            model: In evaluation mode, on an NVIDIA GPU.
            precision: In which matrices are kept, see
                :class:`~llamo_ros.kernels.backbone_step.triton_kernel.TritonBackboneStep`.

        Raises:
            BackendError: Triton or the precision cannot run here.
        """
        from llamo_ros.kernels.backbone_step.triton_kernel import TritonBackboneStep  # Triton need not be installed

        super().__init__(model)
        if precision == "float32" and model.special_tokens.dtype == torch.bfloat16:
            precision = "bfloat16"  # what the weights are: nothing is lost
        weights = branch_weights(model.backbone.motion or model.backbone.text, model.backbone.config)
        self.operation = TritonBackboneStep(weights, precision=precision)
        self._rotary = RotaryTables(model.backbone.config, model.latent_mean.device)

    def __call__(self, sequences: Sequence[Sequence[int]], latents_LC: Tensor, window: SlotWindow) -> Tensor:
        """As in the base class; hidden states are in the dtype of the model."""
        if any(tuple(sequence) != (MOTION,) for sequence in sequences):
            return super().__call__(sequences, latents_LC, window)
        rows, lengths = window.numbers
        cosine_RE, sine_RE = self._rotary(lengths)
        tokens_RD = self._model.adapter(latents_LC)
        hidden_RD = self.operation(tokens_RD, cosine_RE, sine_RE, *window.buffers, rows, lengths)
        window.advance(1)
        return hidden_RD.to(self._model.special_tokens.dtype)


def reader_of(model: Llamo, backend: str, precision: str) -> CompiledReader | TorchReader:
    """The reader that a backend names, or the fastest one of the model's device.

    Args:
        model: In evaluation mode.
        backend: "auto", "cpu", "triton" or "reference", see :class:`~llamo_ros.model.motion_runtime.MotionRuntime`.
        precision: In which kernels keep weights.

    Raises:
        ParameterError: there is no such precision, or a weight is not finite.
        BackendError: backend or precision cannot run here, or "cpu" is asked for and the backbone is in bfloat16.
    """
    compiled = compiled_reader(model, backend, precision)
    if compiled is not None:
        return compiled
    chosen = choose_backend(backend, model.latent_mean.device, has_triton=True)
    return TritonReader(model, precision) if chosen == "triton" else TorchReader(model)


def compiled_reader(model: Llamo, backend: str, precision: str) -> CompiledReader | None:
    """A reader on the compiled kernels where they are to run; None where others do.

    Args:
        model: In evaluation mode.
        backend: "auto" (compiled kernels on the CPU), "cpu" (those, or an error), or another.
        precision: In which the kernels keep weights.

    Raises:
        ParameterError: a weight is not finite.
        BackendError: backend or precision cannot run here, or "cpu" is asked for and the backbone is in bfloat16.
    """
    is_float32 = model.special_tokens.dtype == torch.float32
    if backend == "cpu" and not is_float32:
        raise BackendError(
            f"backend 'cpu' was asked for, and it has no kernel for a backbone in {model.config.dtype}. "
            "Load the model with dtype='float32', or use backend='auto', which runs the backbone in PyTorch."
        )
    on_cpu = model.latent_mean.device.type == "cpu"
    if is_float32 and (backend == "cpu" or (backend == "auto" and on_cpu)):
        return CompiledReader(model, backend=backend, precision=precision)
    return None


def branch_weights(branch: LlamaBranch, config: BackboneConfig) -> BranchWeights:
    """Weights of a branch as the compiled step takes them."""
    layers = tuple(
        LayerWeights(
            attention_norm=layer.input_layernorm.weight,
            query_key_value=torch.cat(
                [layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight]
            ),
            attention_output=layer.self_attn.o_proj.weight,
            feed_forward_norm=layer.post_attention_layernorm.weight,
            gate_up=torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]),
            down=layer.mlp.down_proj.weight,
        )
        for layer in branch.layers
    )
    return BranchWeights(config.heads, config.kv_heads, config.head_dim, branch.norm.weight, config.norm_eps, layers)
