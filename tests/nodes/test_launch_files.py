"""Launch files can only run where ROS 2's launch is installed; what can be wrong in them without it is checked here."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from llamo_ros.nodes.parameters import CAPTIONER, GENERATOR, PUBLISHER

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == name]


def strings(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_configuration_is_a_declared_argument_with_a_description(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    declared = {call.args[0].value for call in calls(tree, "DeclareLaunchArgument")}
    literal = [call.args[0] for call in calls(tree, "LaunchConfiguration") if isinstance(call.args[0], ast.Constant)]
    assert declared
    assert {argument.value for argument in literal} <= declared
    assert {call.args[0].value for call in calls(tree, "text")} <= declared
    for call in calls(tree, "DeclareLaunchArgument"):
        assert {keyword.arg for keyword in call.keywords} == {"default_value", "description"}


def test_launch_starts_programs_that_exist_with_parameters_that_they_have() -> None:
    tree = ast.parse((ROOT / "launch" / "llamo.launch.py").read_text(encoding="utf-8"))
    executables = [
        keyword.value.value for call in calls(tree, "Node") for keyword in call.keywords if keyword.arg == "executable"
    ]
    assert sorted(executables) == ["motion_captioner", "motion_generator", "pose_publisher"]
    assert all(importlib.util.find_spec(f"llamo_ros.nodes.{name}") for name in executables)
    known = {parameter.name for table in (GENERATOR, PUBLISHER, CAPTIONER) for parameter in table}
    keys = {key.value for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    assert keys <= known


def test_the_demo_passes_on_arguments_that_the_other_file_declares() -> None:
    demo = ast.parse((ROOT / "launch" / "demo.launch.py").read_text(encoding="utf-8"))
    llamo = ast.parse((ROOT / "launch" / "llamo.launch.py").read_text(encoding="utf-8"))
    declared = {call.args[0].value for call in calls(llamo, "DeclareLaunchArgument")}
    (included,) = calls(demo, "IncludeLaunchDescription")
    passed = next(keyword.value for keyword in included.keywords if keyword.arg == "launch_arguments")
    assert strings(passed) <= declared
