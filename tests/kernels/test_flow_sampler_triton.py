"""The flow sampler in Triton against its reference: on a GPU, and in the interpreter (test_triton_interpreted.py)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError, ParameterError, ShapeError
from llamo_ros.kernels.backends import check_triton
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler, reference

pytest.importorskip("triton", reason="Triton is not installed: pip install -r requirements/gpu.txt")

from llamo_ros.kernels.flow_sampler import triton_kernel
from llamo_ros.kernels.flow_sampler.triton_kernel import TritonFlowSampler, mod_gemm
from llamo_ros.kernels.triton_launch import INTERPRETED, STORAGE, quantize
from llamo_ros.model.config import preset
from llamo_ros.model.latent_sampler import LatentSampler
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime

DEVICE = "cpu" if INTERPRETED else "cuda"

# Largest error with each type of weights, of the displacement |latents - noise|. The worst seen in the interpreter,
# which cuts bfloat16 off where a GPU rounds it, are 2.3e-7, 9.6e-3, 3.6e-2 and 1.0e-2.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float8": 8e-2, "int8": 3e-2}
# The same against a reference that has the rounded weights. What is left are float32 sums in another order (2.6e-7
# seen) or, with more than 4 rows, activations in bfloat16 (5.5e-3 seen).
TOLERANCE_FEW_ROWS, TOLERANCE_MANY_ROWS = 1e-5, 1.5e-2

PLAIN, GUIDED = (None, False), (2.0, True)  # guidance scale, and whether the modulations come apart
# width, blocks, samples, steps: two and three rows, of which every program has all; twelve for matrix products
SMALL = [(16, 1, 1, 2, *GUIDED), (63, 2, 3, 2, *PLAIN), (96, 1, 6, 2, *GUIDED)]
LARGE = [(w, 3, samples, 5, *form) for w in (256, 1536) for samples in (1, 4, 64) for form in (PLAIN, GUIDED)]
CASES = SMALL if INTERPRETED else SMALL + LARGE


def on_gpu(test: Callable) -> Callable:
    """Run only where there is a GPU."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
    return pytest.mark.gpu(skip(test))


def on_gpu_and_interpreted(test: Callable) -> Callable:
    """Run where there is a GPU, and in the interpreter."""
    return test if INTERPRETED else on_gpu(test)


def make_weights(width: int, channels: int, blocks: int, device: str = DEVICE) -> FlowHeadWeights:
    """Random weights under which activations keep their size from layer to layer."""
    random = torch.Generator().manual_seed(0)

    def layer(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=random) / shape[-1] ** 0.5).to(device)

    return FlowHeadWeights(
        input_weight=layer(width, channels),
        input_bias=layer(width),
        first_weight=layer(blocks, width, width),
        first_bias=layer(blocks, width),
        second_weight=layer(blocks, width, width),
        second_bias=layer(blocks, width),
        output_weight=layer(channels, width),
        output_bias=layer(channels),
    )


def make_arguments(
    weights: FlowHeadWeights, samples: int, steps: int, guidance_scale: float | None, separable: bool = True
) -> tuple[Tensor, Tensor, Tensor | None, float | None]:
    """Random arguments of a call."""
    random = torch.Generator().manual_seed(1)
    width, channels = weights.input_weight.shape
    row_size = (3 * len(weights.first_weight) + 2) * width
    rows = samples * (1 if guidance_scale is None else 2)
    noise = torch.randn(samples, channels, generator=random).to(DEVICE)
    time = 0.5 * torch.randn(steps, row_size, generator=random).to(DEVICE)
    condition = 0.5 * torch.randn(rows, row_size, generator=random).to(DEVICE)
    if separable:
        return noise, time, condition, guidance_scale
    return noise, time[:, None] + condition, None, guidance_scale


def rounded(weights: FlowHeadWeights, dtype: str) -> FlowHeadWeights:
    """What is left of the weights in this dtype."""

    def round_weight(weight: Tensor) -> Tensor:
        values, scale = quantize(weight, dtype)
        return values.float() if scale is None else values.float() * scale[..., None]

    blocks = {name: round_weight(getattr(weights, name)) for name in ("first_weight", "second_weight")}
    return FlowHeadWeights(**(weights.tensors() | blocks))


def error(latents: Tensor, weights: FlowHeadWeights, arguments: tuple) -> float:
    """Largest difference to the float64 reference, of the largest displacement."""
    noise, time, condition, guidance_scale = arguments
    full = time.double() if condition is None else time[:, None].double() + condition.double()
    noise = noise.double()
    expected = reference.flow_sampler(weights.map(Tensor.double), noise, full, guidance_scale)
    assert latents.dtype == torch.float32 and latents.shape == expected.shape
    return ((latents - expected).abs().max() / (expected - noise).abs().max()).item()


