"""Compiles every Triton kernel for GPUs that need not be there; one line of JSON on standard output per cubin.

    python compile_triton.py 80 90 100

compiles for compute capabilities 8.0, 9.0 and 10.0 what the flow sampler and the backbone step launch at the paper's
widths, with few and with many rows. Neither a GPU nor a driver is needed. This is a program of its own because Triton
either compiles or interprets in a process, and because the folder with the compiled kernels (TRITON_CACHE_DIR) is fixed
at its start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llamo_ros.kernels.backbone_step import BranchWeights, LayerWeights
from llamo_ros.kernels.backbone_step import triton_plan as backbone_plan
from llamo_ros.kernels.backbone_step import triton_steps as backbone_steps
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, triton_plan
from llamo_ros.kernels.flow_sampler.triton_persistent import persistent_launch
from llamo_ros.kernels.flow_sampler.triton_steps import mod_gemm_launch, step_launches
from llamo_ros.kernels.triton_launch import STORAGE, Launch

POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
MULTIPROCESSORS = 132
# Every kernel for every capability, and with every type of weights for one: all of all takes twice the time.
DTYPES = {80: ("bfloat16", "int8"), 90: ("float32", "bfloat16", "float8"), 100: ("bfloat16",)}


def sampler_launches(dtype: str, capability: int) -> Iterator[Launch]:
    """Of every kernel what a sampler with these weights launches, in each form of modulations and with guidance."""
    empty = {"device": "meta"}
    sizes = [(1536, 1, True), (1536, 64, True)]  # a row and its null row for dot products; many
    if (dtype, capability) == ("bfloat16", 90):
        sizes += [(63, 1, False), (63, 5, False)]  # no multiple of anything
    for width, batch, guided in sizes:
        weights = FlowHeadWeights(
            input_weight=torch.empty(width, 16, **empty),
            input_bias=torch.empty(width, **empty),
            first_weight=torch.empty(2, width, width, **empty),
            first_bias=torch.empty(2, width, **empty),
            second_weight=torch.empty(2, width, width, **empty),
            second_bias=torch.empty(2, width, **empty),
            output_weight=torch.empty(16, width, **empty),
            output_bias=torch.empty(16, **empty),
        )
        packed = triton_plan.pack(weights, dtype)
        buffers = triton_plan.make_buffers(packed, batch, 50, guided, separable=guided)
        yield from step_launches(packed, buffers, 0, 256)
        yield persistent_launch(packed, buffers, torch.empty(1, dtype=torch.int32, **empty), MULTIPROCESSORS)
        if dtype in ("float32", "bfloat16") and batch == 1:
            weight = torch.empty(8 * width, width, dtype=STORAGE[dtype][0], **empty)
            rows, bias, out = (torch.empty(*shape, **empty) for shape in [(50, width), (8 * width,), (50, 8 * width)])
            yield mod_gemm_launch(rows, weight, bias, out)  # joint modulations
            yield mod_gemm_launch(rows, weight, None, out)  # the condition's part


def backbone_launches(dtype: str) -> Iterator[Launch]:
    """Of every kernel what a backbone step with these weights launches, at the sizes of Llama 3.2 1B and 3.1 8B."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    sizes = [(2048, 64, 8192, 1)] + ([(4096, 128, 14336, 64)] if dtype == "bfloat16" else [])
    for width, head_width, ffn_width, rows in sizes:
        layer = LayerWeights(
            attention_norm=empty(width),
            query_key_value=empty((32 + 2 * 8) * head_width, width),
            attention_output=empty(width, 32 * head_width),
            feed_forward_norm=empty(width),
            gate_up=empty(2 * ffn_width, width),
            down=empty(width, ffn_width),
        )
        branch = backbone_plan.pack(BranchWeights(32, 8, head_width, empty(width), 1e-5, (layer,)), dtype)
        cache = empty(1, rows, 8, 512, head_width)
        memory = backbone_plan.make_buffers(branch, branch, 0, rows)
        launches = [
            one for is_prompt in (False, True) for one in backbone_steps.step_launches(*memory, cache, cache, is_prompt)
        ]
        forms = {}  # of each kernel one launch with, and one without what may be left out
        for one in launches:
            if isinstance(one, Launch):  # the others are PyTorch's
                forms[one.kernel, *(name for name, value in one.arguments.items() if value is None)] = one
        yield from forms.values()


def source(launch: Launch) -> ASTSource:
    """The kernel with the types of the launch's arguments, as Triton would find them when it launches."""
    signature, constants, aligned = {}, {}, {}
    for position, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            aligned[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    return ASTSource(launch.kernel, signature, constants, aligned)


def main(capabilities: list[int]) -> None:
    """Compile for each compute capability."""
    for capability in capabilities:
        for dtype in DTYPES[capability]:
            seen = set()
            for launch in chain(sampler_launches(dtype, capability), backbone_launches(dtype)):
                code = source(launch)
                key = (code.hash(), str(launch.options))
                if key in seen:  # the second block, and layers without quantised weights
                    continue
                seen.add(key)
                compiled = triton.compile(code, target=GPUTarget("cuda", capability, 32), options=launch.options)
                row = {
                    "kernel": launch.kernel.__name__,
                    "dtype": dtype,
                    "capability": capability,
                    "width": launch.arguments.get("W"),
                    "cubin_bytes": len(compiled.asm["cubin"]),
                    "shared_bytes": compiled.metadata.shared,
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
