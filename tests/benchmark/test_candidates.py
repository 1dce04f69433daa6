"""What is timed computes the same, and a row says how far from the limit it is."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from llamo_ros.benchmark.backbone_operation import step_candidates, step_work
from llamo_ros.benchmark.candidates import Candidate, DisagreementError, measure
from llamo_ros.benchmark.decoder_operation import frame_decoder_candidates, stack_work, vae_decoder_candidates
from llamo_ros.benchmark.flow_operation import loop_candidates, loop_work, sampler_candidates
from llamo_ros.benchmark.machine import PRECISIONS, Limits, Work
from llamo_ros.kernels.backbone_step import BranchWeights, LayerWeights
from llamo_ros.kernels.backends import instruction_sets
from llamo_ros.kernels.causal_stack import Convolution, Repeat
from llamo_ros.model.config import FlowHeadConfig, preset

TINY = preset("tiny")
SETS = instruction_sets()


class FixedLimits(Limits):
    """One byte and one operation per second."""

    def bandwidth(self, size: int) -> float:
        return 1.0

    def rate(self, precision: str) -> float:
        return 1.0


def assert_all_ran(rows: list[dict]) -> None:
    for row in rows:
        assert "not_run" in row or (row["p50_ms"] > 0 and row["calls"] >= 3 and row["speedup"] > 0)
        if row["candidate"] == "kernel" and "bound" in row:
            assert row["to_limit"] == pytest.approx(row["p50_ms"] / row["limit_ms"])
            assert row["bound"] in ("bandwidth", "compute")


def test_the_limit_is_reading_or_calculating_whichever_takes_longer() -> None:
    assert FixedLimits().least_time(Work(size=3, passes=5, operations=14.0), "float32") == (15.0, "bandwidth")
    assert FixedLimits().least_time(Work(size=3, passes=5, operations=16.0), "int8") == (16.0, "compute")


def test_limits_are_measured_once() -> None:
    limits = Limits(seconds=1e-3)
    assert limits.bandwidth(4096) == limits.bandwidth(4096) > 0
    assert limits.rate("bfloat16") == limits.rate("float32") > 0
    assert limits.rate("int8") > 0
    assert set(limits.bandwidths) == {4096}
    assert set(limits.rates) == {"float32", "int8"}


def test_a_wrong_result_is_not_timed() -> None:
    right = Candidate("right", lambda: torch.ones(3))
    with pytest.raises(DisagreementError, match=r"wrong \(float32\) differs from right by 1.0e\+00"):
        measure("nothing", [right, Candidate("wrong", lambda: torch.zeros(3))], None, 1e-9)
    with pytest.raises(DisagreementError, match=r"gives \(2,\), right \(3,\)"):
        measure("nothing", [right, Candidate("short", lambda: torch.ones(2))], None, 1e-9)
    with pytest.raises(DisagreementError, match="nan"):
        measure("nothing", [right, Candidate("broken", lambda: torch.full((3,), torch.nan))], None, 1e-9)


def test_what_cannot_run_has_a_row_that_says_why() -> None:
    rows = measure(
        "nothing",
        [Candidate("a", lambda: np.ones(1)), Candidate("b", None, why_not="no compiler")],
        None,
        1e-9,
        {"size": "small"},
    )
    assert [row.get("not_run") for row in rows] == [None, "no compiler"]
    assert {row["size"] for row in rows} == {"small"}


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("modulation", ["separable", "joint"])
def test_all_ways_through_the_flow_head_agree(modulation: str, guided: bool) -> None:
    config = FlowHeadConfig(width=64, blocks=2, modulation=modulation, affine_norm=modulation == "joint")
    candidates = sampler_candidates(config, PRECISIONS, guided, steps=4)
    assert [candidate.precision for candidate in candidates if candidate.name == "kernel"] == list(PRECISIONS)
    assert_all_ran(measure("flow sampler", candidates, FixedLimits(), 1e-9))


def test_all_instruction_sets_go_through_the_flow_loop() -> None:
    candidates = loop_candidates(64, 2, PRECISIONS, SETS, rows=2, steps=4, why_not_compiled="not now")
    assert [candidate.instruction_set for candidate in candidates if candidate.precision == "int8"] == list(SETS)
    assert_all_ran(measure("flow loop", candidates, FixedLimits(), 1e-9))


@pytest.mark.parametrize("rows", [1, 3])
def test_all_ways_through_the_backbone_agree(rows: int) -> None:
    candidates = step_candidates(TINY.backbone, PRECISIONS, SETS, rows=rows, length=5, why_not_compiled="not now")
    made = measure("backbone step", candidates, FixedLimits(), 1e-9)
    assert_all_ran(made)
    has_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    reasons = [row.get("not_run", "") for row in made if row["candidate"] == "ONNX Runtime"]
    assert len(reasons) == 2
    assert all(("llamo-ros[bench]" in reason) != has_onnx for reason in reasons)


@pytest.mark.parametrize("name", ["tiny", "mini"])
def test_all_ways_through_the_decoder_agree(name: str) -> None:
    config = preset(name).vae if name == "tiny" else TINY.vae
    assert_all_ran(measure("VAE decoder", vae_decoder_candidates(config, PRECISIONS, SETS, 2), FixedLimits(), 1e-9))
    assert_all_ran(measure("frames and joints", frame_decoder_candidates(), None, 1e-9))


def test_work_counts_weights_and_products() -> None:
    assert loop_work(width=8, blocks=3, precision="int8", rows=2, steps=5) == Work(
        2 * 3 * 64 + 4 * (2 * 8 * 32 + (1 + 2) * (3 * 3 + 2) * 8), 5, 2.0 * 2 * 5 * (2 * 3 * 64 + 2 * 8 * 32)
    )
    layer = LayerWeights(*(torch.zeros(shape) for shape in ((4,), (6, 4), (4, 2), (4,), (10, 4), (4, 5))))
    weights = BranchWeights(1, 1, 2, torch.zeros(4), 1e-5, (layer, layer))
    matrices, length, rows = 2 * (24 + 8 + 40 + 20), 7, 3
    assert step_work(weights, "bfloat16", rows, length) == Work(
        2 * matrices + 4 * (2 * 2 * rows * length * 2), 1, 2.0 * (rows * matrices + 2 * 2 * rows * length * 2)
    )
    operations = [Convolution(torch.zeros(3, 2)), Repeat(4), Convolution(torch.zeros(5, 6), kernel=2)]
    assert stack_work(operations, "float32", batch=2) == Work(4 * 36, 1, 2.0 * (2 * 6 + 8 * 30))


def test_where_it_is_not_strict_a_failure_becomes_a_row() -> None:
    def fail() -> torch.Tensor:
        raise RuntimeError("out of\nmemory")

    right, wrong = Candidate("a", lambda: torch.ones(1)), Candidate("b", lambda: torch.zeros(1))
    rows = measure("nothing", [right, wrong, Candidate("c", fail)], None, 1e-9, is_strict=False)
    assert rows[0]["calls"] >= 3
    assert rows[1]["not_run"].startswith("DisagreementError: b (float32) differs from a")
    assert rows[2]["not_run"] == "RuntimeError: out of memory"