# --------------------------------------------------------------------------------------------------------- correctness


@pytest.mark.parametrize("persistent", [False, True], ids=["layers", "persistent"])
@pytest.mark.parametrize(("width", "blocks", "samples", "steps", "guidance_scale", "separable"), CASES)
@pytest.mark.parametrize("dtype", STORAGE)
@on_gpu_and_interpreted
def test_kernels_match_the_float64_reference(
    dtype: str,
    width: int,
    blocks: int,
    samples: int,
    steps: int,
    guidance_scale: float | None,
    separable: bool,
    persistent: bool,
) -> None:
    weights = make_weights(width, 5, blocks)
    arguments = make_arguments(weights, samples, steps, guidance_scale, separable)
    before = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]

    latents = TritonFlowSampler(weights, dtype, persistent)(*arguments)

    few_rows = samples * (1 if guidance_scale is None else 2) <= 4
    tolerance = TOLERANCE_FEW_ROWS if few_rows or dtype == "float32" else TOLERANCE_MANY_ROWS
    assert error(latents, rounded(weights, dtype), arguments) <= tolerance
    assert error(latents, weights, arguments) <= TOLERANCE[dtype]
    for argument, unchanged in zip(arguments, before, strict=True):
        if isinstance(argument, Tensor):
            torch.testing.assert_close(argument, unchanged, rtol=0, atol=0)


@pytest.mark.parametrize("persistent", [False, True], ids=["layers", "persistent"])
@on_gpu_and_interpreted
def test_rows_may_be_more_than_a_tile_of_a_matrix_product_has(persistent: bool) -> None:
    weights = make_weights(16, 4, 1)
    arguments = make_arguments(weights, 66, 1, None)
    latents = TritonFlowSampler(weights, "bfloat16", persistent)(*arguments)
    assert error(latents, rounded(weights, "bfloat16"), arguments) <= TOLERANCE_MANY_ROWS


@pytest.mark.parametrize("persistent", [False, True], ids=["layers", "persistent"])
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize(("guidance_scale", "separable"), [(None, True), (2.0, False)])
@on_gpu_and_interpreted
def test_both_forms_of_modulations_are_the_same(
    guidance_scale: float | None, separable: bool, samples: int, persistent: bool
) -> None:
    weights = make_weights(16, 4, 1)
    arguments = make_arguments(weights, samples, 2, guidance_scale, separable)
    latents = TritonFlowSampler(weights, "float32", persistent)(*arguments)
    assert error(latents, weights, arguments) <= TOLERANCE["float32"]


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # by numpy, in the interpreter
@pytest.mark.parametrize("samples", [1, 5])
@on_gpu_and_interpreted
def test_silu_is_right_far_beyond_the_range_of_exp(samples: int) -> None:
    weights = make_weights(16, 4, 1)
    extreme = [-1e4, -300, -104, -89, -88, -87, -20, -1, 0, 1, 20, 87, 88, 104, 300, 1e4]
    weights.first_bias.copy_(torch.tensor(extreme))
    arguments = make_arguments(weights, samples, 2, None)
    assert error(TritonFlowSampler(weights, "float32")(*arguments), weights, arguments) <= TOLERANCE["float32"]


@on_gpu_and_interpreted
def test_layer_norm_of_nearly_equal_channels_uses_the_same_epsilon() -> None:
    weights = make_weights(63, 4, 1)
    for tensor in (weights.input_weight, weights.input_bias, weights.second_weight, weights.second_bias):
        tensor.mul_(1e-3)  # a variance of about epsilon
    arguments = make_arguments(weights, 2, 2, None)
    assert error(TritonFlowSampler(weights, "float32")(*arguments), weights, arguments) <= TOLERANCE["float32"]


@pytest.mark.parametrize("persistent", [False, True], ids=["layers", "persistent"])
@pytest.mark.parametrize("samples", [1, 5])
@on_gpu_and_interpreted
def test_nan_reaches_the_latents(samples: int, persistent: bool) -> None:
    weights = make_weights(16, 4, 1)
    weights.first_weight.zero_()
    noise, time, condition, _ = make_arguments(weights, samples, 1, None)
    condition[0, 3] = float("nan")
    latents = TritonFlowSampler(weights, "bfloat16", persistent)(noise, time, condition, None)
    assert latents[0].isnan().all() and latents[1:].isfinite().all()


