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
from llamo_ros.training.pack import mirror_features, open_pack, pack_data


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
