"""The rooms of the package and the one direction of imports between them.

    core -> kernels -> model | motion -> retarget -> pipelines
         -> training | evaluation | benchmark | viewer -> nodes -> cli

A room imports only rooms to its left. Imports inside functions count too: a late import hides a
cycle, it does not end it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LEVELS = (
    {"core"},
    {"kernels"},
    {"model", "motion"},
    {"retarget"},
    {"pipelines"},
    {"training", "evaluation", "benchmark", "viewer"},
    {"nodes"},
    {"cli"},
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
GENERATED = {"msg", "srv", "action"}  # by rosidl; only nodes may use them
ROS_PACKAGES = {
    "ament_index_python",
    "builtin_interfaces",
    "launch",
    "launch_ros",
    "rcl_interfaces",
    "rclpy",
    "rosidl_runtime_py",
    "std_srvs",
    "tf2_ros",
}


def source_files() -> list[Path]:
    """Each hand-written Python file of the package, relative to the repository."""
    files = [*(ROOT / "llamo_ros").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    relative = sorted(path.relative_to(ROOT) for path in files if "__pycache__" not in path.parts)
    return [path for path in relative if path.parts[1] not in GENERATED]


def module_of(path: Path) -> tuple[str, ...]:
    """Dotted name of a file as a tuple; kernels/ is imported as llamo_ros.kernels."""
    parts = path.with_suffix("").parts
    parts = ("llamo_ros", *parts) if parts[0] == "kernels" else parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def room_of(path: Path) -> str:
    """Room that a file belongs to; empty for the package's own __init__.py."""
    module = module_of(path)
    return module[1] if len(module) > 1 else ""


def imports_of(source: str, module: tuple[str, ...], is_package: bool) -> list[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports, relative imports resolved."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                package = module if is_package else module[:-1]
                base = [*package[: len(package) - node.level + 1], *base]
            # `from llamo_ros import model` names the room in the second half
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return found


def violations(source: str, path: Path) -> list[str]:
    """What a file imports against the rules, one sentence each."""
    room = room_of(path)
    found = []
    for line, name in imports_of(source, module_of(path), path.name == "__init__.py"):
        parts = name.split(".")
        is_ros = parts[0] in ROS_PACKAGES or parts[0].endswith("_msgs")
        if parts[0] == "llamo_ros" and len(parts) > 1:
            target = parts[1]
            is_ros = target in GENERATED
            if target in LEVEL_OF and target != room and LEVEL_OF[target] >= LEVEL_OF.get(room, -1):
                found.append(f"{path}:{line}: {room or 'llamo_ros/__init__.py'} must not import {target} ({name})")
        if is_ros and room != "nodes":
            found.append(f"{path}:{line}: only llamo_ros/nodes/ imports ROS ({name})")
    return found


@pytest.mark.parametrize("path", source_files(), ids=str)
def test_imports_point_one_way(path: Path) -> None:
    assert violations((ROOT / path).read_text(encoding="utf-8"), path) == []


def test_every_room_has_its_place() -> None:
    rooms = {room_of(path) for path in source_files()} - {""}
    assert rooms <= set(LEVEL_OF), "a new room needs a place in LEVELS and in the documentation"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("llamo_ros/core/errors.py", "import llamo_ros.motion.clip"),
        ("llamo_ros/core/errors.py", "from llamo_ros import model"),
        ("llamo_ros/core/errors.py", "from ..motion import clip"),
        ("llamo_ros/model/llama.py", "from llamo_ros.motion.clip import MotionClip"),
        ("llamo_ros/training/loop.py", "from llamo_ros.viewer import page"),
        ("llamo_ros/pipelines/text_to_motion.py", "def f():\n    from llamo_ros.training import loop"),
        ("llamo_ros/pipelines/text_to_motion.py", "import rclpy.node"),
        ("llamo_ros/cli.py", "from llamo_ros.msg import HumanMotion"),
        ("kernels/flow_sampler/__init__.py", "from sensor_msgs.msg import JointState"),
        ("kernels/flow_sampler/__init__.py", "from llamo_ros.model.config import ModelConfig"),
        ("llamo_ros/__init__.py", "from llamo_ros.core import errors"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert len(violations(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("llamo_ros/motion/clip.py", "from llamo_ros.core.errors import ShapeError"),
        ("llamo_ros/motion/clip.py", "from .skeleton import JOINT_NAMES"),
        ("llamo_ros/nodes/pose_publisher.py", "import rclpy\nfrom llamo_ros.msg import HumanMotion"),
        ("llamo_ros/evaluation/benchmarks.py", "from llamo_ros.pipelines import text_to_motion"),
        ("kernels/flow_sampler/__init__.py", "from llamo_ros import _kernels\nfrom . import reference"),
    ],
)
def test_a_right_import_is_allowed(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []
