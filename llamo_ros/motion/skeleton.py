"""The one human skeleton of the package: ``smpl22``, SMPL's 22 body joints.

Core convention (SMPL's): right-handed, y up, the body faces +z, its left is +x; metres, radians, 30 frames per second.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from llamo_ros.core.errors import ShapeError
from llamo_ros.kernels.frame_decoder import FrameDecoder

Array = Any  # numpy.ndarray or torch.Tensor

FRAME_RATE = 30.0
JOINT_COUNT = 22

JOINT_NAMES = (
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
)
JOINT_INDEX = {name: index for index, name in enumerate(JOINT_NAMES)}
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)

# Offset of each joint from its parent in the rest pose (T-pose), [m]; mean body, written as plain numbers.
OFFSETS = np.array(
    [
        [0.0, 0.0, 0.0],
        [0.0695, -0.0914, -0.0068],
        [-0.0677, -0.0905, -0.0043],
        [-0.0025, 0.1090, -0.0267],
        [0.0343, -0.3752, -0.0045],
        [-0.0383, -0.3826, -0.0089],
        [0.0055, 0.1352, 0.0011],
        [-0.0136, -0.3980, -0.0437],
        [0.0158, -0.3984, -0.0423],
        [0.0015, 0.0529, 0.0254],
        [0.0264, -0.0558, 0.1193],
        [-0.0254, -0.0481, 0.1233],
        [-0.0028, 0.2139, -0.0429],
        [0.0788, 0.1217, -0.0341],
        [-0.0818, 0.1188, -0.0386],
        [0.0052, 0.0650, 0.0513],
        [0.0910, 0.0305, -0.0089],
        [-0.0960, 0.0326, -0.0091],
        [0.2596, -0.0128, -0.0275],
        [-0.2537, -0.0133, -0.0214],
        [0.2492, 0.0090, -0.0012],
        [-0.2553, 0.0078, -0.0056],
    ],
    dtype=np.float64,
)
OFFSETS.setflags(write=False)

# Joints of equal depth, so that FK is a handful of batched products instead of 21 small ones.
LEVELS = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12, 13, 14), (15, 16, 17), (18, 19), (20, 21))
# Index of the joint on the other side of the body.
MIRROR = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20)


def forward_kinematics(local_rotations: Array, root_positions: Array) -> tuple[Array, Array]:
    """World positions and rotations of all joints.

    ``G_root = R_root``, ``p_root = root_positions``; then ``G_j = G_parent R_j`` and ``p_j = p_parent + G_parent o_j``.

    Args:
        local_rotations: Joint rotations relative to the parent, shape (..., 22, 3, 3); joint 0 is in the world.
        root_positions: Pelvis in the world, shape (..., 3), [m].

    Returns:
        Joint positions (..., 22, 3), [m], and joint rotations in the world (..., 22, 3, 3).

    Raises:
        ShapeError: ``local_rotations`` does not end in (22, 3, 3) or ``root_positions`` does not match it.
    """
    if tuple(local_rotations.shape[-3:]) != (JOINT_COUNT, 3, 3):
        raise ShapeError("local_rotations", tuple(local_rotations.shape), "(..., 22, 3, 3)", "Use the smpl22 skeleton.")
    if tuple(root_positions.shape) != (*local_rotations.shape[:-3], 3):
        raise ShapeError("root_positions", tuple(root_positions.shape), f"{(*local_rotations.shape[:-3], 3)}")
    if isinstance(local_rotations, np.ndarray) and local_rotations.dtype == root_positions.dtype == np.float64:
        placed = _frame_decoder().forward_kinematics(
            local_rotations.reshape(-1, JOINT_COUNT, 3, 3), root_positions.reshape(-1, 3)
        )
        return tuple(array.reshape(*local_rotations.shape[:-3], *array.shape[1:]) for array in placed)
    xp = array_namespace(local_rotations)
    rotations: list[Array] = [None] * JOINT_COUNT
    positions: list[Array] = [None] * JOINT_COUNT
    rotations[0], positions[0] = local_rotations[..., 0, :, :], root_positions
    for joints in LEVELS:
        parents = [PARENTS[joint] for joint in joints]
        parent_rotations = xp.stack([rotations[p] for p in parents], axis=-3)
        offsets = _offsets_like(joints, local_rotations)
        moved = xp.sum(parent_rotations * offsets[:, None, :], axis=-1)
        turned = parent_rotations @ xp.stack([local_rotations[..., j, :, :] for j in joints], axis=-3)
        for slot, (joint, parent) in enumerate(zip(joints, parents, strict=True)):
            rotations[joint] = turned[..., slot, :, :]
            positions[joint] = positions[parent] + moved[..., slot, :]
    return xp.stack(positions, axis=-2), xp.stack(rotations, axis=-3)


@lru_cache(maxsize=1)
def _frame_decoder() -> FrameDecoder:
    return FrameDecoder(PARENTS, OFFSETS)


@lru_cache(maxsize=64)
def _offsets_on(joints: tuple[int, ...], library: str, dtype: Any, device: str) -> Array:
    block = OFFSETS[list(joints)]
    if library == "numpy":
        return block.astype(dtype)
    import torch

    return torch.as_tensor(block, dtype=dtype, device=device)


def _offsets_like(joints: tuple[int, ...], like: Array) -> Array:
    library = "numpy" if isinstance(like, np.ndarray) else "torch"
    return _offsets_on(joints, library, like.dtype, str(getattr(like, "device", "cpu")))
