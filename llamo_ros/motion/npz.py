"""Motion as NumPy archives (.npz): our own layout, and reading AMASS's and SMPL's.

==================== ============================================ =====================================================
layout               told by the keys                             conventions
==================== ============================================ =====================================================
ours (version 1)     ``llamo_motion_version`` and those below     smpl22, y up, metres, quaternions wxyz
AMASS                ``poses``, ``trans``, ``mocap_framerate``    SMPL, SMPL-H or SMPL-X axis-angle; z up
AMASS in parts       ``root_orient``, ``pose_body``, ``trans``    the same, where ``poses`` is absent
SMPL                 ``global_orient``, ``body_pose``, ``transl`` SMPL or SMPL-X axis-angle; y up
==================== ============================================ =====================================================

Hands, face and body shape of AMASS and SMPL files are not read; the body gets smpl22's lengths, and the path is kept.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError, MotionFileError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import axis_angle_to_matrix, matrix_to_quaternion_wxyz, quaternion_wxyz_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT

FloatArray = NDArray[np.floating]

FORMAT_VERSION = 1
SKELETON_NAME = "smpl22"
_VERSION_KEY = "llamo_motion_version"
_OWN_KEYS = ("skeleton", "rotations_quaternion_wxyz", "root_positions_m", "frame_rate_hz", "text")
_AMASS_RATE_KEYS = ("mocap_framerate", "mocap_frame_rate")
_SMPL_RATE_KEYS = ("frame_rate", "fps", "mocap_framerate", "mocap_frame_rate")
# SMPL turns the body about its pelvis joint, which lies here in the model's own coordinates; ``trans`` does not count
# that in. Neutral bodies of mean shape, [m]; the joint moves by 1 to 3 cm with the body shape.
PELVIS_IN_SMPL = np.array([-0.002, -0.223, 0.028])  # SMPL and SMPL-H
PELVIS_IN_SMPLX = np.array([0.003, -0.351, 0.012])
_SMPLX_POSE_JOINTS = 55  # of AMASS's ``poses``: SMPL has 24, SMPL-H 52
_SMPLX_BODY_JOINTS = 21  # of ``body_pose``: SMPL has 23
_SMPLX_ONLY_KEY = "pose_jaw"
# Columns are the file's axes in ours: z up, x sideways becomes y up, x sideways.
_Z_UP_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def save_npz(clip: MotionClip, path: str | Path) -> None:
    """Write a clip in our own layout, which keeps all of it in double precision.

    Keys: ``llamo_motion_version`` (1), ``skeleton`` ("smpl22"), ``rotations_quaternion_wxyz`` (T, 22, 4), relative to
    the parent joint, ``root_positions_m`` (T, 3), y up, ``frame_rate_hz``, ``text``.

    Raises:
        MotionFileError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:  # an open file, so that NumPy does not append a suffix to the name
            np.savez_compressed(
                file,
                **{_VERSION_KEY: np.array(FORMAT_VERSION)},
                skeleton=np.array(SKELETON_NAME),
                rotations_quaternion_wxyz=matrix_to_quaternion_wxyz(clip.rotations),
                root_positions_m=clip.root_positions,
                frame_rate_hz=np.array(clip.frame_rate),
                text=np.array(clip.text),
            )
    except OSError as error:
        raise MotionFileError(f"{path} cannot be written: {error.strerror}.") from error


