"""TokenReader: more tokens of text and motion through both branches of the backbone, behind what was read before."""

# R sequences, T new tokens of all of them, C latent channels, D width, E head width, P positions

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError
from llamo_ros.kernels.backbone_step import BackboneStep, BranchWeights, LayerWeights
from llamo_ros.model.config import BackboneConfig
from llamo_ros.model.llama import LlamaBranch, rotary_tables
from llamo_ros.model.llamo import MOTION, Llamo


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


def compiled_reader(model: Llamo, backend: str, precision: str) -> TokenReader | None:
    """A reader on the compiled kernels where they are to run; None where PyTorch is.

    Args:
        model: In evaluation mode.
        backend: "auto" (compiled kernels on the CPU), "cpu" (those, or an error) or "reference" (PyTorch).
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
        return TokenReader(model, backend=backend, precision=precision)
    return None


class TokenReader:
    """The weights of a model as they are now; when they change, build a new one. Safe to call from several threads.

    In int8 the text branch is kept in bfloat16: a prompt is read once, so its speed matters less than its words.
    """

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
        self._rotary = self._tables(256)

    @property
    def backend(self) -> str:
        """Which implementation runs: "cpu" (compiled) or "reference"."""
        return self._step.backend

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
        cosine_PE, sine_PE = self._rotary  # read once and set as one: another thread may replace it
        if max(lengths) >= len(cosine_PE):
            self._rotary = cosine_PE, sine_PE = self._tables(2 * max(lengths))
        return self._step(x_TD, cosine_PE[lengths], sine_PE[lengths], *cache.buffers, rows, lengths, text_rows)

    def _tables(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (P, E) of the rotary embedding."""
        device = self._model.latent_mean.device
        tables = rotary_tables(self._config, torch.arange(positions, device=device), torch.float32)
        return tables[0][0, 0], tables[1][0, 0]


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
