"""Robots and clips to retarget."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llamo_ros.retarget.profile import Robot, has_description, load_robot

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "retarget_quality.py"


@pytest.fixture(scope="session")
def g1() -> Robot:
    return load_robot("unitree_g1")


@pytest.fixture(scope="session")
def load_any_robot(request: pytest.FixtureRequest) -> Callable[[str], Robot]:
    """A function ``(name)`` that loads a robot; without the shared data, one that has no description is skipped."""

    def load(name: str) -> Robot:
        if has_description(name):
            return load_robot(name)
        folder = request.getfixturevalue("shared_folder") / "robots" / name
        return load_robot(f"{name}@{next(folder.glob('*.urdf'))}")

    return load


@pytest.fixture(scope="session")
def benchmark_script() -> ModuleType:
    """``benchmarks/retarget_quality.py`` as a module: it reads the bench clips."""
    if BENCHMARK.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(BENCHMARK.stem, BENCHMARK)
        module = importlib.util.module_from_spec(spec)
        sys.modules[BENCHMARK.stem] = module
        spec.loader.exec_module(module)
    return sys.modules[BENCHMARK.stem]


@pytest.fixture(scope="session")
def bench_clips(shared_folder: Path) -> Path:
    """The folder of the bench clips; the test is skipped where it is absent."""
    folder = shared_folder / "robots" / "bench_clips"
    if not folder.is_dir():
        pytest.skip("the bench clips (../shared/robots/bench_clips) are not here")
    return folder


@pytest.fixture(scope="session")
def unhurried() -> Callable[[Robot], Robot]:
    """Gives a robot motors that are fast enough for any motion, to see what its geometry allows."""

    def with_fast_motors(robot: Robot) -> Robot:
        fast = np.full_like(robot.velocity_limits, 1e3)
        return replace(robot, velocity_limits=fast, acceleration_limits=1e3 * fast)

    return with_fast_motors
