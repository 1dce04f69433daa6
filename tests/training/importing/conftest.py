"""Small collections on disk, made from motion that is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.npz import PELVIS_IN_SMPL, PELVIS_IN_SMPLX
from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX
from llamo_ros.training.filters import FilterSettings, load_filter_settings
from llamo_ros.training.importing.run import ImportSettings

# The core's world (y up) in AMASS's axes (z up): x stays, y becomes z, z becomes -y.
TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


@pytest.fixture
def filters() -> FilterSettings:
    return load_filter_settings()


@pytest.fixture
def settings(filters: FilterSettings) -> ImportSettings:
    return ImportSettings("mine", "CC BY 4.0", filters, frames_per_shard=200)


@pytest.fixture(scope="session")
def asymmetric_clip() -> Callable[..., MotionClip]:
    """A function ``(seconds, frame_rate, phase)``: walks forward and to the left, left arm up, right arm swinging."""
    return make_asymmetric_clip


@pytest.fixture(scope="session")
def write_amass() -> Callable[..., None]:
    """A function ``(path, clip, joints)`` that writes a clip as AMASS has it: 24 joints SMPL, 52 SMPL-H, 55 SMPL-X."""
    return write_as_amass


def make_asymmetric_clip(seconds: float = 3.0, frame_rate: float = 120.0, phase: float = 0.0) -> MotionClip:
    time = np.arange(round(seconds * frame_rate)) / frame_rate
    axis_angle = np.zeros((len(time), JOINT_COUNT, 3))
    axis_angle[:, JOINT_INDEX["left_shoulder"], 2] = 1.2
    axis_angle[:, JOINT_INDEX["right_shoulder"], 1] = 0.6 * np.sin(3 * time + phase)
    axis_angle[:, JOINT_INDEX["left_hip"], 0] = 0.3 * np.sin(4 * time + phase)
    axis_angle[:, JOINT_INDEX["right_hip"], 0] = -0.3 * np.sin(4 * time + phase)
    axis_angle[:, JOINT_INDEX["head"], 1] = 0.5
    axis_angle[:, 0, 1] = 0.2 * time
    root = np.column_stack([0.1 * time, 0.95 + 0.02 * np.cos(8 * time), 0.4 * time])
    return MotionClip(axis_angle_to_matrix(axis_angle), root, frame_rate)


def write_as_amass(path: Path, clip: MotionClip, joints: int = 52, **more: np.ndarray) -> None:
    rotations = clip.rotations.copy()
    rotations[:, 0] = TO_Z_UP @ rotations[:, 0]
    poses = np.random.default_rng(0).normal(size=(len(clip), joints, 3))  # hands and face hold anything
    poses[:, :JOINT_COUNT] = matrix_to_axis_angle(rotations)
    pelvis = PELVIS_IN_SMPLX if joints == 55 else PELVIS_IN_SMPL
    rate_key = "mocap_frame_rate" if joints == 55 else "mocap_framerate"
    arrays = {
        "poses": poses.reshape(len(clip), -1),
        "trans": clip.root_positions @ TO_Z_UP.T - pelvis,
        "betas": np.full(16, 0.7),
        "gender": np.array("female"),
        rate_key: np.array(clip.frame_rate),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**arrays, **more})
