"""What does motion lose when compiled kernels keep weights in bfloat16 or int8? Against float32, with the same noise.

    python benchmarks/quantisation.py --checkpoint llamo-mini --seeds 10 --json benchmarks/results/quantisation.json

Every prompt of ``prompt_checks.py`` is performed with every seed, for --duration seconds whatever the exit head says,
so that frames have partners. Distances are the mean over the 22 joints of how far they are apart in the world, [mm].

"forced" is what the precision itself costs. Each latent is made from the history of the float32 run: the same prompt
and noise, and the latents that float32 made before it, which the backbone and the decoder in the other precision have
read. Its four frames are compared with those of float32, both from where the float32 motion then stands. "first" are
first latents, behind the prompt alone; "all" is the mean over all, "p95" their 95th percentile. "latent" is the root
mean square of the difference of latents, whose channels have unit spread.

"free" lets each run go on from its own latents, from the same place; at each time the four frames of one latent are
compared, and "all" is the mean over the motion. Two such runs part whatever the cause, so it says little of the
precision: "PyTorch float32" differs from float32 by rounding alone, "other noise" is float32 with other seeds.

"checks" are motions that pass the prompt's rule, made as users make them: the exit head ends them. "R-precision" is the
share of them whose own prompt the captioner finds the most likely of all prompts (top 1), or among the
three most likely (top 3).

Weights that are stored in bfloat16, as those of shipped models are, lose nothing in it but the rounding of sums.
"""

# T latents of a motion, N motions, C latent channels

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llamo_ros.core.errors import CheckpointError, LlamoError
from llamo_ros.evaluation.prompt_checks import RULES
from llamo_ros.kernels.backends import instruction_sets
from llamo_ros.model.checkpoint import checkpoint_folder, load_checkpoint, read_config
from llamo_ros.model.config import LATENT_RATE
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.motion_runtime import MotionRuntime
from llamo_ros.model.stream_state import StreamState
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.facts import motion_facts
from llamo_ros.motion.representation272 import StreamingDecoder, decode_features
from llamo_ros.pipelines.motion_engine import MotionEngine
from llamo_ros.pipelines.motion_to_text import MotionToText
from llamo_ros.pipelines.text_to_motion import MOST_AT_ONCE, TextToMotion

# Name, backend and precision; the first is what the others are compared with.
RUNS = (
    ("float32", "cpu", "float32"),
    ("PyTorch float32", "reference", "float32"),
    ("bfloat16", "cpu", "bfloat16"),
    ("int8", "cpu", "int8"),
)
TIMES = (0.5, 1.0, 2.0, 4.0)  # [s] of free motion
OTHER_SEEDS = 10_000

FloatArray = NDArray[np.float64]


