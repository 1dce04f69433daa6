"""The backbone step: every backend against the reference and the model, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llamo_ros.core.errors import BackendError, ParameterError, ShapeError
from llamo_ros.kernels.backbone_step import BackboneStep, BranchWeights, LayerWeights, reference
from llamo_ros.kernels.backends import instruction_sets

# Of the largest hidden state; worst seen over all shapes here: 1.6e-6, 6e-3, 4e-2.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1.5e-2, "int8": 9e-2}

# layers, width, heads, kv_heads, head_width, ffn_width; the last is llamo-mini's with fewer layers
SIZES = [(1, 8, 1, 1, 2, 5), (2, 63, 6, 2, 10, 70), (2, 64, 4, 4, 16, 96), (2, 320, 5, 5, 64, 832)]


def make_weights(sizes: tuple[int, ...], seed: int = 0) -> BranchWeights:
    layers, width, heads, kv_heads, head_width, ffn_width = sizes
    random = torch.Generator().manual_seed(seed)

    def matrix(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs, generator=random) / inputs**0.5

    def norm() -> Tensor:
        return 1 + 0.2 * torch.randn(width, generator=random)

    made = tuple(
        LayerWeights(
            norm(),
            matrix((heads + 2 * kv_heads) * head_width, width),
            matrix(width, heads * head_width),
            norm(),
            matrix(2 * ffn_width, width),
            matrix(width, ffn_width),
        )
        for _ in range(layers)
    )
    return BranchWeights(heads, kv_heads, head_width, norm(), 1e-5, made)


def make_arguments(weights: BranchWeights, lengths: list[int], capacity: int = 40, seed: int = 1) -> dict[str, Any]:
    """Random tokens, angles and earlier keys and values; the rows of the cache are in another order."""
    random = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), weights.head_width
    shape = (len(weights.layers), rows + 1, weights.kv_heads, capacity, width)
    angles = 6 * torch.rand(rows, width // 2, generator=random).repeat(1, 2)
    return {
        "tokens_RD": torch.randn(rows, len(weights.norm), generator=random),
        "cosine_RE": angles.cos(),
        "sine_RE": angles.sin(),
        "keys": torch.randn(shape, generator=random),
        "values": torch.randn(shape, generator=random),
        "cache_rows": [rows - r for r in range(rows)],
        "lengths": lengths,
    }


def copied(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else list(value) for name, value in arguments.items()}


def definition(
    weights: BranchWeights, arguments: dict[str, Any], text: BranchWeights | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the reference says in float64: hidden states, keys, values."""
    doubled = {name: value.double() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    branches = (weights.map(Tensor.double), (text or weights).map(Tensor.double))
    return reference.backbone_step(*branches, **doubled), doubled["keys"], doubled["values"]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_compiled_step_matches_the_float64_reference(
    sizes: tuple[int, ...], instruction_set: str, precision: str
) -> None:
    weights = make_weights(sizes)
    step = BackboneStep(weights, backend="cpu", instruction_set=instruction_set, precision=precision)
    assert (step.instruction_set, step.precision) == (instruction_set, precision)
    for lengths in ([0], [39, 0, 17]):
        arguments = make_arguments(weights, lengths)
        expected, keys, values = definition(weights, arguments)
        hidden = step(**arguments)
        assert hidden.dtype == torch.float32
        for actual, wanted in ((hidden, expected), (arguments["keys"], keys), (arguments["values"], values)):
            assert (actual - wanted).abs().max() <= TOLERANCES[precision] * wanted.abs().max()


# Two sequences, one of them mixed and in no order, as (row of the cache, column), and how many of the tokens are text.
PASSAGE = [(2, 4), (0, 0), (2, 3), (0, 1), (2, 6), (2, 5), (0, 2)], 4


def make_passage(weights: BranchWeights, seed: int = 2) -> dict[str, Any]:
    places, text_rows = PASSAGE
    arguments = make_arguments(weights, [column for _, column in places], seed=seed)
    return arguments | {"cache_rows": [row for row, _ in places], "text_rows": text_rows}


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_many_tokens_of_both_branches_match_the_float64_reference(instruction_set: str, precision: str) -> None:
    motion, text = make_weights(SIZES[1]), make_weights((*SIZES[1][:-1], 90), seed=3)
    step = BackboneStep(motion, text, backend="cpu", instruction_set=instruction_set, precision=precision)
    for text_rows in (PASSAGE[1], 0, len(PASSAGE[0])):
        arguments = make_passage(motion) | {"text_rows": text_rows}
        expected, keys, values = definition(motion, arguments, text)
        hidden = step(**arguments)
        for actual, wanted in ((hidden, expected), (arguments["keys"], keys), (arguments["values"], values)):
            assert (actual - wanted).abs().max() <= TOLERANCES[precision] * wanted.abs().max()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_tokens_at_once_are_the_tokens_one_after_another(backend: str) -> None:
    motion, text = make_weights(SIZES[2]), make_weights(SIZES[2], seed=3)
    step = BackboneStep(motion, text, backend=backend)
    arguments = make_passage(motion)
    one_by_one, together = copied_passage(arguments), step(**arguments)
    places, text_rows = PASSAGE
    for r in sorted(range(len(places)), key=lambda r: places[r][1]):
        one = {
            name: value if name in ("keys", "values") else value[r : r + 1]
            for name, value in one_by_one.items()
            if name != "text_rows"
        }
        hidden = step(**one, text_rows=int(r < text_rows))
        torch.testing.assert_close(hidden[0], together[r], rtol=0, atol=0 if backend == "cpu" else 1e-5)
    for name in ("keys", "values"):
        torch.testing.assert_close(one_by_one[name], arguments[name], rtol=0, atol=0 if backend == "cpu" else 1e-5)


def copied_passage(arguments: dict[str, Any]) -> dict[str, Any]:
    return copied({name: value for name, value in arguments.items() if name != "text_rows"}) | {
        "text_rows": arguments["text_rows"]
    }


def test_the_text_branch_may_have_another_precision_or_be_the_motion_branch() -> None:
    motion, text = make_weights(SIZES[1]), make_weights(SIZES[1], seed=3)
    exact = BackboneStep(motion, text)(**make_passage(motion))
    mixed = BackboneStep(motion, text, precision="int8", text_precision="float32")(**make_passage(motion))
    only_text = make_passage(motion) | {"text_rows": len(PASSAGE[0])}
    alike = BackboneStep(motion, text, precision="int8", text_precision="float32")(**copied_passage(only_text))
    torch.testing.assert_close(alike, BackboneStep(motion, text)(**copied_passage(only_text)), rtol=0, atol=0)
    assert not torch.equal(mixed, exact)
    shared = BackboneStep(motion)
    torch.testing.assert_close(
        shared(**copied_passage(only_text)), shared(**copied_passage(only_text) | {"text_rows": 0}), rtol=0, atol=0
    )


def test_only_the_new_column_of_the_given_rows_is_written() -> None:
    weights = make_weights(SIZES[1])
    arguments = make_arguments(weights, [3, 11])
    before = copied(arguments)
    BackboneStep(weights, backend="cpu")(**arguments)
    for name in ("keys", "values"):
        changed = (arguments[name] != before[name]).any(dim=(0, 2, 4))
        assert changed.nonzero().tolist() == [[1, 11], [2, 3]]
    for name in ("tokens_RD", "cosine_RE", "sine_RE"):
        torch.testing.assert_close(arguments[name], before[name], rtol=0, atol=0)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_row_does_not_depend_on_the_rows_beside_it(precision: str) -> None:
    weights = make_weights(SIZES[1])
    step = BackboneStep(weights, backend="cpu", precision=precision)
    arguments = make_arguments(weights, [5, 0, 30, 2, 9, 12, 1])
    alone = copied(arguments)
    together = step(**arguments)
    for row in range(7):
        one = {name: value[row : row + 1] for name, value in alone.items() if name not in ("keys", "values")}
        hidden = step(**one, keys=alone["keys"], values=alone["values"])
        torch.testing.assert_close(hidden[0], together[row], rtol=0, atol=0)


def test_threads_may_step_different_rows_of_one_cache() -> None:
    weights = make_weights(SIZES[3])
    step = BackboneStep(weights, backend="cpu")
    arguments = make_arguments(weights, list(range(8)))
    expected = step(**copied(arguments))
    rows = [
        {name: value[r : r + 1] for name, value in arguments.items() if name not in ("keys", "values")}
        for r in range(8)
    ]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda row: step(**row, keys=arguments["keys"], values=arguments["values"]), rows))
    torch.testing.assert_close(torch.cat(made), expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_later_changes_to_the_weights_have_no_effect(backend: str) -> None:
    weights = make_weights(SIZES[2])
    step = BackboneStep(weights, backend=backend)
    arguments = make_arguments(weights, [4])
    before = step(**copied(arguments))
    weights.layers[0].down.zero_()
    weights.norm.zero_()
    torch.testing.assert_close(step(**copied(arguments)), before, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_nan_does_not_disappear(precision: str) -> None:
    weights = make_weights(SIZES[1])
    step = BackboneStep(weights, backend="cpu", precision=precision)
    for name in ("tokens_RD", "keys", "values"):
        arguments = make_arguments(weights, [4])
        (arguments[name] if name == "tokens_RD" else arguments[name][0, 1, 0, 2])[..., 0] = torch.nan
        assert not torch.isfinite(step(**arguments)).all()


def test_no_rows_are_no_hidden_states() -> None:
    weights = make_weights(SIZES[1])
    for backend in ("cpu",):
        assert BackboneStep(weights, backend=backend)(**make_arguments(weights, [])).shape == (0, 63)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tokens_RD": torch.zeros(2, 5)}, ShapeError, "tokens"),
        ({"tokens_RD": torch.zeros(2, 63).double()}, ParameterError, "float64"),
        ({"cosine_RE": torch.zeros(1, 10)}, ShapeError, "cosine"),
        ({"sine_RE": torch.zeros(2, 9)}, ShapeError, "sine"),
        ({"keys": torch.zeros(2, 3, 2, 40, 8)}, ShapeError, "keys"),
        ({"values": torch.zeros(2, 3, 2, 20, 10)}, ShapeError, "values"),
        ({"values": torch.zeros(2, 3, 40, 2, 10).transpose(2, 3)}, ParameterError, "contiguous"),
        ({"cache_rows": [0, 3]}, ParameterError, "cache_rows"),
        ({"cache_rows": [1, 1], "lengths": [3, 3]}, ParameterError, "same place"),
        ({"cache_rows": torch.tensor([1, 1]), "lengths": torch.tensor([3, 3])}, ParameterError, "same place"),
        ({"text_rows": 3}, ParameterError, "text_rows"),
        ({"text_rows": -1}, ParameterError, "text_rows"),
        ({"cache_rows": [1]}, ParameterError, "as many"),
        ({"lengths": [0, 40]}, ParameterError, "longer"),
        ({"lengths": [-1, 4]}, ParameterError, "lengths"),
        ({"lengths": [3.0, 11]}, ParameterError, r"lengths are \[3.0, 11\], expected whole numbers"),
        ({"lengths": torch.tensor([3.0, torch.nan])}, ParameterError, "lengths are .*nan.*, expected whole numbers"),
        ({"lengths": 3}, ParameterError, "lengths are 3, expected whole numbers, one for each token"),
        ({"cache_rows": [1, True]}, ParameterError, "cache_rows are .*True.*, expected whole numbers"),
        ({"text_rows": 1.0}, ParameterError, "text_rows is 1.0, expected a whole number from 0 to 2"),
        ({"tokens_RD": [[0.0] * 63] * 2}, ParameterError, r"tokens is a list, expected a torch\.Tensor"),
        ({"sine_RE": None}, ParameterError, r"sine is a NoneType, expected a torch\.Tensor"),
        *(
            ({"keys": cache, "values": values}, ParameterError, "keys and values share memory")
            for cache in (torch.zeros(2, 3, 2, 40, 10),)
            for values in (cache, cache.view_as(cache))
        ),
    ],
    ids=lambda value: "" if isinstance(value, (dict, type)) else value,
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], error: type, message: str) -> None:
    weights = make_weights(SIZES[1])
    for backend in ("cpu", "reference"):
        with pytest.raises(error, match=message):
            BackboneStep(weights, backend=backend)(**(make_arguments(weights, [3, 11]) | change))