def load_npz(path: str | Path, *, frame_rate: float | None = None, up: Literal["y", "z"] | None = None) -> MotionClip:
    """Read a clip from our own, an AMASS or an SMPL archive, told by its keys.

    Args:
        path: The file. Objects (pickles) in it are never loaded.
        frame_rate: Frames per second of an AMASS or SMPL file that does not say, [Hz]; overrides one that does.
        up: The axis of an AMASS or SMPL file's world that points up; None: z for AMASS, y for SMPL.

    Returns:
        The clip where the file has it, at the file's frame rate (see ``canonicalised`` and ``resampled``).

    Raises:
        MotionFileError: no such file, no archive, no known layout, a key missing, of a wrong shape or type, or NaN.
        ParameterError: ``up`` is neither y nor z, ``frame_rate`` is not positive, or one is given for our own layout.
    """
    if up not in (None, "y", "z"):
        raise ParameterError(f"up is {up!r}, expected 'y', 'z' or None.")
    if frame_rate is not None and not (np.isfinite(frame_rate) and frame_rate > 0):
        raise ParameterError(f"frame_rate is {frame_rate}, expected a positive number.")
    with _Archive(path) as archive:
        if _VERSION_KEY in archive.keys:
            if frame_rate is not None or up is not None:
                raise ParameterError(f"{path} is in our own layout, which says its frame rate and axes; give neither.")
            parts = _own_parts(archive)
        elif "poses" in archive.keys:
            poses = archive.joints("poses", JOINT_COUNT)
            pelvis = PELVIS_IN_SMPLX if poses.shape[1] == _SMPLX_POSE_JOINTS else PELVIS_IN_SMPL
            positions = archive.array("trans", 2, 3) + pelvis
            parts = _smpl_parts(archive, poses, positions, _AMASS_RATE_KEYS, frame_rate, up or "z")
        elif "pose_body" in archive.keys:
            root = archive.joints("root_orient", 1)
            poses = np.concatenate([root, archive.joints("pose_body", JOINT_COUNT - 1, len(root))], axis=1)
            pelvis = PELVIS_IN_SMPLX if _SMPLX_ONLY_KEY in archive.keys else PELVIS_IN_SMPL
            positions = archive.array("trans", 2, 3) + pelvis
            parts = _smpl_parts(archive, poses, positions, _AMASS_RATE_KEYS, frame_rate, up or "z")
        elif "body_pose" in archive.keys:
            root = archive.joints("global_orient", 1)
            body = archive.joints("body_pose", JOINT_COUNT - 1, len(root))
            pelvis = PELVIS_IN_SMPLX if body.shape[1] == _SMPLX_BODY_JOINTS else PELVIS_IN_SMPL
            positions = archive.array("transl", 2, 3) + pelvis
            poses = np.concatenate([root, body], axis=1)
            parts = _smpl_parts(archive, poses, positions, _SMPL_RATE_KEYS, frame_rate, up or "y")
        else:
            raise MotionFileError(
                f"{path} is of no known layout; it has {archive.listing()}. Expected {_VERSION_KEY} (ours), "
                "trans with poses or root_orient and pose_body (AMASS), or global_orient, body_pose and transl (SMPL)."
            )
    rotations, positions, rate, text = parts
    if len(rotations) != len(positions):
        raise MotionFileError(f"{path} has {len(rotations)} frames of rotations but {len(positions)} of positions.")
    try:
        return MotionClip(rotations, positions, rate, text)
    except (MotionDataError, ParameterError) as error:
        raise MotionFileError(f"{path}: {error}") from error


def _own_parts(archive: _Archive) -> tuple[FloatArray, FloatArray, float, str]:
    version = archive.number(_VERSION_KEY)
    if version != FORMAT_VERSION:
        raise MotionFileError(
            f"{archive.path} is of layout version {version:g}, this release reads {FORMAT_VERSION}. Update llamo_ros."
        )
    archive.require(_OWN_KEYS)
    if (skeleton := archive.text("skeleton")) != SKELETON_NAME:
        raise MotionFileError(f"{archive.path} is on skeleton '{skeleton[:40]}', expected '{SKELETON_NAME}'.")
    quaternions = archive.array("rotations_quaternion_wxyz", 3, 4)
    if quaternions.shape[1] != JOINT_COUNT:
        raise MotionFileError(
            f"{archive.path}: rotations_quaternion_wxyz has {quaternions.shape[1]} joints, expected {JOINT_COUNT}."
        )
    length = np.linalg.norm(quaternions, axis=-1)
    if (np.abs(length - 1) > 1e-2).any():
        raise MotionFileError(f"{archive.path}: rotations_quaternion_wxyz has quaternions that are not of length 1.")
    positions = archive.array("root_positions_m", 2, 3)
    return quaternion_wxyz_to_matrix(quaternions), positions, archive.number("frame_rate_hz"), archive.text("text")


def _smpl_parts(
    archive: _Archive,
    poses: FloatArray,
    positions: FloatArray,
    rate_keys: tuple[str, ...],
    frame_rate: float | None,
    up: str,
) -> tuple[FloatArray, FloatArray, float, str]:
    if frame_rate is None:
        key = next((key for key in rate_keys if key in archive.keys), None)
        if key is None:
            raise MotionFileError(
                f"{archive.path} does not say its frame rate (no {' or '.join(rate_keys)}); give it as frame_rate."
            )
        frame_rate = archive.number(key)
    rotations = axis_angle_to_matrix(poses[:, :JOINT_COUNT])
    if up == "z":
        rotations[:, 0] = _Z_UP_TO_Y_UP @ rotations[:, 0]
        positions = positions @ _Z_UP_TO_Y_UP.T
    return rotations, positions, frame_rate, ""


