"""Memory of the compiled kernels when an allocation fails, huge pages are refused, or an arena moves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


SANITISER = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.parametrize("sanitiser", [[], SANITISER], ids=["plain", "address sanitiser"])
def test_weights_stay_apart_when_allocations_fail_and_arenas_move(tmp_path: Path, sanitiser: list[str]) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C++ compiler")
    compile_command = [compiler, "-std=c++17", "-O1", "-g", "-pthread", *sanitiser, "-I", str(ROOT / "kernels/common")]
    if sanitiser:
        (tmp_path / "empty.cpp").write_text("int main() {}\n", encoding="utf-8")
        for command in ([*compile_command, "empty.cpp", "-o", "empty"], ["./empty"]):
            if subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0:
                pytest.skip("this compiler's address sanitiser does not run here")
    sources = [str(ROOT / "tests/kernels/memory_program.cpp"), *map(str, (ROOT / "kernels/common").glob("*.cpp"))]
    subprocess.run([*compile_command, *sources, "-o", "program"], cwd=tmp_path, check=True, timeout=240)
    result = subprocess.run(["./program"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
