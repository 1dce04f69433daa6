"""How good motion is, as numbers: smoothness, feet, and distance to a reference. Pure functions on NumPy arrays.

World: y up, floor at y = 0, metres. Positions are joint positions of ``smpl22`` from forward kinematics. What cannot be
measured, for lack of frames or of contacts, is NaN and never 0, so that it cannot pass for a good value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import ParameterError, ShapeError
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import JOINT_COUNT, JOINT_INDEX

FloatArray = NDArray[np.floating]

# A foot joint in contact: the joint lies about 2 cm above the sole and is under 6 cm from landing to push-off in real
# walking; one that moves up or down faster than 0.2 m/s is landing or leaving, and its horizontal speed is no slide.
CONTACT_HEIGHT = 0.06
CONTACT_VERTICAL_SPEED = 0.2
_FEET = [JOINT_INDEX["left_foot"], JOINT_INDEX["right_foot"]]


def joint_jerk(positions: FloatArray, frame_rate: float) -> float:
    """Mean jerk of the joints: norm of the third difference times frame_rate^3, over joints and frames, [m/s^3].

    Args:
        positions: Joint positions in the world, shape (T, J, 3), [m].
        frame_rate: Frames per second, [Hz].

    Returns:
        The mean, [m/s^3]; NaN with fewer than 4 frames. Real motion, medians of the source data: 4 standing still,
        16 raising a hand, 120 walking, 370 running.

    Raises:
        ShapeError: ``positions`` is not (T, J, 3).
        ParameterError: ``frame_rate`` is not positive.
    """
    positions = _checked(positions, frame_rate)
    if len(positions) < 4:
        return float("nan")
    return float(np.linalg.norm(np.diff(positions, n=3, axis=0), axis=-1).mean() * frame_rate**3)


def joint_speed(positions: FloatArray, frame_rate: float) -> float:
    """Mean speed of the joints relative to joint 0, [m/s], of positions (T, J, 3), [m]; NaN with fewer than 2 frames.

    Raises:
        ShapeError: ``positions`` is not (T, J, 3).
        ParameterError: ``frame_rate`` is not positive.
    """
    positions = _checked(positions, frame_rate)
    if len(positions) < 2 or positions.shape[1] < 2:
        return float("nan")
    relative = positions[:, 1:] - positions[:, :1]
    return float(np.linalg.norm(np.diff(relative, axis=0), axis=-1).mean() * frame_rate)


def foot_sliding(positions: FloatArray, frame_rate: float) -> float:
    """Mean horizontal speed of the foot joints while they are in contact with the floor, [m/s].

    In contact: below 6 cm and slower than 0.2 m/s vertically (``CONTACT_HEIGHT``, ``CONTACT_VERTICAL_SPEED``). Rolling
    over the ball of the foot counts too, so real walking is not zero (0.3 to 0.4); standing is (0.01).

    Args:
        positions: Joint positions in the world, shape (T, 22, 3), [m], floor at y = 0.
        frame_rate: Frames per second, [Hz].

    Returns:
        The mean over all contacts of both feet, [m/s]; NaN if no foot is ever in contact.

    Raises:
        ShapeError: ``positions`` is not (T, 22, 3).
        ParameterError: ``frame_rate`` is not positive.
    """
    feet = _checked(positions, frame_rate, joints=JOINT_COUNT)[:, _FEET]
    velocity = np.diff(feet, axis=0) * frame_rate
    contact = (feet[1:, :, 1] < CONTACT_HEIGHT) & (np.abs(velocity[..., 1]) < CONTACT_VERTICAL_SPEED)
    speed = np.linalg.norm(velocity[..., [0, 2]], axis=-1)[contact]
    return float(speed.mean()) if len(speed) else float("nan")


def floor_penetration(positions: FloatArray) -> float:
    """Mean depth of the lowest joint below the floor, [m], of positions (T, J, 3), [m]; 0 if none is ever below it.

    Raises:
        ShapeError: ``positions`` is not (T, J, 3).
    """
    positions = _checked(positions, 1.0)
    return float(np.maximum(0.0, -positions[..., 1].min(axis=1)).mean()) if len(positions) else float("nan")


def root_drift(root_positions: FloatArray) -> float:
    """Largest horizontal distance of the root from where it began, [m], of positions (T, 3), [m].

    Raises:
        ShapeError: ``root_positions`` is not (T, 3) with T >= 1.
    """
    root_positions = np.asarray(root_positions, dtype=np.float64)
    if root_positions.ndim != 2 or root_positions.shape[1] != 3 or not len(root_positions):
        raise ShapeError("root_positions", root_positions.shape, "(T, 3) with T >= 1")
    return float(np.linalg.norm((root_positions - root_positions[0])[:, [0, 2]], axis=-1).max())


def mpjpe(predicted: FloatArray, reference: FloatArray) -> float:
    """Mean joint position error with joint 0 (the pelvis) put onto the reference's in each frame, [m].

    Only the position is aligned, not the heading (MotionStreamer's convention).

    Args:
        predicted: Joint positions, shape (T, J, 3), [m].
        reference: Joint positions, same shape.

    Returns:
        Mean over frames and joints, the aligned pelvis included, [m].

    Raises:
        ShapeError: the shapes differ or are not (T, J, 3) with T >= 1.
    """
    predicted, reference = _pair(predicted, reference)
    return global_mpjpe(predicted - predicted[:, :1], reference - reference[:, :1])


def global_mpjpe(predicted: FloatArray, reference: FloatArray) -> float:
    """Mean joint position error in the world, nothing aligned, [m], of positions (T, J, 3), [m].

    Raises:
        ShapeError: the shapes differ or are not (T, J, 3) with T >= 1.
    """
    predicted, reference = _pair(predicted, reference)
    return float(np.linalg.norm(predicted - reference, axis=-1).mean())


def procrustes_mpjpe(predicted: FloatArray, reference: FloatArray) -> float:
    """Mean joint position error after the best similarity (rotation, translation, scale) in each frame, PA-MPJPE, [m].

    Raises:
        ShapeError: the shapes differ or are not (T, J, 3) with T >= 1.
    """
    predicted, reference = _pair(predicted, reference)
    predicted = predicted - predicted.mean(axis=1, keepdims=True)
    reference = reference - reference.mean(axis=1, keepdims=True)
    u, singular, vt = np.linalg.svd(np.swapaxes(predicted, 1, 2) @ reference)
    signs = np.ones_like(singular)
    signs[:, 2] = np.sign(np.linalg.det(u @ vt))  # a mirror image is not a rotation
    size = (predicted**2).sum((1, 2))
    scale = (singular * signs).sum(1) / np.maximum(size, 1e-12)
    aligned = scale[:, None, None] * (predicted @ ((u * signs[:, None]) @ vt))
    return global_mpjpe(aligned, reference)


def rotation_error_degrees(predicted: FloatArray, reference: FloatArray) -> float:
    """Mean geodesic angle between rotation matrices of equal shape (..., 3, 3), [deg].

    Raises:
        ShapeError: the shapes differ, are empty, or do not end in (3, 3).
    """
    predicted, reference = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if predicted.shape[-2:] != (3, 3) or not predicted.size:
        raise ShapeError("predicted", predicted.shape, "(..., 3, 3), not empty")
    if predicted.shape != reference.shape:
        raise ShapeError("reference", reference.shape, str(predicted.shape), "Compare equally long motions.")
    return float(np.degrees(geodesic_angle(predicted, reference)).mean())


def root_trajectory_error(predicted: FloatArray, reference: FloatArray) -> tuple[float, float]:
    """Average and final displacement error (ADE, FDE) of root positions (T, 3), nothing aligned, [m].

    Raises:
        ShapeError: the shapes differ or are not (T, 3) with T >= 1.
    """
    predicted, reference = _pair(np.asarray(predicted)[..., None, :], np.asarray(reference)[..., None, :])
    distance = np.linalg.norm(predicted - reference, axis=-1)[:, 0]
    return float(distance.mean()), float(distance[-1])


def _checked(positions: FloatArray, frame_rate: float, joints: int | None = None) -> FloatArray:
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[2] != 3 or (joints is not None and positions.shape[1] != joints):
        raise ShapeError("positions", positions.shape, f"(T, {joints or 'J'}, 3)", "Use clip.joint_positions().")
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise ParameterError(f"frame_rate is {frame_rate}, expected a positive number of frames per second.")
    return positions


def _pair(predicted: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    predicted, reference = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if predicted.ndim != 3 or predicted.shape[-1] != 3 or not predicted.size:
        raise ShapeError("predicted", predicted.shape, "(T, J, 3) with T >= 1")
    if predicted.shape != reference.shape:
        raise ShapeError("reference", reference.shape, str(predicted.shape), "Compare equally long motions.")
    return predicted, reference
