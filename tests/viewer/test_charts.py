from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llamo_ros.core.errors import ParameterError
from llamo_ros.viewer.charts import _COLOURS, Bars, Histogram, _ticks, draw_charts


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def area(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture (H, W, 3) has exactly this colour."""
    return (picture == colour).all(axis=-1)


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    draw_charts([Bars("clips", ["a", "b", "c"], {"train": [4.0, 2.0, 0.0]})], tmp_path / "x.png")
    bars = area(pixels(tmp_path / "x.png"), _COLOURS[0])
    lengths = bars.sum(axis=1)
    long, short = lengths.max(), np.unique(lengths[lengths > 0])[0]
    assert long == pytest.approx(2 * short, abs=2)  # rounded to whole pixels
    assert bars.any(axis=1).mean() < 0.7  # the third has no bar


def test_stacked_parts_have_their_own_colours_and_add_up(tmp_path: Path) -> None:
    draw_charts([Bars("clips", ["a"], {"train": [3.0], "val": [1.0]})], tmp_path / "x.png")
    picture = pixels(tmp_path / "x.png")
    first, second = (area(picture, colour)[120:].sum(axis=1).max() for colour in _COLOURS[:2])  # below the legend
    assert first == pytest.approx(3 * second, rel=0.02)


def test_a_histogram_has_columns_as_high_as_its_counts(tmp_path: Path) -> None:
    draw_charts([Histogram("speed [m/s]", [0.0, 1.0, 2.0, 3.0], [10, 5, 0])], tmp_path / "x.png")
    heights = area(pixels(tmp_path / "x.png"), _COLOURS[0]).sum(axis=0)
    assert set(np.unique(heights[heights > 0])) <= {
        heights.max(),
        *range(heights.max() // 2 - 2, heights.max() // 2 + 3),
    }
    assert (heights > 0).sum() < 0.6 * len(heights)


def test_several_charts_share_a_sheet_with_a_title(tmp_path: Path) -> None:
    bars, histogram = Bars("a", ["x"], {"": [1.0]}), Histogram("b", [0.0, 1.0], [3])
    draw_charts([bars], tmp_path / "one.png")
    draw_charts([bars, histogram, bars], tmp_path / "three.png", "A title")
    one, three = pixels(tmp_path / "one.png"), pixels(tmp_path / "three.png")
    assert three.shape[1] == 2 * one.shape[1]
    assert three.shape[0] > 2 * one.shape[0]


def test_values_of_nothing_and_very_long_labels_are_drawn(tmp_path: Path) -> None:
    charts = [Bars("none", ["a" * 200, "b"], {"": [0.0, 0.0]}), Histogram("none", [0.0, 1.0], [0])]
    draw_charts(charts, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.parametrize("top", [1e-9, 0.03, 0.7, 1.0, 3.0, 5.0, 9.99, 10.0, 123.0, 99_999.0, 3.2e7])
def test_marks_of_an_axis_are_few_round_and_reach_the_top(top: float) -> None:
    ticks = _ticks(top)
    assert ticks[0] == 0 and 2 <= len(ticks) <= 6
    step = ticks[1] / 10 ** np.floor(np.log10(ticks[1]) + 1e-9)
    assert round(step, 6) in (1, 2, 5, 10)
    assert ticks[-1] >= top * (1 - 1e-6) and ticks[-2] < top


@pytest.mark.parametrize(
    "make",
    [
        lambda: Histogram("x", [0.0, 1.0], [1, 2]),
        lambda: Histogram("x", [0.0], []),
        lambda: Bars("x", ["a", "b"], {"": [1.0]}),
        lambda: Bars("x", [], {}),
        lambda: Bars("x", ["a"], {"": [-1.0]}),
        lambda: Bars("x", ["a"], {str(number): [1.0] for number in range(9)}),
    ],
)
def test_a_chart_that_cannot_be_drawn_is_refused(make) -> None:
    with pytest.raises(ParameterError):
        make()


def test_a_wrong_name_or_place_is_refused(tmp_path: Path) -> None:
    chart = Bars("a", ["x"], {"": [1.0]})
    for charts, name in (([chart], "x.jpg"), ([], "x.png"), ([chart], "absent/x.png")):
        with pytest.raises(ParameterError, match="png"):
            draw_charts(charts, tmp_path / name)
