from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import POSITIONS, VELOCITIES, encode_clip
from llamo_ros.motion.rotations import matrix_to_axis_angle
from llamo_ros.training.pack import is_free_licence, mirror_features, open_pack, pack_data


@pytest.fixture
def source(tmp_path: Path, random_clip: Callable[..., MotionClip]) -> Path:
    """A source data folder of four short sequences, one of each kind and split that matters."""
    folder = tmp_path / "source"
    folder.mkdir()
    rotvec, trans, rows = [], [], []
    kinds = [("h3d", "train"), ("bandai", "train"), ("bandai", "test"), ("hdm05", "train")]
    for number, (kind, split) in enumerate(kinds):
        clip = random_clip(number, 40 + number)
        start = sum(map(len, trans))
        rotvec.append(np.round(matrix_to_axis_angle(clip.rotations) * 32767 / np.pi).astype(np.int16))
        trans.append(clip.root_positions.astype(np.float32))
        rows.append(
            {"id": f"clip{number}", "kind": kind, "split": split, "fps": 30, "shard": "a.npz", "start": start,
             "length": len(clip), "captions": [{"text": "a person moves", "start": None, "end": None}],
             "licence": "test"}
        )  # fmt: skip
    np.savez(folder / "a.npz", rotvec_i16=np.concatenate(rotvec), trans=np.concatenate(trans))
    (folder / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_pack_holds_the_features_of_every_clip_of_its_licence_set(source: Path, tmp_path: Path) -> None:
    pack = pack_data(source, tmp_path / "pack")
    assert [row.id for row in pack.sequences] == ["clip0", "clip1", "clip2"]  # never the zero-shot set
    assert [len(pack.of(row)) for row in pack.sequences] == [40, 41, 42]
    assert [row.id for row in pack.split("test")] == ["clip2"]
    assert np.isfinite(pack.features).all()
    assert (pack.std > 0).all()


def test_the_open_pack_holds_no_non_commercial_clip(source: Path, tmp_path: Path) -> None:
    assert [row.kind for row in pack_data(source, tmp_path / "pack", "open").sequences] == ["h3d"]


def test_mirrored_features_are_the_features_of_the_mirrored_clip(random_clip: Callable[..., MotionClip]) -> None:
    clip = random_clip(3)
    mirrored, expected = mirror_features(encode_clip(clip)), encode_clip(clip.mirrored())
    exact = np.ones(272, bool)
    exact[POSITIONS] = exact[VELOCITIES] = False
    np.testing.assert_allclose(mirrored[:, exact], expected[:, exact], atol=1e-12)
    # The skeleton's two sides differ by up to 9 mm per bone, so positions of the mirrored body do too.
    assert np.abs(mirrored - expected)[:, POSITIONS].max() < 0.05
    np.testing.assert_allclose(mirror_features(mirrored), encode_clip(clip), atol=1e-12)


def test_statistics_come_from_training_clips_and_their_mirror_images_only(source: Path, tmp_path: Path) -> None:
    pack = pack_data(source, tmp_path / "pack")
    train = np.concatenate([pack.of(row) for row in pack.split("train")]).astype(np.float64)
    both = np.concatenate([train, mirror_features(train)])
    np.testing.assert_allclose(pack.mean, both.mean(0), atol=1e-5)  # stored in float32


@pytest.mark.parametrize("damage", ["no folder", "no features", "other version", "cut features"])
def test_a_damaged_pack_is_refused_with_a_sentence(source: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "pack"
    if damage != "no folder":
        pack_data(source, folder)
    match damage:
        case "no features":
            (folder / "features.npy").unlink()
        case "other version":
            (folder / "index.json").write_text(json.dumps({"version": 99}))
        case "cut features":
            np.save(folder / "features.npy", np.zeros((3, 272), np.float32))
    with pytest.raises(DatasetError):
        open_pack(folder)


def test_an_unknown_licence_set_lists_those_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="noncommercial, open"):
        pack_data(source, tmp_path / "pack", "secret")


def renamed(source: Path, folder: Path, **changes: object) -> Path:
    """A copy of a source folder with fields of every row changed; ids get the folder's name before them."""
    folder.mkdir()
    (folder / "a.npz").write_bytes((source / "a.npz").read_bytes())
    rows = [json.loads(line) for line in (source / "index.jsonl").read_text().splitlines()]
    lines = (json.dumps(row | {"id": f"{folder.name}_{row['id']}"} | changes) for row in rows)
    (folder / "index.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("licence", "is_free"),
    [
        ("MIT", True),
        ("cc by 4.0", True),
        ("CC0-1.0", True),
        ("CC BY-NC 4.0", False),
        ("CC BY-SA 4.0", False),
        ("CC BY-ND 4.0", False),
        ("MIT, but not on Sundays", False),
        ("AMASS", False),
        ("", False),
    ],
)
def test_only_licences_known_to_be_free_are_free(licence: str, is_free: bool) -> None:
    assert is_free_licence(licence) is is_free


@pytest.mark.parametrize(("licence", "in_open"), [("CC0-1.0", True), ("AMASS, research only", False)])
def test_an_import_is_packed_by_the_licence_in_its_rows(
    source: Path, tmp_path: Path, licence: str, in_open: bool
) -> None:
    mine = renamed(source, tmp_path / "mine", kind="mine", licence=licence)
    assert [row.kind for row in pack_data(mine, tmp_path / "all").sequences] == ["mine"] * 4
    open_set = pack_data([source, mine], tmp_path / "open", "open")
    assert {row.kind for row in open_set.sequences} == ({"h3d", "mine"} if in_open else {"h3d"})
    assert (f"mine: {licence}" in open_set.licences) is in_open
    assert any(licence in reason for reason in open_set.left_out) is not in_open


def test_the_licence_of_a_known_kind_is_not_what_a_row_says(source: Path, tmp_path: Path) -> None:
    freed = renamed(source, tmp_path / "freed", licence="CC0-1.0")
    assert {row.kind for row in pack_data(freed, tmp_path / "open", "open").sequences} == {"h3d"}


def test_a_pack_says_what_it_left_out_and_why(source: Path, tmp_path: Path) -> None:
    pack = pack_data(source, tmp_path / "pack", without=frozenset({"clip1"}))
    assert [row.id for row in pack.sequences] == ["clip0", "clip2"]
    assert dict(pack.left_out) == {"named by --without": 1, "of hdm05, which is for tests only": 1}
    assert dict(pack.licences) == {"h3d: test": 1, "bandai: test": 1}
    assert dict(open_pack(tmp_path / "pack").left_out) == dict(pack.left_out)


def test_several_sources_are_packed_one_after_the_other(source: Path, tmp_path: Path) -> None:
    other = renamed(source, tmp_path / "other", kind="other")
    one, both = pack_data(source, tmp_path / "one"), pack_data([source, other], tmp_path / "both")
    assert len(both.sequences) == len(one.sequences) + 4
    for row, expected in zip(both.sequences, one.sequences, strict=False):
        np.testing.assert_array_equal(both.of(row), one.of(expected))


def test_two_clips_of_one_name_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="two clips have the id 'clip0'"):
        pack_data([source, source], tmp_path / "pack")


def test_an_empty_pack_says_what_was_left_out(source: Path, tmp_path: Path) -> None:
    other = renamed(source, tmp_path / "other", kind="other", licence="secret")
    with pytest.raises(DatasetError, match=r"4 of other, whose licence is not free \(secret\)"):
        pack_data(other, tmp_path / "pack", "open")
    assert not (tmp_path / "pack" / "features.npy").exists()


def test_a_pack_of_the_time_before_licences_were_kept_opens(source: Path, tmp_path: Path) -> None:
    pack_data(source, tmp_path / "pack")
    header = json.loads((tmp_path / "pack" / "index.json").read_text())
    del header["licences"], header["left_out"]
    (tmp_path / "pack" / "index.json").write_text(json.dumps(header))
    assert dict(open_pack(tmp_path / "pack").licences) == {}
