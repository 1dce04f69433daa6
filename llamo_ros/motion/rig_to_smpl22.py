"""From any motion-capture rig to ``smpl22``, by aligning the two in a T-pose.

Each joint's world rotation is carried over with one constant turn: ``G_ours(t) = G_rig(t) C``, where C brings both
rigs to the same world orientations in T-pose. The rig's T-pose is made from its rest pose (arms and legs swung the
shortest way onto smpl22's) or, where the rest pose is no standing person, from the joint map's ``axes``. So no rig has
code of its own. Lengths are those of smpl22; the path is scaled by the ratio of leg lengths, so any unit will do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionFileError
from llamo_ros.motion.bvh_file import BvhFile
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.joint_map import JointMap
from llamo_ros.motion.rotations import axis_angle_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX, JOINT_NAMES, OFFSETS, PARENTS

FloatArray = NDArray[np.floating]

# Limbs whose rest direction differs between rigs (legs apart, arms bent): joint -> the next joint along the limb.
_LIMBS = {
    f"{side}_{joint}": f"{side}_{child}"
    for side in ("left", "right")
    for joint, child in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
}
# Source trunks are shorter than smpl22's. A collar that comes down to the source's shoulder would turn by up to 100
# degrees; half of a right angle keeps the shoulders believable. The training data was made with the same bound.
COLLAR_LIMIT = np.pi / 4


def rig_to_smpl22(bvh: BvhFile, joint_map: JointMap, source: str) -> MotionClip:
    """The motion of any rig on the smpl22 skeleton, in our world (y up, metres), where the file has it.

    Args:
        bvh: Rig and motion; any unit of length.
        joint_map: Which joint is which.
        source: Name of the file, for messages.

    Returns:
        The clip at the file's frame rate. Pelvis positions are such that the middle of the hips follows the source's.

    Raises:
        MotionFileError: the rig lacks a joint of the map, its legs have no length, or its rest pose does not stand
            upright facing the map's ``facing`` (and the map has no ``axes`` for the pelvis).
    """
    if missing := joint_map.missing_from(bvh.names):
        raise MotionFileError(
            f"{source} has no joint {', '.join(missing)}, which joint map '{joint_map.name}' needs. "
            f"Its joints: {', '.join(bvh.names)}. Correct the map, or leave the map out to have the rig detected."
        )
    index = {ours: bvh.names.index(theirs) for ours, theirs in joint_map.joints.items()}
    rest = bvh.zero_pose() @ joint_map.rotation_world.T
    scale = _leg_scale(rest, index, source)
    if "pelvis" not in joint_map.axes:
        _check_rest_pose(rest, index, joint_map, source)
    corrections = _corrections(rest, index, joint_map)

    rig_positions, rig_rotations = bvh.forward_kinematics()
    rig_positions = scale * rig_positions @ joint_map.rotation_world.T
    rig_rotations = joint_map.rotation_world @ rig_rotations

    rotations = np.empty((len(bvh), JOINT_COUNT, 3, 3))
    positions = np.empty((len(bvh), JOINT_COUNT, 3))
    rotations[:, 0] = rig_rotations[:, index["pelvis"]] @ corrections["pelvis"]
    hips = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
    middle = rig_positions[:, [index["left_hip"], index["right_hip"]]].mean(axis=1)
    positions[:, 0] = middle - rotations[:, 0] @ OFFSETS[hips].mean(axis=0)
    for joint in range(1, JOINT_COUNT):
        name, parent = JOINT_NAMES[joint], PARENTS[joint]
        positions[:, joint] = positions[:, parent] + rotations[:, parent] @ OFFSETS[joint]
        if name in index:
            rotations[:, joint] = rig_rotations[:, index[name]] @ corrections[name]
        elif name.endswith("collar"):
            shoulder = name.replace("collar", "shoulder")
            wanted = rig_positions[:, index[shoulder]] - positions[:, joint]
            local = (np.swapaxes(rotations[:, parent], 1, 2) @ wanted[..., None])[..., 0]
            rotations[:, joint] = rotations[:, parent] @ _swing(OFFSETS[JOINT_INDEX[shoulder]], local, COLLAR_LIMIT)
        else:
            rotations[:, joint] = rotations[:, parent]
    local_rotations = rotations.copy()
    local_rotations[:, 1:] = np.swapaxes(rotations[:, PARENTS[1:]], -1, -2) @ rotations[:, 1:]
    return MotionClip(local_rotations, positions[:, 0], bvh.frame_rate)


def _corrections(rest: FloatArray, index: dict[str, int], joint_map: JointMap) -> dict[str, FloatArray]:
    """The constant turn C (3, 3) of every mapped joint: inverse of the source joint's world rotation in T-pose."""
    upright = joint_map.rotation_world
    t_pose: dict[str, FloatArray] = {}
    for joint in (name for name in JOINT_NAMES if name in index):
        base = joint_map.axes.get(joint, upright)
        side, _, part = joint.partition("_")
        if joint in _LIMBS:
            along = base @ upright.T @ (rest[index[_LIMBS[joint]]] - rest[index[joint]])
            t_pose[joint] = _swing(along, OFFSETS[JOINT_INDEX[_LIMBS[joint]]]) @ base
        elif joint in joint_map.axes:
            t_pose[joint] = base
        elif part in ("ankle", "foot"):
            # Only the sideways lean of the legs is taken out: how a foot is pitched when flat is the rig's own matter.
            leg = rest[index[f"{side}_ankle"]] - rest[index[f"{side}_hip"]]
            ours = sum(OFFSETS[JOINT_INDEX[f"{side}_{bone}"]] for bone in ("knee", "ankle"))
            sideways = np.array([1.0, 1.0, 0.0])
            t_pose[joint] = _swing(leg * sideways, ours * sideways) @ base
        elif part == "wrist":
            t_pose[joint] = t_pose[f"{side}_elbow"]
        else:
            t_pose[joint] = base
    return {joint: rotation.T for joint, rotation in t_pose.items()}


