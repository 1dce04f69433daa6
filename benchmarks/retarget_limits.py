"""Do a robot's limits hold, whatever comes in, and what does it cost?

    python benchmarks/retarget_limits.py --clips ../shared/robots/bench_clips --data ../shared/data
    python benchmarks/retarget_limits.py --clips ../shared/robots/bench_clips --robots unitree_h1

Everything runs in chunks of 4 frames through retargeter, trajectory shaper and root path, as it does live, and is
judged by finite differences of what comes out. For each robot:

- walk, squat, stress: the bench clips, which are to be followed exactly where they keep the limits;
- switch: 150 frames of squat, then stress from its first frame on, without any blend;
- captured: clips of the data drawn at random (--captured of them, --seed), with the errors of hands and feet;

and for the first one only:

- generated: motions that the model makes of 30 prompts (--generated; kept in a temporary file for the next run);
- human: human frames at random (--frames): any posture, jumps, half turns, mirrored, zero and NaN quaternions, far
  roots. What is no motion must be refused, the rest must be bounded;
- robot: the same behind the retargeter, with square waves and wrong shapes. Stops, holds and changes of speed come
  between the chunks of both;
- the time of shaper and root path for each frame, without retargeting.

A share is the largest value divided by its limit; it must not exceed 1. "clamped" are values of joints that asked for
more velocity or acceleration, or jerk, "off" those that differ from what was asked; of the root, frames. Seeds are
fixed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from retarget_quality import read_clip
from tqdm import tqdm

from llamo_ros.benchmark.machine import envelope
from llamo_ros.benchmark.results import add_result_options, check_places, keep
from llamo_ros.benchmark.robot_limits import (
    LimitJudge,
    chunks_of,
    perturbed_human_motion,
    perturbed_robot_motion,
    retargeted_chunks,
    streamed,
)
from llamo_ros.benchmark.tables import caption, markdown
from llamo_ros.core.errors import LlamoError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import to_ros_world
from llamo_ros.motion.placement import canonicalised
from llamo_ros.motion.skeleton import FRAME_RATE, PARENTS, forward_kinematics
from llamo_ros.retarget.catalogue import robot_names
from llamo_ros.retarget.profile import Robot, has_description, load_robot
from llamo_ros.retarget.quality import score_motion
from llamo_ros.retarget.retargeter import Retargeter, RobotMotion
from llamo_ros.retarget.root_path import RootPath
from llamo_ros.retarget.trajectory import TrajectoryShaper
from llamo_ros.training.runs import git_commit
from llamo_ros.training.source_data import read_sequences

NAME, DOCUMENT = "retarget_limits", Path("docs/robots.md")
SWITCH = 150  # frames of squat before stress
STREAM = 1000  # frames at random in one stream
DURATION = 5.0  # [s]; of a generated motion
AT_ONCE = 50
TIMED = 100  # generated motions
STANDS = 0.99  # contact weight
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


def main() -> int:
    """Print one line for each part; exit status 1 if a limit was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of the bench clips")
    parser.add_argument("--data", type=Path, help="folder of captured motion; without it no captured clips are run")
    own = [name for name in robot_names() if has_description(name)]
    parser.add_argument("--robots", nargs="+", default=["unitree_g1", *(n for n in own if n != "unitree_g1")])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model that makes motions")
    parser.add_argument("--captured", type=int, default=100, help="clips of the data (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips that are drawn (default %(default)s)")
    parser.add_argument("--generated", type=int, default=1000, help="motions of the model (default %(default)s)")
    parser.add_argument("--frames", type=int, default=1_000_000, help="frames at random (default %(default)s)")
    add_result_options(parser, NAME, DOCUMENT)
    options = parser.parse_args()
    rows, times = [], []
    try:
        check_places(options, DOCUMENT)
        captured = _captured(options.data, options.captured, options.seed) if options.data else []
        for number, name in enumerate(options.robots):
            robot = load_robot(name)
            for row in _parts(robot, options, captured, is_first=number == 0, times=times):
                rows.append({"robot": robot.name} | row)
                print(_line(rows[-1]), flush=True)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result = envelope("limits of robots in what the live chain makes", git_commit())
    result |= {"rows": rows, "times": times, "seed": options.seed}
    print(_tables(result))
    keep(result, options, NAME, _tables, DOCUMENT)
    broken = [row for row in rows if row["violations"]]
    if broken:
        print("a limit was broken", file=sys.stderr)
    return int(bool(broken))


