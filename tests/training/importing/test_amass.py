from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError, LlamoError
from llamo_ros.motion.quality import global_mpjpe
from llamo_ros.motion.skeleton import JOINT_INDEX
from llamo_ros.training.importing.amass import Amass, take_name
from llamo_ros.training.importing.run import ImportSettings, import_collection
from llamo_ros.training.importing.takes import take_on_floor
from llamo_ros.training.source_data import TimedCaption, read_sequences


@pytest.mark.parametrize("joints", [24, 52, 55])
@pytest.mark.parametrize("rate", [60.0, 100.0, 120.0, 59.94])
def test_an_imported_take_is_the_take_at_30_fps(
    joints: int, rate: float, asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path
) -> None:
    take = asymmetric_clip(3.0, rate)
    write_amass(tmp_path / "KIT" / "3" / "walk_poses.npz", take, joints)
    (clip,) = Amass(tmp_path).read("KIT/3/walk_poses.npz")
    expected = take_on_floor(asymmetric_clip(3.0, 30.0)).joint_positions()
    assert clip.motion.frame_rate == 30.0
    count = int((len(take) - 1) * 30 / rate + 1e-9) + 1  # the last frame may lie between two of the take
    assert len(clip.motion) == count
    # Slerp between frames of 60 FPS costs 0.1 mm at these speeds, the floor's percentile up to 0.2 mm.
    assert global_mpjpe(clip.motion.joint_positions(), expected[:count]) < 5e-4


def test_up_is_up_and_left_stays_left(asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path) -> None:
    write_amass(tmp_path / "a" / "walk_poses.npz", asymmetric_clip())
    (clip,) = Amass(tmp_path).read("a/walk_poses.npz")
    positions = clip.motion.joint_positions()
    head, left, right = (positions[0, JOINT_INDEX[name]] for name in ("head", "left_wrist", "right_wrist"))
    assert head[1] > 1.3  # standing on the floor
    assert left[0] > 0.2 and right[0] < -0.2  # the body's left is +x
    assert left[1] > head[1] > right[1] + 0.1  # the left arm is the raised one
    assert clip.motion.root_positions[-1, 2] > 1.0  # walks forward, along +z


def test_a_take_without_captions_is_cut_into_equal_pieces_of_one_take(
    asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path
) -> None:
    write_amass(tmp_path / "a" / "b" / "long_poses.npz", asymmetric_clip(7.0))
    clips = Amass(tmp_path, longest_s=2.0).read("a/b/long_poses.npz")
    assert [len(clip.motion) for clip in clips] == [52, 53, 53, 52]
    assert {clip.take for clip in clips} == {"a/b/long"}
    assert len({clip.id for clip in clips}) == len(clips) == 4
    for clip in clips:
        assert np.abs(clip.motion.root_positions[0, [0, 2]]).max() < 1e-9


def test_captions_with_times_become_clips_of_their_own(
    asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path
) -> None:
    write_amass(tmp_path / "a" / "walk_poses.npz", asymmetric_clip(4.0))
    table = tmp_path / "texts.csv"
    table.write_text(
        "file,text,start_s,end_s\na/walk_poses.npz,a person walks,,\n"
        "a/walk_poses.npz,a person starts,0,1\na/walk_poses.npz,the beginning,0,1\n"
        'a/walk_poses.npz,"a person, later",2.5,4.0\n'
    )
    clips = Amass(tmp_path, table).read("a/walk_poses.npz")
    assert [[caption.text for caption in clip.captions] for clip in clips] == [
        ["a person walks"],
        ["a person starts", "the beginning"],
        ["a person, later"],
    ]
    assert [len(clip.motion) for clip in clips] == [120, 30, 45]
    assert [clip.start_s for clip in clips] == [0.0, 0.0, 2.5]
    assert clips[1].captions[0] == TimedCaption("a person starts")  # it stands for all of its own clip


def test_a_piece_keeps_the_floor_of_its_take(asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path) -> None:
    take = asymmetric_clip(4.0)
    roots = take.root_positions.copy()
    roots[240:] += [0.0, 0.4, 0.0]  # up on a step after 2 s
    write_amass(tmp_path / "a" / "step_poses.npz", type(take)(take.rotations, roots, take.frame_rate))
    table = tmp_path / "texts.csv"
    table.write_text("file,text,start_s,end_s\na/step_poses.npz,stands on a step,3.0,4.0\n")
    (clip,) = Amass(tmp_path, table).read("a/step_poses.npz")
    assert clip.motion.joint_positions()[..., 1].min() == pytest.approx(0.4, abs=0.03)  # the walk bobs by 2 cm


