"""What the persistent Triton kernels share: the barrier, and the first and the last phase of a step.

Here and there, loops with bounds that are not constants are written with ``while``: Triton 3.6 cannot interpret them
with ``range`` and a new NumPy.
"""

# B samples, R rows (B, or 2B with guidance), Z latent channels, W width, N blocks, M = 3WN + 2W modulations of a row
# NCTA programs

from __future__ import annotations

import triton
import triton.language as tl

from llamo_ros.kernels.flow_sampler.triton_tiles import input_task, output_task


@triton.jit
def grid_barrier(counter_ptr, arrivals, NCTA: tl.constexpr):
    """Wait until all programs are here; what they stored before can be loaded afterwards.

    `arrivals` is the value of the counter at which the barrier before this one opened, at first 0, and this one's is
    returned. The counter only grows, so nobody can mistake one barrier for another. One program needs no counter.
    """
    arrivals += NCTA
    tl.debug_barrier()  # all warps have stored: the arrival below releases their values too
    if NCTA > 1:
        arrived = tl.atomic_add(counter_ptr, 1, sem="acq_rel", scope="gpu") + 1
        while arrived < arrivals:
            arrived = tl.atomic_add(counter_ptr, 0, sem="acquire", scope="gpu")
        tl.debug_barrier()  # no warp loads before the counter has been acquired
    return arrivals


@triton.jit
def input_phase(
    x_ptr,
    weight_ptr,
    bias_ptr,
    hidden_ptr,
    batch,
    rows,
    W: tl.constexpr,
    Z: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_Z: tl.constexpr,
    NCTA: tl.constexpr,
):
    """This program's part of the input layer."""
    tiles: tl.constexpr = (W + BLOCK_O - 1) // BLOCK_O
    task = tl.program_id(0)
    while task < tiles * rows:
        first = task % tiles * BLOCK_O
        input_task(x_ptr, weight_ptr, bias_ptr, hidden_ptr, task // tiles, batch, first, W, Z, BLOCK_O, BLOCK_Z)
        task += NCTA


@triton.jit
def output_phase(
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
    NCTA: tl.constexpr,
):
    """This program's part of the output layer and the Euler step."""
    tiles: tl.constexpr = (Z + BLOCK_O - 1) // BLOCK_O
    task = tl.program_id(0)
    while task < tiles * batch:
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
            task // tiles,
            batch,
            rows,
            task % tiles * BLOCK_O,
            N,
            W,
            Z,
            M,
            BLOCK_O,
            BLOCK_W,
        )
        task += NCTA
