"""What an installation must hold, however it was made."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement

import llamo_ros
from llamo_ros.core.errors import LlamoError
from llamo_ros.core.resources import ResourceError, assets_path, config_path

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted(
    path.relative_to(ROOT) for folder in ("msg", "srv", "action") for path in (ROOT / folder).glob(f"*.{folder}")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTANT = re.compile(r"^\S+\s+[A-Z][A-Z0-9_]*\s*=")


def undocumented(text: str) -> list[str]:
    """Lines of an interface file without a comment: beside it, above it, or, for constants, above their group."""
    found = []
    is_documented = False
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("#"):
            is_documented = True
        elif line in ("", "---"):
            is_documented = False
        else:
            if not is_documented and "#" not in line:
                found.append(line)
            is_documented = is_documented and CONSTANT.match(line) is not None
    return found


@pytest.mark.parametrize("path", INTERFACES, ids=str)
def test_interface_is_generated_and_importable(path: Path) -> None:
    interface = getattr(importlib.import_module(f"llamo_ros.{path.parts[0]}"), path.stem)
    parts = [interface.Goal, interface.Result, interface.Feedback] if path.suffix == ".action" else [interface]
    for part in parts:
        assert part() == part()


@pytest.mark.parametrize("path", INTERFACES, ids=str)
def test_every_field_of_an_interface_has_a_comment(path: Path) -> None:
    assert undocumented((ROOT / path).read_text(encoding="utf-8")) == []


def test_a_field_without_a_comment_is_found() -> None:
    constants = "# About the message.\n\n# Group.\nuint8 A = 0\nuint8 B = 1\n"
    fields = "# Good.\nuint8 good\nuint8 bad\nuint8 fine # why\n"
    assert undocumented(constants + "\n" + fields) == ["uint8 bad"]


def test_motion_message_agrees_with_the_skeleton() -> None:
    from llamo_ros.motion.skeleton import JOINT_NAMES
    from llamo_ros.msg import HumanMotion

    assert len(JOINT_NAMES) == HumanMotion.JOINT_COUNT
    assert [getattr(HumanMotion, name.upper()) for name in JOINT_NAMES] == list(range(HumanMotion.JOINT_COUNT))


def test_there_is_one_version() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert manifest.findtext("version") == llamo_ros.__version__
    assert metadata.version("llamo-ros") == llamo_ros.__version__


def test_tested_versions_are_pinned_and_allowed_by_the_package() -> None:
    lines = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8").splitlines()
    pins = {pin.name: pin for pin in map(Requirement, (line for line in lines if line and not line.startswith("#")))}
    needed = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
    assert pins.keys() == needed.keys()
    for name, pin in pins.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "==", f"{name} is not pinned"
        assert specifier.version in needed[name].specifier


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_command_has_something_to_run(command: str) -> None:
    module, function = PROJECT["scripts"][command].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_importing_messages_does_not_import_the_model() -> None:
    code = "import sys, llamo_ros.msg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd="/", timeout=60).returncode == 0


def test_every_kernel_folder_registers_itself() -> None:
    sources = sorted((ROOT / "kernels").glob("*/cpu_kernel.cpp"))
    assert importlib.import_module("llamo_ros._kernels").__doc__
    for source in sources:
        assert f"void register_{source.parent.name}(" in source.read_text(encoding="utf-8")


def test_config_path_finds_what_comes_with_the_package() -> None:
    assert config_path().is_dir()
    assert config_path("robots", "unitree_g1.yaml").is_file()


def test_missing_file_is_named_with_what_there_is() -> None:
    with pytest.raises(ResourceError, match=r"robots/no_such\.yaml does not exist\. .*holds: .*unitree_g1\.yaml"):
        config_path("robots", "no_such.yaml")


def test_missing_folder_is_named_with_what_there_is() -> None:
    with pytest.raises(ResourceError, match=r"no/such/file does not exist\. .*config holds: .*robots"):
        config_path("no", "such", "file")
    with pytest.raises(ResourceError, match="assets.no-such-checkpoint does not exist"):
        assets_path("no-such-checkpoint")


def test_missing_file_is_caught_as_a_llamo_error_and_as_a_file_error() -> None:
    assert issubclass(ResourceError, LlamoError)
    assert issubclass(ResourceError, FileNotFoundError)


def test_incomplete_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamo_ros.core.resources._CONFIG", tmp_path / "config")
    with pytest.raises(ResourceError, match=r"the installation is incomplete\. Install llamo_ros again\."):
        config_path("robots")