@pytest.mark.parametrize("persistent", [False, True], ids=["layers", "persistent"])
@on_gpu_and_interpreted
def test_a_call_does_not_depend_on_those_before(persistent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "PLANS_KEPT", 2)
    weights = make_weights(16, 4, 1)
    sampler = TritonFlowSampler(weights, "float32", persistent)
    kinds = [
        make_arguments(weights, 1, 1, None),
        make_arguments(weights, 1, 1, 2.0),
        make_arguments(weights, 1, 2, 2.0),
    ]
    expected = [sampler(*arguments) for arguments in kinds]
    for arguments, latents in zip(kinds, expected, strict=True):
        noise, time, condition, guidance_scale = arguments
        other = sampler(2 * noise, -time, condition, guidance_scale)
        assert not torch.equal(other, latents)
        torch.testing.assert_close(sampler(*arguments), latents, rtol=0, atol=0)
    assert len(sampler._plans) == 2


@on_gpu_and_interpreted
def test_sampling_from_several_threads_is_deterministic() -> None:
    weights = make_weights(16, 4, 1)
    sampler = TritonFlowSampler(weights)
    arguments = make_arguments(weights, 1, 1, None)
    expected = sampler(*arguments)
    with ThreadPoolExecutor(3) as pool:
        for latents in pool.map(lambda _: sampler(*arguments), range(6)):
            torch.testing.assert_close(latents, expected, rtol=0, atol=0)


@on_gpu_and_interpreted
def test_weights_are_copied_and_parameters_and_strided_arguments_taken() -> None:
    weights = make_weights(16, 4, 1)
    arguments = make_arguments(weights, 2, 1, None)
    sampler = TritonFlowSampler(weights.map(torch.nn.Parameter))
    expected = sampler(*arguments)
    weights.map(Tensor.zero_)
    noise, time, condition = (tensor.t().contiguous().t().requires_grad_() for tensor in arguments[:3])
    latents = sampler(noise, time, condition, None)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, expected, rtol=0, atol=0)


@on_gpu_and_interpreted
def test_an_empty_batch_gives_no_latents() -> None:
    weights = make_weights(16, 4, 1)
    assert TritonFlowSampler(weights)(*make_arguments(weights, 0, 2, 2.0)).shape == (0, 4)


