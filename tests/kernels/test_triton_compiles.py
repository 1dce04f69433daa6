"""Every Triton kernel compiles for three generations of NVIDIA GPUs; none has to be there.

Compiling is for a process of its own, compile_triton.py: see there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install -r requirements/gpu.txt")

CAPABILITIES = (80, 90, 100)
ROOT = Path(__file__).resolve().parents[2]
# Of a block on the smallest of the supported GPUs, capability 8.6 and 8.9; 8.0, 9.0 and 10.0 have more.
SHARED_BYTES = 99 * 1024


def kernel_names() -> set[str]:
    """Of all kernels in the sources, so that none is forgotten."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "kernels").rglob("triton_*.py")]
    return {name for source in sources for name in re.findall(r"^def (\w+_kernel)\(", source, re.MULTILINE)}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What was compiled, for all capabilities in one process: its imports take seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "TRITON_DEFAULT_FP_FUSION": "1"}
    program = Path(__file__).with_name("compile_triton.py")
    command = [sys.executable, str(program), *map(str, CAPABILITIES)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_compiles_with_every_type_of_weights(capability: int, compiled: list[dict[str, Any]]) -> None:
    rows = [row for row in compiled if row["capability"] == capability]
    # float8 (e4m3) came with capability 8.9
    dtypes = {"float32", "bfloat16", "int8"} | ({"float8"} if capability >= 89 else set())
    assert {(row["kernel"], row["dtype"]) for row in rows} == {(k, d) for k in kernel_names() for d in dtypes}
    for row in rows:
        assert row["cubin_bytes"] > 1000, row
        assert row["shared_bytes"] <= SHARED_BYTES, row