class FollowingRuntime:
    """A runtime whose streams go on from given latents whatever it makes; its frames are those of what it makes.

    Attributes:
        model: The model.
        read: As that of the runtime.
        made: Latents (N, C) of each tick, normalised.
        features: Their frames (N, 4, 272), each behind the given latents before it.
    """

    def __init__(self, runtime: MotionRuntime, history_TNC: Tensor | None = None) -> None:
        """Begin. Without a history, streams go on from what is made."""
        self.model, self.read = runtime.model, runtime.read
        self._runtime, self._history_TNC = runtime, history_TNC
        self.made: list[Tensor] = []
        self.features: list[Tensor] = []

    def sampler(self, *arguments: object) -> Tensor:
        """Latents (N, C) that the streams go on from."""
        self.made.append(self._runtime.sampler(*arguments))
        return self.made[-1] if self._history_TNC is None else self._history_TNC[len(self.made) - 1]

    def decode(self, z_BLC: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        """Frames of the latents that were made, and the state behind those given."""
        given, new_state = self._runtime.decode(z_BLC, state)
        if self._history_TNC is None:
            self.features.append(given)
            return given, new_state
        made_NC = self.model.denormalise_latents(self.made[-1])
        self.features.append(self._runtime.decode(made_NC[:, None], state)[0])
        return self.features[-1], new_state


@dataclass(frozen=True)
class Motions:
    """What one precision made: normalised latents (T, N, C), and features (T, N, 4, 272)."""

    latents: Tensor
    features: NDArray[np.float32]


def perform(
    runtime: MotionRuntime, tokenizer: TextTokenizer, seeds: range, seconds: float, history: Tensor | None = None
) -> Motions:
    """Every prompt with every seed, [s] long; with a history (T, N, C) each latent is made from that."""
    jobs = [(rule.prompt, seed) for rule in RULES for seed in seeds]
    parts = []
    for start in range(0, len(jobs), MOST_AT_ONCE):
        stop = start + MOST_AT_ONCE
        following = FollowingRuntime(runtime, None if history is None else history[:, start:stop])
        engine = MotionEngine(runtime.model, tokenizer, runtime=following)
        for prompt, seed in jobs[start:stop]:
            engine.open(prompt, seed=seed, min_duration=seconds, max_duration=seconds)
        while engine.tick():
            pass
        parts.append((torch.stack(following.made), torch.stack(following.features).numpy()))
    return Motions(torch.cat([made for made, _ in parts], 1), np.concatenate([frames for _, frames in parts], 1))


def forced_distances(base: Motions, other: Motions) -> FloatArray:
    """Distance (T, N), [mm], of the frames of each latent, both from where the base motion stands before it."""
    distances = np.zeros(base.features.shape[:2])
    for n in range(distances.shape[1]):
        decoder = StreamingDecoder()
        for t in range(len(distances)):
            there = copy.copy(decoder).decode(other.features[t, n]).joint_positions()
            here = decoder.decode(base.features[t, n]).joint_positions()
            distances[t, n] = 1e3 * np.linalg.norm(here - there, axis=-1).mean()
    return distances


def free_distances(base: Motions, other: Motions) -> FloatArray:
    """The same of motions that begin in the same place and then go their own ways."""
    latents, count, frames, _ = base.features.shape
    distances = np.zeros((latents, count))
    for n in range(count):
        here, there = (decode_features(np.concatenate(m.features[:, n])).joint_positions() for m in (base, other))
        distances[:, n] = 1e3 * np.linalg.norm(here - there, axis=-1).reshape(latents, -1).mean(axis=1)
    return distances


def forced_summary(base: Motions, other: Motions) -> dict[str, float]:
    """Means over motions, as the module says."""
    distances_TN = forced_distances(base, other)
    return {
        "first_mm": float(distances_TN[0].mean()),
        "all_mm": float(distances_TN.mean()),
        "p95_mm": float(np.quantile(distances_TN, 0.95)),
        "latent_rms": float((base.latents - other.latents).square().mean().sqrt()),
    }


def free_summary(base: Motions, other: Motions) -> dict[str, float]:
    """Mean distance of the first latents, of those that end at each time, and of the whole motion."""
    distances_T = free_distances(base, other).mean(axis=1)
    at = {f"{time:g}_s_mm": round(time * LATENT_RATE) - 1 for time in TIMES}
    times = {name: float(distances_T[t]) for name, t in at.items() if t < len(distances_T)}
    return {"first_mm": float(distances_T[0]), **times, "all_mm": float(distances_T.mean())}


def made(pipeline: TextToMotion, seeds: range, seconds: float) -> list[MotionClip]:
    """A motion of each prompt and seed, at most so long, [s]."""
    texts = [rule.prompt for rule in RULES for _ in seeds]
    return pipeline.batch(texts, seeds=[*seeds] * len(RULES), max_duration=seconds)


def checks_passed(clips: Sequence[MotionClip]) -> dict[str, int]:
    """Motions that pass, by prompt."""
    facts = [motion_facts(clip) for clip in clips]
    count = len(clips) // len(RULES)
    return {
        rule.name: sum(map(rule.passes, facts[index * count : (index + 1) * count])) for index, rule in enumerate(RULES)
    }


def r_precision(clips: Sequence[MotionClip], captioner: MotionToText) -> dict[str, float]:
    """Share of motions whose own prompt is the likeliest of all, and one of the three likeliest."""
    prompts, ranks = [rule.prompt for rule in RULES], []
    for index, clip in enumerate(clips):
        stream = captioner.open()
        stream.add(clip)
        scores = np.array([stream.log_likelihood(prompt) for prompt in prompts])
        ranks.append(int((scores > scores[index * len(RULES) // len(clips)]).sum()))
    return {f"top_{most}": float(np.mean(np.array(ranks) < most)) for most in (1, 3)}


def compare(model: Llamo, tokenizer: TextTokenizer, seeds: range, seconds: float) -> list[dict[str, object]]:
    """A row for each run, and one for float32 with other noise."""
    base, rows, captioner = None, [], MotionToText(model, tokenizer)
    for name, backend, precision in RUNS:
        runtime = MotionRuntime(model, backend, precision)
        row: dict[str, object] = {"run": name, "backend": backend, "precision": precision}
        free = perform(runtime, tokenizer, seeds, seconds)
        if base is None:
            base = free
        else:
            row["forced"] = forced_summary(base, perform(runtime, tokenizer, seeds, seconds, base.latents))
            row["free"] = free_summary(base, free)
        clips = made(TextToMotion(model, tokenizer, backend, precision), seeds, seconds)
        row |= {"checks": checks_passed(clips), "r_precision": r_precision(clips, captioner)}
        rows.append(row)
        _print(row, len(seeds))
    others = range(seeds.start + OTHER_SEEDS, seeds.stop + OTHER_SEEDS)
    other = perform(MotionRuntime(model, "cpu", "float32"), tokenizer, others, seconds)
    rows.append({"run": "other noise", "free": free_summary(base, other)})
    _print(rows[-1], len(seeds))
    return rows


def _print(row: dict[str, object], seeds: int) -> None:
    parts = [f"{row['run']:16}"]
    for kind in ("forced", "free"):
        if kind in row:
            values = {name.removesuffix("_mm").replace("_s", " s"): value for name, value in row[kind].items()}
            rms = values.pop("latent_rms", None) if kind == "forced" else None
            words = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
            parts.append(f"{kind} [mm] {words}" + (f", latent {rms:.4f}" if rms is not None else ""))
    if "checks" in row:
        parts.append(f"checks {sum(row['checks'].values())}/{seeds * len(RULES)}")
        parts.append("R-precision top 1 {top_1:.3f}, top 3 {top_3:.3f}".format(**row["r_precision"]))
    print("  ".join(parts), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="motions for each prompt (default 10)")
    parser.add_argument("--duration", type=float, default=4.0, metavar="S", help="longest motion, [s] (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}, expected at least 1")
    try:
        if "quantised" in read_config(checkpoint_folder(options.checkpoint))[1]:
            raise CheckpointError(f"{options.checkpoint} is quantised already; give the one that it was made of.")
        torch.set_num_threads(1)
        model, tokenizer = load_checkpoint(options.checkpoint)
        fastest = instruction_sets()[0]
        print(f"{options.checkpoint}: {options.seeds} seeds, {options.duration:g} s, {fastest}", flush=True)
        rows = compare(model, tokenizer, range(options.seeds), options.duration)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        result = {
            "checkpoint": options.checkpoint,
            "seeds": options.seeds,
            "duration_s": options.duration,
            "instruction_set": fastest,
            "motions": options.seeds * len(RULES),
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
