from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llamo_ros.core.errors import DatasetError, MotionFileError
from llamo_ros.motion.bvh import export_bvh
from llamo_ros.motion.quality import global_mpjpe
from llamo_ros.training.importing.bvh_folder import BvhFolder
from llamo_ros.training.importing.run import ImportSettings, import_collection
from llamo_ros.training.importing.takes import Rejected, take_on_floor
from llamo_ros.training.source_data import read_sequences


@pytest.fixture
def folder(asymmetric_clip: Callable, tmp_path: Path) -> Path:
    """Two files, one in a folder of its own, and a table that names a third."""
    (tmp_path / "bvh" / "more").mkdir(parents=True)
    export_bvh(asymmetric_clip(3.0, 60.0), tmp_path / "bvh" / "walk.bvh")
    export_bvh(asymmetric_clip(2.0, 30.0, phase=1.0), tmp_path / "bvh" / "more" / "other.bvh")
    (tmp_path / "captions.csv").write_text(
        "file,text,take,split,content\n"
        "walk.bvh,a person walks,session 1,val,walk\n"
        'walk.bvh,"someone walks, arm up",,,\n'
        "gone.bvh,a person left,,,\n"
    )
    return tmp_path


def test_files_are_imported_with_their_rows_of_the_table(
    folder: Path, settings: ImportSettings, asymmetric_clip
) -> None:
    collection = BvhFolder(folder / "bvh", folder / "captions.csv", "smpl")
    import_collection(collection, folder / "out", settings, {})
    other, walk = read_sequences(folder / "out")
    assert walk.captions == ("a person walks", "someone walks, arm up")
    assert (walk.split, walk.content, walk.row["trial"]) == ("val", "walk", "session 1")
    assert (other.captions, other.row["source_file"]) == ((), "more/other.bvh")
    expected = take_on_floor(asymmetric_clip(3.0, 60.0)).joint_positions()
    assert global_mpjpe(walk.clip.joint_positions(), expected) < 5e-4  # rotations are stored to 1e-4 rad


def test_a_file_that_only_the_table_names_is_reported(folder: Path) -> None:
    collection = BvhFolder(folder / "bvh", folder / "captions.csv")
    assert list(collection.keys()) == ["more/other.bvh", "walk.bvh", "gone"]
    (rejected,) = collection.read("gone")
    assert isinstance(rejected, Rejected) and rejected.reason == "missing file"


def test_an_unknown_joint_map_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(MotionFileError, match="no joint map 'mixamo2'"):
        BvhFolder(folder / "bvh", folder / "captions.csv", "mixamo2")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,text\nwalk.bvh,a\n", "no file, text"),
        ("file,text,colour\nwalk.bvh,a,red\n", "unknown columns colour"),
        ("file,text\nwalk.bvh,a person walks, slowly\n", "between quotes"),
        ("file,text\n,a\n", "names no file"),
        ("file,text,start_s,end_s\nwalk.bvh,a,2,1\n", "start < end"),
        ("file,text,start_s,end_s\nwalk.bvh,a,1,\n", "start < end"),
        ("file,text,start_s,end_s\nwalk.bvh,a,soon,2\n", "'soon'"),
        ("file,text,split\nwalk.bvh,a,dev\n", "'dev'"),
        ("file,text,take\nwalk.bvh,a,one\nwalk.bvh,b,two\n", "'two'"),
        ("file,text\nrun.bvh,a\n", "no file that"),
    ],
)
def test_a_wrong_table_is_refused_with_the_reason(folder: Path, table: str, message: str) -> None:
    (folder / "captions.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        BvhFolder(folder / "bvh", folder / "captions.csv")
