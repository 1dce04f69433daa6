from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.quality import global_mpjpe
from llamo_ros.training.importing.humanml3d import HumanML3D
from llamo_ros.training.importing.run import ImportSettings, import_collection, summarise
from llamo_ros.training.importing.takes import Rejected, piece, take_on_floor
from llamo_ros.training.source_data import TimedCaption, read_sequences

INDEX = """source_path,start_frame,end_frame,new_name
./pose_data/KIT/3/walk_poses.npy,20,60,000001.npy
./pose_data/KIT/3/walk_poses.npy,0,40,000002.npy
./pose_data/MPI_HDM05/bk/HDM_bk_01_poses.npy,0,-1,000003.npy
./pose_data/humanact12/humanact12/P01.npy,0,-1,000004.npy
./pose_data/CMU/01/01_01_poses.npy,0,100,000005.npy
"""


@pytest.fixture
def folder(asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path) -> Path:
    """HumanML3D's repository with five rows, and an AMASS folder that has the files of three."""
    write_amass(tmp_path / "amass" / "KIT" / "3" / "walk_poses.npz", asymmetric_clip(4.0, 100.0))
    write_amass(tmp_path / "amass" / "MPI_HDM05" / "bk" / "HDM_bk_01_poses.npz", asymmetric_clip(6.0, 120.0))
    inner = tmp_path / "h3d" / "HumanML3D"
    (inner / "texts").mkdir(parents=True)
    (tmp_path / "h3d" / "index.csv").write_text(INDEX)
    for number in range(1, 6):
        side, other = ("left", "right")
        for prefix, word in (("", side), ("M", other)):
            (inner / "texts" / f"{prefix}00000{number}.txt").write_text(
                f"a person raises the {word} arm.#a/DET person/NOUN#0.0#0.0\n"
                f"a part of it#a/DET part/NOUN#0.5#1.5\nno time known#no/DET#nan#nan\n"
            )
    (inner / "train.txt").write_text("000001\nM000001\n000004\n")
    (inner / "val.txt").write_text("000002\nM000002\n")
    (inner / "test.txt").write_text("000003\nM000003\n000005\n")
    return tmp_path


def read(folder: Path, key: str, **options: bool) -> list:
    return HumanML3D(folder / "h3d", folder / "amass", **options).read(key)


def test_a_row_is_the_frames_that_its_numbers_mean(folder: Path, asymmetric_clip: Callable) -> None:
    (clip,) = read(folder, "000001")
    take = take_on_floor(asymmetric_clip(4.0, 30.0))
    expected = piece(take, 30, 90)  # frames 20 to 60 at 20 FPS are seconds 1 to 3
    assert abs(len(clip.motion) - 60) <= 1
    count = len(clip.motion)
    assert global_mpjpe(clip.motion.joint_positions(), expected.joint_positions()[:count]) < 5e-4
    assert (clip.start_s, clip.take, clip.split) == (1.0, "KIT/3/walk", "train")


def test_data_sets_that_begin_with_a_calibration_pose_lose_it(folder: Path) -> None:
    (clip,) = read(folder, "000003")
    assert clip.start_s == 3.0
    assert clip.motion.duration == pytest.approx(6.0 - 3.0 - 0.05, abs=0.04)  # -1 leaves out the last of 20 FPS


def test_rates_that_20_does_not_divide_count_as_humanml3d_counts_them(
    folder: Path, asymmetric_clip: Callable, write_amass: Callable
) -> None:
    write_amass(folder / "amass" / "KIT" / "3" / "walk_poses.npz", asymmetric_clip(6.0, 59.0))
    (clip,) = read(folder, "000001")  # int(59 / 20) = 2: every second frame, so frame 20 is number 40
    assert clip.start_s == pytest.approx(40 / 59)
    assert clip.motion.duration == pytest.approx(80 / 59, abs=0.05)
    part = clip.captions[1]
    assert (part.start, part.end) == pytest.approx((0.5 * 40 / 59, 1.5 * 40 / 59), abs=1e-3)  # rounded to 1 ms


