"""A retargeted motion played by a simulated robot: what its motors need for it, and how far the joints stay behind.

The pelvis is held. It keeps its mass and its free joint, and a stiff weld moves it along the motion's root, like a
gantry that carries the robot through the air: limbs feel gravity and the root's acceleration, but no floor, and no
controller has to keep a balance, which a reference alone does not decide. Legs therefore never carry the body, and
their torques are those of swinging legs: a lower bound. Links do not collide. K steps, T frames, J joints.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from llamo_ros.benchmark.mujoco_robot import ROOT_WIDTH, hinge_names, import_mujoco, read_spec
from llamo_ros.core.errors import ParameterError, RobotError, ShapeError

FloatArray = NDArray[np.float64]

STEP = 0.001  # [s]
SETTLING = 0.5  # [s]; not counted: the simulation begins on the reference, and sags to where it is held
_DOF_ROOT = 6
_HOLDER = "reference_root"
_WELD_TIME, _WELD_DAMPING = 0.004, 1.0  # time constant [s] and damping ratio of the weld that holds the pelvis


@dataclass(frozen=True)
class Motors:
    """What moves each joint.

    Attributes:
        joint_names: The J joints, in the order of the MJCF.
        armatures: Reflected inertia, shape (J,), [kg m^2].
        stiffness: Shape (J,), [N m/rad].
        damping: Shape (J,), [N m s/rad].
        torque_limits: Shape (J,), [N m].
    """

    joint_names: tuple[str, ...]
    armatures: FloatArray
    stiffness: FloatArray
    damping: FloatArray
    torque_limits: FloatArray


@dataclass(frozen=True)
class Played:
    """A motion, and what the simulated robot did with it.

    Attributes:
        joint_names: The J joints.
        reference: What it was to do, shape (K, 7 + J): root position [m], root quaternion wxyz, joints [rad].
        reference_velocities: Shape (K, 6 + J), [m/s] and [rad/s]; the root's rotation in its own frame.
        reached: What it did, shape (K, 7 + J).
        demanded: Torques that the controller asked for, before the limits cut them, shape (K, J), [N m].
        needed: Torques that the reference itself needs, by inverse dynamics, whatever the gains; shape (K, J), [N m].
        torque_limits: Shape (J,), [N m].
    """

    joint_names: tuple[str, ...]
    reference: FloatArray
    reference_velocities: FloatArray
    reached: FloatArray
    demanded: FloatArray
    needed: FloatArray
    torque_limits: FloatArray


def read_physics(path: str | Path) -> dict[str, Any]:
    """Read motors, gains and shapes, as in ``config/benchmark/unitree_g1_physics.yaml``.

    Raises:
        RobotError: the file cannot be read or lacks a part.
    """
    try:
        facts = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        missing = {"natural_frequency", "damping_ratio", "armatures", "motors", "shapes"} - set(facts)
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise RobotError(f"{str(path)!r} cannot be read: {error}") from error
    if missing:
        raise RobotError(f"{str(path)!r} has no {', '.join(sorted(missing))}.")
    return facts


def pd_gains(armatures: FloatArray, frequency: float, damping_ratio: float) -> tuple[FloatArray, FloatArray]:
    """Stiffness and damping of a second-order system with these inertias.

    Args:
        armatures: Inertias, [kg m^2].
        frequency: Natural frequency, [Hz], > 0.
        damping_ratio: 1 is critical, >= 0.

    Returns:
        Stiffness, [N m/rad], and damping, [N m s/rad].

    Raises:
        ParameterError: a number is out of its range.
    """
    if not (np.isfinite(frequency) and frequency > 0 and np.isfinite(damping_ratio) and damping_ratio >= 0):
        raise ParameterError(f"frequency {frequency} and damping ratio {damping_ratio}: expected > 0 and >= 0.")
    omega = 2.0 * np.pi * frequency
    return armatures * omega**2, 2.0 * damping_ratio * armatures * omega


def motors_of(facts: Mapping[str, Any], joint_names: Sequence[str], torque_limits: Mapping[str, float]) -> Motors:
    """The motor of each joint.

    Args:
        facts: Of :func:`read_physics`.
        joint_names: In the order of the MJCF.
        torque_limits: By joint, [N m]; of :func:`urdf_torque_limits`.

    Raises:
        RobotError: a joint has no motor, or no torque limit.
    """
    armatures, limits = [], []
    for name in joint_names:
        endings = [ending for ending in facts["motors"] if name.endswith(ending)]
        if len(endings) != 1 or name not in torque_limits:
            raise RobotError(f"joint {name!r} has {len(endings)} motors and torque limit {torque_limits.get(name)}.")
        motor, count = facts["motors"][endings[0]]
        armatures.append(count * facts["armatures"][motor])
        limits.append(torque_limits[name])
    stiffness, damping = pd_gains(np.array(armatures), facts["natural_frequency"], facts["damping_ratio"])
    return Motors(tuple(joint_names), np.array(armatures), stiffness, damping, np.array(limits))


def urdf_torque_limits(path: str | Path) -> dict[str, float]:
    """Largest torque of each joint of a URDF that has one, [N m].

    Raises:
        RobotError: the file cannot be read.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RobotError(f"the URDF {str(path)!r} cannot be read: {error}. See --urdf.") from error
    limits = {joint.get("name", ""): joint.find("limit") for joint in root.findall("joint")}
    return {name: float(limit.get("effort", 0)) for name, limit in limits.items() if limit is not None}


