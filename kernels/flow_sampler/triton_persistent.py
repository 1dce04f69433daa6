"""The flow sampler as one launch for all Euler steps: programs meet at a barrier where others launch a kernel.

All programs must run at the same time, or the barrier waits for ever. So there are never more of them than
multiprocessors, and the launch is cooperative: where the GPU cannot take all at once, it refuses them.
"""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, S Euler steps
# M = 3WN + 2W modulations of a row; NCTA programs

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from llamo_ros.kernels.flow_sampler.triton_phases import grid_barrier, input_phase, output_phase
from llamo_ros.kernels.flow_sampler.triton_plan import (
    MAX_DOT_PRODUCT_ROWS,
    Buffers,
    PackedWeights,
    argument_pool,
    dot_product_tile,
    input_tile,
)
from llamo_ros.kernels.flow_sampler.triton_tiles import (
    first_task,
    gate_rows,
    modulate_task,
    second_task,
    weight_tile,
)
from llamo_ros.kernels.triton_launch import Launch, ceil_div, dot_type, launch, matrix_tile, power_of_two
from llamo_ros.kernels.triton_linear import linear_of_rows, silu, store_rows


@triton.jit(do_not_specialize=["steps"])
def persistent_few_rows_kernel(
    x_ptr,
    time_ptr,
    condition_ptr,
    guidance_ptr,
    hidden_ptr,
    inner_ptr,
    counter_ptr,
    input_weight_ptr,
    input_bias_ptr,
    first_weight_ptr,
    first_scale_ptr,
    first_bias_ptr,
    second_weight_ptr,
    second_scale_ptr,
    second_bias_ptr,
    output_weight_ptr,
    output_bias_ptr,
    steps,
    step_size,
    batch: tl.constexpr,
    rows: tl.constexpr,
    N: tl.constexpr,
    W: tl.constexpr,
    Z: tl.constexpr,
    M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_Z: tl.constexpr,
    INPUT_BLOCK: tl.constexpr,
    OUTPUT_BLOCK: tl.constexpr,
    NCTA: tl.constexpr,
):
    """Each program has BLOCK_O outputs of every layer of the blocks. Grid: NCTA = W / BLOCK_O rounded up.

    The weights after a barrier are loaded before it: they do not depend on what is waited for.
    """
    own = tl.program_id(0) * BLOCK_O
    arrivals = 0
    first_tile = weight_tile(first_weight_ptr, 0, own, W, W, BLOCK_O, BLOCK_W)
    step = 0
    while step < steps:
        input_phase(
            x_ptr,
            input_weight_ptr,
            input_bias_ptr,
            hidden_ptr,
            batch,
            rows,
            W,
            Z,
            INPUT_BLOCK,
            BLOCK_Z,
            NCTA,
        )
        arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
        for layer in range(N):
            for row in tl.static_range(rows):
                first_task(
                    first_tile,
                    hidden_ptr,
                    time_ptr,
                    condition_ptr,
                    first_scale_ptr,
                    first_bias_ptr,
                    inner_ptr,
                    step,
                    layer,
                    row,
                    rows,
                    own,
                    W,
                    M,
                    BLOCK_O,
                    BLOCK_W,
                )
            second_tile = weight_tile(second_weight_ptr, layer, own, W, W, BLOCK_O, BLOCK_W)
            arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
            for row in tl.static_range(rows):
                second_task(
                    second_tile,
                    inner_ptr,
                    time_ptr,
                    condition_ptr,
                    second_scale_ptr,
                    second_bias_ptr,
                    hidden_ptr,
                    step,
                    layer,
                    row,
                    rows,
                    own,
                    W,
                    M,
                    BLOCK_O,
                    BLOCK_W,
                )
            first_tile = weight_tile(first_weight_ptr, (layer + 1) % N, own, W, W, BLOCK_O, BLOCK_W)
            arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
        output_phase(
            hidden_ptr,
            time_ptr,
            condition_ptr,
            output_weight_ptr,
            output_bias_ptr,
            guidance_ptr,
            x_ptr,
            step,
            step_size,
            batch,
            rows,
            N,
            W,
            Z,
            M,
            OUTPUT_BLOCK,
            BLOCK_W,
            NCTA,
        )
        arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
        step += 1


