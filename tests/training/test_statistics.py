from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import rotation_about_y
from llamo_ros.motion.skeleton import JOINT_COUNT
from llamo_ros.training.statistics import MEASURES, DataStatistics, DescribedClip, Measure, data_statistics

STATIC_SPEED = 0.05


def moving(frames: int = 61, speed: float = 0.0, turning: float = 0.0) -> MotionClip:
    """A T-pose that is carried forward, [m/s], and turned, [rad/s]."""
    time = np.arange(frames) / 30
    rotations = np.tile(np.eye(3), (frames, JOINT_COUNT, 1, 1))
    rotations[:, 0] = rotation_about_y(turning * time)
    return MotionClip(rotations, np.column_stack([0 * time, 0.92 + 0 * time, speed * time]))


def statistics_of(*clips: DescribedClip) -> DataStatistics:
    found = DataStatistics()
    for clip in clips:
        found.add(clip, STATIC_SPEED)
    return found


def clip_of(
    motion: MotionClip, *captions: str, kind: str = "a", split: str = "train", content: str = ""
) -> DescribedClip:
    return DescribedClip(kind, split, content, captions, motion)


def test_speed_and_turning_are_those_of_the_motion() -> None:
    found = statistics_of(clip_of(moving(speed=1.5, turning=0.5)))
    assert found.values["duration"][0] == pytest.approx(61 / 30)
    assert found.values["root speed"][0] == pytest.approx(1.5, rel=1e-5)  # kept in float32
    assert found.values["turning"][0] == pytest.approx(np.degrees(0.5), rel=1e-5)


def test_counts_are_by_kind_and_split() -> None:
    found = statistics_of(
        clip_of(moving(), "a person stands"),
        clip_of(moving(speed=1.0), "a person walks", "someone walks"),
        clip_of(moving(speed=2.0), split="val"),
        clip_of(moving(speed=3.0), "runs", kind="b"),
    )
    train = found.groups["a", "train"]
    assert (train.clips, train.captions, train.words, train.silent, train.static) == (2, 3, 8, 0, 1)
    assert train.vocabulary == {"a", "person", "stands", "walks", "someone"}
    assert found.groups["a", "val"].silent == 1
    assert found.groups["b", "train"].clips == 1


def test_side_words_are_counted_in_any_spelling() -> None:
    found = statistics_of(
        clip_of(moving(), "turns Left, then counter-clockwise", "left hand up, counter clockwise; right")
    )
    assert found.sides["a"] == {"left": 2, "counterclockwise": 2, "right": 1}


def test_copies_of_a_motion_are_counted_and_told_apart_by_split() -> None:
    one, other = moving(speed=1.0), moving(turning=2.0)
    different = MotionClip(np.tile(rotation_about_y(np.array(0.3)), (61, JOINT_COUNT, 1, 1)), one.root_positions)
    found = statistics_of(
        clip_of(one), clip_of(other), clip_of(different), clip_of(different, split="test"), clip_of(moving(60))
    )
    assert (found.copies, found.torn_copies) == (2, 1)  # `one` and `other` differ in where they go only


def test_words_that_training_never_sees_are_counted() -> None:
    found = statistics_of(clip_of(moving(), "walks fast"), clip_of(moving(), "walks slowly now", split="test"))
    assert found.unseen_words() == 2


def test_a_histogram_holds_every_clip_and_whole_numbers_have_a_bin_each() -> None:
    found = statistics_of(*(clip_of(moving(30 + 7 * n), *["word " * (n + 1)]) for n in range(20)))
    for measure in MEASURES:
        edges, counts = found.histogram(measure)
        known = np.frombuffer(found.values[measure.name], np.float32)
        assert counts.sum() == (~np.isnan(known)).sum()
        assert len(edges) == len(counts) + 1
    edges, counts = found.histogram(Measure("caption length", "words", is_whole=True))
    assert counts[1:].tolist() == [1] * 20
    assert np.diff(edges) == pytest.approx(1.0)


def test_a_source_folder_and_its_pack_have_the_same_statistics(source_folder: Path, packed_folder: Path) -> None:
    source, pack = data_statistics(source_folder).record(), data_statistics(packed_folder).record()
    for name, quantiles in source["quantiles"].items():
        other = pack["quantiles"][name]
        assert other["0.5"] == pytest.approx(
            quantiles["0.5"], rel=2e-3
        )  # a pack is float32, jerk is its third difference
    del source["quantiles"], pack["quantiles"]
    assert source == pack
    assert json.loads(json.dumps(source)) == source


def test_the_tables_name_every_kind_and_measure(source_folder: Path) -> None:
    text = "\n".join(data_statistics(source_folder).lines())
    for word in ("h3d", "bandai", "train", "val", *(measure.name for measure in MEASURES), "content labels: "):
        assert word in text


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pack"):
        data_statistics(tmp_path)
    (tmp_path / "index.jsonl").touch()
    with pytest.raises(DatasetError, match="no clips"):
        data_statistics(tmp_path)
