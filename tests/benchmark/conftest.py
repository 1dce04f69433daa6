"""The G1's upstream description, for the tests that simulate it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def g1_mjcf(shared_folder: Path) -> Path:
    """Upstream MJCF of the G1, without its meshes; the test is skipped where it or MuJoCo is absent."""
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'llamo-ros[bench]'")
    path = shared_folder / "robots" / "unitree_g1" / "g1_29dof_rev_1_0.xml"
    if not path.is_file():
        pytest.skip("the G1's MJCF (../shared/robots/unitree_g1) is not here")
    return path