class _Archive:
    """An open .npz with checked access: each error names the file and the key."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            Path(path).open("rb").close()  # tells a missing file from one that is no archive
            is_archive = zipfile.is_zipfile(path)
            self._file = np.load(path, allow_pickle=False) if is_archive else None
        except OSError as error:
            raise MotionFileError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (ValueError, zipfile.BadZipFile) as error:
            raise MotionFileError(f"{path} is a damaged archive ({error}). Copy or export it again.") from error
        if not isinstance(self._file, np.lib.npyio.NpzFile):
            raise MotionFileError(f"{path} is no .npz archive (not a zip file), or a damaged one.")
        self.keys = tuple(self._file.files)

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def listing(self) -> str:
        return f"the keys {', '.join(self.keys[:30])}" if self.keys else "no keys"

    def require(self, keys: tuple[str, ...]) -> None:
        if missing := [key for key in keys if key not in self.keys]:
            raise MotionFileError(f"{self.path} has no {', '.join(missing)}; it has {self.listing()}.")

    def _value(self, key: str) -> NDArray:
        self.require((key,))
        try:
            value = self._file[key]
        except ValueError as error:
            raise MotionFileError(
                f"{self.path}: {key} cannot be read ({error}). Arrays of Python objects are never loaded, since that "
                "could run code; save it as an array of numbers."
            ) from error
        except Exception as error:  # zlib, zip and header errors of many types, all of them a damaged file
            raise MotionFileError(f"{self.path}: {key} is damaged ({error}). Copy or export the file again.") from error
        if not isinstance(value, np.ndarray):  # a zip member that is no .npy comes as bytes
            raise MotionFileError(f"{self.path}: {key} is no NumPy array.")
        return value

    def number(self, key: str) -> float:
        value = self._value(key)
        if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise MotionFileError(f"{self.path}: {key} is not one finite number (type {value.dtype}).")
        return float(value.reshape(()))

    def text(self, key: str) -> str:
        value = self._value(key)
        if value.size != 1 or value.dtype.kind != "U":
            raise MotionFileError(f"{self.path}: {key} is not one text (type {value.dtype}).")
        return str(value.reshape(()))

    def array(self, key: str, dimensions: int, last: int) -> FloatArray:
        """Numbers with so many dimensions, the last of them of length ``last``, all finite."""
        value = self._value(key)
        if value.dtype.kind not in "fiu":
            raise MotionFileError(f"{self.path}: {key} has type {value.dtype}, expected numbers.")
        if value.ndim != dimensions or value.shape[-1] != last:
            raise MotionFileError(
                f"{self.path}: {key} has shape {value.shape}, expected {dimensions} dimensions, the last of {last}."
            )
        self._check_finite(key, value)
        return value.astype(np.float64)

    def joints(self, key: str, count: int, frames: int | None = None) -> FloatArray:
        """Axis-angle (T, n, 3), n >= count, of an array (T, 3 n) or (T, n, 3)."""
        value = self._value(key)
        if value.ndim == 3 and value.shape[2] == 3:
            value = value.reshape(len(value), 3 * value.shape[1])
        if value.dtype.kind not in "fiu" or value.ndim != 2 or value.shape[1] % 3 or value.shape[1] < 3 * count:
            raise MotionFileError(
                f"{self.path}: {key} has shape {value.shape} and type {value.dtype}, expected numbers (T, 3 n) with "
                f"n >= {count} joints, as axis-angle."
            )
        if frames is not None and len(value) != frames:
            raise MotionFileError(f"{self.path}: {key} has {len(value)} frames, the root has {frames}.")
        self._check_finite(key, value)
        return value.reshape(len(value), value.shape[1] // 3, 3).astype(np.float64)

    def _check_finite(self, key: str, value: NDArray) -> None:
        bad = ~np.isfinite(value).all(axis=tuple(range(1, value.ndim)))
        if bad.any():
            raise MotionFileError(
                f"{self.path}: {key} has NaN or infinite values in {bad.sum()} frames, first in frame {bad.argmax()}. "
                "Repair or cut those frames first."
            )
