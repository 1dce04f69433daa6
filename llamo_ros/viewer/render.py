"""Pictures and videos of a motion: the person, and under or beside it the robot that follows.

Everything is drawn with NumPy and Pillow, so it needs no display and gives the same pixels every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from llamo_ros.core.errors import ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.viewer.bodies import Body, human_body, robot_body
from llamo_ros.viewer.raycast import BACKGROUND, Camera, draw_body
from llamo_ros.viewer.video import GIF_RATE, MP4_RATE, write_gif, write_mp4

FloatArray = NDArray[np.floating]

PICTURE_SUFFIXES = (".png",)
VIDEO_SUFFIXES = (".gif", ".mp4")
LONGEST_VIDEO = 60.0  # [s]

_INK, _FAINT_INK = (35, 38, 44), (125, 130, 140)
_PAPER = tuple(int(255 * value + 0.5) for value in BACKGROUND)
_SUPERSAMPLING = 2  # drawn at twice the size, then averaged: smooth edges
_AZIMUTH = np.deg2rad(42.0)  # camera to the left of where the body faces at first: three quarters from the front
_ELEVATION = np.deg2rad(13.0)
_FRAMES_IN_STRIP = 8
_HAND_TRAIL = 0.6  # how much of the hands' way is drawn, [s]
_CAMERA_SMOOTHING = 0.35  # standard deviation of the filter on what the camera follows, [s]


def render(
    clip: MotionClip,
    path: str | Path,
    text: str = "",
    robot_motion: RobotMotion | None = None,
    robot: Robot | None = None,
) -> None:
    """Write a picture (.png) or a video (.gif, .mp4), by the suffix of ``path``; see the two functions below."""
    suffix = Path(path).suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        render_strip(clip, path, text, robot_motion, robot)
    else:
        render_video(clip, path, text, robot_motion, robot)


def render_strip(
    clip: MotionClip,
    path: str | Path,
    text: str = "",
    robot_motion: RobotMotion | None = None,
    robot: Robot | None = None,
) -> None:
    """Write one PNG: the prompt, the person at eight times from left to right, and the robot at the same times below.

    The camera follows each body; the grid on the floor (0.5 m) stands still, so it shows the travel. Left limbs are
    orange and right limbs blue; thin lines show where the hands have just been, and a green line where the body came
    from.

    Args:
        clip: The person's motion, any frame rate, y up.
        path: File to write, ending in .png.
        text: Prompt or caption to write above.
        robot_motion: The robot's motion, z up; None draws no robot.
        robot: The robot of ``robot_motion``.

    Raises:
        MotionDataError: a motion has no frame.
        ParameterError: the suffix is not .png, the file cannot be written, or the robot does not fit its motion.
    """
    path = _checked_path(path, PICTURE_SUFFIXES)
    bodies = _bodies(clip, robot_motion, robot)
    times = np.linspace(0.0, (len(clip) - 1) / clip.frame_rate, _FRAMES_IN_STRIP)
    width, height, top, bottom = 200, 290, 54, 28
    sheet = Image.new("RGB", (_FRAMES_IN_STRIP * width, top + len(bodies) * height + bottom), _PAPER)
    for row, (name, body) in enumerate(bodies):
        camera = _camera(body, width, height)
        for column, time_s in enumerate(times):
            frame = body.frame_at(time_s)
            panel = _panel(camera, body, frame, body.positions[frame, 0])
            sheet.paste(panel, (column * width, top + row * height))
        if robot is not None:
            ImageDraw.Draw(sheet).text((14, top + row * height + 6), name, _FAINT_INK, _font(15))
    draw = ImageDraw.Draw(sheet)
    _write_prompt(draw, text, (14, 12), sheet.width - 28, 24)
    base = sheet.height - bottom
    draw.line([(0, base), (sheet.width, base)], (205, 209, 216))
    for column, time_s in enumerate(times):
        draw.text(((column + 0.5) * width, base + 14), f"{time_s:.1f} s", _FAINT_INK, _font(15), anchor="mm")
    _save(lambda: sheet.save(path, optimize=True), path)


def render_video(
    clip: MotionClip,
    path: str | Path,
    text: str = "",
    robot_motion: RobotMotion | None = None,
    robot: Robot | None = None,
) -> None:
    """Write a video in real time: the person, beside it the robot, the prompt above; arguments as for a strip.

    A .gif has 15 frames per second and needs nothing; an .mp4 has 30 and needs ffmpeg (``pip install imageio-ffmpeg``).

    Raises:
        MotionDataError: a motion has no frame.
        ParameterError: the suffix is neither .gif nor .mp4, there is no encoder for .mp4, the motion is longer than
            60 s, the file cannot be written, or the robot does not fit its motion.
    """
    path = _checked_path(path, VIDEO_SUFFIXES)
    if clip.duration > LONGEST_VIDEO:
        raise ParameterError(
            f"the motion lasts {clip.duration:.1f} s; videos are drawn up to {LONGEST_VIDEO:.0f} s. Cut the clip first."
        )
    bodies = _bodies(clip, robot_motion, robot)
    rate, write = (GIF_RATE, write_gif) if path.suffix.lower() == ".gif" else (MP4_RATE, write_mp4)
    times = np.arange(max(1, round(clip.duration * rate))) / rate
    _save(lambda: write(_video_frames(bodies, times, text, clip.duration), rate, path), path)


def _bodies(clip: MotionClip, robot_motion: RobotMotion | None, robot: Robot | None) -> list[tuple[str, Body]]:
    bodies = [("human", human_body(clip))]
    if robot_motion is not None:
        if robot is None:
            raise ParameterError("a robot motion needs its robot to be drawn; give load_robot(name) too.")
        bodies.append((robot.name, robot_body(robot_motion, robot)))
    return bodies


def _video_frames(
    bodies: list[tuple[str, Body]], times: FloatArray, text: str, duration: float
) -> Iterator[Image.Image]:
    width, height, top, bottom = (300 if len(bodies) > 1 else 360), 340, 40, 12
    cameras = [_camera(body, width, height) for _, body in bodies]
    targets = [_smoothed(body.positions[:, 0], _CAMERA_SMOOTHING * body.frame_rate) for _, body in bodies]
    sheet = Image.new("RGB", (len(bodies) * width, top + height + bottom), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_prompt(draw, text, (12, 9), sheet.width - 24, 18)
    base = sheet.height - 6
    draw.line([(12, base), (sheet.width - 12, base)], (205, 209, 216), 3)
    for time_s in times:
        for column, ((name, body), camera, target) in enumerate(zip(bodies, cameras, targets, strict=True)):
            frame = body.frame_at(time_s)
            sheet.paste(_panel(camera, body, frame, target[frame]), (column * width, top))
            if len(bodies) > 1:
                draw.text((column * width + 12, top + 4), name, _FAINT_INK, _font(13))
        end = 12 + (sheet.width - 24) * min(1.0, (time_s + 1e-9) / duration)
        draw.line([(12, base), (end, base)], _FAINT_INK, 3)
        yield sheet.copy()


def _camera(body: Body, width: int, height: int) -> Camera:
    view_height = 1.24 * max(body.top, body.height)
    scale = _SUPERSAMPLING
    distance = 2.6 * view_height
    return Camera(width * scale, height * scale, body.heading + _AZIMUTH, _ELEVATION, distance, view_height)


def _panel(camera: Camera, body: Body, frame: int, follow: FloatArray) -> Image.Image:
    """One drawn frame at its final size; the camera follows ``follow`` (3,) over the floor, at a height of its own."""
    target = np.array([follow[0], follow[1], 0.435 * camera.view_height])
    panel = draw_body(camera, body, frame, target, body.positions[: frame + 1, 0, :2])
    draw = ImageDraw.Draw(panel, "RGBA")
    first = max(0, frame - round(_HAND_TRAIL * body.frame_rate))
    for link, colour in body.hands:
        points = camera.project(body.positions[first : frame + 1, link], target)
        for number, (start, end) in enumerate(zip(points[:-1], points[1:], strict=True), start=1):
            opacity = int(170 * number / (len(points) - 1))
            ink = (*(int(200 * value) for value in colour), opacity)
            draw.line([tuple(start), tuple(end)], ink, 2 * _SUPERSAMPLING)
    return panel.reduce(_SUPERSAMPLING)


def _smoothed(path: FloatArray, deviation: float) -> FloatArray:
    """A path (T, 3) through a Gaussian filter, so that the camera does not nod with every step."""
    reach = max(1, int(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-6)) ** 2)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T], axis=1)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _write_prompt(draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], width: int, size: int) -> None:
    """One line; a longer text is set smaller, then cut with an ellipsis."""
    text = " ".join(text.split())[:200]  # more than a line holds; measuring a very long text is slow
    if not text:
        return
    while size > 12 and draw.textlength(text, _font(size)) > width:
        size -= 1
    if draw.textlength(text, _font(size)) > width:
        while text and draw.textlength(f"{text}...", _font(size)) > width:
            text = text[:-1]
        text = f"{text}..."
    draw.text(place, text, _INK, _font(size))


def _checked_path(path: str | Path, suffixes: tuple[str, ...]) -> Path:
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ParameterError(f"{str(path)!r} ends in {path.suffix!r}, expected {' or '.join(suffixes)}.")
    return path


def _save(write: Callable[[], None], path: Path) -> None:
    try:
        write()
    except OSError as error:
        raise ParameterError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
