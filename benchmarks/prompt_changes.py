"""When the prompt changes in mid-motion, or another follows: does the model do the new one, and without a jump?

    python benchmarks/prompt_changes.py --checkpoint llamo-mini --seeds 4 --json benchmarks/results/prompt_changes.json

Each of the thirteen prompts of ``prompt_checks.py`` follows each of the --before prompts. "change" changes the prompt
after 2.7 s, "append" when the exit head ends the first motion (4 s at most). The 5 s that follow are measured with the
prompt's rule, from the change on and from 1 s later (hands have to come down first, and a jump may be over by then);
"follows" is the share that passes one of the two. "join" is the largest turn of a joint from one frame to the next in
the half second around the change, beside the largest in the half second before it, mean over motions, [deg].

Links: "blend" begins anew, "context K" reads the new prompt and then the last K latents, "conversation" puts the prompt
behind the motion so far; "blend" and "conversation" cross-fade the frames. "alone" has nothing before the prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from pathlib import Path

import numpy as np

from llamo_ros.core.errors import LlamoError
from llamo_ros.evaluation.prompt_checks import RULES, PromptRule
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.facts import motion_facts
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.text_to_motion import MOST_AT_ONCE, TextToMotion

BEFORE = ("a person walks forward", "a person waves with the right hand", "a person stands still")
CHANGE_FRAME = 80
SECONDS = 5.0
FIRST_SEED = 2000


def main(arguments: list[str] | None = None) -> int:
    """Run the grid; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="motions for each pair (default 4)")
    parser.add_argument("--context", type=int, nargs="+", default=[0, 1, 2, 4, 8, 15], metavar="K")
    parser.add_argument("--before", nargs="+", default=list(BEFORE), metavar="TEXT", help="first prompts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores to this file")
    options = parser.parse_args(arguments)
    links: list[tuple[str, dict[str, str | int]]] = [
        ("blend", {"link": "blend"}),
        *((f"context {count}", {"link": "context", "context": count}) for count in options.context),
        ("conversation", {"link": "conversation"}),
    ]
    try:
        pipeline = TextToMotion.from_checkpoint(options.checkpoint)
        rows = [_alone(pipeline, options.seeds * len(options.before))]
        print("how     link           follows  at once after 1 s   join (before)", flush=True)
        _print(rows[0])
        for how in ("change", "append"):
            for name, link in links:
                rows.append({"how": how, "link": name, **_score(pipeline, options, how, link)})
                _print(rows[-1])
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        result = {"checkpoint": options.checkpoint, "seeds": options.seeds, "before": options.before, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _print(row: dict[str, object]) -> None:
    join = f"{row['join_deg']:7.1f}{row['before_deg']:9.1f}" if "join_deg" in row else f"{'-':>7}{'-':>9}"
    print(
        f"{row['how']:8}{row['link']:14}{row['follows']:8.3f}{row['at_once']:9.3f}{row['after_1_s']:10.3f}{join}",
        flush=True,
    )


def _alone(pipeline: TextToMotion, seeds: int) -> dict[str, object]:
    texts = [rule.prompt for rule in RULES for _ in range(seeds)]
    numbers = [FIRST_SEED + seed for _ in RULES for seed in range(seeds)]
    clips = pipeline.batch(texts, seeds=numbers, max_duration=SECONDS)
    passes = [_passes(rule, clip) for rule, clip in zip(np.repeat(RULES, seeds), clips, strict=True)]
    return {"how": "alone", "link": "", **_shares(passes)}


def _score(
    pipeline: TextToMotion, options: argparse.Namespace, how: str, link: dict[str, str | int]
) -> dict[str, object]:
    jobs = deque((rule, text, seed) for rule in RULES for text in options.before for seed in range(options.seeds))
    engine = pipeline.engine()
    running: dict[object, tuple[PromptRule, list[MotionClip], list[int]]] = {}
    passes, joins, by_rule = [], [], {rule.name: [] for rule in RULES}
    while jobs or engine.streams:
        while jobs and len(engine.streams) < MOST_AT_ONCE:
            rule, text, seed = jobs.popleft()
            shortest = 4.0 if how == "change" else None  # so that there is a motion to be changed
            stream = engine.open(text, seed=FIRST_SEED + seed, max_duration=4.0, min_duration=shortest)
            running[stream] = (rule, [], [])
            if how == "append":
                stream.append(rule.prompt, max_duration=SECONDS, min_duration=None, **link)
        for stream, chunk in engine.tick():
            rule, clips, changes = running[stream]
            clips.append(chunk.clip)
            if how == "change" and stream.frames == CHANGE_FRAME and not chunk.is_final:
                stream.change(rule.prompt, max_duration=SECONDS, min_duration=None, **link)
                changes.append(stream.frames)
            elif how == "append" and chunk.ends_prompt and not chunk.is_final:
                changes.append(stream.frames)
            if chunk.is_final:
                if changes:
                    clip = concatenated(clips)
                    passes.append(_passes(rule, clip.sliced(changes[0])))
                    by_rule[rule.name].append(any(passes[-1]))
                    joins.append(_joins(clip, changes[0]))
                del running[stream]
    join, before = np.degrees(joins).mean(0)
    shares = {name: float(np.mean(values)) for name, values in by_rule.items() if values}
    return {
        **_shares(passes),
        "join_deg": float(join),
        "before_deg": float(before),
        "motions": len(passes),
        "by_prompt": shares,
    }


def _passes(rule: PromptRule, clip: MotionClip) -> tuple[bool, bool]:
    later = clip.sliced(round(FRAME_RATE))
    return rule.passes(motion_facts(clip)), len(later) >= FRAME_RATE and rule.passes(motion_facts(later))


def _shares(passes: list[tuple[bool, bool]]) -> dict[str, float]:
    at_once, later = np.mean(passes, axis=0)
    return {
        "follows": float(np.mean([any(p) for p in passes])),
        "at_once": float(at_once),
        "after_1_s": float(later),
    }


def _joins(clip: MotionClip, change: int) -> tuple[float, float]:
    """Largest turn of a joint between frames around a change and before it, [rad]."""
    turns = geodesic_angle(clip.rotations[:-1], clip.rotations[1:]).max(axis=-1)
    return turns[change - 8 : change + 8].max(), turns[change - 23 : change - 8].max()


if __name__ == "__main__":
    sys.exit(main())
