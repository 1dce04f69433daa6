"""Which guidance, temperature and exit threshold should a model have by default? Prompt checks over a grid of them.

    python benchmarks/sampling_choice.py --checkpoint llamo-mini --guidance 1.5 2 2.5 --temperature 0.7 1 --exit 0.3 0.5

One line for each combination: checks passed, the weakest prompt, and a few means. The seeds begin at 1000, so
that what is chosen here has not been chosen on the seeds that `prompt_checks.py` reports.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from dataclasses import replace

import numpy as np

from llamo_ros.core.errors import LlamoError
from llamo_ros.evaluation.prompt_checks import RULES
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.motion.facts import motion_facts
from llamo_ros.pipelines.text_to_motion import TextToMotion

FIRST_SEED = 1000


def main(arguments: list[str] | None = None) -> int:
    """Run the grid; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.5, 2.0, 2.5, 3.0], metavar="G")
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.7, 0.85, 1.0], metavar="T")
    parser.add_argument("--exit", type=float, nargs="+", default=[0.5], metavar="P", help="exit thresholds")
    parser.add_argument("--seeds", type=int, default=8, metavar="N", help="motions for each prompt (default 8)")
    parser.add_argument("--duration", type=float, default=4.0, metavar="S", help="longest motion, [s] (default 4)")
    parser.add_argument("--prompts", action="store_true", help="a line for each prompt as well")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}, expected at least 1")
    try:
        model, tokenizer = load_checkpoint(options.checkpoint)
        for guidance, temperature, threshold in itertools.product(options.guidance, options.temperature, options.exit):
            settings = replace(
                model.config.generation,
                guidance_scale=guidance,
                temperature=temperature,
                exit_threshold=threshold,
            )
            model.config = replace(model.config, generation=settings)
            print(f"guidance {guidance:g}  temperature {temperature:g}  exit {threshold:g}: ", end="", flush=True)
            _score(TextToMotion(model, tokenizer), options.seeds, options.duration, options.prompts)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _score(pipeline: TextToMotion, seeds: int, duration: float, by_prompt: bool) -> None:
    texts = [rule.prompt for rule in RULES for _ in range(seeds)]
    numbers = [FIRST_SEED + seed for _ in RULES for seed in range(seeds)]
    facts = [motion_facts(clip) for clip in pipeline.batch(texts, seeds=numbers, max_duration=duration)]
    groups = [facts[index * seeds : (index + 1) * seeds] for index in range(len(RULES))]
    passed = [sum(map(rule.passes, group)) for rule, group in zip(RULES, groups, strict=True)]
    weakest = int(np.argmin(passed))
    standing = groups[[rule.name for rule in RULES].index("stand-still")]
    print(
        f"{sum(passed)}/{len(texts)} pass, weakest {RULES[weakest].name} {passed[weakest]}/{seeds}; "
        f"jerk {np.mean([f.jerk for f in facts]):.0f} m/s^3, "
        f"standing {_sliding([f.foot_sliding for f in standing])} "
        f"and drifts {100 * np.mean([f.drift_m for f in standing]):.1f} cm"
    )
    if by_prompt:
        for rule, group, count in zip(RULES, groups, passed, strict=True):
            missed = sorted({str(condition) for f in group for condition in rule.failures(f)})
            seconds = np.mean([f.duration_s for f in group])
            print(f"    {rule.name:<14} {count}/{seeds}  {seconds:.1f} s  {'; '.join(missed)}")


def _sliding(speeds: list[float]) -> str:
    """Mean of the clips that have a foot on the floor, for which a speed is a number, [m/s]."""
    known = [speed for speed in speeds if not math.isnan(speed)]
    return f"slides {100 * np.mean(known):.1f} cm/s" if known else "has no foot on the floor"


if __name__ == "__main__":
    sys.exit(main())
