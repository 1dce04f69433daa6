"""Do a robot's limits hold, whatever comes in, and what does it cost?

    python benchmarks/retarget_limits.py --clips ../shared/robots/bench_clips --count 1000 --frames 1000000

Everything runs in chunks of 4 frames through retargeter, trajectory shaper and root path, as it does live, and is
judged by finite differences of what comes out. Five parts:

- the bench clips, which are to be followed exactly where they keep the limits;
- the switch: 150 frames of squat, then stress from its first frame on, without any blend;
- motions that llamo-mini makes of 30 prompts (``--count``; kept in a temporary file for the next run);
- frames at random: noise, jumps, square waves, NaN, zero and flipped quaternions, wrong shapes (``--frames``), with
  stops, holds and changes of speed between them. What is not finite must be refused, the rest must be bounded;
- the time of the shaper and of the root path for each frame, without retargeting.

A share is the largest value divided by its limit; it must not exceed 1. `clamps` are changed values as a share of all
joints and frames, `off` is how many of them differ from the reference; for the root, clamps of all kinds and slides are
a share of the frames. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from retarget_quality import CHUNK, joined, read_clip

from llamo_ros.core.errors import LlamoError, MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.skeleton import FRAME_RATE, forward_kinematics
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.retarget.root_path import RootPath
from llamo_ros.retarget.trajectory import TrajectoryShaper

FloatArray = NDArray[np.float64]
ROUNDING = 1e-6  # of a limit: third differences of rounded numbers, times 27,000
SWITCH = 150  # frames of squat before stress
DURATION = 5.0  # [s]; of a generated motion
AT_ONCE = 50
TIMED = 100  # generated motions
PROMPTS = tuple(
    f"a person {action}"
    for action in (
        "walks forward, runs forward, jumps, jumps up high twice, kicks with the right leg, waves the right hand, "
        "turns to the left, walks in a circle, dances, punches, sits down, squats, picks something up from the floor, "
        "walks backwards, walks to the left, throws a ball, does jumping jacks, marches in place, climbs stairs, bows, "
        "raises both arms, hops on one leg, stretches, sneaks, balances on one foot, runs in a circle, "
        "turns around and walks back, swings a golf club, does a cartwheel, limps"
    ).split(", ")
)


class Judge:
    """The live chain behind the retargeter, and what its output did to the limits."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.frames = self.outside = self.off = self.refused = self.joint_clamps = self.jerk_clamps = 0
        self.root_clamps = self.slides = 0
        self.shares = np.zeros(8)
        self.fastest = 0.0  # [rad/s]

    def run(self, motions: Iterator[RobotMotion | None], wild: np.random.Generator | None = None) -> None:
        """Send chunks of one stream through; with ``wild``, holds, stops and changes of speed come between them."""
        shaper, root = TrajectoryShaper(self.robot, FRAME_RATE), RootPath(self.robot, FRAME_RATE)
        joints, places, turns, speeds = [], [], [], []
        if wild is not None:
            shaper.start_from(self.robot.standing)
            joints.append(self.robot.standing[None])
            speeds.append(1.0)
        for motion in motions:
            try:
                root.check(motion)
                planned = shaper.push(motion.joint_positions)
                shaper.way_to_rest()
            except MotionDataError:
                self.refused += 1
                planned, motion = shaper.hold(CHUNK), None
            poses = root.hold(planned) if motion is None else root.follow(motion, planned)
            if motion is not None:
                self.off += int((np.abs(planned - motion.joint_positions) > 1e-9).sum())
            joints.append(planned)
            places.append(poses[0])
            turns.append(poses[1])
            if wild is not None:
                joints += self._disturb(shaper, joints, places, wild)
        self._count(np.concatenate(joints), np.concatenate(places), np.concatenate(turns))
        counts = shaper.counts
        self.joint_clamps += counts.velocity_clamps + counts.acceleration_clamps
        self.jerk_clamps += counts.jerk_clamps
        limited = root.counts
        self.root_clamps += limited.speed_clamps + limited.acceleration_clamps + limited.jerk_clamps
        self.root_clamps += limited.turn_clamps
        self.slides += limited.slides

    @staticmethod
    def _disturb(
        shaper: TrajectoryShaper, joints: list[FloatArray], places: list[FloatArray], wild: np.random.Generator
    ) -> list[FloatArray]:
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

    def _count(self, q: FloatArray, places: FloatArray, turns: FloatArray) -> None:
        robot, root = self.robot, self.robot.root_limits
        self.frames += len(q)
        self.outside += int(((q < robot.lower - 1e-9) | (q > robot.upper + 1e-9)).any(axis=1).sum())
        assert np.isfinite(q).all() and np.isfinite(places).all() and np.isfinite(turns).all()
        heading = np.unwrap(2 * np.arctan2(turns[:, 2], turns[:, 3]))
        shares = []
        for order, limit in enumerate((robot.velocity_limits, robot.acceleration_limits, robot.jerk_limits), start=1):
            shares.append(_largest(np.abs(np.diff(q, n=order, axis=0)) * FRAME_RATE**order / limit))
        for order, limit in enumerate((root.speed, root.acceleration, root.jerk), start=1):
            shares.append(
                _largest(np.linalg.norm(np.diff(places, n=order, axis=0), axis=1)) * FRAME_RATE**order / limit
            )
        for order, limit in enumerate((root.turn_rate, root.turn_acceleration), start=1):
            shares.append(_largest(np.abs(np.diff(heading, n=order))) * FRAME_RATE**order / limit)
        self.shares = np.maximum(self.shares, shares)
        self.fastest = max(self.fastest, _largest(np.abs(np.diff(q, axis=0))) * FRAME_RATE)

    def row(self) -> str:
        """One line of the table."""
        joints = self.frames * self.robot.model.joint_count
        shares = " ".join(f"{share:6.3f}" for share in self.shares)
        return (
            f"{self.frames:>8} {self.outside:>7} {shares} {self.fastest:7.2f} {100 * self.joint_clamps / joints:7.3f} "
            f"{100 * self.jerk_clamps / joints:7.3f} {100 * self.off / joints:7.3f} "
            f"{100 * self.root_clamps / self.frames:7.3f} {100 * self.slides / self.frames:7.3f} {self.refused:>8}"
        )

    @property
    def passes(self) -> bool:
        """Whether no limit was broken."""
        return not self.outside and bool((self.shares <= 1 + ROUNDING).all())


