"""The tests of Triton kernels in Triton's interpreter, on any CPU.

Triton decides when a kernel is defined whether it is compiled or interpreted, from TRITON_INTERPRET, and cannot do both
in one process. So the test here runs the files test_*_triton.py again in a process of its own with that variable set;
nothing leaks into the others. In those files what a kernel computes is tested where there is a GPU, and in the
interpreter; where there is neither, it is skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install -r requirements/gpu.txt")

FILES = sorted(Path(__file__).parent.glob("test_*_triton.py"))


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is the interpreter")
def test_everything_that_does_not_need_a_gpu_holds_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:cacheprovider", *map(str, FILES)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    summary = result.stdout.strip().splitlines()[-1]
    assert re.search(r"\b\d\d+ passed", summary) and "skipped" not in summary, result.stdout
