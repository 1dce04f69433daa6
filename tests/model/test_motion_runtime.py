from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from llamo_ros.core.errors import ParameterError
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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks the system for cores in another way")
def test_threads_that_are_asked_for_share_the_flow_head_and_change_no_latent(
    tiny: Llamo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    alone, together = MotionRuntime(tiny, "cpu"), MotionRuntime(tiny, "cpu", threads=2)
    assert (alone.operations["flow_sampler"].threads, together.operations["flow_sampler"].threads) == (1, 2)
    noise = torch.randn(3, tiny.config.vae.latent_dim)
    condition = torch.randn(3, tiny.config.backbone.width)
    torch.testing.assert_close(
        together.sampler(noise, condition, steps=4), alone.sampler(noise, condition, steps=4), rtol=0, atol=0
    )
    # The reference runs in PyTorch, whose threads are those of the process.
    assert MotionRuntime(tiny, "reference", threads=2).operations["flow_sampler"].threads == 1
    for backend in ("cpu", "reference"):
        with pytest.raises(ParameterError, match="threads is 3, expected a whole number from 1 to 2, the cores"):
            MotionRuntime(tiny, backend, threads=3)
