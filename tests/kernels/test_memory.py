"""Memory of the compiled kernels when an allocation fails, huge pages are refused, or an arena moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


SANITISER = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.parametrize("sanitiser", [[], SANITISER], ids=["plain", "address sanitiser"])
def test_weights_stay_apart_when_allocations_fail_and_arenas_move(
    run_program: Callable[..., None], tmp_path: Path, sanitiser: list[str]
) -> None:
    run_program("memory_program", tmp_path, ["-O1"], sanitiser)
