"""What a model does with given motion and with what was said before: the tasks of the paper beside plain prompts.

    python benchmarks/motion_tasks.py --checkpoint llamo-mini --data data/packed --json motion_tasks.json

Prediction and in-between: --clips validation clips of at least 2 s (the first 8 s of them), with their first caption
and without. Given are the first 40 %, or the first and last 20 %. Errors are mean distances of joints in the world from
the real motion, 0.5 and 1 s behind the seam, [cm]: the best of --seeds seeds at each time, and their mean. "vae" is the
real rest through the VAE. "seam" is the largest turn of a joint within three frames of the seam, beside that of the
real motion there, [deg]; "made/real" is the length that the exit head chose by the real one.

Follow-ups: --talks conversations for each first prompt. "ratio" is the speed of the second motion by the first's,
geometric mean; "slower" and "faster" the shares below 0.9 and above 1.1; "swap" the share in which the busier arm
changes, where the first motion has one ("of" so many) and it is the one that was asked for; "same" the share whose
second motion passes the rule of ``prompt_checks.py`` that the first one passed. Styles are not measured.
Duration prompts: the length said and the length made, [s].
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llamo_ros.core.errors import LlamoError
from llamo_ros.evaluation.prompt_checks import RULES
from llamo_ros.evaluation.task_scores import (
    active_side,
    extrapolated,
    held,
    interpolated,
    largest_turns_around,
    position_error,
    speed_ratio,
)
from llamo_ros.model.config import FRAMES_PER_LATENT
from llamo_ros.model.llamo import Llamo
from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.facts import motion_facts
from llamo_ros.motion.representation272 import decode_features
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.pipelines.conversation import NULLS, Conversation
from llamo_ros.pipelines.given_motion import GivenMotion, given_motion
from llamo_ros.pipelines.in_between import InBetween
from llamo_ros.pipelines.instructions import Instructions
from llamo_ros.pipelines.motion_completion import LAYOUTS, MotionCompletion, behind
from llamo_ros.pipelines.motion_engine import MotionEngine, MotionStream
from llamo_ros.pipelines.text_to_motion import MOST_AT_ONCE, TextToMotion
from llamo_ros.training.motion_samples import IN_BETWEEN_GIVEN, PREDICTION_GIVEN
from llamo_ros.training.pack import open_pack

LATEST = (14, 29)  # frames behind the seam at which errors are taken: 0.5 and 1 s
LONGEST, SHORTEST = 60, 15  # latents of a clip
TURNS = {"slower": "now slower", "faster": "now faster", "other side": "again with the other hand", "repeat": "again"}
DURATIONS = (2.0, 3.0, 4.0, 6.0)
FIRST_SEED = 3000
Try = tuple[MotionClip, MotionClip, MotionClip]  # given, made, real


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("data/packed"), help="pack folder (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=40, metavar="N", help="validation clips (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="motions for each clip (default %(default)s)")
    parser.add_argument("--talks", type=int, default=8, metavar="N", help="for each first prompt (default %(default)s)")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 3.0], metavar="G")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), help="of given motion")
    parser.add_argument("--nulls", nargs="+", choices=NULLS, default=list(NULLS), help="of follow-ups")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores to this file")
    options = parser.parse_args(arguments)
    try:
        pipeline = TextToMotion.from_checkpoint(options.checkpoint)
        rows: dict[str, list[dict[str, Any]]] = {}
        for part in options.parts:
            print(f"\n{part}", flush=True)
            rows[part] = []
            for row in PARTS[part](pipeline, options):
                rows[part].append(row)
                print("  ".join(f"{key} {_shown(value)}" for key, value in row.items()), flush=True)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        options.json.write_text(json.dumps({"options": plain, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


def run(
    pipeline: TextToMotion,
    jobs: list[Callable[[MotionEngine], MotionStream]],
    taken: Callable[[int, Any], None] = lambda number, chunk: None,
) -> list[MotionClip]:
    """The motion of each job, many at a time; ``taken`` is told every chunk and the number of its job."""
    engine, waiting, clips = pipeline.engine(), deque(enumerate(jobs)), [[] for _ in jobs]
    number_of: dict[MotionStream, int] = {}
    while waiting or engine.streams:
        while waiting and len(engine.streams) < MOST_AT_ONCE:
            number, job = waiting.popleft()
            number_of[job(engine)] = number
        for stream, chunk in engine.tick():
            taken(number_of[stream], chunk)
            clips[number_of[stream]].append(chunk.clip)
    return [concatenated(parts) for parts in clips]


def real_clips(options: argparse.Namespace) -> list[tuple[MotionClip, str]]:
    """Validation clips with their first captions, in whole groups of four frames."""
    pack = open_pack(options.data)
    able = [row for row in pack.split("val") if row.length >= SHORTEST * FRAMES_PER_LATENT and row.captions]
    chosen = np.random.default_rng(0).permutation(len(able))[: options.clips]
    clips = []
    for row in (able[number] for number in sorted(chosen)):
        frames = min(row.length // FRAMES_PER_LATENT, LONGEST) * FRAMES_PER_LATENT
        clips.append((decode_features(pack.of(row)[:frames].astype(np.float64)), row.captions[0]))
    return clips


def prediction(pipeline: TextToMotion, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Errors of continuations and of the baselines."""
    cases = []
    for clip, caption in real_clips(options):
        begin = round(PREDICTION_GIVEN * len(clip) / FRAMES_PER_LATENT) * FRAMES_PER_LATENT
        cases.append((clip.sliced(0, begin), clip.sliced(begin), caption))
    frames = LATEST[-1] + 1
    yield _row("still", [[(start, held(start, frames), real)] for start, real, _ in cases])
    yield _row("velocity", [[(start, extrapolated(start, frames), real)] for start, real, _ in cases])
    yield _row("vae", [[(start, rebuilt(pipeline.model, start, real), real)] for start, real, _ in cases])
    for layout, has_caption, guidance in product(options.layouts, (False, True), options.guidance):
        completion = MotionCompletion(pipeline, layout)
        jobs = [
            partial(
                completion.open_prediction,
                clip=start,
                caption=caption if has_caption else None,
                seed=FIRST_SEED + seed,
                min_duration=frames / FRAME_RATE,
                guidance_scale=guidance,
            )
            for start, _, caption in cases
            for seed in range(options.seeds)
        ]
        made = _by_clip(run(pipeline, jobs), options.seeds)
        groups = [[(start, clip, real) for clip in own] for (start, real, _), own in zip(cases, made, strict=True)]
        yield _row(_way(layout, has_caption, guidance), groups)


