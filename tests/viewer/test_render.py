"""Pictures and videos: right size, right content, the same every time, and clear about what they cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llamo_ros.core.errors import MotionDataError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.viewer import video
from llamo_ros.viewer.render import render, render_strip, render_video


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("unitree_g1")


@pytest.fixture(scope="module")
def standing() -> MotionClip:
    """One second in the rest pose, pelvis 0.93 m above the floor."""
    return MotionClip(np.tile(np.eye(3), (30, 22, 1, 1)), np.tile([0.0, 0.93, 0.0], (30, 1)))


@pytest.fixture(scope="module")
def robot_motion(standing: MotionClip, robot: Robot) -> RobotMotion:
    return Retargeter(robot).retarget(standing)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_strip_shows_the_person_and_below_it_the_robot(
    standing: MotionClip, robot_motion: RobotMotion, robot: Robot, tmp_path: Path
) -> None:
    render_strip(standing, tmp_path / "person.png", "stand")
    render_strip(standing, tmp_path / "both.png", "stand", robot_motion, robot)
    person, both = pixels(tmp_path / "person.png"), pixels(tmp_path / "both.png")
    assert both.shape[0] > person.shape[0]
    assert both.shape[1] == person.shape[1]
    red, green, blue = np.moveaxis(person, -1, 0)
    assert ((red > green + 60) & (green > blue + 20)).sum() > 1000  # left limbs
    assert (blue > red + 60).sum() > 1000  # right limbs


def test_left_and_right_are_where_the_camera_sees_them(standing: MotionClip, tmp_path: Path) -> None:
    # The camera stands before the person, so the person's left (orange) is on the right of each picture.
    render_strip(standing, tmp_path / "strip.png")
    panel = pixels(tmp_path / "strip.png")[:, :200]
    red, _, blue = np.moveaxis(panel, -1, 0)
    left_limbs, right_limbs = np.nonzero(red > blue + 100)[1], np.nonzero(blue > red + 100)[1]
    assert left_limbs.mean() > right_limbs.mean() + 30


def test_the_same_motion_gives_the_same_bytes(random_clip: Callable[..., MotionClip], tmp_path: Path) -> None:
    clip = random_clip(frames=12)
    for name in ("strip.png", "video.gif"):
        render(clip, tmp_path / f"first_{name}", "a b")
        render(clip, tmp_path / f"second_{name}", "a b")
        assert (tmp_path / f"first_{name}").read_bytes() == (tmp_path / f"second_{name}").read_bytes()


def test_a_gif_lasts_as_long_as_the_motion_at_any_frame_rate(
    random_clip: Callable[..., MotionClip], tmp_path: Path
) -> None:
    for rate in (30.0, 50.0, 120.0):
        render_video(random_clip(frames=int(rate), frame_rate=rate), tmp_path / "video.gif")
        with Image.open(tmp_path / "video.gif") as gif:
            durations = []
            for frame in range(gif.n_frames):
                gif.seek(frame)
                durations.append(gif.info["duration"])
        assert sum(durations) == pytest.approx(1000, abs=10)  # GIF counts in 10 ms
        assert min(durations) >= 60


def test_a_gif_of_six_seconds_stays_below_three_megabytes(
    random_clip: Callable[..., MotionClip], robot: Robot, tmp_path: Path
) -> None:
    # Every 60th of it: what one frame costs is the same all along.
    clip = random_clip(frames=20)
    render_video(clip, tmp_path / "video.gif", "all joints move", Retargeter(robot).retarget(clip), robot)
    with Image.open(tmp_path / "video.gif") as gif:
        per_frame = (tmp_path / "video.gif").stat().st_size / gif.n_frames
    assert per_frame * 6 * video.GIF_RATE < 3e6


def test_one_frame_can_be_drawn(random_clip: Callable[..., MotionClip], tmp_path: Path) -> None:
    render(random_clip(frames=1), tmp_path / "one.png", "hold")
    render(random_clip(frames=1), tmp_path / "one.gif", "hold")
    with Image.open(tmp_path / "one.gif") as gif:
        assert gif.n_frames == 1


@pytest.mark.parametrize("text", ["", "x" * 10_000, "line\nbreak\ttab", "naïve “quotes” 走る \u202e"])
def test_any_text_can_stand_above(standing: MotionClip, text: str, tmp_path: Path) -> None:
    render_strip(standing, tmp_path / "strip.png", text)
    assert pixels(tmp_path / "strip.png").shape == (372, 1600, 3)


def test_a_person_far_away_is_drawn_like_one_at_the_origin(standing: MotionClip, tmp_path: Path) -> None:
    # 50 m is a whole number of grid squares, so even the floor looks the same.
    far = MotionClip(standing.rotations, standing.root_positions + np.array([50.0, 0.0, -50.0]))
    render_strip(standing, tmp_path / "near.png")
    render_strip(far, tmp_path / "far.png")
    differing = np.abs(pixels(tmp_path / "near.png") - pixels(tmp_path / "far.png")).max(axis=-1) > 8
    assert differing.mean() < 0.002  # float32 moves a few pixels of edges


def test_what_cannot_be_drawn_is_refused(
    standing: MotionClip, robot_motion: RobotMotion, robot: Robot, tmp_path: Path
) -> None:
    with pytest.raises(MotionDataError, match="no frame"):
        render(standing.sliced(0, 0), tmp_path / "x.png")
    with pytest.raises(ParameterError, match="robot"):
        render(standing, tmp_path / "x.png", robot_motion=robot_motion)
    with pytest.raises(ParameterError, match=r"\.gif or \.mp4"):
        render(standing, tmp_path / "x.jpeg")
    with pytest.raises(ParameterError, match="cannot be written"):
        render(standing, tmp_path / "no" / "such" / "x.png")
    with pytest.raises(ParameterError, match="60 s"):
        render_video(MotionClip(standing.rotations, standing.root_positions, frame_rate=0.4), tmp_path / "x.gif")


def test_an_mp4_without_an_encoder_says_what_to_install(
    standing: MotionClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video.shutil, "which", lambda name: None)
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match="pip install imageio-ffmpeg"):
        render_video(standing, tmp_path / "x.mp4")


def test_an_mp4_reaches_the_encoder_frame_by_frame(
    standing: MotionClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tmp_path / "ffmpeg"
    encoder.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last.arguments"\ncat > "$last"\n')
    encoder.chmod(0o755)
    monkeypatch.setattr(video.shutil, "which", lambda name: str(encoder))
    render_video(standing, tmp_path / "x.mp4")
    assert (tmp_path / "x.mp4").stat().st_size == 30 * 360 * 392 * 3
    assert "-s 360x392 -r 30" in (tmp_path / "x.mp4.arguments").read_text()


def test_a_failing_encoder_is_reported(standing: MotionClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tmp_path / "ffmpeg"
    encoder.write_text("#!/bin/sh\necho 'Unknown encoder libx264' >&2\nexit 1\n")
    encoder.chmod(0o755)
    monkeypatch.setattr(video.shutil, "which", lambda name: str(encoder))
    with pytest.raises(ParameterError, match="Unknown encoder libx264"):
        render_video(standing, tmp_path / "x.mp4")