class HeldRobot:
    """A simulated robot whose pelvis is moved along a reference.

    Args:
        mjcf: Its MJCF; meshes are not needed.
        facts: Of :func:`read_physics`.
        torque_limits: By joint, [N m].

    Raises:
        BackendError: MuJoCo is not installed.
        RobotError: the MJCF cannot be read, or facts and MJCF do not fit.
    """

    def __init__(self, mjcf: str | Path, facts: Mapping[str, Any], torque_limits: Mapping[str, float]) -> None:
        self._mujoco = mujoco = import_mujoco()
        spec, _ = read_spec(mjcf, {})
        model = spec.compile()
        self.motors = motors_of(facts, hinge_names(model), torque_limits)
        for name, armature in zip(self.motors.joint_names, self.motors.armatures, strict=True):
            joint = spec.joint(name)
            joint.armature, joint.actfrclimited = armature, False
        spec.option.timestep = STEP
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        self._free = spec.compile()  # for inverse dynamics: nothing holds it, and nothing stops a joint
        self._free.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
        root = model.body(int(model.jnt_bodyid[0]))
        # Where the root is at rest, so that the weld holds the root without an offset.
        spec.worldbody.add_body(name=_HOLDER, mocap=True, pos=root.pos, quat=root.quat)
        weld = spec.add_equality(
            type=mujoco.mjtEq.mjEQ_WELD,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            name1=_HOLDER,
            name2=root.name,
        )
        weld.solref, weld.solimp = [_WELD_TIME, _WELD_DAMPING], [0.99, 0.999, 0.001, 0.5, 2]
        self._model = spec.compile()

    def play(self, qpos: FloatArray, frame_rate: float, feedforward: bool = False) -> Played:
        """Simulate a motion.

        The controller gets the reference's position and velocity in each step:
        ``torque = stiffness (q_ref - q) + damping (v_ref - v)``, cut at the limit.

        Args:
            qpos: Shape (T, 7 + J), T >= 3, joints in the order of ``motors``.
            frame_rate: Frames per second, [Hz].
            feedforward: Whether the torque is added that gives the reference's acceleration in the measured posture, as
                a whole-body controller would. Without it, joints sag under gravity until their stiffness carries it.

        Raises:
            ShapeError: ``qpos`` has another shape.
        """
        mujoco, motors, width = self._mujoco, self.motors, ROOT_WIDTH
        if qpos.ndim != 2 or qpos.shape[1] != self._model.nq or len(qpos) < 3:
            raise ShapeError("qpos", qpos.shape, f"(T >= 3, {self._model.nq})", "See to_qpos.")
        reference = smooth_path(qpos, frame_rate)
        velocities = self._rates(reference)
        accelerations = np.gradient(velocities, STEP, axis=0)
        needed = self._needed(reference, velocities, accelerations)
        data, steps, inertial = mujoco.MjData(self._model), len(reference), np.empty(self._model.nv)
        data.qpos[:], data.qvel[:] = reference[0], velocities[0]
        reached, demanded = np.empty_like(reference), np.empty_like(needed)
        for k in range(steps):
            data.mocap_pos[0], data.mocap_quat[0] = reference[k, :3], reference[k, 3:width]
            mujoco.mj_step1(self._model, data)
            reached[k] = data.qpos
            demanded[k] = motors.stiffness * (reference[k, width:] - data.qpos[width:])
            demanded[k] += motors.damping * (velocities[k, _DOF_ROOT:] - data.qvel[_DOF_ROOT:])
            if feedforward:
                mujoco.mj_mulM(self._model, data, inertial, accelerations[k])
                demanded[k] += (inertial + data.qfrc_bias)[_DOF_ROOT:]
            data.qfrc_applied[_DOF_ROOT:] = np.clip(demanded[k], -motors.torque_limits, motors.torque_limits)
            mujoco.mj_step2(self._model, data)
        return Played(motors.joint_names, reference, velocities, reached, demanded, needed, motors.torque_limits)

    def _rates(self, path: FloatArray) -> FloatArray:
        """Velocities (K, nv) along a path (K, nq) by central differences; one-sided at its ends."""
        rates, last = np.empty((len(path), self._model.nv)), len(path) - 1
        for k in range(len(path)):
            before, after = max(k - 1, 0), min(k + 1, last)
            self._mujoco.mj_differentiatePos(self._model, rates[k], (after - before) * STEP, path[before], path[after])
        return rates

    def _needed(self, path: FloatArray, velocities: FloatArray, accelerations: FloatArray) -> FloatArray:
        data, needed = self._mujoco.MjData(self._free), np.empty((len(path), len(self.motors.joint_names)))
        for k in range(len(path)):
            data.qpos[:], data.qvel[:], data.qacc[:] = path[k], velocities[k], accelerations[k]
            self._mujoco.mj_inverse(self._free, data)
            needed[k] = data.qfrc_inverse[_DOF_ROOT:]
        return needed


