"""Pictures of how a robot follows a reference: the robot at some times in rows, and lines over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from llamo_ros.core.errors import ParameterError
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion
from llamo_ros.viewer.bodies import robot_body
from llamo_ros.viewer.raycast import BACKGROUND, Camera, draw_body

FloatArray = NDArray[np.floating]

_INK, _FAINT_INK, _RULE, _WHITE = (35, 38, 44), (110, 115, 125), (222, 225, 230), (255, 255, 255)
_PAPER = tuple(int(255 * value + 0.5) for value in BACKGROUND)
# The first is the reference: dark and wide, under the others, which are told apart by lightness too.
_LINES = ((35, 38, 44), (60, 120, 210), (240, 130, 40), (120, 180, 90))
_SCALE = 2  # drawn at twice the size, then averaged: smooth edges
_COLUMNS = 8
_WIDTH, _HEIGHT, _HEAD, _FOOT = 190, 260, 48, 28
_PLOT_WIDTH, _PLOT_HEIGHT, _MARGIN = 620, 230, 24


@dataclass(frozen=True)
class Lines:
    """Lines over one axis of time.

    Attributes:
        title: What they are, with its unit.
        times: Shape (K,), ascending, [s].
        values: Shape (K,) each, by name; the first is the reference.
    """

    title: str
    times: FloatArray
    values: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        if not 0 < len(self.values) <= len(_LINES) or len(self.times) < 2:
            raise ParameterError(f"lines {self.title!r}: expected 1 to {len(_LINES)} lines of 2 values or more.")


def render_rows(motions: Mapping[str, RobotMotion], robot: Robot, path: str | Path, title: str = "") -> None:
    """Write one PNG: each motion in a row of its own, at eight times from left to right.

    Robots are drawn by the simple shapes of their URDF; the camera follows them, the grid on the floor (0.5 m) stands.

    Args:
        motions: At least one motion by its name, which is written in its row; of the same duration.
        robot: Of all motions.
        path: File to write, ending in .png.
        title: Written above.

    Raises:
        MotionDataError: a motion has no frame.
        ParameterError: there is no motion, the robot is another, or the file cannot be written.
    """
    if not motions:
        raise ParameterError("there is no motion to draw.")
    bodies = {name: robot_body(motion, robot) for name, motion in motions.items()}
    duration = min((len(body) - 1) / body.frame_rate for body in bodies.values())
    times = np.linspace(0.0, duration, _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _WIDTH, _HEAD + len(bodies) * _HEIGHT + _FOOT), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((14, 12), title, _INK, ImageFont.load_default(22))
    view = 1.3 * max(max(body.top, body.height) for body in bodies.values())  # one scale for all rows
    for row, (name, body) in enumerate(bodies.items()):
        camera = Camera(
            _WIDTH * _SCALE, _HEIGHT * _SCALE, body.heading + math.radians(42), math.radians(13), 2.6 * view, view
        )
        for column, time_s in enumerate(times):
            frame = body.frame_at(time_s)
            place = body.positions[frame, 0]
            target = np.array([place[0], place[1], 0.435 * view])
            panel = draw_body(camera, body, frame, target, body.positions[: frame + 1, 0, :2])
            sheet.paste(panel.reduce(_SCALE), (column * _WIDTH, _HEAD + row * _HEIGHT))
        draw.text((14, _HEAD + row * _HEIGHT + 4), name, _FAINT_INK, ImageFont.load_default(15))
    for column, time_s in enumerate(times):
        place = ((column + 0.5) * _WIDTH, sheet.height - 0.5 * _FOOT)
        draw.text(place, f"{time_s:.1f} s", _FAINT_INK, ImageFont.load_default(15), anchor="mm")
    _save(sheet, path)


def render_lines(plots: Sequence[Lines], path: str | Path, title: str = "") -> None:
    """Write one PNG with plots, two in a row; a legend is above the first, and holds for all that have its names.

    Raises:
        ParameterError: there is no plot, or the file cannot be written.
    """
    if not plots:
        raise ParameterError("there is nothing to plot.")
    rows = -(-len(plots) // 2)
    width, height = 2 * _PLOT_WIDTH, 84 + rows * _PLOT_HEIGHT
    sheet = Image.new("RGB", (width * _SCALE, height * _SCALE), _WHITE)
    draw = ImageDraw.Draw(sheet)
    _text(draw, _MARGIN, 14, title, 20)
    x = _MARGIN
    for name, colour in zip(plots[0].values, _LINES, strict=False):
        draw.line([(x * _SCALE, 60 * _SCALE), ((x + 26) * _SCALE, 60 * _SCALE)], colour, 3 * _SCALE)
        _text(draw, x + 34, 60, name, 14, anchor="lm")
        x += 34 + draw.textlength(name, ImageFont.load_default(14 * _SCALE)) / _SCALE + 28
    for number, plot in enumerate(plots):
        _draw_plot(draw, plot, number % 2 * _PLOT_WIDTH, 84 + number // 2 * _PLOT_HEIGHT)
    _save(sheet, path)


def _draw_plot(draw: ImageDraw.ImageDraw, plot: Lines, left: float, top: float) -> None:
    _text(draw, left + _MARGIN, top, plot.title, 15)
    x0, x1, y0, y1 = left + _MARGIN + 46, left + _PLOT_WIDTH - _MARGIN, top + 28, top + _PLOT_HEIGHT - 34
    low = min(float(np.min(values)) for values in plot.values.values())
    high = max(float(np.max(values)) for values in plot.values.values())
    step = _step(max(high - low, 1e-3) / 4)
    low, high = math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step
    scale_x, scale_y = (x1 - x0) / (plot.times[-1] - plot.times[0]), (y1 - y0) / (high - low)
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        y = y1 - (value - low) * scale_y
        draw.line([(x0 * _SCALE, y * _SCALE), (x1 * _SCALE, y * _SCALE)], _RULE, _SCALE)
        _text(draw, x0 - 8, y, f"{value + 0.0:.3g}", 12, _FAINT_INK, "rm")
    second = _step((plot.times[-1] - plot.times[0]) / 8)
    for number in range(math.ceil(plot.times[0] / second), math.floor(plot.times[-1] / second + 1e-9) + 1):
        x = x0 + (number * second - plot.times[0]) * scale_x
        _text(draw, x, y1 + 8, f"{number * second:g}", 12, _FAINT_INK, "ma")
    for rank, values in enumerate(plot.values.values()):
        stride = max(1, len(values) // 1500)
        points = zip(plot.times[::stride], values[::stride], strict=True)
        line = [((x0 + (t - plot.times[0]) * scale_x) * _SCALE, (y1 - (v - low) * scale_y) * _SCALE) for t, v in points]
        draw.line(line, _LINES[rank], round((4.0 if rank == 0 else 1.4) * _SCALE), joint="curve")


def _step(least: float) -> float:
    """The round number, 1, 2 or 5 times a power of ten, that is at least this."""
    magnitude = 10.0 ** math.floor(math.log10(least))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= least * (1 - 1e-9))


def _text(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, colour=_INK, anchor: str = "la") -> None:
    draw.text((x * _SCALE, y * _SCALE), text, colour, ImageFont.load_default(size * _SCALE), anchor=anchor)


def _save(sheet: Image.Image, path: str | Path) -> None:
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ParameterError(f"{str(path)!r} ends in {path.suffix!r}, expected .png.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, optimize=True)
    except OSError as error:
        raise ParameterError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
