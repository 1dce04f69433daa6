from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import geodesic_angle, rotation_about_y
from llamo_ros.training import source_data
from llamo_ros.training.source_data import read_sequences, sequence_count, stored_arrays

ROW = {
    "id": "one",
    "kind": "bandai",
    "split": "train",
    "fps": 30,
    "shard": "motion.npz",
    "start": 2,
    "length": 5,
    "captions": [{"text": "a person wallks — slowly", "start": None, "end": None}],
    "licence": "CC BY-NC 4.0",
    "content": "walk",
    "style": "tired",
}


def write(folder: Path, rows: list[dict], rotvec: np.ndarray | None = None) -> Path:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "index.jsonl").write_text(lines, encoding="utf-8")
    if rotvec is None:
        rotvec = np.zeros((9, 22, 3), dtype=np.int16)
        rotvec[:, 0, 1] = np.arange(9) * 1000
    trans = np.tile(np.arange(len(rotvec), dtype=np.float32)[:, None], (1, 3))
    np.savez(folder / "motion.npz", rotvec_i16=rotvec, trans=trans)
    return folder


def test_a_sequence_is_its_own_rows_of_the_shard_as_rotations_and_metres(tmp_path: Path) -> None:
    (sequence,) = read_sequences(write(tmp_path, [ROW]))
    assert len(sequence) == len(sequence.clip) == 5
    np.testing.assert_array_equal(sequence.clip.root_positions[:, 0], [2, 3, 4, 5, 6])
    expected = rotation_about_y(np.arange(2, 7) * 1000 * np.pi / 32767)
    assert geodesic_angle(sequence.clip.rotations[:, 0], expected).max() < 1e-6  # chord form of float64


def test_captions_and_licence_are_kept_as_they_are_written(tmp_path: Path) -> None:
    (sequence,) = read_sequences(write(tmp_path, [ROW]))
    assert sequence.captions == ("a person wallks — slowly",)
    assert (sequence.licence, sequence.content, sequence.style) == ("CC BY-NC 4.0", "walk", "tired")


def test_a_row_without_labels_has_empty_ones(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key not in ("content", "style")}
    (sequence,) = read_sequences(write(tmp_path, [row]))
    assert (sequence.content, sequence.style) == ("", "")


def test_shards_of_rows_that_are_not_kept_are_never_opened(tmp_path: Path) -> None:
    write(tmp_path, [ROW, {**ROW, "id": "two", "shard": "absent.npz"}])
    assert [s.id for s in read_sequences(tmp_path, keep=lambda row: row["id"] == "one")] == ["one"]
    with pytest.raises(DatasetError, match=r"absent\.npz"):
        list(read_sequences(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 6}, "frames 6 to 11"),
        ({"start": -1}, "frames -1"),
        ({"length": 0}, "frames 2 to 2"),
        ({"length": "5"}, "wrong type for length"),
        ({"id": 7}, "wrong type for id"),
        ({"captions": "a person walks"}, "captions"),
        ({"captions": [{"text": None, "start": None, "end": None}]}, "captions"),
        ({"shard": "../motion.npz"}, "without folders"),
    ],
)
def test_a_malformed_row_is_refused_and_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        list(read_sequences(write(tmp_path, [{**ROW, **change}])))


def test_missing_fields_and_broken_json_are_named_with_their_line(tmp_path: Path) -> None:
    write(tmp_path, [ROW, {"id": "two"}])
    with pytest.raises(DatasetError, match="line 2 has no kind"):
        list(read_sequences(tmp_path))
    (tmp_path / "index.jsonl").write_text(json.dumps(ROW)[:-5])
    with pytest.raises(DatasetError, match="line 1 is not JSON"):
        list(read_sequences(tmp_path))


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"index\.jsonl"):
        list(read_sequences(tmp_path))


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [ROW])
    whole = (tmp_path / "motion.npz").read_bytes()
    (tmp_path / "motion.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="cannot read shard"):
        list(read_sequences(tmp_path))


def test_a_shard_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"int16 \(N, 22, 3\)"):
        list(read_sequences(write(tmp_path, [ROW], rotvec=np.zeros((9, 22, 3), dtype=np.float32))))


def test_stored_arrays_read_back_to_a_tenth_of_a_milliradian(random_clip: Callable, tmp_path: Path) -> None:
    clip = random_clip(0)
    rotvec, trans = stored_arrays(clip)
    np.savez(tmp_path / "motion.npz", rotvec_i16=rotvec, trans=trans)
    (tmp_path / "index.jsonl").write_text(json.dumps({**ROW, "start": 0, "length": len(clip)}))
    (sequence,) = read_sequences(tmp_path)
    # Half a unit of 1e-4 rad on each of three axes.
    assert geodesic_angle(sequence.clip.rotations, clip.rotations).max() < 1e-4
    np.testing.assert_allclose(sequence.clip.root_positions, clip.root_positions, atol=1e-6)


def test_a_half_turn_is_stored_within_the_range_of_its_integers() -> None:
    rotations = np.tile(np.eye(3), (2, 22, 1, 1))
    rotations[:, 0] = np.diag([-1.0, 1.0, -1.0])
    rotvec, _ = stored_arrays(MotionClip(rotations, np.zeros((2, 3))))
    assert np.abs(rotvec[:, 0, 1]).tolist() == [32767, 32767]


def test_few_shards_are_held_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = source_data._read_shard
    monkeypatch.setattr(source_data, "_read_shard", lambda path: (reads.append(path.name), read(path))[1])
    write(tmp_path, [{**ROW, "id": str(n), "shard": f"{n % 8}.npz"} for n in range(16)])
    for number in range(8):
        (tmp_path / f"{number}.npz").write_bytes((tmp_path / "motion.npz").read_bytes())
    assert len(list(read_sequences(tmp_path))) == 16
    assert len(reads) == 16  # 8 shards in turn do not fit, so each is read twice
    reads.clear()
    write(tmp_path, [{**ROW, "id": str(n), "shard": f"{n % 4}.npz"} for n in range(16)])
    assert len(list(read_sequences(tmp_path))) == 16
    assert len(reads) == 4


def test_rows_are_counted_without_reading_motion(tmp_path: Path) -> None:
    write(tmp_path, [ROW, {**ROW, "id": "two", "shard": "absent.npz"}])
    assert sequence_count(tmp_path) == 2
    with pytest.raises(DatasetError, match="Give the folder"):
        sequence_count(tmp_path / "absent")


def test_a_caption_with_a_line_separator_of_unicode_is_one_caption(tmp_path: Path) -> None:
    row = {**ROW, "captions": [{"text": "a person\u2028walks", "start": None, "end": None}]}
    (sequence,) = read_sequences(write(tmp_path, [row]))
    assert sequence.captions == ("a person\u2028walks",)


def test_the_real_data_has_the_documented_sequences(shared_folder: Path) -> None:
    sequences = list(read_sequences(shared_folder / "data"))
    assert len(sequences) == 3843
    assert {s.kind for s in sequences} == {"h3d", "cmu_trial", "hdm05", "bandai"}
    for sequence in sequences[::400]:
        assert np.abs(sequence.clip.root_positions[0, [0, 2]]).max() < 1e-3  # the first frame is at the origin