def smooth_path(qpos: FloatArray, frame_rate: float) -> FloatArray:
    """Coordinates in steps of 1 ms through all frames: natural cubic splines, so that accelerations have no jump.

    Args:
        qpos: Shape (T, 7 + J), T >= 3; signs of the quaternions may jump.
        frame_rate: Frames per second, [Hz].

    Returns:
        Shape (K, 7 + J); row k lies at k * 0.001 s, quaternions have unit length.
    """
    frames = qpos.copy()
    dots = np.einsum("ij,ij->i", frames[1:, 3:ROOT_WIDTH], frames[:-1, 3:ROOT_WIDTH])
    frames[1:, 3:ROOT_WIDTH] *= np.cumprod(np.where(dots < 0, -1.0, 1.0))[:, None]
    count = len(frames)
    system = np.eye(count)  # second derivatives of the spline, in frames; zero at both ends
    right = np.zeros_like(frames)
    inner = np.arange(1, count - 1)
    system[inner, inner - 1], system[inner, inner], system[inner, inner + 1] = 1.0, 4.0, 1.0
    right[1:-1] = 6.0 * (frames[2:] - 2.0 * frames[1:-1] + frames[:-2])
    bends = np.linalg.solve(system, right)
    at = np.arange(int((count - 1) / (frame_rate * STEP)) + 1) * STEP * frame_rate
    cell = np.minimum(at.astype(int), count - 2)
    b = (at - cell)[:, None]
    a = 1.0 - b
    path = a * frames[cell] + b * frames[cell + 1]
    path += ((a**3 - a) * bends[cell] + (b**3 - b) * bends[cell + 1]) / 6.0
    path[:, 3:ROOT_WIDTH] /= np.linalg.norm(path[:, 3:ROOT_WIDTH], axis=1, keepdims=True)
    return path


def scores_of(played: Played) -> dict[str, Any]:
    """Figures of a played motion as JSON values, counted from 0.5 s on.

    Returns:
        ``error_rms``, ``error_p95``, ``error_max`` over all joints, [rad], ``worst_joint`` (by RMS), the same by joint
        in ``joints``; ``saturated``, the share of joint-steps in which the controller asked for the limit or more;
        ``largest_torque`` that it asked for and ``largest_torque_joint``, as a share of the joint's limit, may exceed
        1; ``needed_p99``, ``needed_max``, ``needed_joint`` and ``needed_over`` (share of joint-steps over the limit) of
        what the reference itself needs; ``root_speed_max`` [m/s] and ``root_turn_max`` [rad/s] of the reference, and
        ``root_off_mm``, how far the weld let the pelvis get off it.

    Raises:
        ShapeError: the motion is not longer than 0.5 s.
    """
    first = round(SETTLING / STEP)
    if len(played.reference) <= first:
        raise ShapeError("the motion", played.reference.shape, f"more than {first} steps", "Play a longer one.")
    errors = np.abs(played.reached - played.reference)[first:, ROOT_WIDTH:]
    demanded = np.abs(played.demanded[first:]) / played.torque_limits
    needed = np.abs(played.needed[first:]) / played.torque_limits
    names, velocities = played.joint_names, played.reference_velocities[first:]
    rms = np.sqrt((errors**2).mean(axis=0))
    off = np.linalg.norm((played.reached - played.reference)[first:, :3], axis=1)
    return {
        "error_rms": float(np.sqrt((errors**2).mean())),
        "error_p95": float(np.percentile(errors, 95)),
        "error_max": float(errors.max()),
        "worst_joint": names[int(rms.argmax())],
        "saturated": float((demanded >= 1.0).mean()),
        "largest_torque": float(demanded.max()),
        "largest_torque_joint": names[int(demanded.max(axis=0).argmax())],
        "needed_p99": float(np.percentile(needed, 99)),
        "needed_max": float(needed.max()),
        "needed_joint": names[int(needed.max(axis=0).argmax())],
        "needed_over": float((needed > 1.0).mean()),
        "root_speed_max": float(np.linalg.norm(velocities[:, :3], axis=1).max()),
        "root_turn_max": float(np.linalg.norm(velocities[:, 3:_DOF_ROOT], axis=1).max()),
        "root_off_mm": 1000 * float(off.max()),
        "joints": {
            name: {
                "rms": round(float(rms[j]), 6),
                "p95": round(float(np.percentile(errors[:, j], 95)), 6),
                "max": round(float(errors[:, j].max()), 6),
                "saturated": round(float((demanded[:, j] >= 1.0).mean()), 6),
                "largest_torque": round(float(demanded[:, j].max()), 6),
            }
            for j, name in enumerate(names)
        },
    }