HEADER = (
    f"{'':<12} {'frames':>8} {'outside':>7} "
    + " ".join(f"{name:>6}" for name in ("vel", "acc", "jerk"))
    + " "
    + " ".join(f"{name:>6}" for name in ("r.vel", "r.acc", "r.jerk", "turn", "t.acc"))
    + f" {'rad/s':>7} {'clamp %':>7} {'jerk %':>7} {'off %':>7} {'root %':>7} {'slide %':>7} {'refused':>8}"
)


def cost(robot: Robot, motions: list[RobotMotion]) -> tuple[float, float]:
    """Processor time of shaper and of root path for each frame, [ms]; a neighbour on the same core does not count."""
    chunks = [[*chunks_of(motion)] for motion in motions]
    frames = sum(map(len, motions))
    for _ in range(2):  # once to warm up
        planned, begin = [], time.process_time()
        for motion in chunks:
            shaper = TrajectoryShaper(robot, FRAME_RATE)
            for chunk in motion:
                planned.append(shaper.push(chunk.joint_positions))
                shaper.way_to_rest()
        middle, plans = time.process_time(), iter(planned)
        for motion in chunks:
            root = RootPath(robot, FRAME_RATE)
            for chunk in motion:
                root.follow(chunk, next(plans))
        end = time.process_time()
    return 1e3 * (middle - begin) / frames, 1e3 * (end - middle) / frames


def chunks_of(motion: RobotMotion) -> Iterator[RobotMotion]:
    """Chunks of 4 frames."""
    for first in range(0, len(motion), CHUNK):
        yield motion.sliced(first, first + CHUNK)


def retargeted(robot: Robot, positions: FloatArray, rotations: FloatArray) -> RobotMotion:
    """A whole motion, as a stream."""
    retargeter = Retargeter(robot)
    return joined(
        [
            retargeter.retarget_joints(positions[k : k + CHUNK], rotations[k : k + CHUNK], FRAME_RATE)
            for k in range(0, len(positions), CHUNK)
        ]
    )


