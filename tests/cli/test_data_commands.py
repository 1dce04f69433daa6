from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.cli import main
from llamo_ros.motion.bvh import export_bvh
from llamo_ros.motion.clip import MotionClip
from llamo_ros.training.pack import open_pack
from llamo_ros.training.source_data import read_sequences


@pytest.fixture
def takes(random_clip: Callable[..., MotionClip], tmp_path: Path) -> Path:
    """Four BVH files, one of which jumps, and their captions."""
    (tmp_path / "takes").mkdir()
    for number in range(4):
        clip = random_clip(number, 90)
        roots = clip.root_positions * [1.0, 0.0, 1.0] + [0.0, 0.9, 0.0]  # up and down by 0.3 m would count as floating
        roots[45:] += 5.0 * (number == 3)
        export_bvh(MotionClip(clip.rotations, roots), tmp_path / "takes" / f"take{number}.bvh")
    rows = "".join(f"take{number}.bvh,a person moves the left arm,train,move\n" for number in range(4))
    (tmp_path / "captions.csv").write_text(f"file,text,split,content\n{rows}")
    return tmp_path


def test_bvh_files_are_imported_checked_described_and_packed_by_command(
    takes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(takes)
    words = ["data", "import", "bvh", "takes", "--captions", "captions.csv", "--joint-map", "smpl"]
    words += ["--name", "mine", "--licence", "CC0-1.0", "--out", "source"]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "kept: 3 clips" in output and "root jumps" in output and "3 captions" in output
    assert [sequence.content for sequence in read_sequences("source")] == ["move"] * 3

    assert main(["data", "check", "source", "--out", "dropped.jsonl", "--no-keep-static"]) == 0
    assert "mine: 3 clips" in capsys.readouterr().out
    (takes / "dropped.jsonl").write_text(json.dumps({"id": "mine_take1", "reasons": [], "seconds": 1.0}) + "\n")
    assert main(["data", "pack", "source", "--out", "packed", "--licence", "open", "--without", "dropped.jsonl"]) == 0
    output = capsys.readouterr().out
    assert "2 sequences" in output and "2 under mine: CC0-1.0" in output and "1 left out: named by --without" in output

    for data in ("source", "packed"):
        assert main(["data", "stats", data, "--out", f"{data}_stats"]) == 0
        assert "root speed [m/s]" in capsys.readouterr().out
        assert {path.name for path in (takes / f"{data}_stats").iterdir()} == {
            "statistics.json",
            "amount.png",
            "measures.png",
        }
    assert json.loads((takes / "packed_stats" / "statistics.json").read_text())["side_words"]["mine"]["left"] == 2


def test_an_import_without_a_licence_is_refused(takes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "import", "bvh", str(takes / "takes"), "--captions", str(takes / "captions.csv")]
    with pytest.raises(SystemExit):
        main([*words, "--out", str(takes / "out")])
    assert "--licence" in capsys.readouterr().err
    assert main([*words, "--out", str(takes / "out"), "--licence", ""]) == 2
    assert "licence is empty" in capsys.readouterr().err


def test_a_missing_collection_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--licence", "MIT", "--out", str(tmp_path / "out")]
    assert main(["data", "import", "amass", str(tmp_path / "absent"), *out]) == 2
    assert "not a folder" in capsys.readouterr().err
    assert main(["data", "import", "humanml3d", str(tmp_path), "--amass", str(tmp_path), *out]) == 2
    assert "index.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shares_that_do_not_add_up_are_refused(takes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "import", "bvh", str(takes / "takes"), "--captions", str(takes / "captions.csv"), "--licence", "x"]
    assert main([*words, "--out", str(takes / "out"), "--shares", "0.5", "0.5", "0.5"]) == 2
    assert "add to 1" in capsys.readouterr().err


def test_the_default_pack_is_the_one_that_the_library_writes(takes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(takes)
    words = ["data", "import", "bvh", "takes", "--captions", "captions.csv", "--licence", "mine", "--out", "source"]
    assert main(words) == 0
    assert main(["data", "pack", "source"]) == 0
    pack = open_pack(Path("data/packed"))
    assert [row.kind for row in pack.sequences] == ["bvh"] * 3
    assert np.isfinite(pack.features).all()
