"""MotionStep: one more latent per sequence through adapter and motion branch, between which nothing else happens."""

# R rows, C latent channels, D width, E head width, P positions

from __future__ import annotations

import torch
from torch import Tensor

from llamo_ros.kernels.backbone_step import BackboneStep, BranchWeights, LayerWeights
from llamo_ros.model.config import BackboneConfig
from llamo_ros.model.llama import LlamaBranch, rotary_tables
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.slots import SlotWindow


class MotionStep:
    """The weights of a model as they are now; when they change, build a new one. Safe to call from several threads."""

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
        self._adapter = model.adapter
        backbone = model.backbone
        weights = branch_weights(backbone.motion or backbone.text, backbone.config)
        self._step = BackboneStep(weights, backend=backend, precision=precision, instruction_set=instruction_set)
        self._config = backbone.config
        self._rotary = self._tables(256)

    @property
    def backend(self) -> str:
        """Which implementation runs: "cpu" (compiled) or "reference"."""
        return self._step.backend

    @torch.no_grad()
    def __call__(self, latents_RC: Tensor, window: SlotWindow) -> Tensor:
        """Hidden states (R, D) of latents (normalised), one behind each sequence of the window, which is advanced."""
        rows, lengths = window.numbers
        cosine_PE, sine_PE = self._rotary  # read once and set as one: another thread may replace it
        if max(lengths) >= len(cosine_PE):
            self._rotary = cosine_PE, sine_PE = self._tables(2 * max(lengths))
        hidden_RD = self._step(
            self._adapter(latents_RC), cosine_PE[lengths], sine_PE[lengths], *window.buffers, rows, lengths
        )
        window.advance(1)
        return hidden_RD

    def _tables(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (P, E) of the rotary embedding."""
        device = self._adapter.norm.weight.device
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
