"""Joint maps: which joint of a motion-capture rig is which of ``smpl22``, as data in ``config/joint_maps/*.yaml``.

A map is a YAML file with these keys; only ``joints`` is required::

    description: Which rig this is.
    up: y                     # axis of the file's world that points up: x, y, z or with a minus, e.g. -y
    facing: z                 # axis of the file's world that the rest pose (all rotations zero) faces
    calibration_frames: 1     # leading frames that hold a calibration pose; dropped where the motion jumps after them
    joints: {pelvis: Hips, left_hip: LeftUpLeg, ...}     # smpl22 name: name in the file
    axes:                     # only for rigs whose rest pose is no standing person with the arms sideways
      left_hip: {x: down, y: left}     # where two axes of the source joint point when the person stands in T-pose

A direction in ``axes`` is left, right, up, down, forward or backward of the person, or numbers ``[left, up, forward]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionFileError
from llamo_ros.core.resources import config_path
from llamo_ros.motion.skeleton import JOINT_INDEX, JOINT_NAMES

FloatArray = NDArray[np.floating]

REQUIRED_JOINTS = tuple(
    ["pelvis"]
    + [
        f"{side}_{part}"
        for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
        for side in ("left", "right")
    ]
)
_KEYS = ("description", "up", "facing", "calibration_frames", "joints", "axes")
_DIRECTIONS = {
    "left": (1.0, 0.0, 0.0),
    "right": (-1.0, 0.0, 0.0),
    "up": (0.0, 1.0, 0.0),
    "down": (0.0, -1.0, 0.0),
    "forward": (0.0, 0.0, 1.0),
    "backward": (0.0, 0.0, -1.0),
}


@dataclass(frozen=True)
class JointMap:
    """How a rig becomes ``smpl22``.

    Attributes:
        name: Name of the map, for messages.
        joints: smpl22 joint name -> joint name in the file. A joint left out keeps its parent's orientation; collars
            left out are aimed at the rig's shoulders.
        rotation_world: Rotation (3, 3) from the file's world to ours (y up), in which the rest pose faces +z.
        axes: smpl22 joint name -> rotation (3, 3) of the source joint, in our world, in T-pose.
        calibration_frames: Leading frames that may hold a calibration pose.
    """

    name: str
    joints: Mapping[str, str]
    rotation_world: FloatArray
    axes: Mapping[str, FloatArray]
    calibration_frames: int = 0

    def missing_from(self, names: tuple[str, ...]) -> list[str]:
        """Joint names that this map needs and a rig with joints ``names`` does not have."""
        return sorted(set(self.joints.values()) - set(names))


def joint_map_names() -> list[str]:
    """Names of the joint maps that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_joint_map(name_or_path: str | Path) -> JointMap:
    """A joint map by the name of one that comes with the package, or from a YAML file (see the module's text).

    Raises:
        MotionFileError: there is no such map, or it is malformed; the message says where and what is expected.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in joint_map_names():
            raise MotionFileError(
                f"there is no joint map '{name_or_path}'. Known maps: {', '.join(joint_map_names())}; "
                "or give the path of your own .yaml file."
            )
        path = _folder() / f"{name_or_path}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MotionFileError(f"joint map {path} cannot be read: {error}") from error
    try:
        return _joint_map_from(content, path.stem)
    except MotionFileError as error:
        raise MotionFileError(f"joint map {path}: {error}") from None


def detect_joint_map(names: tuple[str, ...], source: str) -> JointMap:
    """The map whose joints all exist in a rig with joints ``names``; of several, the one that maps most joints.

    Raises:
        MotionFileError: no map fits; the message names the rig's joints, the maps there are, and how to write one.
    """
    maps = [load_joint_map(name) for name in joint_map_names()]
    fitting = [joint_map for joint_map in maps if not joint_map.missing_from(names)]
    if fitting:
        return max(fitting, key=lambda joint_map: len(joint_map.joints))
    closest = min(maps, key=lambda joint_map: len(joint_map.missing_from(names)))
    shown = ", ".join(names[:80]) + (f" and {len(names) - 80} more" if len(names) > 80 else "")
    raise MotionFileError(
        f"{source} is of a rig that no joint map fits. Its joints: {shown}. "
        f"Maps there are: {', '.join(joint_map_names())}; the closest, '{closest.name}', "
        f"also needs {', '.join(closest.missing_from(names)[:8])}. "
        f"Copy {_folder() / (closest.name + '.yaml')}, write the file's joint names beside the smpl22 names, "
        "and give its path as joint_map."
    )


def _folder() -> Path:
    return config_path("joint_maps")


def _joint_map_from(content: Any, name: str) -> JointMap:
    if not isinstance(content, dict) or not isinstance(content.get("joints"), dict):
        raise MotionFileError("expected a mapping with at least the key 'joints' (smpl22 name: name in the file).")
    if unknown := [key for key in content if key not in _KEYS]:
        raise MotionFileError(f"unknown key '{unknown[0]}'. Known keys: {', '.join(_KEYS)}.")
    joints = {str(ours): str(theirs) for ours, theirs in content["joints"].items()}
    axes = content.get("axes") or {}
    if not isinstance(axes, dict):
        raise MotionFileError("'axes' is not a mapping of smpl22 names, e.g. left_hip: {x: down, y: left}.")
    if unknown := [joint for joint in (*joints, *axes) if joint not in JOINT_INDEX]:
        raise MotionFileError(f"'{unknown[0]}' is no smpl22 joint. Known joints: {', '.join(JOINT_NAMES)}.")
    if missing := [joint for joint in REQUIRED_JOINTS if joint not in joints]:
        raise MotionFileError(f"'joints' lacks {', '.join(missing)}; these are always needed.")
    frames = content.get("calibration_frames", 0)
    if type(frames) is not int or frames < 0:
        raise MotionFileError(f"'calibration_frames' is {frames!r}, expected a whole number from 0.")
    up, facing = (_signed_axis(content.get(key, default), key) for key, default in (("up", "y"), ("facing", "z")))
    if abs(up @ facing) > 0:
        raise MotionFileError("'up' and 'facing' name the same axis; they must be perpendicular.")
    return JointMap(
        name=name,
        joints=joints,
        rotation_world=np.stack([np.cross(up, facing), up, facing]),
        axes={joint: _axes_rotation(value, joint) for joint, value in axes.items()},
        calibration_frames=frames,
    )


def _signed_axis(value: Any, key: str) -> FloatArray:
    axis = str(value).lower()
    if axis.lstrip("+-") not in ("x", "y", "z") or len(axis) > 2:
        raise MotionFileError(f"'{key}' is {value!r}, expected x, y, z, -x, -y or -z.")
    return np.eye(3)["xyz".index(axis[-1])] * (-1.0 if axis[0] == "-" else 1.0)


def _axes_rotation(value: Any, joint: str) -> FloatArray:
    if not isinstance(value, dict) or len(value) != 2:
        raise MotionFileError(f"axes of '{joint}' are {value!r}, expected two, e.g. {{x: down, y: left}}.")
    local = [_signed_axis(axis, f"axes of {joint}") for axis in value]
    world = [_direction(direction, joint) for direction in value.values()]
    frames = []
    for first, second in (local, world):
        across = np.cross(first, second)
        if np.linalg.norm(across) < 0.1:
            raise MotionFileError(f"the two axes of '{joint}' are parallel; give two that are perpendicular.")
        across = across / np.linalg.norm(across)
        frames.append(np.stack([first, np.cross(across, first), across], axis=1))
    return frames[1] @ frames[0].T


def _direction(value: Any, joint: str) -> FloatArray:
    try:
        direction = np.array(_DIRECTIONS[value] if isinstance(value, str) else value, dtype=np.float64)
        length = float(np.linalg.norm(direction))
    except (KeyError, TypeError, ValueError):
        direction, length = np.zeros(0), 0.0
    if direction.shape != (3,) or not (np.isfinite(length) and length > 0):
        raise MotionFileError(
            f"a direction of '{joint}' is {value!r}, expected one of {', '.join(_DIRECTIONS)} or [left, up, forward]."
        )
    return direction / length
