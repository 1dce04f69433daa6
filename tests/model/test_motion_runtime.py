from __future__ import annotations

import dataclasses

import pytest

from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime


@pytest.mark.parametrize(
    ("backend", "dtype", "names"),
    [
        ("cpu", "float32", {"backbone_step", "causal_stack", "flow_sampler"}),
        ("auto", "bfloat16", {"causal_stack", "flow_sampler"}),  # PyTorch runs such a backbone
        ("reference", "float32", {"flow_sampler"}),
    ],
)
def test_a_runtime_tells_what_kernels_run_of_the_model(tiny: Llamo, backend: str, dtype: str, names: set[str]) -> None:
    model = Llamo(dataclasses.replace(tiny.config, dtype=dtype)).eval()
    operations = MotionRuntime(model, backend, None if backend == "reference" else "int8").operations
    assert operations.keys() == names
    chosen = "reference" if backend == "reference" else "cpu"
    precision = "float32" if backend == "reference" else "int8"
    assert {(one.backend, one.precision) for one in operations.values()} == {(chosen, precision)}