def test_keys_and_values_may_be_parts_of_one_tensor_and_places_numbers_of_any_kind() -> None:
    weights = make_weights(SIZES[1])
    arguments = make_arguments(weights, [3, 11])
    both = torch.stack([arguments["keys"], arguments["values"]])
    parts = {"keys": both[0], "values": both[1], "lengths": np.array([3, 11]), "cache_rows": torch.tensor([2, 1])}
    parts["text_rows"] = np.int64(0)
    step = BackboneStep(weights)
    torch.testing.assert_close(step(**(arguments | parts)), step(**arguments), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layers": None}, ParameterError, "has no layers but None"),
        ({"layers": (None,)}, ParameterError, "layer 0 is a NoneType, expected LayerWeights"),
        ({"down": torch.tensor(1.0)}, ShapeError, r"down of layer 0 has shape \(\), expected \(63, F\)"),
        ({"down": None}, ParameterError, r"down of layer 0 is a NoneType, expected a torch\.Tensor"),
        ({"gate_up": [1.0]}, ParameterError, r"gate_up of layer 0 is a list, expected a torch\.Tensor"),
        ({"norm": None}, ParameterError, r"norm is a NoneType, expected a torch\.Tensor"),
        *(
            ({"norm_epsilon": value}, ParameterError, f"norm_epsilon is {value!r}, expected a number from 0 on")
            for value in (float("nan"), float("inf"), -1e-5, "1e-5", None)
        ),
        ({"heads": 6.0}, ParameterError, "heads is 6.0, .*expected whole numbers"),
        ({"head_width": None}, ParameterError, "head_width None; expected whole numbers"),
    ],
    ids=lambda value: "" if isinstance(value, (dict, type)) else value,
)
def test_weights_that_are_none_are_refused(change: dict[str, Any], error: type, message: str) -> None:
    weights = make_weights(SIZES[1])
    (name, value), *_ = change.items()
    if name in vars(weights.layers[0]):
        change = {"layers": (replace(weights.layers[0], **{name: value}), weights.layers[1])}
    for branches in ((replace(weights, **change),), (weights, replace(weights, **change))):
        with pytest.raises(error, match=message):
            BackboneStep(*branches)
    with pytest.raises(ParameterError, match="text is a list, expected BranchWeights"):
        BackboneStep(weights, [weights])


