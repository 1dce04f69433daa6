"""Compiles a C++ program of the tests with the kernels' common sources, and runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_program() -> Callable[[str, Path, Sequence[str], Sequence[str]], None]:
    """Builds ``tests/kernels/<name>.cpp`` with flags and a sanitiser in a folder, and runs it; fails if it does."""
    return _run_program


def _run_program(name: str, folder: Path, flags: Sequence[str], sanitiser: Sequence[str]) -> None:
    """The test is skipped where there is no C++ compiler, or where its sanitiser does not run."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C++ compiler")
    compile_command = [compiler, "-std=c++17", "-g", "-pthread", *flags, *sanitiser]
    compile_command += ["-I", str(ROOT / "kernels" / "common")]
    if sanitiser:
        (folder / "empty.cpp").write_text("int main() {}\n", encoding="utf-8")
        for command in ([*compile_command, "empty.cpp", "-o", "empty"], ["./empty"]):
            if subprocess.run(command, cwd=folder, capture_output=True).returncode != 0:
                pytest.skip(f"this compiler's {' '.join(sanitiser)} does not run here")
    sources = [str(ROOT / "tests" / "kernels" / f"{name}.cpp"), *map(str, (ROOT / "kernels" / "common").glob("*.cpp"))]
    subprocess.run([*compile_command, *sources, "-o", "program"], cwd=folder, check=True, timeout=240)
    result = subprocess.run(["./program"], cwd=folder, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
