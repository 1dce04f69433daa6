"""The flow sampler as one kernel per layer: 2N + 2 launches per Euler step with few rows, 3N + 2 with many."""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps
# M = 3WN + 2W modulations of a row, K inputs and OUT outputs of a layer

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from llamo_ros.kernels.flow_sampler.triton_plan import (
    MAX_DOT_PRODUCT_ROWS,
    Buffers,
    PackedWeights,
    argument_pool,
    dot_product_tile,
    first_layer,
    input_tile,
    second_layer,
)
from llamo_ros.kernels.flow_sampler.triton_tiles import (
    first_task,
    gate_rows,
    input_task,
    modulate_task,
    output_task,
    second_task,
    weight_tile,
)
from llamo_ros.kernels.triton_launch import Launch, ceil_div, dot_type, launch, matrix_tile, power_of_two
from llamo_ros.kernels.triton_linear import linear_kernel, linear_of_rows


@triton.jit(do_not_specialize=["batch"])
def input_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    hidden_ptr,
    batch,
    W: tl.constexpr,
    Z: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    """Hidden state of all rows (R, W) from the latents (B, Z). Grid: outputs, rows."""
    first, row = tl.program_id(0) * BLOCK_O, tl.program_id(1)
    input_task(x_ptr, weight_ptr, bias_ptr, hidden_ptr, row, batch, first, W, Z, BLOCK_O, BLOCK_Z)


