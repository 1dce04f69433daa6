"""Does a model do what it is told? Thirteen prompts, several seeds, kinematic rules; no learned judge.

    python benchmarks/prompt_checks.py --check-real ../shared/data          # are the rules right? on real clips
    python benchmarks/prompt_checks.py --checkpoint llamo-mini --seeds 10   # is the model?

The second prints, for each prompt, how many of the motions pass, how often motion made WITHOUT text passes the same
rule (a rule that chance meets is no evidence), and the mean of the facts the rule looks at. Rules and thresholds, with
their reasons: ``llamo_ros/evaluation/prompt_checks.py``. The prompts are close to the training captions: this measures
whether common words move the body as they should, not how well language is understood.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llamo_ros.core.errors import LlamoError
from llamo_ros.evaluation.prompt_scores import (
    RealClip,
    as_json,
    content_of,
    model_table,
    real_clip,
    real_table,
    score_model,
    score_real,
    spread,
)
from llamo_ros.motion.facts import MINIMUM_FRAMES
from llamo_ros.training.source_data import Sequence, read_sequences

# Clips of each content to measure, evenly spread over the data, so that all styles are among them.
MOST_PER_CONTENT = 80


def real_clips(folder: Path) -> list[RealClip]:
    """Real clips of a source data folder with known content, at most ``MOST_PER_CONTENT`` of each."""
    groups: dict[str, list[Sequence]] = {}
    for sequence in read_sequences(folder, keep=lambda row: row["kind"] != "cmu_trial"):
        content = content_of(sequence.content, sequence.captions)
        if content and len(sequence) >= MINIMUM_FRAMES:
            groups.setdefault(content, []).append(sequence)
    return [
        real_clip(content, sequence.clip)
        for content, sequences in groups.items()
        for sequence in spread(sequences, MOST_PER_CONTENT)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the checks asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check-real", type=Path, metavar="FOLDER", help="validate the rules on this source data")
    parser.add_argument("--checkpoint", metavar="NAME", help="model name or checkpoint folder to score")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="motions for each prompt (default 10)")
    parser.add_argument("--guidance", type=float, metavar="G", help="guidance scale (default: the model's own)")
    parser.add_argument("--duration", type=float, default=4.0, metavar="S", help="longest motion, [s] (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores to this file")
    options = parser.parse_args(arguments)
    if options.check_real is None and options.checkpoint is None:
        parser.error("nothing to do: give --check-real FOLDER, --checkpoint NAME, or both")
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}, expected at least 1")
    result: dict[str, object] = {}
    try:
        if options.check_real is not None:
            scores = score_real(real_clips(options.check_real))
            print(real_table(scores))
            result["real"] = as_json(scores)
        if options.checkpoint is not None:
            result |= _score_checkpoint(options)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _score_checkpoint(options: argparse.Namespace) -> dict[str, object]:
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    pipeline = TextToMotion.from_checkpoint(options.checkpoint)
    scores = score_model(
        lambda prompt, seed: pipeline(
            prompt, max_duration=options.duration, seed=seed, guidance_scale=options.guidance
        ),
        lambda seed: pipeline.unconditional(seed=seed, max_duration=options.duration),
        range(options.seeds),
    )
    guidance = "the model's own" if options.guidance is None else options.guidance
    print(f"{options.checkpoint}: {options.seeds} seeds, guidance {guidance}, at most {options.duration:g} s")
    print(model_table(scores))
    return {
        "checkpoint": options.checkpoint,
        "seeds": options.seeds,
        "guidance": options.guidance,
        "max_duration_s": options.duration,
        "prompts": as_json(scores),
    }


if __name__ == "__main__":
    sys.exit(main())