def in_between(pipeline: TextToMotion, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Errors of middles of the real length, as made and bent to the real end; lengths chosen by the exit head."""
    cases = []
    for clip, caption in real_clips(options):
        side = round(IN_BETWEEN_GIVEN * len(clip) / FRAMES_PER_LATENT) * FRAMES_PER_LATENT
        cases.append((clip.sliced(0, side), clip.sliced(side, -side), clip.sliced(len(clip) - side), caption))
    triples = [[(s, interpolated(s, e, len(real)), real)] for s, real, e, _ in cases]
    yield _row("interpolated", triples)
    layouts = [layout for layout in options.layouts if layout != "prefix"]  # which has no place for the end
    for layout, has_caption, guidance, timed in product(layouts, (False, True), options.guidance, (True, False)):
        completion, seeds = MotionCompletion(pipeline, layout), options.seeds if timed else 1
        jobs = [
            partial(
                completion.open_between,
                start=start,
                end=end,
                caption=caption if has_caption else None,
                seed=FIRST_SEED + seed,
                seconds=real.duration if timed else None,
                guidance_scale=guidance,
            )
            for start, real, end, caption in cases
            for seed in range(seeds)
        ]
        made = _by_clip(run(pipeline, jobs), seeds)
        name = _way(layout, has_caption, guidance)
        if timed:
            filled = [
                [(InBetween.of(start, clip, end), real) for clip in own]
                for (start, real, end, _), own in zip(cases, made, strict=True)
            ]
            yield {**_row(name, _middles(filled, bent=False)), **_meeting(filled)}
            yield _row(f"{name} bent", _middles(filled, bent=True))
        else:
            lengths = [len(own[0]) / len(real) for (_, real, _, _), own in zip(cases, made, strict=True)]
            yield {"how": f"{name}, own length", "made/real": float(np.median(lengths))}


def follow_ups(pipeline: TextToMotion, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What a second turn changes, for each null prompt and guidance."""
    rules = [rule for rule in RULES if rule.name != "stand-still"]
    for null in options.nulls:
        for guidance in options.guidance if null == options.nulls[0] else [g for g in options.guidance if g != 1.0]:
            for name, words in TURNS.items():
                talks = [
                    (rule, Conversation(pipeline, seed=FIRST_SEED + 10 * seed, null=null))
                    for rule in rules
                    for seed in range(options.talks)
                ]
                texts = [[rule.prompt for rule, _ in talks], [words] * len(talks)]
                for said in texts:
                    run(
                        pipeline,
                        [
                            partial(talk.open, text=text, min_duration=1.0, max_duration=5.0, guidance_scale=guidance)
                            for (_, talk), text in zip(talks, said, strict=True)
                        ],
                        lambda number, chunk, talks=talks: talks[number][1].add(chunk),
                    )
                yield {"turn": f"{name:10}", "null": null, "G": guidance, **_compared(talks)}


def durations(pipeline: TextToMotion, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Lengths that the exit head chooses when the prompt says one."""
    words = Instructions.load()
    said, texts = [], []
    for rule in RULES:
        for seconds in DURATIONS:
            text = words.default("text_to_motion_duration", caption=rule.prompt, seconds=seconds)[0].text
            said += [seconds] * options.talks
            texts += [text] * options.talks
    for guidance in options.guidance:
        seeds = [FIRST_SEED + number % options.talks for number in range(len(texts))]
        clips = pipeline.batch(texts, seeds=seeds, min_duration=0.4, max_duration=10.0, guidance_scale=guidance)
        made, asked = np.array([clip.duration for clip in clips]), np.array(said)
        means = {f"made for {seconds:g} s": float(made[asked == seconds].mean()) for seconds in DURATIONS}
        correlation = float(np.corrcoef(asked, made)[0, 1]) if made.std() else 0.0
        yield {"G": guidance, **means, "off by": float(np.abs(made - asked).mean()), "correlation": correlation}


PARTS = {"prediction": prediction, "in-between": in_between, "follow-ups": follow_ups, "durations": durations}


@torch.inference_mode()
def rebuilt(model: Llamo, start: MotionClip, real: MotionClip) -> MotionClip:
    """The real rest as a perfect model would make it: its own latents, decoded and placed behind the given frames."""
    whole, count = given_motion(model, concatenated([start, real])), len(start) // FRAMES_PER_LATENT
    frames, state = behind(model, GivenMotion(start, whole.latents[:count]))
    features, _ = model.vae.decode(model.denormalise_latents(whole.latents[count:])[None], state)
    return frames.decode(features[0].numpy())


def _way(layout: str, has_caption: bool, guidance: float) -> str:
    return f"{layout} {'caption' if has_caption else 'no caption'} G={guidance:g}"


def _by_clip(made: list[MotionClip], seeds: int) -> list[list[MotionClip]]:
    return [made[number : number + seeds] for number in range(0, len(made), seeds)]


def _middles(filled: list[list[tuple[InBetween, MotionClip]]], bent: bool) -> list[list[Try]]:
    def middle(one: InBetween) -> MotionClip:
        start = len(one.start)
        return one.bent().sliced(start, start + len(one.middle)) if bent else one.middle

    return [[(one.start, middle(one), real) for one, real in own] for own in filled]


def _meeting(filled: list[list[tuple[InBetween, MotionClip]]]) -> dict[str, float]:
    """How far beside the end of the clip the middles lead."""
    ones = [one for own in filled for one, _ in own]
    turns = np.degrees([abs(one.turn) for one in ones])
    return {"end off, m": float(np.median([one.distance for one in ones])), "end off, deg": float(np.median(turns))}


def _row(name: str, groups: list[list[Try]]) -> dict[str, Any]:
    """Errors of tries, grouped by clip."""
    row: dict[str, Any] = {"how": f"{name:34}"}
    for frame in LATEST:
        errors = [
            [position_error(made, real, frame) for _, made, real in own] for own in groups if len(own[0][2]) > frame
        ]
        row[f"best@{(frame + 1) / FRAME_RATE:g}"] = 100 * float(np.mean([min(own) for own in errors]))
        row[f"mean@{(frame + 1) / FRAME_RATE:g}"] = 100 * float(np.mean([np.mean(own) for own in errors]))
    tries = [one for own in groups for one in own]
    row["seam"] = _seam([(start, made) for start, made, _ in tries])
    row["real seam"] = _seam([(start, real) for start, _, real in tries])
    row["made/real"] = float(np.median([len(made) / len(real) for _, made, real in tries]))
    return row


def _seam(pairs: list[tuple[MotionClip, MotionClip]]) -> float:
    return float(np.degrees(np.mean([largest_turns_around(concatenated(list(pair)), len(pair[0])) for pair in pairs])))


def _compared(talks: list[tuple[Any, Conversation]]) -> dict[str, float]:
    """Second turns against first ones."""
    ratios, swaps, same = [], [], []
    for rule, talk in talks:
        first, second = (turn.clip for turn in talk.turns)
        ratios.append(speed_ratio(second, first))
        side = active_side(first)
        if side and side in rule.name:
            swaps.append(active_side(second) not in ("", side))
        if rule.passes(motion_facts(first)):
            same.append(rule.passes(motion_facts(second)))
    lengths = [len(talk.turns[1].clip) / len(talk.turns[0].clip) for _, talk in talks]
    return {
        "ratio": float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-3))))),
        "slower": float(np.mean(np.array(ratios) < 0.9)),
        "faster": float(np.mean(np.array(ratios) > 1.1)),
        "length": float(np.exp(np.mean(np.log(lengths)))),
        "swap": float(np.mean(swaps)) if swaps else float("nan"),
        "of": len(swaps),
        "same": float(np.mean(same)) if same else float("nan"),
    }


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