@triton.jit(do_not_specialize=["step", "layer"])
def modulate_linear_silu_kernel(
    hidden_ptr,
    time_ptr,
    condition_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    inner_ptr,
    step,
    layer,
    rows: tl.constexpr,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Few rows: LayerNorm, modulation, first layer and SiLU. Grid: outputs."""
    first = tl.program_id(0) * BLOCK_O
    tile = weight_tile(weight_ptr, layer, first, W, W, BLOCK_O, BLOCK_W)
    for row in tl.static_range(rows):
        first_task(
            tile,
            hidden_ptr,
            time_ptr,
            condition_ptr,
            scale_ptr,
            bias_ptr,
            inner_ptr,
            step,
            layer,
            row,
            rows,
            first,
            W,
            M,
            BLOCK_O,
            BLOCK_W,
        )


@triton.jit(do_not_specialize=["step", "layer"])
def linear_gate_residual_kernel(
    inner_ptr,
    time_ptr,
    condition_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    hidden_ptr,
    step,
    layer,
    rows: tl.constexpr,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Few rows: second layer, gate and residual. Grid: outputs."""
    first = tl.program_id(0) * BLOCK_O
    tile = weight_tile(weight_ptr, layer, first, W, W, BLOCK_O, BLOCK_W)
    for row in tl.static_range(rows):
        second_task(
            tile,
            inner_ptr,
            time_ptr,
            condition_ptr,
            scale_ptr,
            bias_ptr,
            hidden_ptr,
            step,
            layer,
            row,
            rows,
            first,
            W,
            M,
            BLOCK_O,
            BLOCK_W,
        )


@triton.jit(do_not_specialize=["step", "layer", "rows"])
def modulate_kernel(
    hidden_ptr,
    time_ptr,
    condition_ptr,
    modulated_ptr,
    step,
    layer,
    rows,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Many rows: LayerNorm and modulation. Grid: rows."""
    row = tl.program_id(0)
    modulate_task(hidden_ptr, time_ptr, condition_ptr, modulated_ptr, step, layer, row, rows, W, M, BLOCK_W)


@triton.jit(do_not_specialize=["step", "layer", "rows"])
def linear_gate_residual_rows_kernel(
    inner_ptr,
    time_ptr,
    condition_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    hidden_ptr,
    step,
    layer,
    rows,
    W: tl.constexpr,
    M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DOT: tl.constexpr,
):
    """Many rows: second layer, gate and residual. Grid: outputs, rows."""
    first, first_row = tl.program_id(0) * BLOCK_O, tl.program_id(1) * BLOCK_R
    value = linear_of_rows(
        inner_ptr,
        weight_ptr,
        scale_ptr,
        bias_ptr,
        layer,
        first_row,
        rows,
        first,
        W,
        W,
        BLOCK_R,
        BLOCK_O,
        BLOCK_K,
        DOT,
    )
    gate_rows(value, time_ptr, condition_ptr, hidden_ptr, step, layer, first_row, rows, first, W, M, BLOCK_R, BLOCK_O)


@triton.jit(do_not_specialize=["step", "batch", "rows"])
def output_kernel(
    hidden_ptr,
    time_ptr,
    condition_ptr,
    weight_ptr,
    bias_ptr,
    guidance_ptr,
    x_ptr,
    step,
    step_size,
    batch,
    rows,
    N: tl.constexpr,
    W: tl.constexpr,
    Z: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """LayerNorm, modulation, output layer, guidance and the Euler step. Grid: outputs, samples."""
    first, sample = tl.program_id(0) * BLOCK_O, tl.program_id(1)
    output_task(
        hidden_ptr,
        time_ptr,
        condition_ptr,
        weight_ptr,
        bias_ptr,
        guidance_ptr,
        x_ptr,
        step,
        step_size,
        sample,
        batch,
        rows,
        first,
        N,
        W,
        Z,
        M,
        BLOCK_O,
        BLOCK_W,
    )


# ----------------------------------------------------------------------------------------------------------- launches


def step_launches(weights: PackedWeights, buffers: Buffers, step: int, max_programs: int) -> Iterator[Launch]:
    """All launches of one Euler step, in their order. A layer of dot products gets at most `max_programs`."""
    sizes, rows, batch = weights.sizes, buffers.rows, len(buffers.x)
    width, channels = sizes["W"], sizes["Z"]
    arguments = argument_pool(weights, buffers) | {"step": step}

    block, warps = input_tile(width, channels, rows, max_programs)
    tile = {"BLOCK_O": block, "BLOCK_Z": power_of_two(channels)}
    weight = {"weight_ptr": weights.input_weight, "bias_ptr": weights.input_bias}
    yield launch(input_kernel, (ceil_div(width, block), rows), warps, arguments | weight | tile)

    for layer in range(sizes["N"]):
        arguments["layer"] = layer
        if rows <= MAX_DOT_PRODUCT_ROWS:
            yield from few_rows_launches(weights, arguments, max_programs)
        else:
            yield from many_rows_launches(weights, buffers, arguments)

    block, warps = dot_product_tile(channels, width, max_programs)
    tile = {"BLOCK_O": block, "BLOCK_W": power_of_two(width)}
    weight = {"weight_ptr": weights.output_weight, "bias_ptr": weights.output_bias}
    yield launch(output_kernel, (ceil_div(channels, block), batch), warps, arguments | weight | tile)


def few_rows_launches(weights: PackedWeights, arguments: dict[str, Any], max_programs: int) -> Iterator[Launch]:
    """The two launches of a block."""
    width = weights.sizes["W"]
    block, warps = dot_product_tile(width, width, max_programs)
    arguments = arguments | {"BLOCK_O": block, "BLOCK_W": power_of_two(width)}
    grid = (ceil_div(width, block),)
    yield launch(modulate_linear_silu_kernel, grid, warps, arguments | first_layer(weights))
    yield launch(linear_gate_residual_kernel, grid, warps, arguments | second_layer(weights))


def many_rows_launches(weights: PackedWeights, buffers: Buffers, arguments: dict[str, Any]) -> Iterator[Launch]:
    """The three launches of a block."""
    width, rows = weights.sizes["W"], buffers.rows
    tile = matrix_tile(rows, width, weights.is_float32)
    grid = (ceil_div(width, tile["BLOCK_O"]), ceil_div(rows, tile["BLOCK_R"]))
    dot = tile | {"K": width, "OUT": width, "WITH_SILU": True, "DOT": dot_type(weights.first_weight)}
    first = first_layer(weights) | {"x_ptr": buffers.modulated, "out_ptr": buffers.inner} | dot
    yield launch(modulate_kernel, (rows,), 4, arguments | {"BLOCK_W": power_of_two(width)})
    yield launch(linear_kernel, grid, 4, arguments | first)
    yield launch(linear_gate_residual_rows_kernel, grid, 4, arguments | second_layer(weights) | dot)


def mod_gemm_launch(activations: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Launch:
    """Out (P, OUT) = activations (P, K) @ weight (OUT, K).T + bias (OUT,), if there is one; all contiguous."""
    rows, (outputs, inputs) = len(activations), weight.shape
    dot = dot_type(weight)
    # Wide tiles: here the products take the time, not the weights.
    block_r, block_o = min(64, max(16, power_of_two(rows))), 64 if dot == tl.float32 else 128
    arguments = {
        "x_ptr": activations,
        "weight_ptr": weight,
        "scale_ptr": None,
        "bias_ptr": bias,
        "out_ptr": out,
        "layer": 0,
        "rows": rows,
        "K": inputs,
        "OUT": outputs,
        "WITH_SILU": False,
        "BLOCK_R": block_r,
        "BLOCK_O": block_o,
        "BLOCK_K": 32 if dot == tl.float32 else 64,
        "DOT": dot,
    }
    return launch(linear_kernel, (ceil_div(outputs, block_o), ceil_div(rows, block_r)), 4, arguments)
