"""`llamo robot`: drafting and checking profiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from llamo_ros.cli import main
from llamo_ros.core.resources import config_path


@pytest.fixture
def urdf(tmp_path: Path) -> Path:
    path = tmp_path / "mine.urdf"
    path.write_text(config_path("robots", "unitree_h1.urdf").read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_a_profile_is_drafted_drawn_and_checked(urdf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "init", str(urdf)]) == 0
    printed = capsys.readouterr().out
    assert "check: left hand: no link is there" in printed
    profile = urdf.with_suffix(".yaml")
    with Image.open(urdf.with_suffix(".png")) as picture:
        assert picture.width == 1320
    assert main(["robot", "check", str(profile), "--picture", str(urdf.parent / "again.png")]) == 0
    printed = capsys.readouterr().out
    assert "mine: 19 joints, 4 limbs, 2 feet" in printed and "no errors" in printed
    assert (urdf.parent / "again.png").is_file()


def test_a_profile_that_is_there_is_kept(urdf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = urdf.with_suffix(".yaml")
    profile.write_text("mine", encoding="utf-8")
    assert main(["robot", "init", str(urdf)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert profile.read_text(encoding="utf-8") == "mine"
    assert main(["robot", "init", str(urdf), "--force", "--name", "other"]) == 0
    assert "name: other" in profile.read_text(encoding="utf-8")


def test_a_profile_may_lie_elsewhere(urdf: Path) -> None:
    out = urdf.parent / "deep" / "profile.yaml"
    assert main(["robot", "init", str(urdf), "-o", str(out)]) == 0
    assert "description: ../mine.urdf" in out.read_text(encoding="utf-8")
    assert main(["robot", "check", str(out)]) == 0


def test_a_profile_with_errors_gives_status_1(urdf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "init", str(urdf)]) == 0
    profile = urdf.with_suffix(".yaml")
    text = profile.read_text(encoding="utf-8")
    profile.write_text(text.replace("left_ankle_joint: -0", "left_ankle_joint: 0"), encoding="utf-8")
    assert main(["robot", "check", str(profile)]) == 1
    assert "error: left_ankle_link is tilted" in capsys.readouterr().out
    profile.write_text(text.replace("left_knee_link", "left_kne_link"), encoding="utf-8")
    assert main(["robot", "check", str(profile)]) == 1
    assert "'left_kne_link' is not in robot" in capsys.readouterr().out


def test_a_description_of_ones_own_can_be_given(urdf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "check", "unitree_h1", "--urdf", str(urdf)]) == 0
    assert main(["robot", "check", "pal_talos"]) == 1
    assert "pal_talos@my_robot.urdf" in capsys.readouterr().out


def test_what_is_no_urdf_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.urdf"
    path.write_bytes(b"\xff\xfe\x00")
    assert main(["robot", "init", str(path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["robot", "init", str(tmp_path / "none.urdf")]) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_robots_are_listed_under_both_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robots"]) == 0
    first = capsys.readouterr().out
    assert main(["robot", "list"]) == 0
    assert capsys.readouterr().out == first
    assert "unitree_h1: 19 joints" in first and "pal_talos@my_robot.urdf" in first
