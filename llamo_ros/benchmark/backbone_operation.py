"""One more token through the motion branch of the backbone, in several ways: see benchmarks/operations.py."""

# R rows, D width, H heads, K key/value heads, E head width, F feed-forward width, L columns of the cache

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llamo_ros.benchmark.candidates import Candidate
from llamo_ros.benchmark.machine import BYTES, Work
from llamo_ros.benchmark.onnx_backbone import onnx_step, why_no_onnx
from llamo_ros.kernels.backbone_step import BackboneStep, BranchWeights
from llamo_ros.kernels.backbone_step.reference import rms_norm, rotated
from llamo_ros.model.config import BackboneConfig
from llamo_ros.model.llama import LlamaBranch, rotary_tables
from llamo_ros.model.readers import branch_weights

LENGTH = 100  # tokens before: a prompt, and most of a window of 75 latents


def step_candidates(
    config: BackboneConfig,
    precisions: Sequence[str],
    instruction_sets: Sequence[str],
    *,
    rows: int = 1,
    length: int = LENGTH,
    compiled: bool = False,
    why_not_compiled: str = "",
) -> list[Candidate]:
    """Ways to do a step of `rows` sequences that hold `length` tokens each; the first is eager PyTorch.

    torch.compile and ONNX Runtime are asked for with `compiled`, ONNX Runtime always; where one cannot run, its row
    says why. Each writes the new keys and values into the cache.
    """
    torch.manual_seed(0)
    branch = LlamaBranch(config, with_embedding=False).eval()
    weights = branch_weights(branch, config).map(Tensor.detach)
    cosine, sine = (table[0, 0].expand(rows, -1).contiguous() for table in rotary_tables(
        config, torch.tensor([length]), torch.float32
    ))  # fmt: skip
    tokens = torch.randn(rows, config.width)
    shape = (config.layers, rows, config.kv_heads, length + 28, config.head_dim)
    keys, values = torch.randn(shape), torch.randn(shape)

    def kernel(precision: str, name: str) -> Callable[[], Tensor]:
        step = BackboneStep(weights, backend="cpu", instruction_set=name, precision=precision)
        return lambda: step(tokens, cosine, sine, keys, values, range(rows), [length] * rows)

    def eager() -> Tensor:
        with torch.inference_mode():
            return eager_step(weights, tokens, cosine, sine, keys, values, length)

    candidates = [Candidate("eager PyTorch", eager)]
    if why_not_compiled:
        candidates.append(Candidate("torch.compile", None, why_not=why_not_compiled))
    elif compiled:
        torch.compiler.reset()
        made = torch.compile(eager_step, fullgraph=True)

        def run_compiled() -> Tensor:
            with torch.no_grad():
                return made(weights, tokens, cosine, sine, keys, values, length)

        candidates.append(Candidate("torch.compile", run_compiled))
    for precision in ("float32", "int8"):
        if reason := why_no_onnx():
            candidates.append(Candidate("ONNX Runtime", None, precision, why_not=reason))
        else:
            run = onnx_step(weights, tokens, cosine, sine, keys, values, length, precision)
            candidates.append(Candidate("ONNX Runtime", run, precision))
    for name in instruction_sets:
        for precision in precisions:
            work = step_work(weights, precision, rows, length)
            candidates.append(Candidate("kernel", kernel(precision, name), precision, name, work))
    return candidates


def eager_step(
    weights: BranchWeights,
    tokens_RD: Tensor,
    cosine_RE: Tensor,
    sine_RE: Tensor,
    keys: Tensor,
    values: Tensor,
    length: int,
) -> Tensor:
    """The step for sequences of one length, whose attention is one call; the kernel's reference knows any lengths.

    Arguments as there; row r of the cache belongs to row r. Hidden states, shape (R, D).
    """
    x_RD = tokens_RD
    sizes = (weights.heads, weights.kv_heads, weights.kv_heads)
    for index, layer in enumerate(weights.layers):
        normed_RD = rms_norm(x_RD, layer.attention_norm, weights.norm_epsilon)
        heads_RHE = F.linear(normed_RD, layer.query_key_value).unflatten(-1, (-1, weights.head_width))
        queries_RHE, keys_RKE, values_RKE = heads_RHE.split(sizes, dim=1)
        keys[index, :, :, length] = rotated(keys_RKE, cosine_RE, sine_RE)
        values[index, :, :, length] = values_RKE
        attended_RH1E = F.scaled_dot_product_attention(
            rotated(queries_RHE, cosine_RE, sine_RE)[:, :, None],
            keys[index, :, :, : length + 1],
            values[index, :, :, : length + 1],
            enable_gqa=True,
        )
        x_RD = x_RD + F.linear(attended_RH1E.flatten(1), layer.attention_output)
        gate_RF, up_RF = F.linear(rms_norm(x_RD, layer.feed_forward_norm, weights.norm_epsilon), layer.gate_up).chunk(
            2, -1
        )
        x_RD = x_RD + F.linear(F.silu(gate_RF) * up_RF, layer.down)
    return rms_norm(x_RD, weights.norm, weights.norm_epsilon)


def step_work(weights: BranchWeights, precision: str, rows: int, length: int) -> Work:
    """What a step cannot do without: all matrices once, and the cache of every row."""
    matrices = sum(
        tensor.numel()
        for layer in weights.layers
        for tensor in (layer.query_key_value, layer.attention_output, layer.gate_up, layer.down)
    )
    cached = 2 * len(weights.layers) * rows * weights.kv_heads * length * weights.head_width
    attention = 2 * len(weights.layers) * rows * weights.heads * length * weights.head_width
    return Work(matrices * BYTES[precision] + 4 * cached, 1, 2.0 * (rows * matrices + attention))