def _swing(start: FloatArray, end: FloatArray, limit: float = np.pi) -> FloatArray:
    """Shortest rotation (..., 3, 3) that turns ``start`` (3,) towards ``end`` (..., 3), by at most ``limit``, [rad]."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, np.sum(start * end, axis=-1, keepdims=True))
    return axis_angle_to_matrix(axis / np.maximum(sine, 1e-12) * np.minimum(angle, limit))


def _leg_scale(rest: FloatArray, index: dict[str, int], source: str) -> float:
    """Our mean leg length over the rig's, [m / file unit]."""
    bones = [
        (f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (("hip", "knee"), ("knee", "ankle"))
    ]
    theirs = [float(np.linalg.norm(rest[index[b]] - rest[index[a]])) for a, b in bones]
    if min(theirs) < 1e-3 * max(theirs) or max(theirs) < 1e-6:
        raise MotionFileError(
            f"{source} has a leg bone without length (hip-knee, knee-ankle: {[round(t, 4) for t in theirs]}). "
            "The joint map names the wrong joints, or the file is damaged."
        )
    return float(sum(np.linalg.norm(OFFSETS[JOINT_INDEX[b]]) for _, b in bones) / sum(theirs))


def _check_rest_pose(rest: FloatArray, index: dict[str, int], joint_map: JointMap, source: str) -> None:
    def middle(part: str) -> FloatArray:
        return (rest[index[f"left_{part}"]] + rest[index[f"right_{part}"]]) / 2

    to_left = rest[index["left_hip"]] - rest[index["right_hip"]]
    to_top = middle("shoulder") - middle("ankle")
    # 60 degrees: far more than any lean of a rest pose, less than the right angle of a wrong axis.
    if to_left[0] < 0.5 * np.linalg.norm(to_left) or to_top[1] < 0.5 * np.linalg.norm(to_top):
        raise MotionFileError(
            f"the rest pose of {source} does not stand upright and face the way joint map '{joint_map.name}' says "
            f"(left hip lies to {np.round(to_left, 2).tolist()}, shoulders to {np.round(to_top, 2).tolist()} as "
            "[left, up, forward]). Set 'up' and 'facing' in a copy of the map, or give 'axes' if the rest pose is no "
            "standing person."
        )
