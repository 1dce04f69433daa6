from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError
from llamo_ros.training.filter_report import DropTable, check_source, dropped_row, read_dropped, rejected_row
from llamo_ros.training.filters import STATIC, FilterSettings, Finding, load_filter_settings


@pytest.fixture
def settings() -> FilterSettings:
    return load_filter_settings()


def write_source(folder: Path, trans: np.ndarray) -> Path:
    """Two clips of 30 frames that hold still at these pelvis positions (60, 3)."""
    np.savez(folder / "a.npz", rotvec_i16=np.zeros((60, 22, 3), np.int16), trans=trans.astype(np.float32))
    rows = [
        {"id": f"clip{n}", "kind": "x", "split": "train", "fps": 30, "shard": "a.npz", "start": 30 * n, "length": 30,
         "captions": [], "licence": "none", "source_file": f"{n}.bvh"}
        for n in range(2)
    ]  # fmt: skip
    (folder / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def still(frames: int = 60) -> np.ndarray:
    return np.tile([0.0, 0.95, 0.0], (frames, 1))


def test_each_clip_of_a_folder_is_checked(tmp_path: Path, settings: FilterSettings) -> None:
    trans = still()
    trans[45:, 2] += 3.0
    checked = {row["id"]: dropped for row, dropped in check_source(write_source(tmp_path, trans), settings)}
    assert [reason["reason"] for reason in checked["clip0"]["reasons"]] == [STATIC]
    assert "root jumps" in [reason["reason"] for reason in checked["clip1"]["reasons"]]
    assert checked["clip1"]["source_file"] == "1.bvh"
    kept = {row["id"]: dropped for row, dropped in check_source(tmp_path, settings, keep_static=True)}
    assert kept["clip0"] is None and kept["clip1"] is not None


def test_a_clip_that_is_no_motion_is_reported_and_the_rest_checked(tmp_path: Path, settings: FilterSettings) -> None:
    trans = still()
    trans[10] = np.nan
    (_, first), (_, second) = check_source(write_source(tmp_path, trans), settings, keep_static=True)
    assert first["reasons"][0]["reason"] == "unreadable" and "NaN" in first["reasons"][0]["text"]
    assert second is None


def test_the_table_counts_a_clip_once_for_each_reason(settings: FilterSettings) -> None:
    fast, short = Finding("root jumps", 30.0, 12.5, "m/s"), Finding("too short", 0.1, 0.5, "s")
    rows = [
        dropped_row("a", "a.bvh", [fast, short], 6.0),
        dropped_row("b", "b.bvh", [short], 12.0),
        rejected_row("c", "c.bvh", "missing file", "it is not there"),
    ]
    table = DropTable.of(rows)
    assert (table.clips, table.seconds) == (3, 18.0)
    assert table.counts() == {"too short": 2, "missing file": 1, "root jumps": 1}
    text = "\n".join(table.lines())
    assert "3 clips, 0.3 minutes" in text and "a: too short: 0.1 s, limit 0.5" in text and "it is not there" in text
    assert DropTable().lines() == ["dropped: nothing"]


def test_a_report_reads_back_and_other_files_are_refused(tmp_path: Path, settings: FilterSettings) -> None:
    rows = [dropped_row("a", "ä.bvh", [Finding("too short", 0.1, 0.5, "s")], 0.1)]
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert list(read_dropped(tmp_path / "good.jsonl")) == rows
    for name, text in (("bad.jsonl", '{"id": "a"}\n'), ("list.jsonl", "[1]\n"), ("none.jsonl", "no json\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DatasetError, match="no report"):
            list(read_dropped(tmp_path / name))
    with pytest.raises(DatasetError):
        list(read_dropped(tmp_path / "absent.jsonl"))


def test_limits_decide_what_is_dropped(tmp_path: Path, settings: FilterSettings) -> None:
    folder = write_source(tmp_path, still())
    for shortest_s, dropped in ((0.5, False), (1.5, True)):
        limits = replace(settings, shortest_s=shortest_s)
        assert all((row is not None) is dropped for _, row in check_source(folder, limits, keep_static=True))