def _parts(
    robot: Robot,
    options: argparse.Namespace,
    captured: Sequence[MotionClip],
    is_first: bool,
    times: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Figures of one part after the other."""
    clips, motions = {}, {}
    for name in ("walk", "squat", "stress"):
        clips[name] = read_clip(options.clips / f"{name}.npz")[:2]
        motions[name] = streamed(robot, *clips[name])
        yield _judged(robot, name, [motions[name]])
    switch = streamed(robot, *(np.concatenate([clips["squat"][k][:SWITCH], clips["stress"][k]]) for k in range(2)))
    asked = FRAME_RATE * float(np.abs(np.diff(switch.joint_positions, axis=0)).max())
    yield _judged(robot, "switch", [switch]) | {"asked_rad_s": asked}
    if captured:
        yield _followed(robot, captured)
    if not is_first:
        return
    made = []
    if options.generated:
        motion_of = (_retargeted(robot, clip) for clip in _generated(options.generated, options.checkpoint))
        judge = LimitJudge(robot)
        for motion in tqdm(motion_of, "generated", options.generated, unit="motion", leave=False):
            judge.run(chunks_of(motion))
            made += [motion] if len(made) < TIMED else []
        yield {"part": "generated"} | judge.figures()
    if options.frames:
        base = _longest(captured) if captured else _human(*clips["walk"])
        yield from _at_random(robot, base, motions["stress"], options.frames)
    for name, timed in (("bench clips", [*motions.values()]), ("generated", made)):
        if timed:
            times.append({"motions": name} | _cost(robot, timed))


def _judged(robot: Robot, part: str, motions: Sequence[RobotMotion]) -> dict[str, Any]:
    judge = LimitJudge(robot)
    for motion in motions:
        judge.run(chunks_of(motion))
    return {"part": part} | judge.figures()


def _followed(robot: Robot, clips: Sequence[MotionClip]) -> dict[str, Any]:
    """Captured clips, and how near hands and feet are to the human's where limits are kept; means over frames."""
    judge, errors, frames = LimitJudge(robot), [], 0
    legs = {foot.limb for foot in robot.feet}
    for clip in tqdm(clips, f"captured, {robot.name}", unit="clip", leave=False):
        kept = judge.run(chunks_of(_retargeted(robot, clip)))
        human, _ = to_ros_world(clip.joint_positions())
        scores = score_motion(robot, kept, human, kept.contacts > STANDS, first=0)
        hand, foot = (
            np.mean([scores[f"reach_{limb}_cm"] for limb in range(len(robot.limbs)) if (limb in legs) is is_leg])
            for is_leg in (False, True)
        )
        errors.append(len(clip) * np.array([hand, foot]))
        frames += len(clip)
    hand, foot = np.sum(errors, axis=0) / frames
    return (
        {"part": "captured", "clips": len(clips)} | judge.figures() | {"hand_cm": float(hand), "foot_cm": float(foot)}
    )


def _at_random(robot: Robot, human: MotionClip, motion: RobotMotion, frames: int) -> Iterator[dict[str, Any]]:
    generator, judge = np.random.default_rng(0), LimitJudge(robot)
    for first in tqdm(range(0, frames, STREAM), "human frames at random", unit="stream", leave=False):
        chunks = perturbed_human_motion(human, min(STREAM, frames - first), generator)
        judge.run(retargeted_chunks(Retargeter(robot), chunks), wild=generator)
    yield {"part": "human"} | judge.figures()
    generator, judge = np.random.default_rng(0), LimitJudge(robot)
    for first in tqdm(range(0, frames, STREAM), "robot frames at random", unit="stream", leave=False):
        chunks = perturbed_robot_motion(robot, motion, min(STREAM, frames - first), generator)
        judge.run(chunks, wild=generator)
    yield {"part": "robot"} | judge.figures()


def _captured(folder: Path, count: int, seed: int) -> list[MotionClip]:
    """Clips of the data, drawn at random without regard to their split, standing on the floor, at 30 FPS."""
    keys = [sequence.id for sequence in tqdm(read_sequences(folder), "reading", unit="clip", leave=False)]
    if count > len(keys):
        raise ParameterError(f"--captured is {count}, but {folder} holds {len(keys)} clips.")
    drawn = {keys[k] for k in np.random.default_rng(seed).choice(len(keys), count, replace=False)}
    sequences = read_sequences(folder, keep=lambda row: row["id"] in drawn)
    return [canonicalised(sequence.clip.resampled(FRAME_RATE)) for sequence in sequences]


def _longest(clips: Sequence[MotionClip]) -> MotionClip:
    return max(clips, key=len)


def _human(positions: np.ndarray, rotations: np.ndarray) -> MotionClip:
    """Measured joints as a clip: on the bones of smpl22."""
    local = rotations.copy()
    local[:, 1:] = np.swapaxes(rotations[:, PARENTS[1:]], -1, -2) @ rotations[:, 1:]
    return MotionClip(local, positions[:, 0])


def _retargeted(robot: Robot, clip: MotionClip) -> RobotMotion:
    return streamed(robot, *forward_kinematics(clip.rotations, clip.root_positions))


def _generated(count: int, checkpoint: str) -> Iterator[MotionClip]:
    """Motions of the model, from a temporary file where an earlier run has left them."""
    path = Path(tempfile.gettempdir()) / f"retarget_limits_{Path(checkpoint).name}_{count}.npz"
    if not path.is_file():
        from llamo_ros.pipelines.text_to_motion import TextToMotion

        model, arrays = TextToMotion.from_checkpoint(checkpoint), {}
        for first in tqdm(range(0, count, AT_ONCE), "generating", unit="batch", leave=False):
            seeds = list(range(first, min(first + AT_ONCE, count)))
            texts = [PROMPTS[seed % len(PROMPTS)] for seed in seeds]
            for seed, clip in zip(seeds, model.batch(texts, seeds=seeds, max_duration=DURATION), strict=True):
                arrays[f"rotations_{seed}"] = clip.rotations.astype(np.float32)
                arrays[f"root_{seed}"] = clip.root_positions.astype(np.float32)
        np.savez(path, **arrays)
    with np.load(path, allow_pickle=False) as arrays:
        for seed in range(count):
            yield MotionClip(arrays[f"rotations_{seed}"], arrays[f"root_{seed}"])


def _cost(robot: Robot, motions: Sequence[RobotMotion]) -> dict[str, float]:
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
    return {"shaper_ms": 1e3 * (middle - begin) / frames, "root_ms": 1e3 * (end - middle) / frames}


def _line(row: dict[str, Any]) -> str:
    """One part, for the terminal."""
    shares = " ".join(f"{name} {share:.3f}" for name, share in row["shares"].items())
    verdict = f"{row['violations']} VIOLATIONS" if row["violations"] else "kept"
    return f"{row['robot']:<18} {row['part']:<10} {row['frames']:>8} frames, {verdict}; {shares}"


def _tables(result: dict[str, Any]) -> str:
    """The tables of the document."""
    header = (
        "robot", "motion", "frames", "violations", "velocity", "acceleration", "jerk", "root speed", "root acc.",
        "root jerk", "turn rate", "turn acc.", "fastest [rad/s]", "clamped [%]", "jerk [%]", "off [%]", "root [%]",
        "slides [%]", "refused chunks", "hand [cm]", "foot [cm]",
    )  # fmt: skip
    rows = [
        [
            row["robot"], f"{row['clips']} captured" if "clips" in row else row["part"], str(row["frames"]),
            str(row["violations"]), *[f"{share:.3f}" for share in row["shares"].values()],
            f"{row['fastest_rad_s']:.1f}", f"{row['clamped_percent']:.2f}", f"{row['jerk_clamped_percent']:.2f}",
            f"{row['off_percent']:.2f}", f"{row['root_clamped_percent']:.2f}", f"{row['slides_percent']:.2f}",
            str(row["refused_chunks"]), *[f"{row[n]:.2f}" if n in row else None for n in ("hand_cm", "foot_cm")],
        ]
        for row in result["rows"]
    ]  # fmt: skip
    parts = [caption(result) + f" Clips drawn with seed {result['seed']}.", markdown(header, rows)]
    if result["times"]:
        rows = [[row["motions"], f"{row['shaper_ms']:.3f}", f"{row['root_ms']:.3f}"] for row in result["times"]]
        parts.append("Processor time for each frame, behind the retargeter:")
        parts.append(markdown(("motions", "shaper [ms]", "root [ms]"), rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
