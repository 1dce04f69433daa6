"""Plain charts drawn with Pillow: histograms and stacked bars on one sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llamo_ros.core.errors import ParameterError

_INK, _FAINT_INK, _RULE, _PAPER = (35, 38, 44), (110, 115, 125), (222, 225, 230), (255, 255, 255)
# Told apart by lightness too, so that a print in black and white and colour-blind readers lose nothing.
_COLOURS = ((46, 94, 170), (240, 160, 60), (170, 200, 235), (120, 120, 128))
_WIDTH, _HEIGHT, _MARGIN = 620, 330, 24
_COLUMNS = 2
_SCALE = 2  # pixels per unit of length: sharp on dense screens
_LONGEST_LABEL = 22


@dataclass(frozen=True)
class Histogram:
    """How often each value occurs.

    Attributes:
        title: What was measured, with its unit.
        edges: Borders of the bins, ascending, one more than counts; the axis has marks from 0 on.
        counts: Number in each bin.
        last_is_open: Whether the last bin also holds everything above it.
    """

    title: str
    edges: Sequence[float]
    counts: Sequence[int]
    last_is_open: bool = False

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1 or not self.counts:
            raise ParameterError(f"histogram {self.title!r} has {len(self.counts)} bins and {len(self.edges)} edges.")


@dataclass(frozen=True)
class Bars:
    """One horizontal bar for each label, stacked from named parts.

    Attributes:
        title: What was counted, with its unit.
        labels: Names of the bars, from the top.
        parts: Values by the name of the part, one for each label, none negative.
    """

    title: str
    labels: Sequence[str]
    parts: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        if not self.labels or any(len(values) != len(self.labels) for values in self.parts.values()):
            raise ParameterError(f"bars {self.title!r} need as many values as the {len(self.labels)} labels.")
        if len(self.parts) > len(_COLOURS) or any(value < 0 for values in self.parts.values() for value in values):
            raise ParameterError(f"bars {self.title!r} have more than {len(_COLOURS)} parts, or a negative value.")


Chart = Histogram | Bars


def draw_charts(charts: Sequence[Chart], path: str | Path, title: str = "") -> None:
    """Draw charts side by side on one sheet, two in a row, and write it as .png.

    Raises:
        ParameterError: there is no chart, the suffix is not .png, or the file cannot be written.
    """
    path = Path(path)
    if not charts or path.suffix.lower() != ".png":
        raise ParameterError(f"{path}: expected at least one chart and a name that ends in .png.")
    columns = min(_COLUMNS, len(charts))
    rows = -(-len(charts) // columns)
    head = 56 if title else 0
    size = (columns * _WIDTH, head + rows * _HEIGHT)
    sheet = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), _PAPER)
    draw = _Pen(ImageDraw.Draw(sheet))
    draw.text(_MARGIN, 18, title, 22)
    for number, chart in enumerate(charts):
        left, top = number % columns * _WIDTH, head + number // columns * _HEIGHT
        draw.text(left + _MARGIN, top + 8, chart.title, 17)
        box = (left + _MARGIN, top + 42, left + _WIDTH - _MARGIN, top + _HEIGHT - 14)
        (_draw_histogram if isinstance(chart, Histogram) else _draw_bars)(draw, chart, box)
    try:
        sheet.save(path)
    except OSError as error:
        raise ParameterError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error


class _Pen:
    """Draws in units of length; text stands at its top left, centre or right."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def text(self, x: float, y: float, text: str, size: int = 13, colour=_INK, anchor: str = "la") -> None:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), text, colour, font, anchor=anchor)

    def width(self, text: str, size: int = 13) -> float:
        return self._draw.textlength(text, ImageFont.load_default(size * _SCALE)) / _SCALE

    def bar(self, left: float, top: float, right: float, bottom: float, colour) -> None:
        x0, y0, x1, y1 = (round(value * _SCALE) for value in (left, top, right, bottom))
        if x1 > x0 and y1 > y0:
            self._draw.rectangle((x0, y0, x1 - 1, y1 - 1), colour)  # Pillow draws the last pixel too

    def rule(self, left: float, top: float, right: float, bottom: float, colour=_RULE) -> None:
        self._draw.line([round(value * _SCALE) for value in (left, top, right, bottom)], colour, _SCALE)


def _draw_histogram(pen: _Pen, chart: Histogram, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    left, bottom = left + 46, bottom - 24
    ticks = _ticks(max(chart.counts))
    scale = (bottom - top) / ticks[-1]
    for tick in ticks:
        y = bottom - tick * scale
        pen.rule(left, y, right, y)
        pen.text(left - 8, y, f"{tick:,g}", 12, _FAINT_INK, "rm")
    first, last = chart.edges[0], chart.edges[-1]
    across = (right - left) / (last - first)
    for start, end, count in zip(chart.edges[:-1], chart.edges[1:], chart.counts, strict=True):
        x = left + (start - first) * across
        pen.bar(x, bottom - count * scale, left + (end - first) * across - 1, bottom, _COLOURS[0])
    for tick in _ticks(last, 7):
        if first <= tick <= last:
            pen.text(left + (tick - first) * across, bottom + 6, f"{tick:g}", 12, _FAINT_INK, "ma")
    if chart.last_is_open:
        pen.text(right, top - 30, "the last bar holds all above", 12, _FAINT_INK, "ra")


def _draw_bars(pen: _Pen, chart: Bars, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    if len(chart.parts) > 1:
        x = right
        for (name, _), colour in reversed(list(zip(chart.parts.items(), _COLOURS, strict=False))):
            x -= pen.width(name)
            pen.text(x, top - 30, name)
            pen.bar(x - 17, top - 28, x - 5, top - 16, colour)
            x -= 30
    labels = [_shortened(label) for label in chart.labels]
    totals = [sum(values[row] for values in chart.parts.values()) for row in range(len(labels))]
    left += max(pen.width(label) for label in labels) + 10
    room = max(pen.width(_number(total)) for total in totals) + 10
    scale = (right - left - room) / (max(totals) or 1.0)
    step = min((bottom - top) / len(labels), 40.0)
    size = 13 if step >= 17 else max(8, int(step * 0.75))
    for row, (label, total) in enumerate(zip(labels, totals, strict=True)):
        middle = top + (row + 0.5) * step
        pen.text(left - 10, middle, label, size, anchor="rm")
        x = left
        for values, colour in zip(chart.parts.values(), _COLOURS, strict=False):
            pen.bar(x, middle - 0.36 * step, x + values[row] * scale, middle + 0.36 * step, colour)
            x += values[row] * scale
        pen.text(x + 6, middle, _number(total), size, _FAINT_INK, "lm")


def _ticks(top: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``top``, at most ``most`` + 1 of them."""
    if top <= 0:
        return [0.0, 1.0]
    magnitude = 10.0 ** math.floor(math.log10(top / most))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude * most >= top * (1 - 1e-9))
    return [round(number * step, 10) for number in range(math.ceil(top / step * (1 - 1e-9)) + 1)]


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 3]}..."


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
