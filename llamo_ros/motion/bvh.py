"""Import and export of BVH (Biovision Hierarchy), the file that motion-capture tools share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from llamo_ros.core.errors import MotionFileError, ParameterError
from llamo_ros.motion.bvh_file import BvhFile, FloatArray, format_bvh, read_bvh
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.joint_map import JointMap, detect_joint_map, load_joint_map
from llamo_ros.motion.placement import canonicalised
from llamo_ros.motion.rig_to_smpl22 import rig_to_smpl22
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE, JOINT_COUNT, JOINT_NAMES, OFFSETS, PARENTS

CENTIMETRES = 100.0
# A calibration pose ends where all joints together jump: by more than this on average, and several times more than they
# turn from frame to frame in the quarter of a second after it (fast motion goes on being fast).
_CALIBRATION_JUMP = np.deg2rad(5.0)
_CALIBRATION_RATIO = 3.0
_CALIBRATION_WINDOW = 0.25
_ROOT_CHANNELS = ("Xposition", "Yposition", "Zposition", "Zrotation", "Xrotation", "Yrotation")
# Where the last joints of each limb end, [m]; for display in other tools only.
_END_SITES = {
    "head": (0.0, 0.15, 0.0),
    "left_foot": (0.0, 0.0, 0.06),
    "right_foot": (0.0, 0.0, 0.06),
    "left_wrist": (0.09, 0.0, 0.0),
    "right_wrist": (-0.09, 0.0, 0.0),
}


def import_bvh(
    path: str | Path,
    joint_map: str | Path | None = None,
    frame_rate: float | None = FRAME_RATE,
    *,
    canonicalise: bool = True,
    source_frame_rate: float | None = None,
) -> MotionClip:
    """Read a BVH file of any rig that a joint map describes, as motion of smpl22.

    Args:
        path: The file. Any unit of length: the motion is scaled so that the legs get smpl22's length.
        joint_map: Name of a map that comes with the package (``cmu``, ``daz``, ``bandai_namco``, ``smpl``), or path of
            your own YAML file (see :mod:`llamo_ros.motion.joint_map`); None chooses by the joint names.
        frame_rate: Frame rate of the result, [Hz]; None keeps the file's.
        canonicalise: Put the floor at y = 0 and the first frame at x = z = 0, facing +z; False leaves the motion where
            the file has it.
        source_frame_rate: Overrides the file's ``Frame Time``, [Hz]: some files declare a wrong one.

    Returns:
        The clip. Leading calibration frames that the map announces are dropped where the motion jumps after them.

    Raises:
        MotionFileError: the file cannot be read or is malformed, no map fits, or the map does not fit.
        ParameterError: a frame rate is not positive.
    """
    bvh = read_bvh(path)
    if source_frame_rate is not None:
        if not (np.isfinite(source_frame_rate) and source_frame_rate > 0):
            raise ParameterError(f"source_frame_rate is {source_frame_rate}, expected a positive number.")
        bvh = replace(bvh, frame_rate=float(source_frame_rate))
    rig = detect_joint_map(bvh.names, str(path)) if joint_map is None else load_joint_map(joint_map)
    clip = _without_calibration(rig_to_smpl22(bvh, rig, str(path)), rig)
    if frame_rate is not None:
        clip = clip.resampled(frame_rate)
    return canonicalised(clip) if canonicalise else clip


def export_bvh(clip: MotionClip, path: str | Path) -> None:
    """Write a clip as BVH on the smpl22 skeleton, for animation tools and for :func:`import_bvh`.

    Lengths are in centimetres (as most motion-capture tools have them), angles in degrees. Rotation channels are in the
    order Z, X, Y: ``R = R_z R_x R_y``. y is up; the rest pose is a T-pose facing +z. The text of the clip is not kept.

    Raises:
        ParameterError: the clip is empty.
        MotionFileError: the file cannot be written.
    """
    if len(clip) == 0:
        raise ParameterError("the clip has no frames, and a BVH file needs at least one.")
    angles = np.rad2deg(_euler_zxy(clip.rotations)).reshape(len(clip), 3 * JOINT_COUNT)
    bvh = BvhFile(
        names=JOINT_NAMES,
        parents=PARENTS,
        offsets=OFFSETS * CENTIMETRES,
        channels=(_ROOT_CHANNELS,) + (_ROOT_CHANNELS[3:],) * (JOINT_COUNT - 1),
        values=np.concatenate([clip.root_positions * CENTIMETRES, angles], axis=1),
        frame_rate=clip.frame_rate,
    )
    text = format_bvh(bvh, {name: np.array(offset) * CENTIMETRES for name, offset in _END_SITES.items()})
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MotionFileError(f"{path} cannot be written: {error.strerror}.") from error


def _without_calibration(clip: MotionClip, rig: JointMap) -> MotionClip:
    count = rig.calibration_frames
    after = count + max(3, round(_CALIBRATION_WINDOW * clip.frame_rate))
    if count == 0 or len(clip) < count + 2:
        return clip
    rotations = clip.rotations[count - 1 : after]
    turns = geodesic_angle(rotations[:-1], rotations[1:]).mean(axis=1)
    ends = turns[0] > max(_CALIBRATION_JUMP, _CALIBRATION_RATIO * np.median(turns[1:]))
    return clip.sliced(count) if ends else clip


def _euler_zxy(matrix: FloatArray) -> FloatArray:
    """Angles (T, J, 3), [rad], of ``R = R_z(a) R_x(b) R_y(c)`` as (a, b, c), without jumps of a turn over time."""
    cosine = np.hypot(matrix[..., 0, 1], matrix[..., 1, 1])
    b = np.arctan2(matrix[..., 2, 1], cosine)
    locked = cosine < 1e-6  # b is a right angle: only a + c or a - c is determined, c is set to 0
    a = np.where(
        locked,
        np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0]),
        np.arctan2(-matrix[..., 0, 1], matrix[..., 1, 1]),
    )
    c = np.where(locked, 0.0, np.arctan2(-matrix[..., 2, 0], matrix[..., 2, 2]))
    return np.unwrap(np.stack([a, b, c], axis=-1), axis=0)