@triton.jit(do_not_specialize=["steps", "batch", "rows"])
def persistent_many_rows_kernel(
    x_ptr,
    time_ptr,
    condition_ptr,
    guidance_ptr,
    hidden_ptr,
    modulated_ptr,
    inner_ptr,
    counter_ptr,
    input_weight_ptr,
    input_bias_ptr,
    first_weight_ptr,
    first_scale_ptr,
    first_bias_ptr,
    second_weight_ptr,
    second_scale_ptr,
    second_bias_ptr,
    output_weight_ptr,
    output_bias_ptr,
    steps,
    step_size,
    batch,
    rows,
    N: tl.constexpr,
    W: tl.constexpr,
    Z: tl.constexpr,
    M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_Z: tl.constexpr,
    INPUT_BLOCK: tl.constexpr,
    OUTPUT_BLOCK: tl.constexpr,
    DOT: tl.constexpr,
    NCTA: tl.constexpr,
):
    """Programs take tiles of each layer in turn. Grid: NCTA."""
    own = tl.program_id(0)
    arrivals = 0
    tiles: tl.constexpr = (W + BLOCK_O - 1) // BLOCK_O
    tasks = tiles * ((rows + BLOCK_R - 1) // BLOCK_R)
    step = 0
    while step < steps:
        input_phase(
            x_ptr,
            input_weight_ptr,
            input_bias_ptr,
            hidden_ptr,
            batch,
            rows,
            W,
            Z,
            INPUT_BLOCK,
            BLOCK_Z,
            NCTA,
        )
        arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
        for layer in range(N):
            row = own
            while row < rows:
                modulate_task(hidden_ptr, time_ptr, condition_ptr, modulated_ptr, step, layer, row, rows, W, M, BLOCK_W)
                row += NCTA
            arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
            task = own
            while task < tasks:
                first, first_row = task % tiles * BLOCK_O, task // tiles * BLOCK_R
                value = linear_of_rows(
                    modulated_ptr,
                    first_weight_ptr,
                    first_scale_ptr,
                    first_bias_ptr,
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
                store_rows(silu(value), inner_ptr, first_row, rows, first, W, BLOCK_R, BLOCK_O)
                task += NCTA
            arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
            task = own
            while task < tasks:
                first, first_row = task % tiles * BLOCK_O, task // tiles * BLOCK_R
                value = linear_of_rows(
                    inner_ptr,
                    second_weight_ptr,
                    second_scale_ptr,
                    second_bias_ptr,
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
                gate_rows(
                    value,
                    time_ptr,
                    condition_ptr,
                    hidden_ptr,
                    step,
                    layer,
                    first_row,
                    rows,
                    first,
                    W,
                    M,
                    BLOCK_R,
                    BLOCK_O,
                )
                task += NCTA
            arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
        output_phase(
            hidden_ptr,
            time_ptr,
            condition_ptr,
            output_weight_ptr,
            output_bias_ptr,
            guidance_ptr,
            x_ptr,
            step,
            step_size,
            batch,
            rows,
            N,
            W,
            Z,
            M,
            OUTPUT_BLOCK,
            BLOCK_W,
            NCTA,
        )
        arrivals = grid_barrier(counter_ptr, arrivals, NCTA)
        step += 1


def persistent_launch(weights: PackedWeights, buffers: Buffers, counter: Tensor, max_programs: int) -> Launch:
    """The launch for all steps. The counter, one int32, must be 0 when it begins.

    Args:
        weights: The head.
        buffers: Of this call.
        counter: Shape (1,), int32.
        max_programs: The multiprocessors of the GPU.
    """
    sizes, rows = weights.sizes, buffers.rows
    width, channels = sizes["W"], sizes["Z"]
    if rows <= MAX_DOT_PRODUCT_ROWS:
        block, warps = dot_product_tile(width, width, max_programs)
        programs = ceil_div(width, block)
        kernel, tile = persistent_few_rows_kernel, {"BLOCK_O": block}
    else:
        tile = matrix_tile(rows, width, weights.is_float32)
        tasks = ceil_div(width, tile["BLOCK_O"]) * ceil_div(rows, tile["BLOCK_R"])
        programs, warps = min(max_programs, max(rows, tasks)), 8
        kernel, tile = persistent_many_rows_kernel, tile | {"DOT": dot_type(weights.first_weight)}
    pool = argument_pool(weights, buffers) | {f"{name}_ptr": tensor for name, tensor in vars(weights).items()} | tile
    pool |= {
        "counter_ptr": counter,
        "steps": len(buffers.time),
        "BLOCK_W": power_of_two(width),
        "BLOCK_Z": power_of_two(channels),
        "INPUT_BLOCK": input_tile(width, channels, rows, programs)[0],
        "OUTPUT_BLOCK": dot_product_tile(channels, width, programs)[0],
        "NCTA": programs,
    }
    return launch(kernel, (programs,), warps, pool, launch_cooperative_grid=True)
