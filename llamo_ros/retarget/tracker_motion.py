"""A robot's motion as whole-body trackers read it: joints in IsaacLab's order, and every body in the world.

IsaacLab numbers joints level by level over the kinematic tree, not limb by limb as a URDF lists them. Links on fixed
joints are part of the body that carries them, as its importer merges them. T frames, J joints, B = J + 1 bodies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError, ShapeError
from llamo_ros.motion.rotations import matrix_to_quaternion_wxyz, quaternion_xyzw_to_matrix
from llamo_ros.retarget.resampling import RobotTrajectory
from llamo_ros.retarget.robot import RobotModel, cross

FloatArray = NDArray[np.float64]

CONVENTIONS = (
    "world: x forward, y left, z up; metres, radians, seconds; quaternions w x y z, of each body in the world; "
    "joints level by level over the kinematic tree (IsaacLab's order), body 0 is the root, body i + 1 hangs on joint "
    "i; velocities are those of the link frames' origins, in world axes"
)
_FRAMES_AT_ONCE = 512  # bounds the memory of a long motion


@dataclass(frozen=True)
class IsaacOrder:
    """IsaacLab's numbering of a robot.

    Attributes:
        joints: For each of its J joints, the index in :attr:`RobotModel.joint_names`.
        bodies: For each of its J + 1 bodies, the index in :attr:`RobotModel.link_names`: the root, then what hangs on
            each joint.
    """

    joints: NDArray[np.int64]
    bodies: NDArray[np.int64]


def isaac_order(model: RobotModel) -> IsaacOrder:
    """Number joints and bodies level by level from the root; neighbours in a level as the URDF lists their joints."""
    links_of_joint = {int(joint): link for link, joint in enumerate(model.link_joints) if joint >= 0}
    children: dict[int, list[int]] = {}
    for joint in sorted(links_of_joint):
        body = int(model.parents[links_of_joint[joint]])
        while body != 0 and model.link_joints[body] < 0:  # on a fixed joint: part of what carries it
            body = int(model.parents[body])
        children.setdefault(body, []).append(joint)
    joints, bodies = [], [0]
    for body in bodies:  # grows while it is walked through
        for joint in children.get(body, []):
            joints.append(joint)
            bodies.append(links_of_joint[joint])
    return IsaacOrder(np.array(joints, dtype=np.int64), np.array(bodies, dtype=np.int64))


@dataclass(frozen=True)
class TrackerMotion:
    """Joints and bodies over time; see :data:`CONVENTIONS`.

    Attributes:
        joint_names: The J joints, in IsaacLab's order.
        body_names: The B bodies, the root first.
        joint_positions: Shape (T, J), [rad].
        joint_velocities: Shape (T, J), [rad/s].
        body_positions: In the world, shape (T, B, 3), [m].
        body_quaternions: In the world, shape (T, B, 4), **wxyz**, as these consumers have it.
        body_linear_velocities: Of the link frames' origins, in world axes, shape (T, B, 3), [m/s].
        body_angular_velocities: In world axes, shape (T, B, 3), [rad/s].
        frame_rate: Frames per second, [Hz].
    """

    joint_names: tuple[str, ...]
    body_names: tuple[str, ...]
    joint_positions: FloatArray
    joint_velocities: FloatArray
    body_positions: FloatArray
    body_quaternions: FloatArray
    body_linear_velocities: FloatArray
    body_angular_velocities: FloatArray
    frame_rate: float

    def __post_init__(self) -> None:
        count, joints, bodies = len(self.joint_positions), len(self.joint_names), len(self.body_names)
        shapes = {
            "joint_positions": (count, joints),
            "joint_velocities": (count, joints),
            "body_positions": (count, bodies, 3),
            "body_quaternions": (count, bodies, 4),
            "body_linear_velocities": (count, bodies, 3),
            "body_angular_velocities": (count, bodies, 3),
        }
        for name, shape in shapes.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise ShapeError(name, array.shape, str(shape))
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.joint_positions)


def tracker_motion(model: RobotModel, trajectory: RobotTrajectory) -> TrackerMotion:
    """All joints and bodies of a trajectory, by forward kinematics.

    Raises:
        RobotError: the trajectory is of other joints than the robot has.
    """
    check_joints(model, trajectory.motion.joint_names)
    order = isaac_order(model)
    chunks = [
        _bodies(model, trajectory, order.bodies, slice(first, first + _FRAMES_AT_ONCE))
        for first in range(0, len(trajectory), _FRAMES_AT_ONCE)
    ]
    positions, quaternions, linear, angular = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return TrackerMotion(
        joint_names=tuple(model.joint_names[joint] for joint in order.joints),
        body_names=tuple(model.link_names[link] for link in order.bodies),
        joint_positions=trajectory.motion.joint_positions[:, order.joints],
        joint_velocities=trajectory.joint_velocities[:, order.joints],
        body_positions=positions,
        body_quaternions=_with_continuous_signs(quaternions),
        body_linear_velocities=linear,
        body_angular_velocities=angular,
        frame_rate=trajectory.motion.frame_rate,
    )


def check_joints(model: RobotModel, joint_names: tuple[str, ...]) -> None:
    """Refuse a motion that is not of this robot.

    Raises:
        RobotError: the names, or their order, differ from those of the robot.
    """
    if joint_names != model.joint_names:
        raise RobotError(
            f"the motion has {len(joint_names)} joints, {', '.join(joint_names[:3])}, ...; robot {model.name!r} has "
            f"{model.joint_count}, {', '.join(model.joint_names[:3])}, ..., in that order. Is it another robot's?"
        )


def _bodies(
    model: RobotModel, trajectory: RobotTrajectory, links: NDArray[np.int64], frames: slice
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Positions, quaternions wxyz, linear and angular velocities of links in the world, each (T, B, 3 or 4)."""
    motion = trajectory.motion
    poses = model.link_poses(motion.joint_positions[frames])
    root = quaternion_xyzw_to_matrix(motion.root_quaternions[frames])
    to_world = np.swapaxes(root, -1, -2)
    steps = trajectory.joint_velocities[frames][:, None, :, None]
    linear = (model.position_jacobian(poses, links) @ steps)[..., 0] @ to_world
    angular = (model.rotation_jacobian(poses, links) @ steps)[..., 0] @ to_world
    from_root = poses.positions[:, links] @ to_world
    spin = trajectory.root_angular_velocities[frames][:, None]
    return (
        from_root + motion.root_positions[frames][:, None],
        matrix_to_quaternion_wxyz(root[:, None] @ poses.rotations[:, links]),
        linear + trajectory.root_linear_velocities[frames][:, None] + cross(spin, from_root),
        angular + spin,
    )


def _with_continuous_signs(quaternions: FloatArray) -> FloatArray:
    """The same orientations (T, B, 4) with neighbours in time on the same side."""
    dots = (quaternions[1:] * quaternions[:-1]).sum(axis=-1)
    signs = np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=0)
    return np.concatenate([quaternions[:1], quaternions[1:] * signs[..., None]])