def test_weights_and_choices_that_do_not_fit_are_refused() -> None:
    weights = make_weights(SIZES[1])
    with pytest.raises(ParameterError, match="no layers"):
        BackboneStep(replace(weights, layers=()))
    with pytest.raises(ParameterError, match="kv_heads to divide"):
        BackboneStep(replace(weights, kv_heads=4))
    wrong = replace(weights.layers[1], down=torch.zeros(63, 71))
    with pytest.raises(ShapeError, match="down of layer 1"):
        BackboneStep(replace(weights, layers=(weights.layers[0], wrong)))
    with pytest.raises(ParameterError, match="float64"):
        BackboneStep(weights.map(Tensor.double))
    with pytest.raises(ShapeError, match="norm"):
        BackboneStep(replace(weights, norm=torch.ones(63, 4)))
    with pytest.raises(ParameterError, match="norm is torch.float64"):
        BackboneStep(replace(weights, norm=weights.norm.double()))
    broken = replace(weights.layers[1], down=torch.full((63, 70), torch.nan))
    with pytest.raises(ParameterError, match="down of layer 1 has values that are NaN"):
        BackboneStep(replace(weights, layers=(weights.layers[0], broken)), precision="int8")
    strided = replace(weights, norm=weights.norm.repeat_interleave(2)[::2])
    arguments = make_arguments(weights, [3])
    expected = BackboneStep(weights)(**copied(arguments))
    torch.testing.assert_close(BackboneStep(strided)(**arguments), expected, rtol=0, atol=0)
    with pytest.raises(BackendError, match="instruction_set"):
        BackboneStep(weights, backend="reference", instruction_set="portable")
    with pytest.raises(BackendError, match="does not run"):
        BackboneStep(weights, backend="cpu", instruction_set="sse9")
    with pytest.raises(ParameterError, match="expected the same"):
        BackboneStep(weights, replace(weights, layers=weights.layers[:1]))
    with pytest.raises(ParameterError, match="precision is 'int4'"):
        BackboneStep(weights, text_precision="int4")
