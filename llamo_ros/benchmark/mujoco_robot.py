"""A robot in MuJoCo: its upstream MJCF, read also where the meshes it names are missing, and who is who in its joints.

MuJoCo is needed by the benchmarks only; it is imported when the first model is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import BackendError, RobotError, ShapeError
from llamo_ros.motion.rotations import axis_angle_to_matrix

FloatArray = NDArray[np.float64]

ROOT_WIDTH = 7  # position and quaternion wxyz of the root in qpos
MESHES, SHAPES = "meshes", "shapes"  # what a robot's bodies are made of


def import_mujoco() -> ModuleType:
    """The package `mujoco`.

    Raises:
        BackendError: it is not installed.
    """
    try:
        import mujoco
    except ImportError as error:
        raise BackendError(
            f"MuJoCo cannot be imported: {error}. Install it with: pip install 'llamo-ros[bench]' (mujoco>=3.3)."
        ) from error
    return mujoco


def read_spec(path: str | Path, shapes: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> tuple[Any, str]:
    """Read an MJCF, with its meshes, or with simple shapes in their place.

    Args:
        path: The MJCF.
        shapes: Shapes by the name of their body, of :func:`shapes_of`: they take the place of all meshes. None keeps
            the meshes, if all their files are there; if not, only the simple geoms of the MJCF are left.

    Returns:
        An editable ``MjSpec``, and what its bodies are made of: "meshes" or "shapes".

    Raises:
        BackendError: MuJoCo is not installed.
        RobotError: the file cannot be read, or a shape belongs to no body.
    """
    mujoco = import_mujoco()
    path = Path(path)
    if not path.is_file():
        raise RobotError(f"there is no MJCF at {str(path)!r}. See --mjcf.")
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise RobotError(f"{str(path)!r} is no MJCF that MuJoCo can read: {error}") from error
    if shapes is None and all((path.parent / spec.meshdir / mesh.file).is_file() for mesh in spec.meshes):
        return spec, MESHES
    for geom in [geom for geom in spec.geoms if geom.type == mujoco.mjtGeom.mjGEOM_MESH]:
        spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    for name, parts in (shapes or {}).items():
        body = spec.body(name)
        if body is None:
            raise RobotError(f"the shapes have a body {name!r}, which the MJCF {str(path)!r} has not.")
        for part in parts:
            _add_shape(mujoco, body, part)
    return spec, SHAPES


def shapes_of(bodies: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Shapes of all bodies: what is written for ``left_*`` holds, mirrored in y, for ``right_*``.

    Args:
        bodies: For each body its shapes, in the body's frame, [m]: ``{capsule: [ax, ay, az, bx, by, bz, radius]}`` with
            the two ends of the axis, or ``{box: [x, y, z, half x, half y, half z], turned: [x, y, z]}``, `turned`
            being a rotation vector, [rad].
    """
    made = {}
    for name, parts in bodies.items():
        made[name] = [dict(part) for part in parts]
        if name.startswith("left_"):
            made[name.replace("left_", "right_", 1)] = [_mirrored(part) for part in parts]
    return made


def _mirrored(part: Mapping[str, Any]) -> dict[str, Any]:
    mirrored = {}
    for key, values in part.items():
        values = list(values)
        for index in {"capsule": (1, 4), "box": (1,), "turned": (0, 2)}[key]:  # a rotation vector is an axial vector
            values[index] = -values[index]
        mirrored[key] = values
    return mirrored


def _add_shape(mujoco: ModuleType, body: Any, part: Mapping[str, Any]) -> None:
    if "capsule" in part:
        *ends, radius = part["capsule"]
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=ends, size=[radius, 0, 0], mass=0)
        return
    values = part["box"]
    quaternion = np.zeros(4)
    rotation = axis_angle_to_matrix(np.array(part.get("turned", (0.0, 0.0, 0.0)), dtype=np.float64))
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=values[:3], size=values[3:], quat=quaternion, mass=0)


def hinge_names(model: Any) -> tuple[str, ...]:
    """Names of the joints with one degree of freedom, in the order of qpos behind the root.

    Raises:
        RobotError: the model does not begin with a free joint, followed by such joints only.
    """
    mujoco = import_mujoco()
    kinds = [mujoco.mjtJoint(kind) for kind in model.jnt_type]
    singles = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
    if not kinds or kinds[0] != mujoco.mjtJoint.mjJNT_FREE or any(kind not in singles for kind in kinds[1:]):
        raise RobotError("the MJCF is no floating robot: expected one free joint first, then hinges or slides only.")
    return tuple(model.joint(number).name for number in range(1, model.njnt))


def to_qpos(
    joint_names: Sequence[str],
    joint_positions: FloatArray,
    root_positions: FloatArray,
    root_quaternions: FloatArray,
    model_joints: Sequence[str],
) -> FloatArray:
    """A motion in MuJoCo's coordinates; joints are matched by name, never by place.

    Args:
        joint_names: Names of the columns of ``joint_positions``, in any order.
        joint_positions: Shape (T, J), [rad].
        root_positions: Shape (T, 3), [m].
        root_quaternions: Shape (T, 4), xyzw.
        model_joints: Joints of the model in the order of qpos, of :func:`hinge_names`.

    Returns:
        Shape (T, 7 + J): root position, root quaternion wxyz, joints.

    Raises:
        RobotError: motion and model do not have the same joints.
        ShapeError: there are not as many columns as names.
    """
    if joint_positions.ndim != 2 or joint_positions.shape[1] != len(joint_names):
        raise ShapeError(
            "joint_positions", joint_positions.shape, f"(T, {len(joint_names)})", "One column for each name."
        )
    missing = sorted(set(model_joints) ^ set(joint_names))
    if missing:
        raise RobotError(f"motion and MJCF do not have the same joints; only one of them has {', '.join(missing)}.")
    columns = [list(joint_names).index(name) for name in model_joints]
    return np.concatenate([root_positions, root_quaternions[:, [3, 0, 1, 2]], joint_positions[:, columns]], axis=1)


def from_qpos(
    qpos: FloatArray, model_joints: Sequence[str], joint_names: Sequence[str]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Joint positions (T, J) in the order of ``joint_names``, root positions (T, 3), root quaternions (T, 4) xyzw.

    The inverse of :func:`to_qpos`.
    """
    columns = [ROOT_WIDTH + list(model_joints).index(name) for name in joint_names]
    return qpos[:, columns], qpos[:, :3], qpos[:, [4, 5, 6, 3]]