def test_captions_keep_their_times_and_unknown_ones_have_none(folder: Path) -> None:
    (clip,) = read(folder, "000001")
    assert clip.captions == (
        TimedCaption("a person raises the left arm."),
        TimedCaption("a part of it", 0.5, 1.5),
        TimedCaption("no time known"),
    )


def test_mirrored_clips_are_mirror_images_with_their_own_texts(folder: Path) -> None:
    clip, mirrored = read(folder, "000001", mirrored=True)
    assert mirrored.id == "M000001"
    assert mirrored.captions[0].text == "a person raises the right arm."
    assert (mirrored.take, mirrored.split) == (clip.take, clip.split)
    expected: MotionClip = clip.motion.mirrored()
    np.testing.assert_allclose(mirrored.motion.rotations, expected.rotations)


def test_rows_without_motion_are_reported_with_the_reason(folder: Path) -> None:
    for key, reason in (("000004", "no rotations"), ("000005", "missing file")):
        (rejected,) = read(folder, key)
        assert isinstance(rejected, Rejected) and rejected.reason == reason


def test_files_of_later_releases_of_amass_are_found(
    folder: Path, asymmetric_clip: Callable, write_amass: Callable
) -> None:
    write_amass(folder / "amass" / "CMU" / "01" / "01_01_stageii.npz", asymmetric_clip(6.0, 120.0), 55)
    (folder / "amass" / "MPI_HDM05").rename(folder / "amass" / "HDM05")
    for key in ("000003", "000005"):
        (clip,) = read(folder, key)
        assert len(clip.motion) > 60


def test_a_take_that_the_official_splits_tear_apart_is_reported_and_can_be_kept_whole(
    folder: Path, settings: ImportSettings
) -> None:
    import_collection(HumanML3D(folder / "h3d", folder / "amass"), folder / "official", settings, {})
    assert summarise(folder / "official").torn_takes == {"KIT/3/walk": ("train", "val")}
    assert "KIT/3/walk in train, val" in (folder / "official" / "report.txt").read_text()
    whole = HumanML3D(folder / "h3d", folder / "amass", mirrored=True, official_splits=False)
    import_collection(whole, folder / "whole", settings, {})
    assert summarise(folder / "whole").torn_takes == {}
    assert len(list(read_sequences(folder / "whole"))) == 6


def test_rows_of_one_take_are_read_together(folder: Path) -> None:
    keys = list(HumanML3D(folder / "h3d", folder / "amass").keys())
    assert keys.index("000001") == keys.index("000002") + 1  # by take, then by first frame


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("h3d/index.csv", r"index\.csv \(in HumanML3D's repository"),
        ("h3d/HumanML3D/texts", "texts/"),
        ("h3d/HumanML3D/val.txt", r"val\.txt"),
        ("amass", "no motion of its own"),
    ],
)
def test_a_missing_part_is_named(folder: Path, absent: str, message: str) -> None:
    path = folder / absent
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(DatasetError, match=message):
        HumanML3D(folder / "h3d", folder / "amass")


@pytest.mark.parametrize("line", ["a person walks", "a person walks#a/DET", "a person walks#a/DET#soon#later"])
def test_a_malformed_text_is_named_with_its_line(folder: Path, line: str) -> None:
    (folder / "h3d" / "HumanML3D" / "texts" / "000001.txt").write_text(f"a person walks.#a/DET#0.0#0.0\n{line}\n")
    with pytest.raises(DatasetError, match=r"000001\.txt line 2"):
        read(folder, "000001")


def test_a_clip_in_two_split_files_is_refused(folder: Path) -> None:
    (folder / "h3d" / "HumanML3D" / "test.txt").write_text("000001\n")
    with pytest.raises(DatasetError, match=r"000001 in train\.txt and in test\.txt"):
        HumanML3D(folder / "h3d", folder / "amass")
