"""The flow sampler: every backend against the reference, and what it refuses."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import llamo_ros
from llamo_ros.core.errors import BackendError, ParameterError, ShapeError
from llamo_ros.kernels.backends import choose_backend, compiled_kernels
from llamo_ros.kernels.flow_sampler import FlowHeadWeights, FlowSampler, instruction_sets, reference

# Of the displacement |latents - noise|. Float32 rounds at 6e-8 and errors add up over the layers and steps; the worst
# seen over all shapes here is 1.3e-6.
TOLERANCE = 1e-5


def make_weights(width: int, channels: int, blocks: int, seed: int = 0) -> FlowHeadWeights:
    """Random weights under which activations keep their size from layer to layer."""
    random = torch.Generator().manual_seed(seed)

    def layer(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random) / shape[-1] ** 0.5

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


def make_arguments(weights: FlowHeadWeights, samples: int, steps: int, guided: bool) -> dict[str, Tensor]:
    """Noise and separable modulations for the weights, sized like those of a trained head."""
    random = torch.Generator().manual_seed(1)
    width, channels = weights.input_weight.shape
    row_size = (3 * len(weights.first_weight) + 2) * width
    return {
        "noise": torch.randn(samples, channels, generator=random),
        "time_modulations": 0.5 * torch.randn(steps, row_size, generator=random),
        "condition_modulations": 0.5 * torch.randn(samples * (2 if guided else 1), row_size, generator=random),
    }


def definition(weights: FlowHeadWeights, arguments: dict[str, Tensor], guidance_scale: float | None) -> Tensor:
    """What the reference says in float64."""
    noise, time_part, condition_part = (tensor.double() for tensor in arguments.values())
    full = time_part[:, None] + condition_part
    return reference.flow_sampler(weights.map(Tensor.double), noise, full, guidance_scale)


def assert_close(actual: Tensor, expected: Tensor, noise: Tensor) -> None:
    """Equal to TOLERANCE, relative to how far the samples travelled."""
    assert actual.dtype == torch.float32 and actual.shape == expected.shape
    displacement = (expected - noise).abs().max()
    assert (actual - expected).abs().max() <= TOLERANCE * displacement


# W 63 is just short of a panel of every instruction set, W 8 less than one, W 256 whole panels
@pytest.mark.parametrize("guidance_scale", [None, 2.0], ids=["plain", "guided"])
@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("width", [8, 63, 256])
@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("samples", [1, 2, 5])
def test_compiled_kernel_matches_the_float64_reference(
    samples: int, channels: int, width: int, blocks: int, steps: int, guidance_scale: float | None
) -> None:
    weights = make_weights(width, channels, blocks)
    arguments = make_arguments(weights, samples, steps, guidance_scale is not None)
    before = {name: tensor.clone() for name, tensor in arguments.items()}
    sampler = FlowSampler(weights, backend="cpu")

    latents = sampler(**arguments, guidance_scale=guidance_scale)
    full = arguments["time_modulations"][:, None] + arguments["condition_modulations"]
    from_full = sampler(arguments["noise"], modulations=full, guidance_scale=guidance_scale)

    assert_close(latents, definition(weights, arguments, guidance_scale), arguments["noise"])
    torch.testing.assert_close(from_full, latents, rtol=0, atol=0)  # the same sum, computed there or here
    for name, tensor in arguments.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)  # arguments are never written


@pytest.mark.parametrize("guidance_scale", [None, 2.0], ids=["plain", "guided"])
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_every_instruction_set_of_this_machine_matches_the_reference(
    instruction_set: str, guidance_scale: float | None
) -> None:
    for width, samples in [(63, 1), (63, 7), (96, 40)]:
        weights = make_weights(width, 5, 2)
        arguments = make_arguments(weights, samples, 6, guidance_scale is not None)
        sampler = FlowSampler(weights, backend="cpu", instruction_set=instruction_set)
        assert sampler.instruction_set == instruction_set
        latents = sampler(**arguments, guidance_scale=guidance_scale)
        assert_close(latents, definition(weights, arguments, guidance_scale), arguments["noise"])


# Of the displacement. A bfloat16 weight is off by up to 2^-9 of itself, an int8 weight by 1/254 of the largest of its
# output, an activation likewise; errors of the layers add up. Worst seen here: 7e-3 and 4.4e-2,
# with guidance, which multiplies them.
PRECISION_TOLERANCES = {"float32": TOLERANCE, "bfloat16": 1.5e-2, "int8": 9e-2}


@pytest.mark.parametrize("precision", PRECISION_TOLERANCES)
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_rounded_weights_stay_close_to_the_reference(instruction_set: str, precision: str) -> None:
    for width, samples, guidance_scale in [(8, 1, None), (63, 3, 2.0), (256, 9, None), (256, 1, 2.0)]:
        weights = make_weights(width, 5, 2)
        arguments = make_arguments(weights, samples, 6, guidance_scale is not None)
        sampler = FlowSampler(weights, backend="cpu", instruction_set=instruction_set, precision=precision)
        latents = sampler(**arguments, guidance_scale=guidance_scale)
        expected = definition(weights, arguments, guidance_scale)
        displacement = (expected - arguments["noise"]).abs().max()
        error = (latents - expected).abs().max() / displacement
        assert error <= PRECISION_TOLERANCES[precision]
        assert precision == "float32" or error > TOLERANCE, "weights are rounded"


def test_int8_is_the_same_on_every_instruction_set() -> None:
    weights = make_weights(63, 5, 2)
    arguments = make_arguments(weights, 3, 4, guided=True)
    latents = [
        FlowSampler(weights, backend="cpu", instruction_set=name, precision="int8")(**arguments, guidance_scale=2.0)
        for name in instruction_sets()
    ]
    for other in latents[1:]:
        # Whole numbers are summed exactly; where a float is rounded otherwise, one may become its neighbour.
        assert (other - latents[0]).abs().max() <= 2e-2 * (latents[0] - arguments["noise"]).abs().max()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_row_does_not_depend_on_the_rows_beside_it_in_any_precision(precision: str) -> None:
    weights = make_weights(63, 5, 2)
    arguments = make_arguments(weights, 7, 4, guided=False)
    sampler = FlowSampler(weights, backend="cpu", precision=precision)
    together = sampler(**arguments)
    for row in range(7):
        one = {
            name: tensor if name == "time_modulations" else tensor[row : row + 1] for name, tensor in arguments.items()
        }
        torch.testing.assert_close(sampler(**one)[0], together[row], rtol=0, atol=0)


def test_nan_does_not_disappear_in_int8() -> None:
    weights = make_weights(63, 5, 2)
    arguments = make_arguments(weights, 2, 4, guided=False)
    sampler = FlowSampler(weights, backend="cpu", precision="int8")
    for name, tensor in arguments.items():
        for value in (torch.nan, torch.inf):
            broken = tensor.clone()
            broken[-1, -1] = value
            with pytest.raises(ParameterError, match=name):
                sampler(**(arguments | {name: broken}))


def test_a_precision_that_is_not_there_is_refused() -> None:
    weights = make_weights(8, 4, 1)
    with pytest.raises(ParameterError, match="float32, bfloat16, int8"):
        FlowSampler(weights, precision="int4")
    with pytest.raises(BackendError, match="reference"):
        FlowSampler(weights, backend="reference", precision="int8")


@pytest.mark.parametrize("guidance_scale", [None, 2.0], ids=["plain", "guided"])
def test_reference_backend_in_float32_matches_float64(guidance_scale: float | None) -> None:
    weights = make_weights(63, 5, 2)
    arguments = make_arguments(weights, 3, 7, guidance_scale is not None)
    latents = FlowSampler(weights, backend="reference")(**arguments, guidance_scale=guidance_scale)
    assert_close(latents, definition(weights, arguments, guidance_scale), arguments["noise"])


def test_silu_is_right_far_beyond_the_range_of_exp() -> None:
    weights = make_weights(16, 4, 1)
    weights.first_bias.copy_(torch.tensor([-1e4, -300, -104, -89, -88, -87, -20, -1, 0, 1, 20, 87, 88, 104, 300, 1e4]))
    arguments = make_arguments(weights, 2, 3, guided=False)
    latents = FlowSampler(weights, backend="cpu")(**arguments)
    assert_close(latents, definition(weights, arguments, None), arguments["noise"])


def test_layer_norm_of_nearly_equal_channels_uses_the_same_epsilon() -> None:
    weights = make_weights(63, 4, 2)
    for tensor in (weights.input_weight, weights.input_bias, weights.second_weight, weights.second_bias):
        tensor.mul_(1e-3)  # a variance of about epsilon
    arguments = make_arguments(weights, 2, 7, guided=False)
    latents = FlowSampler(weights, backend="cpu")(**arguments)
    assert_close(latents, definition(weights, arguments, None), arguments["noise"])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_constant_velocity_field_moves_the_noise_by_its_velocity(backend: str, steps: int) -> None:
    weights = make_weights(12, 4, 2)
    weights.output_weight.zero_()
    arguments = make_arguments(weights, 3, steps, guided=False)
    latents = FlowSampler(weights, backend=backend)(**arguments)
    # 50 additions, each rounded at 6e-8 of a value of about 2
    torch.testing.assert_close(latents, arguments["noise"] + weights.output_bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("guidance_scale", "half"), [(1.0, 0), (0.0, 1)], ids=["conditional", "null"])
def test_guidance_of_one_is_the_conditional_and_of_zero_the_null_field(
    backend: str, guidance_scale: float, half: int
) -> None:
    weights = make_weights(32, 4, 2)
    sampler = FlowSampler(weights, backend=backend)
    arguments = make_arguments(weights, 3, 5, guided=True)
    guided = sampler(**arguments, guidance_scale=guidance_scale)
    arguments["condition_modulations"] = arguments["condition_modulations"].chunk(2)[half]
    # null + 1 * (conditional - null) rounds once more than conditional
    torch.testing.assert_close(guided, sampler(**arguments), rtol=0, atol=1e-5)


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(instruction_set: str) -> None:
    weights = make_weights(63, 5, 2)
    sampler = FlowSampler(weights, backend="cpu", instruction_set=instruction_set)
    samples = 71  # guided: two whole groups of 32 and seven
    arguments = make_arguments(weights, samples, 3, guided=True)
    together = sampler(**arguments, guidance_scale=2.0)
    noise, time_part, condition_part = arguments.values()
    for b in (0, 31, 32, 64, 68, 70):
        alone = sampler(
            noise[b : b + 1],
            time_modulations=time_part,
            condition_modulations=condition_part[[b, samples + b]],
            guidance_scale=2.0,
        )
        torch.testing.assert_close(alone[0], together[b], rtol=0, atol=0)


def test_sampling_is_deterministic_also_from_several_threads() -> None:
    weights = make_weights(64, 8, 2)
    sampler = FlowSampler(weights, backend="cpu")
    arguments = make_arguments(weights, 4, 20, guided=True)
    expected = sampler(**arguments, guidance_scale=2.0)
    with ThreadPoolExecutor(4) as pool:
        for latents in pool.map(lambda _: sampler(**arguments, guidance_scale=2.0), range(12)):
            torch.testing.assert_close(latents, expected, rtol=0, atol=0)


def test_other_python_threads_run_while_the_kernel_works() -> None:
    weights = make_weights(256, 8, 4)
    sampler = FlowSampler(weights, backend="cpu")
    arguments = make_arguments(weights, 64, 200, guided=False)
    finished = threading.Event()
    worker = threading.Thread(target=lambda: (sampler(**arguments), finished.set()))
    turns = 0
    worker.start()
    while not finished.is_set():
        time.sleep(0.001)
        turns += 1
    worker.join()
    assert turns > 10  # the call takes at least 0.1 s; with the GIL held this loop would turn once or twice


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_weights_are_copied(backend: str) -> None:
    weights = make_weights(16, 4, 1)
    arguments = make_arguments(weights, 2, 3, guided=False)
    sampler = FlowSampler(weights, backend=backend)
    expected = sampler(**arguments)
    weights.map(Tensor.zero_)
    torch.testing.assert_close(sampler(**arguments), expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_parameters_that_want_gradients_and_strided_arguments_are_taken(backend: str) -> None:
    weights = make_weights(16, 4, 1)
    arguments = make_arguments(weights, 3, 5, guided=False)
    expected = FlowSampler(weights, backend=backend)(**arguments)
    strided = {name: tensor.t().contiguous().t().requires_grad_() for name, tensor in arguments.items()}
    latents = FlowSampler(weights.map(torch.nn.Parameter), backend=backend)(**strided)
    assert not latents.requires_grad
    assert_close(latents, expected, arguments["noise"])  # not bitwise: PyTorch multiplies strided matrices otherwise


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_latents_are_fresh_memory_even_for_an_empty_batch(backend: str) -> None:
    weights = make_weights(16, 4, 1)
    sampler = FlowSampler(weights, backend=backend)
    assert sampler(**make_arguments(weights, 0, 5, guided=True), guidance_scale=2.0).shape == (0, 4)
    arguments = make_arguments(weights, 2, 1, guided=False)
    assert sampler(**arguments).data_ptr() != arguments["noise"].data_ptr()


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("noise", lambda x: x[0]),
        ("noise", lambda x: x[:, :3]),
        ("noise", lambda x: x[:1]),
        ("time_modulations", lambda x: x[:, :-1]),
        ("time_modulations", lambda x: x[:0]),
        ("time_modulations", lambda x: x[0]),
        ("time_modulations", lambda x: x[:, None].expand(-1, 4, -1)),
        ("condition_modulations", lambda x: x[:3]),
        ("condition_modulations", lambda x: x[:2]),
        ("condition_modulations", lambda x: x[:, 1:]),
    ],
)
def test_a_wrong_shape_is_refused(backend: str, name: str, change) -> None:
    weights = make_weights(16, 4, 2)
    arguments = make_arguments(weights, 2, 3, guided=True)
    arguments[name] = change(arguments[name])
    with pytest.raises(ShapeError, match="has shape .* expected"):
        FlowSampler(weights, backend=backend)(**arguments, guidance_scale=2.0)


def test_guided_modulations_without_a_guidance_scale_are_refused_with_advice() -> None:
    weights = make_weights(16, 4, 2)
    with pytest.raises(ShapeError, match="give guidance_scale"):
        FlowSampler(weights)(**make_arguments(weights, 2, 3, guided=True))


@pytest.mark.parametrize("name", ["noise", "time_modulations", "condition_modulations"])
def test_other_types_than_float32_tensors_are_refused(name: str) -> None:
    weights = make_weights(16, 4, 2)
    arguments = make_arguments(weights, 2, 3, guided=False)
    sampler = FlowSampler(weights)
    for wrong in (arguments[name].double(), arguments[name].half(), arguments[name].to("meta")):
        with pytest.raises(ParameterError, match=f"{name} is .*expected"):
            sampler(**{**arguments, name: wrong})
    with pytest.raises(ParameterError, match=r"expected a torch\.Tensor"):
        sampler(**{**arguments, name: arguments[name].numpy()})


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("name", ["noise", "time_modulations", "condition_modulations"])
def test_nan_and_infinity_raise_and_name_the_argument(backend: str, value: float, name: str) -> None:
    weights = make_weights(16, 4, 2)
    sampler = FlowSampler(weights, backend=backend)
    for position in (0, -1):
        arguments = make_arguments(weights, 2, 3, guided=True)
        arguments[name][position, position] = value
        with pytest.raises(ParameterError, match=f"^{name} contain NaN or infinite"):
            sampler(**arguments, guidance_scale=2.0)


@pytest.mark.parametrize("width", [8, 63])  # less than a vector; whole vectors and a rest
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_nan_is_not_lost_on_the_way_with_any_instruction_set(instruction_set: str, width: int) -> None:
    weights = make_weights(width, 4, 1)
    weights.first_weight.zero_()
    sampler = FlowSampler(weights, backend="cpu", instruction_set=instruction_set)
    for channel in range(width):  # through the first layer, SiLU, and the clamps inside it
        arguments = make_arguments(weights, 1, 1, guided=False)
        arguments["condition_modulations"][0, channel] = float("nan")
        with pytest.raises(ParameterError, match="^condition_modulations contain"):
            sampler(**arguments)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_diverging_velocity_field_raises(backend: str) -> None:
    weights = make_weights(16, 4, 2)
    weights.output_weight.fill_(1e38)
    with pytest.raises(ParameterError, match="left the range of float32"):
        FlowSampler(weights, backend=backend)(**make_arguments(weights, 2, 50, guided=False))


@pytest.mark.parametrize("guidance_scale", [float("nan"), float("inf"), "2", True, [2.0]], ids=str)
def test_a_guidance_scale_that_is_no_finite_number_is_refused(guidance_scale: object) -> None:
    weights = make_weights(16, 4, 2)
    with pytest.raises(ParameterError, match="guidance_scale is .*, expected a finite number"):
        FlowSampler(weights)(**make_arguments(weights, 2, 3, guided=True), guidance_scale=guidance_scale)


def test_modulations_are_wanted_in_exactly_one_form() -> None:
    weights = make_weights(16, 4, 2)
    sampler = FlowSampler(weights)
    arguments = make_arguments(weights, 2, 3, guided=False)
    full = arguments["time_modulations"][:, None] + arguments["condition_modulations"]
    with pytest.raises(ParameterError, match="given as nothing"):
        sampler(arguments["noise"])
    with pytest.raises(ParameterError, match="given as time_modulations"):
        sampler(arguments["noise"], time_modulations=arguments["time_modulations"])
    with pytest.raises(ParameterError, match="and modulations"):
        sampler(**arguments, modulations=full)


@pytest.mark.parametrize("name", list(make_weights(4, 2, 1).tensors()))
def test_weights_that_do_not_fit_together_are_refused(name: str) -> None:
    tensors = make_weights(16, 4, 2).tensors()
    for wrong in (tensors[name][..., :-1], tensors[name].flatten()[0]):
        with pytest.raises(ShapeError, match="expected"):
            FlowSampler(FlowHeadWeights(**{**tensors, name: wrong}))
    with pytest.raises(ParameterError, match=rf"{name} is torch\.float64"):
        FlowSampler(FlowHeadWeights(**{**tensors, name: tensors[name].double()}))
    tensors[name].view(-1)[-1] = float("nan")
    with pytest.raises(ParameterError, match=f"{name} contain NaN"):
        FlowSampler(FlowHeadWeights(**tensors))


# ------------------------------------------------------------------------------------------------------- backends


def test_auto_takes_the_compiled_kernel_in_main_memory_and_the_reference_elsewhere() -> None:
    assert FlowSampler(make_weights(16, 4, 1)).backend == "cpu"
    assert choose_backend("auto", torch.device("cuda")) == "reference"


def test_a_backend_asked_for_by_name_runs_or_raises() -> None:
    weights = make_weights(16, 4, 1)
    assert FlowSampler(weights, backend="reference").backend == "reference"
    with pytest.raises(BackendError, match="Backends: auto, reference, cpu"):
        FlowSampler(weights, backend="tpu")
    with pytest.raises(BackendError, match="tensors are on cuda"):
        choose_backend("cpu", torch.device("cuda"))
    with pytest.raises(BackendError, match="It has: .*portable"):
        FlowSampler(weights, backend="cpu", instruction_set="mmx")
    with pytest.raises(BackendError, match="means nothing to backend 'reference'"):
        FlowSampler(weights, backend="reference", instruction_set="portable")


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_a_missing_build_raises_and_says_how_to_build(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    compiled_kernels("flow_sampler")  # imported, so that there is an attribute to take away
    monkeypatch.delattr(llamo_ros, "_kernels")
    monkeypatch.setitem(sys.modules, "llamo_ros._kernels", None)
    with pytest.raises(BackendError, match=r"pip install \."):
        FlowSampler(make_weights(16, 4, 1), backend=backend)
    FlowSampler(make_weights(16, 4, 1), backend="reference")


def test_a_build_older_than_the_kernel_raises() -> None:
    with pytest.raises(BackendError, match="built before 'kernel_of_tomorrow'"):
        compiled_kernels("kernel_of_tomorrow")
