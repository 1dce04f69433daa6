"""Which backend is chosen where, and what is said where one cannot run. No GPU and no Triton are needed for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from llamo_ros.core.errors import BackendError, ParameterError
from llamo_ros.kernels.backends import check_triton, choose, choose_backend, why_not_triton

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function ``(installed=True, interpreted=False, capability=(9, 0))`` that makes a machine; None is no GPU."""

    def machine(installed: bool = True, interpreted: bool = False, capability: tuple[int, int] | None = (9, 0)) -> None:
        real = importlib.util.find_spec
        triton = real("json") if installed else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: triton if name == "triton" else real(name))
        monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")

    return machine


def test_auto_takes_triton_on_a_gpu_where_it_is_installed_for_operations_that_have_it(
    pretend: Callable[..., None],
) -> None:
    pretend()
    assert choose_backend("auto", CUDA, has_triton=True) == "triton"
    assert choose_backend("auto", CUDA) == "reference"
    assert choose_backend("auto", CPU, has_triton=True) == choose_backend("auto", None) == "cpu"
    assert choose("auto", CUDA, None, "int8", has_triton=True) == ("triton", None, "int8")


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"installed": False}, "Triton is not installed. Install it with `pip install 'triton>=3.6,<3.10'`"),
        ({"interpreted": True}, "TRITON_INTERPRET is set.* tensors are on cuda. Unset it"),
        ({"capability": None}, "PyTorch finds no NVIDIA GPU. Check the driver"),
        ({"capability": (7, 5)}, "need a GPU of compute capability 8.0, and a GPU has 7.5. Use backend='reference'"),
    ],
    ids=["not installed", "interpreted", "no GPU", "old GPU"],
)
def test_where_triton_cannot_run_auto_takes_the_reference_and_the_name_is_refused_with_the_reason(
    machine: dict[str, object], reason: str, pretend: Callable[..., None]
) -> None:
    pretend(**machine)
    assert choose_backend("auto", CUDA, has_triton=True) == "reference"
    with pytest.raises(BackendError, match=f"backend 'triton' cannot run. .*{reason}"):
        choose_backend("triton", CUDA, has_triton=True)
    with pytest.raises(BackendError, match=f"precision 'int8' means nothing .* 'triton' was not chosen: .*{reason}"):
        choose("auto", CUDA, None, "int8", has_triton=True)


def test_on_the_cpu_triton_runs_only_in_its_interpreter(pretend: Callable[..., None]) -> None:
    pretend(capability=None)
    with pytest.raises(BackendError, match="need an NVIDIA GPU, but the tensors are on cpu.*TRITON_INTERPRET=1"):
        choose_backend("triton", CPU, has_triton=True)
    pretend(interpreted=True, capability=None)
    assert choose_backend("triton", CPU, has_triton=True) == "triton"
    assert choose_backend("auto", CPU, has_triton=True) == "cpu"
    pretend(installed=False, interpreted=True)
    assert "not installed" in why_not_triton(CPU)


@pytest.mark.parametrize(
    ("capability", "precision", "is_enough"),
    [((7, 5), "bfloat16", False), ((8, 0), "int8", True), ((8, 6), "float8", False), ((8, 9), "float8", True)],
)
def test_a_gpu_too_old_for_the_weights_is_refused(
    capability: tuple[int, int], precision: str, is_enough: bool, pretend: Callable[..., None]
) -> None:
    pretend(capability=capability)
    if is_enough:
        check_triton(CUDA, precision)
    else:
        with pytest.raises(BackendError, match="need a GPU of compute capability 8..*, and a GPU has"):
            choose("triton", CUDA, None, precision, has_triton=True)


def test_triton_is_refused_by_operations_that_have_no_kernel_in_it(pretend: Callable[..., None]) -> None:
    pretend()
    for device in (CUDA, None):
        with pytest.raises(BackendError, match="no kernel in Triton. Use backend='auto'"):
            choose_backend("triton", device)


def test_what_a_backend_does_not_have_is_refused(pretend: Callable[..., None]) -> None:
    pretend()
    with pytest.raises(BackendError, match="'cpu' cannot keep weights in float8. It has: float32, bfloat16, int8"):
        choose("cpu", CPU, None, "float8", has_triton=True)
    with pytest.raises(BackendError, match="instruction_set 'avx2' means nothing to backend 'triton'"):
        choose("auto", CUDA, "avx2", "float32", has_triton=True)
    with pytest.raises(ParameterError, match="'float16', expected one of float32, bfloat16, int8, float8"):
        choose("auto", CUDA, None, "float16", has_triton=True)


def test_nothing_imports_triton_where_it_is_not_used() -> None:
    program = (
        "import sys, torch\n"
        "from llamo_ros.kernels.backends import choose_backend\n"
        "from llamo_ros.model.motion_runtime import MotionRuntime\n"
        "already = 'triton' in sys.modules\n"  # by PyTorch
        "choose_backend('auto', torch.device('cuda'), has_triton=True)\n"
        "assert ('triton' in sys.modules) == already\n"
        "assert not [name for name in sys.modules if name.startswith('llamo_ros') and 'triton' in name]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
