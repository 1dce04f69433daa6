from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.files import load_motion, save_motion
from llamo_ros.motion.placement import canonicalised


@pytest.mark.parametrize("name", ["clip.bvh", "clip.npz", "CLIP.NPZ", "two.dots.bvh"])
def test_motion_saved_by_suffix_loads_again(random_clip: Callable, tmp_path: Path, name: str) -> None:
    clip = canonicalised(random_clip(0))  # as a BVH file is loaded
    save_motion(clip, tmp_path / name)
    np.testing.assert_allclose(load_motion(tmp_path / name).joint_positions(), clip.joint_positions(), atol=1e-6)


def test_paths_may_be_text(random_clip: Callable, tmp_path: Path) -> None:
    save_motion(random_clip(0), f"{tmp_path}/clip.npz")
    assert len(load_motion(f"{tmp_path}/clip.npz")) == 40


def test_table_is_written_but_not_loaded(random_clip: Callable, tmp_path: Path) -> None:
    save_motion(random_clip(0), tmp_path / "clip.csv")
    assert (tmp_path / "clip.csv").stat().st_size > 0
    with pytest.raises(MotionFileError, match="suffix '.csv'; motion can be read as .bvh, .npz"):
        load_motion(tmp_path / "clip.csv")


@pytest.mark.parametrize(("name", "found"), [("clip.fbx", "suffix '.fbx'"), ("clip", "no suffix")])
def test_unknown_suffix_lists_the_known_ones(random_clip: Callable, tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(MotionFileError, match=f"{found}; motion can be read as .bvh, .npz"):
        load_motion(tmp_path / name)
    with pytest.raises(MotionFileError, match=f"{found}; motion can be written as .bvh, .npz, .csv"):
        save_motion(random_clip(0), tmp_path / name)
    assert not (tmp_path / name).exists()
