from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamo_ros.motion.files import load_motion
from llamo_ros.nodes.demo import run_demo
from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.robot_file import load_robot_csv


def test_the_demo_writes_what_came_over_the_topics(
    tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_demo("a person walks forward", seconds=1.0, out_dir=tmp_path, checkpoint=str(tiny_checkpoint)) == 0
    robot = load_robot("unitree_g1")
    clip = load_motion(tmp_path / "motion.npz")
    assert len(clip) == 32  # round(1 s * 7.5 latents/s) latents of 4 frames
    assert clip.text == "a person walks forward"
    played = load_robot_csv(tmp_path / "joint_trajectory.csv").motion
    assert played.joint_names == robot.joint_names
    assert played.frame_rate == 30.0
    values = played.joint_positions
    assert values.shape == (32, 29)
    assert (values >= robot.lower - 1e-6).all() and (values <= robot.upper + 1e-6).all()
    for name in ("motion.bvh", "strip.png", "video.gif", "logs/motion_generator.log"):
        assert (tmp_path / name).stat().st_size > 0
    output = capfd.readouterr().out
    assert "played   32" in output
    assert "The captioner saw" in output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"text": ""}, "prompt is empty"),
        ({"text": "x" * 10_000}, "10000 characters"),
        ({"robot": "robbie"}, "unitree_g1"),
        ({"seconds": 0.0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_starts(
    arguments: dict[str, object], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(**{"text": "a person jumps", "out_dir": tmp_path / "out", **arguments}) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def started_demo(checkpoint: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A demo in a process of its own that has started its programs."""
    code = (
        "import sys; from pathlib import Path; from llamo_ros.nodes.demo import run_demo; "
        f"sys.exit(run_demo('a person jumps', out_dir=Path({str(folder)!r}), checkpoint={str(checkpoint)!r}))"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (folder / "logs" / "pose_publisher.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return demo


def children_of(process: subprocess.Popen[bytes]) -> list[str]:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def is_running(process_id: str) -> bool:
    """Whether a process is there and not a zombie, which nobody may collect in a container."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_demo_ends_every_program(number: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
    demo = started_demo(tiny_checkpoint, tmp_path)
    children = children_of(demo)
    assert len(children) == 3
    demo.send_signal(number)
    assert demo.wait(10) == 130
    assert not any(os.path.exists(f"/proc/{child}") for child in children)


def test_no_program_outlives_a_demo_that_is_killed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    demo = started_demo(tiny_checkpoint, tmp_path)
    children = children_of(demo)
    assert len(children) == 3
    demo.kill()
    demo.wait()
    deadline = time.monotonic() + 20
    while any(is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(child) for child in children)


def test_a_checkpoint_that_is_not_there_is_told_with_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo("a person jumps", out_dir=tmp_path, checkpoint="no-such-model") == 1
    error = capsys.readouterr().err
    assert "there is no model 'no-such-model'" in error
    assert "motion_" in error and ".log" in error
