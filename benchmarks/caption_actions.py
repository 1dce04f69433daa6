"""Does the captioner name the action it sees? Test clips, read by keyword rules; no learned judge.

    python benchmarks/caption_actions.py --data ../shared/data --check-real              # people and a constant guess
    python benchmarks/caption_actions.py --data ../shared/data --checkpoint llamo-mini   # the model

A caption is right when its main action is one of the actions that the clip's reference captions name ("named");
"strict" asks for the main action of one of the references; "side" is the share of the right ones that also name a side
(left, right, both) which a reference names, where one does. Clips whose references name no action are left out and
counted. People are no perfect match either: --check-real scores one reference against the others of its clip.

Action labels, from the most specific (a caption's main action is the first that matches) to the least, with the words
that name them in any inflection; patterns in ``llamo_ros/evaluation/actions.py``:

    acrobatics    cartwheel, somersault, handstand, roll, dive
    climb         climb, ladder, stairs, playground
    sit           sit, seated
    lie           lie down, lie on
    dance         dance, ballet, salsa, waltz, moonwalk, pirouette, disco
    sword         sword, slash
    kick          kick (side: leg or foot)
    punch         punch, box, karate, martial arts, fight, jab, names of karate forms
    throw         throw or toss something, shoot a basketball
    dribble       dribble, bounce a ball, jumpshot, crossover
    wave          wave, goodbye, bye (side: hand or arm)
    bow           bow
    raise-hand    raise or lift a hand or an arm, hold or put it up (side: hand or arm)
    gesture       gesture, beckon, guide, direct traffic, call out, respond, point
    drink         drink, sip, bottle
    wash          wash, wipe, mop, clean, paint
    laugh         laugh
    exercise      exercise, jumping jacks, warm up, stretch, yoga, elbow to knee
    arm-circle    rotate or swing an arm in circles or backwards
    jump          jump, hop, leap, skip
    pick-place    pick up, put or place down, on the floor
    squat         squat, crouch, duck, kneel, lunge, bend the knees
    bend          bend or lean down, over, forward
    reach         reach, grab, take something
    balance       balance, stand on one leg
    stand-up      stand up, get up
    walk-backward walk, step or move backward, walk back (not "back to"), retreat
    turn          turn, spin, rotate, veer, curve, circle, clockwise (side: left is counterclockwise)
    sneak         sneak, tiptoe
    run           run, jog, sprint, dash, race
    walk          walk, step, stride, stroll, pace, march, move forward
    stand         stand, stay still
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence as Items
from pathlib import Path

from llamo_ros.core.errors import DatasetError, LlamoError
from llamo_ros.evaluation.actions import LABELS, ActionAccuracy, action_accuracy, action_labels
from llamo_ros.training.source_data import Sequence, read_sequences

SOURCES = ("h3d", "bandai", "hdm05")
CONFUSIONS_SHOWN = 12


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="source data folder")
    parser.add_argument("--checkpoint", metavar="NAME", help="model name or checkpoint folder to score")
    parser.add_argument(
        "--check-real", action="store_true", help="score people and constant guesses with the same rule"
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="default: test")
    parser.add_argument("--sources", default="h3d,bandai", metavar="A,B", help=f"of {', '.join(SOURCES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores and captions to this file")
    options = parser.parse_args(arguments)
    sources = options.sources.split(",")
    if unknown := sorted(set(sources) - set(SOURCES)):
        parser.error(f"--sources names {', '.join(unknown)}, expected some of {', '.join(SOURCES)}")
    if not options.check_real and options.checkpoint is None:
        parser.error("nothing to do: give --check-real, --checkpoint NAME, or both")
    result: dict[str, object] = {"split": options.split}
    try:
        clips = list(read_sequences(options.data, lambda row: row["split"] == options.split and row["kind"] in sources))
        if not clips:
            raise DatasetError(
                f"{options.data} has no {options.split} clips of {options.sources}; choose other sources."
            )
        if options.check_real:
            result["real"] = _check_real(clips, sources)
        if options.checkpoint is not None:
            result["model"] = _score_checkpoint(options.checkpoint, clips, sources)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def one_against_the_others(clips: Items[Sequence]) -> tuple[list[str], list[list[str]], list[str]]:
    """Each reference caption as if it were said, the clip's other ones as its references, and the clip's source."""
    said, others, kinds = [], [], []
    for clip in clips:
        for index, caption in enumerate(clip.captions):
            rest = [*clip.captions[:index], *clip.captions[index + 1 :]]
            if rest:
                said.append(caption)
                others.append(rest)
                kinds.append(clip.kind)
    return said, others, kinds


def _check_real(clips: Items[Sequence], sources: Items[str]) -> dict[str, object]:
    """What people reach (one reference against the others) and what a constant guess reaches."""
    print("one reference caption against the others of its clip:")
    result = _table(*one_against_the_others(clips), sources)
    named = Counter(label for clip in clips for label in {x for c in clip.captions for x in action_labels(c)})
    guess = max(LABELS, key=lambda label: named[label])
    print(f"\nalways {guess!r}, the action named for most clips:")
    word = {"raise-hand": "raises a hand", "walk": "walks"}.get(guess, guess)
    references = [clip.captions for clip in clips]
    return {"people": result, "constant": _table([word] * len(clips), references, [c.kind for c in clips], sources)}


def _score_checkpoint(name: str, clips: Items[Sequence], sources: Items[str]) -> dict[str, object]:
    from llamo_ros.pipelines.motion_to_text import MotionToText

    captioner = MotionToText.from_checkpoint(name)
    captions = [captioner(clip.clip) for clip in clips]
    print(f"{name}: {len(clips)} clips, mean confidence {sum(c.confidence for c in captions) / len(clips):.2f}")
    scores = _table([c.text for c in captions], [clip.captions for clip in clips], [c.kind for c in clips], sources)
    said = [
        {"id": clip.id, "caption": c.text, "confidence": float(c.confidence), "references": clip.captions}
        for clip, c in zip(clips, captions, strict=True)
    ]
    return {"checkpoint": name, "scores": scores, "captions": said}


def _table(
    captions: Items[str], references: Items[Items[str]], kinds: Items[str], sources: Items[str]
) -> dict[str, dict[str, object]]:
    """Print one line for each source and one for all, then the confusions; returns the same as plain values."""
    print(f"{'source':8} {'clips':>5} {'named':>6} {'strict':>6} {'side':>6} {'(of)':>5} {'none':>5} {'skipped':>7}")
    result = {}
    for source in [*sources, "all"]:
        chosen = [i for i, kind in enumerate(kinds) if source in (kind, "all")]
        score = action_accuracy([captions[i] for i in chosen], [references[i] for i in chosen])
        shares = (score.accuracy, score.strict_accuracy, score.side_accuracy)
        print(
            f"{source:8} {score.count:5d} " + " ".join(f"{share:6.3f}" for share in shares),
            f"{score.sided_count:5d} {score.unmapped:5d} {score.skipped:7d}",
        )
        result[source] = _plain(score)
        if source == "all" and score.confusions:
            shown = (f"{a} said {b or 'nothing'} ({n})" for (a, b), n in score.confusions[:CONFUSIONS_SHOWN])
            print("wrong:", ", ".join(shown))
    return result


def _plain(score: ActionAccuracy) -> dict[str, object]:
    counts = ("count", "correct", "strict", "sided_count", "sided_correct", "skipped", "unmapped")
    wrong = [{"reference": a, "said": b, "count": n} for (a, b), n in score.confusions]
    return {**{name: getattr(score, name) for name in counts}, "confusions": wrong}


if __name__ == "__main__":
    sys.exit(main())