def generated(count: int, checkpoint: str) -> Iterator[MotionClip]:
    """Motions of the model, from a temporary file where an earlier run has left them."""
    path = Path(tempfile.gettempdir()) / f"retarget_limits_{Path(checkpoint).name}_{count}.npz"
    if not path.is_file():
        from llamo_ros.pipelines.text_to_motion import TextToMotion

        model, arrays = TextToMotion.from_checkpoint(checkpoint), {}
        for first in range(0, count, AT_ONCE):
            seeds = list(range(first, min(first + AT_ONCE, count)))
            texts = [PROMPTS[seed % len(PROMPTS)] for seed in seeds]
            for seed, clip in zip(seeds, model.batch(texts, seeds=seeds, max_duration=DURATION), strict=True):
                arrays[f"rotations_{seed}"] = clip.rotations.astype(np.float32)
                arrays[f"root_{seed}"] = clip.root_positions.astype(np.float32)
        np.savez(path, **arrays)
    with np.load(path, allow_pickle=False) as arrays:
        for seed in range(count):
            yield MotionClip(arrays[f"rotations_{seed}"], arrays[f"root_{seed}"])


def perturbed(robot: Robot, base: RobotMotion, frames: int, generator: np.random.Generator) -> Iterator[RobotMotion]:
    """Chunks of a motion with what should never come; some cannot be followed at all."""
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


def main() -> None:
    """Print one line for each part; exit status 1 if a limit was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of the bench clips")
    parser.add_argument("--robot", default="unitree_g1", help="robot name or profile")
    parser.add_argument("--checkpoint", default="llamo-mini", help="model that makes motions")
    parser.add_argument("--count", type=int, default=1000, help="generated motions (default 1000; 0 for none)")
    parser.add_argument("--frames", type=int, default=1_000_000, help="frames at random (default 1,000,000)")
    arguments = parser.parse_args()
    passes = True

    def show(name: str, judge: Judge) -> None:
        nonlocal passes
        passes = passes and judge.passes
        print(f"{name:<12} {judge.row()}  {'' if judge.passes else 'BROKEN'}", flush=True)

    try:
        robot = load_robot(arguments.robot)
        print(HEADER)
        clips, base, timed = {}, None, {"bench clips": [], "generated": []}
        for name in ("walk", "squat", "stress"):
            clips[name] = read_clip(arguments.clips / f"{name}.npz")[:2]
            base, judge = retargeted(robot, *clips[name]), Judge(robot)
            timed["bench clips"].append(base)
            judge.run(chunks_of(base))
            show(name, judge)
        switch = [np.concatenate([clips["squat"][k][:SWITCH], clips["stress"][k]]) for k in range(2)]
        judge, motion = Judge(robot), retargeted(robot, *switch)
        judge.run(chunks_of(motion))
        show("switch", judge)
        raw = np.abs(np.diff(motion.joint_positions, axis=0)).max() * FRAME_RATE
        if arguments.count:
            judge = Judge(robot)
            for clip in generated(arguments.count, arguments.checkpoint):
                positions, rotations = forward_kinematics(clip.rotations, clip.root_positions)
                motion = retargeted(robot, positions, rotations)
                judge.run(chunks_of(motion))
                if len(timed["generated"]) < TIMED:
                    timed["generated"].append(motion)
            show("generated", judge)
        if arguments.frames:
            judge, generator = Judge(robot), np.random.default_rng(0)
            for first in range(0, arguments.frames, 1000):
                count = min(1000, arguments.frames - first)
                judge.run(perturbed(robot, base, count, generator), wild=generator)
            show("random", judge)
        print(f"\nThe switch asks for {raw:.1f} rad/s before the shaper; GMR gives out 35.3 rad/s there.")
        print(f"{'time per frame [ms]':<22} {'shaper':>8} {'root':>8}")
        for name, motions in timed.items():
            if motions:
                shaper, root = cost(robot, motions)
                print(f"{name:<22} {shaper:8.3f} {root:8.3f}")
    except LlamoError as error:
        parser.exit(1, f"error: {error}\n")
    if not passes:
        parser.exit(1, "a limit was broken\n")


def _largest(values: FloatArray) -> float:
    return float(values.max(initial=0.0))


if __name__ == "__main__":
    main()