def test_babel_labels_are_read_for_their_spans(
    asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path
) -> None:
    write_amass(tmp_path / "CMU" / "01" / "01_01_poses.npz", asymmetric_clip(4.0))
    labels = [
        {"raw_label": "walk forward", "start_t": 0, "end_t": 2.0},
        {"raw_label": "transition", "start_t": 2.0, "end_t": 2.5},
        {"raw_label": "blink", "start_t": 2.5, "end_t": 2.5},
        {"raw_label": "raise the left arm", "start_t": 2.5, "end_t": 4.0},
    ]
    entry = {
        "feat_p": "CMU/CMU/01/01_01_poses.npz",
        "seq_ann": {"labels": [{"raw_label": "exercise"}]},
        "frame_ann": {"labels": labels},
    }
    (tmp_path / "train.json").write_text(json.dumps({"17": entry}))
    clips = Amass(tmp_path, tmp_path / "train.json").read("CMU/01/01_01_poses.npz")
    assert [clip.captions[0].text for clip in clips] == ["exercise", "walk forward", "raise the left arm"]
    assert [len(clip.motion) for clip in clips] == [120, 60, 45]


def test_files_without_motion_are_no_takes(asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path) -> None:
    write_amass(tmp_path / "KIT" / "3" / "walk_poses.npz", asymmetric_clip(1.0))
    for name in ("shape.npz", "neutral_stagei.npz"):
        np.savez(tmp_path / "KIT" / "3" / name, betas=np.zeros(16))
    assert list(Amass(tmp_path).keys()) == ["KIT/3/walk_poses.npz"]


@pytest.mark.parametrize("path", ["KIT/3/kick high_poses.npz", "KIT/3/kick_high_stageii.npz", "./KIT/3/kick_high.npy"])
def test_a_take_has_one_name_in_all_releases(path: str) -> None:
    assert take_name(path) == "KIT/3/kick_high"


def test_a_damaged_file_is_reported_and_the_rest_imported(
    asymmetric_clip: Callable, write_amass: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    write_amass(tmp_path / "amass" / "good_poses.npz", asymmetric_clip())
    (tmp_path / "amass" / "bad_poses.npz").write_bytes(b"no archive")
    bad = asymmetric_clip(2.0)
    write_amass(tmp_path / "amass" / "nan_poses.npz", bad, trans=np.full((len(bad), 3), np.nan))
    import_collection(Amass(tmp_path / "amass"), tmp_path / "out", settings, {})
    assert [s.row["source_file"] for s in read_sequences(tmp_path / "out")] == ["good_poses.npz"]
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert {row["source_file"]: row["reasons"][0]["reason"] for row in dropped} == {
        "bad_poses.npz": "unreadable",
        "nan_poses.npz": "unreadable",
    }
    assert "NaN" in dropped[1]["reasons"][0]["text"]


@pytest.mark.parametrize("rate", [1e-6, 1e9])
def test_a_frame_rate_of_no_recording_does_not_end_the_import(
    rate: float, asymmetric_clip: Callable, write_amass: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "amass" / "KIT"
    write_amass(folder / "walk_poses.npz", asymmetric_clip())
    write_amass(folder / "wrong_poses.npz", replace(asymmetric_clip(), frame_rate=rate))
    import_collection(Amass(tmp_path / "amass"), tmp_path / "out", settings, {})
    assert [sequence.row["source_file"] for sequence in read_sequences(tmp_path / "out")] == ["KIT/walk_poses.npz"]
    (dropped,) = map(json.loads, (tmp_path / "out" / "dropped.jsonl").read_text().splitlines())
    assert "frame rate" in dropped["reasons"][0]["text"]


def test_captions_of_another_folder_are_refused(
    asymmetric_clip: Callable, write_amass: Callable, tmp_path: Path
) -> None:
    write_amass(tmp_path / "walk_poses.npz", asymmetric_clip(1.0))
    (tmp_path / "texts.csv").write_text("file,text\nother/run_poses.npz,a person runs\n")
    with pytest.raises(DatasetError, match="no file that"):
        Amass(tmp_path, tmp_path / "texts.csv")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LlamoError, match="not a folder"):
        list(Amass(tmp_path / "absent").keys())
