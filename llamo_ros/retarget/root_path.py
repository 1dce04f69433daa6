"""RootPath: where the root link goes when the joints do not do exactly what the retargeter meant them to.

A limit that changes a leg's joints must move the body, not the standing foot. So the root follows from the feet: its
position and heading are those for which each standing foot moves as the retargeted one does, which is not at all. The
root's own limits act on what comes out; where both cannot hold, limits win, and it is counted.

T frames, J joints, F feet. World z up.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.rotations import quaternion_xyzw_to_matrix
from llamo_ros.retarget.body_part import standing_place
from llamo_ros.retarget.path_limiter import PathLimiter
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import RobotMotion

FloatArray = NDArray[np.float64]

_STANDS = 0.5  # contact weight from which on a foot must not slide
_FARTHEST = 1e4  # [m]; a root beyond is a unit or a number gone wrong
_EXACT = 1e-12
_AT_REST = 1e-9  # [m] or [rad]; what a root may still move by in a frame and count as at rest


@dataclass
class RootCounts:
    """What was changed about the root's path since the start, in frames.

    Attributes:
        speed_clamps: Where it asked for more than the limit of its speed.
        acceleration_clamps: Likewise, of its acceleration.
        jerk_clamps: Likewise, of its jerk.
        turn_clamps: Likewise, of turn rate or turn acceleration.
        slides: Where a limit of the root won over a standing foot.
    """

    speed_clamps: int = 0
    acceleration_clamps: int = 0
    jerk_clamps: int = 0
    turn_clamps: int = 0
    slides: int = 0


@dataclass
class _Reference:
    """The last retargeted frame, and the joints that were planned for it."""

    joints: FloatArray  # (J,)
    position: FloatArray  # (3,)
    quaternion: FloatArray  # (4,), xyzw
    contacts: FloatArray  # (F,)
    planned: FloatArray  # (J,)


class RootPath:
    """Plans the root's frames from the retargeted motion and the joints that were planned for it.

    Where the planned joints are the retargeted ones and the root keeps its limits, its path is the retargeted one, to
    the bit.

    Args:
        robot: The robot; its :attr:`~Robot.root_limits` hold.
        frame_rate: Frames per second, [Hz].
        is_fixed: Whether the base is bolted down: the root then stays where it is first.
    """

    def __init__(self, robot: Robot, frame_rate: float, is_fixed: bool = False) -> None:
        self.robot, self.is_fixed, self.counts = robot, is_fixed, RootCounts()
        self._frame_rate = float(frame_rate)
        self._foot_links = np.array([robot.limbs[foot.limb].links[2] for foot in robot.feet], dtype=int)
        self.start()

    def start(self) -> None:
        """Forget the past: the next frame is where the robot stands."""
        limits, free, rate = self.robot.root_limits, np.full(3, np.inf), self._frame_rate
        turn, most = np.array([limits.turn_rate]), np.array([limits.turn_acceleration])
        unlimited = np.array([np.inf])
        self._place = PathLimiter(
            -free,
            free,
            np.array([limits.speed]),
            np.array([limits.acceleration]),
            np.array([limits.jerk]),
            rate,
            width=3,
        )
        self._heading = PathLimiter(-free[:1], free[:1], turn, most, unlimited, rate)
        self._tilt = PathLimiter(-free[:2], free[:2], turn, most, unlimited, rate, width=2)
        self._turn, self._shift = 0.0, np.zeros(2)  # from the retargeted world to that of the plan, about z
        self._reference: _Reference | None = None
        self._last: tuple[FloatArray, FloatArray] | None = None  # pose that was planned last
        self._continues = True

    @staticmethod
    def check(motion: RobotMotion) -> None:
        """Whether the root of a motion can be followed at all.

        Raises:
            MotionDataError: a value is not finite, a quaternion is zero, or the root is absurdly far away.
        """
        positions, quaternions = motion.root_positions, motion.root_quaternions
        if not (np.isfinite(positions).all() and (np.abs(positions) < _FARTHEST).all()):
            raise MotionDataError(f"the root's position is not finite, or farther away than {_FARTHEST:.0f} m.")
        if not (np.isfinite(quaternions).all() and (np.linalg.norm(quaternions, axis=1) > 1e-6).all()):
            raise MotionDataError("the root's orientation is not finite, or a quaternion is zero.")

    def follow(self, motion: RobotMotion, planned: FloatArray, continues: bool = True) -> tuple[FloatArray, FloatArray]:
        """Plan the root for the next frames of a motion.

        Args:
            motion: Retargeted frames, T of them.
            planned: Joint positions that were planned for them, shape (T, J), [rad].
            continues: Whether the motion goes on from the last one that was given here; if not, it is taken up from
                where the robot is.

        Returns:
            Root positions (T, 3), [m], and orientations (T, 4), xyzw, of continuous sign.

        Raises:
            MotionDataError: as for :meth:`check`.
        """
        self.check(motion)
        positions, quaternions = motion.root_positions, motion.root_quaternions
        if not len(motion):
            return positions.copy(), quaternions.copy()
        if self.is_fixed:
            return self._stay(positions[0], quaternions[0], len(motion))
        if self._last is not None and not (continues and self._continues):
            self._take_up(motion.joint_positions[0], positions[0], quaternions[0], motion.contacts[0])
        self._continues = True
        return self._plan(motion.joint_positions, positions, quaternions, motion.contacts, planned)

    def hold(self, planned: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Plan the root for joints (T, J) that brake or hold without a motion; as :meth:`follow`."""
        if self._last is None:
            poses = self._stay(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), len(planned))
            headings, tilts = _split(self._last[1][None], None)
            self._place.start(self._last[0])
            self._heading.start(headings)
            self._tilt.start(tilts[0])
            self._continues = False
            return poses
        if self.is_fixed or self._reference is None or not len(planned):
            return self._stay(*self._last, len(planned))
        before = self._reference.planned[None]
        moves = np.flatnonzero((np.diff(planned, axis=0, prepend=before) != 0).any(axis=1))
        moving = int(moves[-1]) + 1 if len(moves) else 0
        poses = [self._keep_feet(planned[:moving])] if moving else []
        while moving < len(planned):
            count = 1 if self._is_on_its_way() else len(planned) - moving
            part = planned[moving : moving + count]
            poses.append(self._keep_feet(part) if self._is_on_its_way() else self._brake(count))
            moving += count
        positions, quaternions = (np.concatenate(parts) for parts in zip(*poses, strict=True))
        return positions, quaternions

    def tail(self, planned: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where :meth:`hold` would take the root, and from there to rest; nothing is planned.

        A root that its limits held back still moves when the joints rest. The tail then goes on until it rests too.

        Args:
            planned: Joints on their way to rest, shape (T, J), [rad]; the last two rows are equal.

        Returns:
            Root positions (M, 3), [m], and orientations (M, 4), xyzw; M >= T, at rest.
        """
        preview = copy.copy(self)
        preview.counts = RootCounts()
        for name in ("_place", "_heading", "_tilt"):
            limiter = copy.copy(getattr(self, name))
            limiter.counts = copy.copy(limiter.counts)
            setattr(preview, name, limiter)
        positions, quaternions = preview.hold(np.concatenate([planned, planned[-1:]]))  # one more: no acceleration
        if self.is_fixed or preview._rests():
            return positions[:-1], quaternions[:-1]
        rest = 1 + max(len(limiter.way_to_rest()) for limiter in preview._limiters)
        places, turns = preview.hold(np.repeat(planned[-1:], rest, axis=0))
        return np.concatenate([positions, places]), np.concatenate([quaternions, turns])

    def resume(
        self, positions: FloatArray, quaternions: FloatArray, way: FloatArray, joints: FloatArray, contacts: FloatArray
    ) -> None:
        """Go on from an earlier frame, or along another path than was planned. The next motion is taken up from there.

        Args:
            positions: Root positions up to that frame, shape (H, 3), H >= 1, [m].
            quaternions: Orientations, shape (H, 4), xyzw.
            way: Root positions and orientations that were planned behind it, to rest, shape (M, 7).
            joints: Joint positions in that frame, shape (J,), [rad].
            contacts: Contacts in that frame, shape (F,).
        """
        count = len(positions)
        path = np.concatenate([np.concatenate([positions, quaternions], axis=1), way])
        headings, tilts = _split(path[:, 3:], None)
        for limiter, values in (
            (self._place, path[:, :3]),
            (self._heading, headings[:, None]),
            (self._tilt, tilts),
        ):
            limiter.resume(values[:count], values[min(count, len(values) - 1) :])
        self._last = positions[-1].copy(), quaternions[-1].copy()
        self._take_up(joints, *self._last, contacts)
        self._reference.planned = joints.copy()
        self._continues = False

    @property
    def _limiters(self) -> tuple[PathLimiter, PathLimiter, PathLimiter]:
        return self._place, self._heading, self._tilt

    def _rests(self) -> bool:
        """Whether velocity and acceleration of the root are zero."""
        return all(limiter.moved_by <= _AT_REST for limiter in self._limiters if limiter.has_started)

    def _is_on_its_way(self) -> bool:
        """Whether the root still moves, and is where the feet want it."""
        return not self._rests() and not any(limiter.is_behind for limiter in self._limiters)

    def _keep_feet(self, planned: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Plan frames of joints (T, J) that go on without a motion: the feet that stood last stand."""
        last = self._reference
        still = (last.joints, last.position, last.quaternion, last.contacts)
        return self._plan(*(np.repeat(array[None], len(planned), axis=0) for array in still), planned)

    def _brake(self, count: int) -> tuple[FloatArray, FloatArray]:
        """Plan frames in which the joints rest and the root is not where the feet want it: it brakes.

        Going there would slide the feet of a robot that stands still. The next motion is taken up from where it ends.
        """
        if self._rests():
            return self._stay(*self._last, count)
        self._continues = False
        place, heading, tilt = (limiter.brake(count) for limiter in self._limiters)
        quaternions = _continued(self._last[1], _joined(heading[:, 0], tilt))
        self._last = place[-1].copy(), quaternions[-1].copy()
        return place, quaternions

    def _take_up(self, joints: FloatArray, position: FloatArray, quaternion: FloatArray, contacts: FloatArray) -> None:
        """Let a retargeted frame be where the robot is: heading and place go on, whatever they were."""
        here, facing = self._last
        planned = joints if self._reference is None else self._reference.planned
        heading = _split(np.stack([facing, quaternion]), None)[0]
        self._turn = float(heading[0] - heading[1])
        self._shift = here[:2] - _turned(position[None, :2], self._turn)[0]
        self._reference = _Reference(joints.copy(), position.copy(), quaternion.copy(), contacts.copy(), planned)

    def _stay(self, position: FloatArray, quaternion: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
        if self._last is None:
            self._last = standing_place(self.robot, position, quaternion)
        return tuple(np.repeat(array[None], count, axis=0) for array in self._last)

    def _plan(
        self,
        joints: FloatArray,
        positions: FloatArray,
        quaternions: FloatArray,
        contacts: FloatArray,
        planned: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        last = self._reference
        before = last or _Reference(joints[0], positions[0], quaternions[0], contacts[0], planned[0])
        self._reference = _Reference(joints[-1], positions[-1], quaternions[-1], contacts[-1], planned[-1])
        is_exact = max(np.abs(planned - joints).max(), np.abs(before.planned - before.joints).max()) <= _EXACT
        if is_exact or not len(self._foot_links):  # the feet are where they were meant to be
            turns, shifts = np.full(len(joints), self._turn), np.tile(self._shift, (len(joints), 1))
            rise = 0.0
        else:
            turns, shifts, rise = self._on_standing_feet(before, joints, positions, quaternions, contacts, planned)
        wanted = positions
        if turns.any() or shifts.any() or not is_exact:
            wanted = positions.copy()
            wanted[:, :2] = _turned(positions[:, :2], turns) + shifts
            wanted[:, 2] += rise
        return self._limited(wanted, quaternions, turns, contacts)

    def _on_standing_feet(
        self,
        before: _Reference,
        joints: FloatArray,
        positions: FloatArray,
        quaternions: FloatArray,
        contacts: FloatArray,
        planned: FloatArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Turn (T,) and shift (T, 2) with which each standing foot moves as the retargeted one does.

        Also by how much the root must rise so that no sole gets under the floor, shape (T,).
        """
        count = len(joints) + 1
        place = np.concatenate([before.position[None], positions])
        facing = quaternion_xyzw_to_matrix(np.concatenate([before.quaternion[None], quaternions]))
        feet, headings, lowest = self._feet(
            np.concatenate([before.joints[None], joints, before.planned[None], planned]),
            np.concatenate([facing, facing]),
        )
        meant, actual = feet[:count] + place[:, None, :2], feet[count:] + place[:, None, :2]
        twist = _wrapped(headings[count:] - headings[:count])  # of each foot against where it should point
        weights = np.concatenate([before.contacts[None], contacts])
        weights = np.minimum(weights[1:], weights[:-1])
        weights = np.where(weights >= _STANDS, weights, 0.0)
        turn, shift = self._turn, self._shift
        turns, shifts = np.empty(count - 1), np.empty((count - 1, 2))
        for k, weight in enumerate(weights):
            total = weight.sum()
            if total:
                stays = _turned(actual[k] + meant[k + 1] - meant[k], turn) + shift
                turn -= float(weight @ _wrapped(twist[k + 1] - twist[k])) / total
                shift = weight @ (stays - _turned(actual[k + 1], turn)) / total
            turns[k], shifts[k] = turn, shift
        self._turn, self._shift = turn, shift
        return turns, shifts, (lowest[:count] - lowest[count:])[1:]

    def _feet(self, joints: FloatArray, rotations: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Places of feet over the floor (T, F, 2), their headings (T, F), and the lowest point of all soles (T,).

        Relative to the root, in world axes. A foot is the middle of its sole.
        """
        poses = self.robot.model.link_poses(joints)
        turned = np.swapaxes(rotations, -1, -2)
        places = poses.positions[:, self._foot_links] @ turned
        turns = rotations[:, None] @ poses.rotations[:, self._foot_links]
        middles, lowest = np.empty_like(places[..., :2]), []
        for i, foot in enumerate(self.robot.feet):
            corners = places[:, None, i] + foot.sole @ np.swapaxes(turns[:, i], -1, -2)
            middles[:, i] = corners[..., :2].mean(axis=1)
            lowest.append(corners[..., 2].min(axis=1))
        headings = np.arctan2(turns[..., 1, 0], turns[..., 0, 0])
        return middles, headings, np.min(lowest, axis=0)

    def _limited(
        self, positions: FloatArray, quaternions: FloatArray, turns: FloatArray, contacts: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Hold the root's own limits; ``turns`` (T,) are still to be added to the orientations."""
        headings, tilts = _split(quaternions, None)
        headings = headings + turns
        if self._last is not None:  # the same turn as before, not one that is whole turns away
            headings += 2 * np.pi * np.round((self._heading.position[0] - headings[0]) / (2 * np.pi))
        place, tilt = self._place.follow(positions), self._tilt.follow(tilts)
        heading = self._heading.follow(headings[:, None])[:, 0]
        turned = (heading != headings) | (tilt != tilts).any(axis=1)
        changed = turned | (place != positions).any(axis=1)
        self.counts.slides += int((changed & (contacts >= _STANDS).any(axis=1)).sum())
        counts, turn_counts = self._place.counts, (self._heading.counts, self._tilt.counts)
        self.counts.speed_clamps, self.counts.acceleration_clamps = counts.velocity, counts.acceleration
        self.counts.jerk_clamps = counts.jerk
        self.counts.turn_clamps = sum(each.velocity + each.acceleration for each in turn_counts)
        if turned.any() or turns.any():
            quaternions = _joined(heading, tilt)
        quaternions = _continued(quaternions[0] if self._last is None else self._last[1], quaternions)
        self._last = place[-1].copy(), quaternions[-1].copy()
        return place, quaternions


def _split(quaternions: FloatArray, previous: float | None) -> tuple[FloatArray, FloatArray]:
    """Orientations (T, 4), xyzw, as a heading about z (T,) and a tilt before it about a level axis (T, 2), [rad].

    Headings have no jumps. A root that is upside down has no heading; near there it turns fast, which limits hold back.
    """
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    angles = 2.0 * np.arctan2(z, w)
    start = angles[0] if previous is None else previous
    headings = start + np.cumsum(_wrapped(np.diff(angles, prepend=start)))
    level = np.stack([np.cos(angles / 2) * x + np.sin(angles / 2) * y, np.cos(angles / 2) * y - np.sin(angles / 2) * x])
    length = np.hypot(*level)
    angle = 2.0 * np.arctan2(length, np.hypot(z, w))
    return headings, (level * np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 2.0)).T


def _joined(headings: FloatArray, tilts: FloatArray) -> FloatArray:
    """The inverse of :func:`_split`, shape (T, 4), xyzw."""
    angle = np.hypot(*tilts.T)
    level = tilts.T * np.where(angle > 1e-12, np.sin(angle / 2) / np.maximum(angle, 1e-12), 0.5)
    sine, cosine, rest = np.sin(headings / 2), np.cos(headings / 2), np.cos(angle / 2)
    x, y = cosine * level[0] - sine * level[1], cosine * level[1] + sine * level[0]
    return np.stack([x, y, sine * rest, cosine * rest], axis=1)


def _continued(before: FloatArray, quaternions: FloatArray) -> FloatArray:
    """Orientations (T, 4) with signs such that neighbours lie on one side, the first one's being ``before`` (4,)."""
    dots = (np.concatenate([before[None], quaternions[:-1]]) * quaternions).sum(axis=1)
    return quaternions * np.cumprod(np.where(dots < 0, -1.0, 1.0))[:, None]


def _turned(vectors: FloatArray, angle: float | FloatArray) -> FloatArray:
    """Level vectors (..., 2) turned about z by an angle, or by one each."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)


def _wrapped(angles: FloatArray) -> FloatArray:
    """Angles in [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi
