"""Whether a robot's limits hold in what the live chain makes: retargeter, trajectory shaper and root path, in chunks.

Everything is judged by finite differences of what comes out, at 30 FPS. T frames, J joints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import LlamoError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.rotations import matrix_to_quaternion_wxyz, quaternion_wxyz_to_matrix
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.retarget.profile import Robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion, joined
from llamo_ros.retarget.root_path import RootPath
from llamo_ros.retarget.trajectory import TrajectoryShaper

FloatArray = NDArray[np.float64]

CHUNK = 4  # frames; what one latent decodes to
ROUNDING = 1e-6  # of a limit: third differences of rounded numbers, times 27,000
_JOINT_ORDERS = ("velocity", "acceleration", "jerk")
_ROOT_ORDERS = ("root speed", "root acceleration", "root jerk")
_TURN_ORDERS = ("root turn rate", "root turn acceleration")
LIMITS = _JOINT_ORDERS + _ROOT_ORDERS + _TURN_ORDERS


class LimitJudge:
    """What came out of the chain, against the limits; streams are added up.

    Attributes:
        frames: How many were seen.
        outside: Frames in which a joint is outside its position limits.
        violations: Frames in which anything is above its limit: position, or one of ``LIMITS``.
        shares: Largest value of each of ``LIMITS`` divided by its limit.
        fastest: Largest speed of a joint, [rad/s].
        refused: Chunks that were refused as unusable.
        off: Joint values that are not what was asked for.
        joint_clamps: Joint values that asked for too much velocity or acceleration.
        jerk_clamps: Likewise, for too much jerk.
        root_clamps: Clamps of the root of any kind, in frames.
        slides: Frames in which a limit of the root won over a standing foot.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.frames = self.outside = self.violations = self.refused = self.off = 0
        self.joint_clamps = self.jerk_clamps = self.root_clamps = self.slides = 0
        self.shares = dict.fromkeys(LIMITS, 0.0)
        self.fastest = 0.0

    @property
    def passes(self) -> bool:
        """Whether no limit was broken."""
        return not self.violations

    def run(self, motions: Iterable[RobotMotion | None], wild: np.random.Generator | None = None) -> RobotMotion | None:
        """Send the chunks of one stream through shaper and root path.

        Args:
            motions: Retargeted chunks; None for one that could not be retargeted.
            wild: Where given, holds, stops and changes of speed come between the chunks.

        Returns:
            What came out; None if it is not one motion, because of ``wild`` or of chunks that were refused.
        """
        shaper, root = TrajectoryShaper(self.robot, FRAME_RATE), RootPath(self.robot, FRAME_RATE)
        joints, places, turns, contacts, whole = [], [], [], [], wild is None
        if wild is not None:
            shaper.start_from(self.robot.standing)
            joints.append(self.robot.standing[None])
        for motion in motions:
            planned, poses = self._planned(motion, shaper, root)
            if planned is None:
                planned, whole = shaper.hold(CHUNK), False
                poses = root.hold(planned)
            else:
                self.off += int((np.abs(planned - motion.joint_positions) > 1e-9).sum())
                contacts.append(motion.contacts)
            joints.append(planned)
            places.append(poses[0])
            turns.append(poses[1])
            if wild is not None:
                joints += _disturbed(shaper, joints, wild)
        q, place, turn = np.concatenate(joints), np.concatenate(places), np.concatenate(turns)
        self.see(q, place, turn)
        self.joint_clamps += shaper.counts.velocity_clamps + shaper.counts.acceleration_clamps
        self.jerk_clamps += shaper.counts.jerk_clamps
        limited = root.counts
        self.root_clamps += limited.speed_clamps + limited.acceleration_clamps + limited.jerk_clamps
        self.root_clamps += limited.turn_clamps
        self.slides += limited.slides
        if not whole:
            return None
        return RobotMotion(self.robot.joint_names, q, place, turn, np.concatenate(contacts), FRAME_RATE)

    def see(self, joints: FloatArray, places: FloatArray, turns: FloatArray) -> None:
        """Judge one unbroken stream.

        Args:
            joints: Shape (T, J), [rad].
            places: Root positions, shape (R, 3), [m]; R may differ from T.
            turns: Root orientations, shape (R, 4), xyzw.
        """
        assert all(np.isfinite(array).all() for array in (joints, places, turns))
        robot, root = self.robot, self.robot.root_limits
        outside = ((joints < robot.lower - 1e-9) | (joints > robot.upper + 1e-9)).any(axis=1)
        broken = np.zeros(max(len(joints), len(places)), dtype=bool)
        broken[: len(joints)] |= outside
        heading = np.unwrap(2.0 * np.arctan2(turns[:, 2], turns[:, 3]))
        limits = (robot.velocity_limits, robot.acceleration_limits, robot.jerk_limits)
        for order, (name, limit) in enumerate(zip(_JOINT_ORDERS, limits, strict=True), start=1):
            self._compare(name, np.abs(np.diff(joints, n=order, axis=0)) / limit, order, broken)
        for order, (name, limit) in enumerate(
            zip(_ROOT_ORDERS, (root.speed, root.acceleration, root.jerk), strict=True), start=1
        ):
            self._compare(name, np.linalg.norm(np.diff(places, n=order, axis=0), axis=1) / limit, order, broken)
        for order, (name, limit) in enumerate(
            zip(_TURN_ORDERS, (root.turn_rate, root.turn_acceleration), strict=True), start=1
        ):
            self._compare(name, np.abs(np.diff(heading, n=order)) / limit, order, broken)
        self.frames += len(joints)
        self.outside += int(outside.sum())
        self.violations += int(broken.sum())
        self.fastest = max(self.fastest, FRAME_RATE * float(np.abs(np.diff(joints, axis=0)).max(initial=0.0)))

    def figures(self) -> dict[str, Any]:
        """All that was found, as JSON values; shares of frames and of joint values in percent."""
        values = max(self.frames * self.robot.model.joint_count, 1)
        frames = max(self.frames, 1)
        return {
            "frames": self.frames,
            "violations": self.violations,
            "outside": self.outside,
            "shares": self.shares,
            "fastest_rad_s": self.fastest,
            "clamped_percent": 100.0 * self.joint_clamps / values,
            "jerk_clamped_percent": 100.0 * self.jerk_clamps / values,
            "off_percent": 100.0 * self.off / values,
            "root_clamped_percent": 100.0 * self.root_clamps / frames,
            "slides_percent": 100.0 * self.slides / frames,
            "refused_chunks": self.refused,
        }

    def _planned(
        self, motion: RobotMotion | None, shaper: TrajectoryShaper, root: RootPath
    ) -> tuple[FloatArray | None, Any]:
        try:
            if motion is not None:
                root.check(motion)
                planned = shaper.push(motion.joint_positions)
                shaper.way_to_rest()
                return planned, root.follow(motion, planned)
        except LlamoError:
            pass
        self.refused += 1
        return None, None

    def _compare(self, name: str, differences: FloatArray, order: int, broken: NDArray[np.bool_]) -> None:
        share = differences * FRAME_RATE**order
        share = share if share.ndim == 1 else share.max(axis=1)
        self.shares[name] = max(self.shares[name], float(share.max(initial=0.0)))
        broken[order : order + len(share)] |= share > 1 + ROUNDING


def chunks_of(motion: RobotMotion) -> Iterator[RobotMotion]:
    """A motion in the chunks of a stream."""
    for first in range(0, len(motion), CHUNK):
        yield motion.sliced(first, first + CHUNK)


def streamed(robot: Robot, positions: FloatArray, rotations: FloatArray, frame_rate: float = FRAME_RATE) -> RobotMotion:
    """A whole motion, retargeted in the chunks of a stream.

    Args:
        robot: The robot.
        positions: smpl22 joints in the core's world, shape (T, 22, 3), [m].
        rotations: Their rotations, shape (T, 22, 3, 3).
        frame_rate: [Hz].
    """
    retargeter = Retargeter(robot)
    cuts = [slice(first, first + CHUNK) for first in range(0, len(positions), CHUNK)]
    return joined([retargeter.retarget_joints(positions[cut], rotations[cut], frame_rate) for cut in cuts])


def published(robot: Robot, motion: RobotMotion) -> RobotMotion:
    """A retargeted motion as a controller gets it: joints and root inside the limits."""
    kept = LimitJudge(robot).run(chunks_of(motion))
    assert kept is not None  # nothing in it was refused, or the judge would have nothing to hold
    return kept


def retargeted_chunks(
    retargeter: Retargeter, chunks: Iterable[Callable[[], MotionClip]]
) -> Iterator[RobotMotion | None]:
    """Chunks of human motion as one stream through the retargeter; None for one that is refused."""
    for make in chunks:
        try:
            yield retargeter.retarget(make())
        except LlamoError:
            yield None


def perturbed_robot_motion(
    robot: Robot, base: RobotMotion, frames: int, generator: np.random.Generator
) -> Iterator[RobotMotion]:
    """Chunks of a motion with what should never come out of a retargeter; some cannot be followed at all."""
    joints = robot.model.joint_count
    for _ in range(frames // CHUNK):
        first = int(generator.integers(len(base) - CHUNK))
        chunk = base.sliced(first, first + CHUNK)  # each begins elsewhere: a jump already
        q, places = chunk.joint_positions.copy(), chunk.root_positions.copy()
        turns, contacts = chunk.root_quaternions.copy(), chunk.contacts
        kind = generator.integers(8)
        if kind == 0:
            q = generator.uniform(robot.lower - 2, robot.upper + 2, q.shape)
        elif kind == 1:
            q[generator.random(q.shape) < 0.02] = generator.choice([np.nan, np.inf, -np.inf, 1e300, -1e30])
        elif kind == 2:
            q = np.where(
                (np.arange(CHUNK)[:, None] // 2 + generator.integers(0, 2, joints)) % 2, robot.lower, robot.upper
            )
        elif kind == 3:
            turns = turns * generator.choice([-1.0, 0.0, np.nan], (CHUNK, 1), p=[0.8, 0.1, 0.1])
        elif kind == 4:
            places = places + generator.normal(0.0, generator.choice([0.1, 10.0, 1e6]), places.shape)
        elif kind == 5:
            turns = generator.normal(size=(CHUNK, 4))
        elif kind == 6:
            q = q + np.cumsum(generator.normal(0.0, 0.2, q.shape), axis=0)
        elif generator.random() < 0.1:
            q = q[:, : generator.integers(joints)]
        yield RobotMotion(base.joint_names, q, places, turns, contacts, FRAME_RATE)


def perturbed_human_motion(
    base: MotionClip, frames: int, generator: np.random.Generator
) -> Iterator[Callable[[], MotionClip]]:
    """Chunks of human motion with what should never come from a model, a tracker or a network.

    They are made when they are called for, since some raise then already, as a message with such numbers would.
    """
    quaternions = matrix_to_quaternion_wxyz(base.rotations)
    bad = [np.nan, np.inf, -np.inf, 1e300, -1e30]

    def chunk(first: int, kind: int, generator: np.random.Generator) -> MotionClip:
        turns = quaternions[first : first + CHUNK].copy()
        roots = base.root_positions[first : first + CHUNK].copy()
        some = generator.random(turns.shape[:2]) < 0.05
        if kind == 0:  # any posture at all
            turns = generator.normal(size=turns.shape)
        elif kind == 1:
            turns[generator.random(turns.shape) < 0.01] = generator.choice(bad)
        elif kind == 2:
            roots[generator.random(roots.shape) < 0.3] = generator.choice(bad)
        elif kind == 3:  # the same rotation, and none at all
            turns[some] *= generator.choice([-1.0, 0.0], p=[0.7, 0.3])
        elif kind == 4:  # half turns about an axis: a tracker that mixes up left and right, front and back
            turns[some] = turns[some][:, [1, 0, 3, 2]] * [-1.0, 1.0, 1.0, -1.0]
        elif kind == 5:
            roots += generator.normal(0.0, generator.choice([0.1, 3.0, 1e3, 1e9]), roots.shape)
        elif kind == 6:
            turns += generator.normal(0.0, 0.3, turns.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            rotations = quaternion_wxyz_to_matrix(turns)
        if kind == 7 and generator.random() < 0.2:  # no rotations: mirrored, or scaled
            rotations = rotations * generator.choice([-1.0, 0.5, 3.0, 0.0])
        return MotionClip(rotations, roots, FRAME_RATE)

    for _ in range(frames // CHUNK):
        first, kind = int(generator.integers(len(base) - CHUNK)), int(generator.integers(10))
        yield lambda first=first, kind=kind: chunk(first, kind, generator)


def _disturbed(shaper: TrajectoryShaper, joints: list[FloatArray], wild: np.random.Generator) -> list[FloatArray]:
    """A hold, a stop that recalls frames, or another speed, now and then; frames that are planned by it."""
    kind = wild.integers(20)
    if kind == 0:
        shaper.speed = float(wild.choice([0.0, 0.3, 1.0, 1.0]))
    if kind == 1:
        return [shaper.hold(int(wild.integers(1, 8)))]
    if kind == 2:
        recalled = int(wild.integers(1, 4))
        shaper.stop(shaper.end_index - 1 - recalled)
        joints[-1] = joints[-1][: len(joints[-1]) - recalled] if len(joints[-1]) > recalled else joints[-1]
        missing = sum(map(len, joints)) - shaper.end_index
        if missing > 0:
            joints[-1] = joints[-1][: len(joints[-1]) - missing]
        held = shaper.hold(6)
        shaper.reset()
        return [held]
    return []
