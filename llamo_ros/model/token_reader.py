"""TokenReader: more tokens of text and motion through both branches of the backbone, behind what was read before."""

# R sequences, T tokens of all of them, C latent channels, D width, E head width, P positions

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamo_ros.kernels.backbone_step import BackboneStep, BranchWeights, LayerWeights
from llamo_ros.model.config import BackboneConfig
from llamo_ros.model.llama import LlamaBranch, rotary_tables
from llamo_ros.model.llamo import MOTION, Llamo
from llamo_ros.model.slots import SlotWindow


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

    @torch.no_grad()
    def __call__(self, sequences: Sequence[Sequence[int]], latents_LC: Tensor, window: SlotWindow) -> Tensor:
        """Hidden states (R, D) of the last of each sequence's new tokens; the window is advanced.

        Args:
            sequences: New tokens of each of the R sequences, at least one each.
            latents_LC: Normalised latents of all ``MOTION`` places in reading order.
            window: Of the sequences, with room for the longest.
        """
        tokens = [token for sequence in sequences for token in sequence]
        counts = [len(sequence) for sequence in sequences]
        rows = [row for row, count in zip(window.numbers[0], counts, strict=True) for _ in range(count)]
        lengths = [past + n for past, count in zip(window.numbers[1], counts, strict=True) for n in range(count)]
        last_R = torch.tensor(counts).cumsum(0) - 1
        if len(tokens) == len(latents_LC):  # motion alone, as nearly always
            hidden_TD = self._run(self._model.adapter(latents_LC), rows, lengths, window, text_rows=0)
        else:
            text_first_T = torch.tensor([token == MOTION for token in tokens]).argsort(stable=True)
            order = text_first_T.tolist()
            x_TD = self._model.embed(torch.tensor([tokens]), latents_LC)[0, text_first_T]
            text_rows = len(tokens) - len(latents_LC)
            hidden_TD = self._run(x_TD, [rows[t] for t in order], [lengths[t] for t in order], window, text_rows)
            last_R = text_first_T.argsort()[last_R]
        window.advance(max(counts))
        return hidden_TD[last_R]

    def _run(
        self, x_TD: Tensor, rows: Sequence[int], lengths: Sequence[int], window: SlotWindow, text_rows: int
    ) -> Tensor:
        cosine_PE, sine_PE = self._rotary  # read once and set as one: another thread may replace it
        if max(lengths) >= len(cosine_PE):
            self._rotary = cosine_PE, sine_PE = self._tables(2 * max(lengths))
        return self._step(x_TD, cosine_PE[lengths], sine_PE[lengths], *window.buffers, rows, lengths, text_rows)

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