@pytest.mark.parametrize(("rows", "width", "outputs"), [(1, 16, 40), (50, 63, 130), (100, 96, 64)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
@on_gpu_and_interpreted
def test_mod_gemm_is_a_linear_layer(dtype: torch.dtype, tolerance: float, rows: int, width: int, outputs: int) -> None:
    random = torch.Generator().manual_seed(0)
    activations = torch.randn(rows, width, generator=random).to(DEVICE)
    weight = (torch.randn(outputs, width, generator=random) / width**0.5).to(DEVICE, dtype)
    for bias in (torch.randn(outputs, generator=random).to(DEVICE), None):
        exact_bias = None if bias is None else bias.double()
        expected = torch.nn.functional.linear(activations.double(), weight.double(), exact_bias)
        actual = mod_gemm(activations, weight, bias)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())


# ----------------------------------------------------------------------------------------------------------- dispatch


@pytest.mark.parametrize(("precision", "persistent"), [*((precision, False) for precision in STORAGE), ("int8", True)])
@on_gpu_and_interpreted
def test_the_flow_sampler_runs_in_triton_where_it_is_asked_for(precision: str, persistent: bool) -> None:
    weights = make_weights(16, 4, 1)
    noise, time, condition, _ = arguments = make_arguments(weights, 1, 2, 2.0)
    sampler = FlowSampler(weights, backend="triton", precision=precision, persistent=persistent)
    assert (sampler.backend, sampler.precision, sampler.instruction_set) == ("triton", precision, None)
    latents = sampler(noise, time_modulations=time, condition_modulations=condition, guidance_scale=2.0)
    expected = TritonFlowSampler(weights, precision, persistent)(*arguments)
    torch.testing.assert_close(latents, expected, rtol=0, atol=0)
    full = sampler(noise, modulations=time[:, None] + condition, guidance_scale=2.0)
    torch.testing.assert_close(full, expected)
    time[0, 0] = float("nan")
    with pytest.raises(ParameterError, match="time_modulations contain NaN"):
        sampler(noise, time_modulations=time, condition_modulations=condition, guidance_scale=2.0)


# Against PyTorch in float32; where nothing is rounded what is left are sums in another order.
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("modulation", "solver"), [("separable", "euler"), ("separable", "midpoint"), ("joint", "euler")]
)
@on_gpu_and_interpreted
def test_a_motion_runtime_samples_in_triton_in_the_precision_of_the_checkpoint(
    modulation: str, solver: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    products: list[tuple[int, ...]] = []

    def counted(activations: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        products.append((*activations.shape, len(weight)))
        assert weight.dtype == STORAGE[precision][0]
        return mod_gemm(activations, weight, bias)

    monkeypatch.setattr(triton_kernel, "mod_gemm", counted)
    torch.manual_seed(0)
    config = preset("tiny")
    flow_head = replace(config.flow_head, modulation=modulation, affine_norm=modulation == "joint")
    generation = replace(config.generation, precision=precision)
    model = Llamo(replace(config, flow_head=flow_head, generation=generation)).eval().to(DEVICE)
    head = model.flow_head
    for parameter in head.parameters():  # it starts as the zero field
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    runtime = MotionRuntime(model, backend="triton")
    assert (runtime.precision, runtime.sampler.backend) == (precision, "triton")
    used = {name: (operation.backend, operation.precision) for name, operation in runtime.operations.items()}
    assert used == dict.fromkeys(("flow_sampler", "backbone_step"), ("triton", precision))
    assert MotionRuntime(model).sampler.backend == ("cpu" if INTERPRETED else "triton")
    noise = torch.randn(1, head.latent_dim, device=DEVICE)
    condition = torch.randn(2, head.condition.in_features, device=DEVICE)
    expected = LatentSampler(head, backend="reference")(noise, condition, 2.0, 2, solver)
    latents = runtime.sampler(noise, condition, 2.0, 2, solver)
    assert (latents - expected).abs().max() <= TOLERANCE[precision] * (expected - noise).abs().max()
    # One product: of both rows (text and null), and where modulations do not come apart at all flow times.
    rows = 2 if modulation == "separable" else 2 * (2 if solver == "euler" else 4)
    assert products == [(rows, head.config.width, (3 * head.config.blocks + 2) * head.config.width)]


def test_only_triton_has_a_persistent_kernel() -> None:
    with pytest.raises(BackendError, match="'reference' has no persistent kernel"):
        FlowSampler(make_weights(16, 4, 1, device="cpu"), backend="reference", persistent=True)


# -------------------------------------------------------------------------------------------------------- only on a GPU


@pytest.mark.parametrize("persistent", [False, True], ids=["layers", "persistent"])
@on_gpu
def test_calls_on_two_streams_do_not_disturb_each_other(persistent: bool) -> None:
    weights = make_weights(256, 16, 4)
    sampler = TritonFlowSampler(weights, "float32", persistent)
    arguments = [make_arguments(weights, samples, 50, 2.0) for samples in (2, 2)]
    arguments[1][0].mul_(2)
    expected = [sampler(*one) for one in arguments]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    for _ in range(5):
        actual = []
        for stream, one in zip(streams, arguments, strict=True):
            with torch.cuda.stream(stream):
                actual.append(sampler(*one))
        torch.cuda.synchronize()
        for latents, wanted in zip(actual, expected, strict=True):
            torch.testing.assert_close(latents, wanted, rtol=0, atol=0)


@on_gpu
def test_a_graph_does_what_single_launches_do() -> None:
    weights = make_weights(256, 16, 2)
    for samples in (1, 8):
        arguments = make_arguments(weights, samples, 10, 2.0)
        single = TritonFlowSampler(weights, use_graph=False)(*arguments)
        torch.testing.assert_close(TritonFlowSampler(weights)(*arguments), single, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_an_unknown_dtype_is_refused_with_a_list() -> None:
    weights = FlowHeadWeights(*(torch.zeros(1) for _ in range(8)))
    with pytest.raises(ParameterError, match="'float16', expected one of float32, bfloat16, float8, int8"):
        TritonFlowSampler(weights, "float16")


def test_a_device_where_the_kernels_do_not_run_is_refused_with_advice() -> None:
    if INTERPRETED:
        with pytest.raises(BackendError, match="tensors are on cuda. Unset it"):
            check_triton(torch.device("cuda"))
    else:
        weights = make_weights(16, 4, 1, device="cpu")
        for make in (TritonFlowSampler, lambda weights: FlowSampler(weights, backend="triton")):
            with pytest.raises(BackendError, match="need an NVIDIA GPU, but .* on cpu.*TRITON_INTERPRET=1"):
                make(weights)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"activations": torch.zeros(5, 7)}, ShapeError),
        ({"bias": torch.zeros(4)}, ShapeError),
        ({"weight": torch.zeros(3, 8, dtype=torch.float16)}, ParameterError),
        ({"weight": torch.zeros(8)}, ParameterError),
        ({"activations": torch.zeros(5, 8, dtype=torch.bfloat16)}, ParameterError),
    ],
)
def test_mod_gemm_refuses_what_does_not_fit(change: dict[str, Tensor], problem: type[Exception]) -> None:
    arguments = {"activations": torch.zeros(5, 8), "weight": torch.zeros(3, 8), "bias": torch.zeros(3)}
    with pytest.raises(problem, match="expected"):
        mod_gemm(**(arguments | change))
