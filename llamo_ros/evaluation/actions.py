"""What a caption says is done: caption text -> action labels, by keyword rules anybody can read.

``RULES`` is the whole mapping. Its order is the priority: a caption's main action is the first rule that matches, so
what is specific ("wave", "sit") comes before what nearly every caption says as well ("walk", "stand"). Words match in
all their inflections, after the misspellings in ``SPELLING`` are put right. Rules were made by reading the train and
val captions of the source data, never from what a model says about test clips.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llamo_ros.core.errors import ShapeError

SIDES = ("left", "right", "both")

# Misspellings in HumanML3D's captions of words that decide an action.
SPELLING = {
    "walk": "warlk waalk wallk walkk wakl walsk",
    "walks": "walkss walkes waalks wallks wals warlks walsk wakls",
    "walking": "wwalking walkiing wlking walkng walkin walkig walkinf walkind walkimg walkign wallking",
    "walked": "wallked wwalked wlaked walekd",
    "runs": "rins",
    "running": "frunning runnin runing runnijg",
    "jogging": "joging joggin",
    "turns": "turs tyrns turms",
    "turning": "turing turnign truning",
    "jumping": "jumpingh",
    "hopping": "hoping",
    "waves": "waives wavs",
    "waving": "waiving wavings",
    "raises": "rasies raisesd",
    "raising": "rasing raisiing",
    "lifts": "lufts lifte",
    "sitting": "sittting siting",
    "stands": "standes stads stnads",
    "standing": "staning stading standinf standimg stadning sranding",
    "steps": "stgeps syeps steos stepz ateps stes",
    "squats": "squars sqauts",
    "stretching": "sttreching stretchong",
    "backwards": "bakwards backwads backards balkwards backwords backeards",
    "backward": "bacward vackward",
    "ballet": "balet",
    "clockwise": "clovkwise clcokwise",
    "counterclockwise": "counterclockwaise anticlockwise",
}
_CORRECTIONS = {wrong: right for right, wrongs in SPELLING.items() for wrong in wrongs.split()}

# Up to five words between a verb and its object, not across punctuation, a second verb or another limb.
_NEAR = r"(?:[^\w.,;]+(?!(?:and|then|while|with|legs?|knees?|foot|feet)\b)\w+){0,5}?[^\w.,;]+"

_LIMB = r"(?:hand|arm|leg|foot|feet|knee|hip|elbow|head|wrist|shoulder|side)"

_BACKWARD = "|".join(
    (
        r"(?:walk|step|stroll|mov|going|goes|shuffl|pac|danc)\w*(?:[^\w.,;]+(?!forwards?\b)\w+){0,4}?[^\w.,;]+backwards?",
        r"forwards?(?:[^\w.;]+(?:and|then|before|immediately|walking|walks|moving|steps?)){0,4}[^\w.;]+backwards?",
        r"(?:walk|step)(?:s|ed|ped|ing|ping)? back"
        r"(?! (?:to|and|in(?! an? )|into|where|toward|towards|down|up|again|around|across|the|from|on|over|at)\b)",
        r"retreat\w*|backs (?:up|away)|backing (?:up|away)",
    )
)

# (label, pattern), most specific first. Patterns are matched between word boundaries.
RULES: tuple[tuple[str, str], ...] = (
    (
        "acrobatics",
        r"cartwheels?|su?o?mm?ersaults?|handstands?|back ?flips?|acrobatics|dive|rolls (?:forward|over)"
        r"|(?:a|forward|action|and|over) roll",
    ),
    ("climb", r"climb\w*|ladders?|stairs?|upstairs|downstairs|stairway|playground"),
    ("sit", r"sits?|sat|sitting|seated"),
    ("lie", r"(?:lie|lies|lay|lays|lying|laying)(?: \w+)?? (?:down|on)"),
    (
        "dance",
        r"danc\w*|ballet|ballerina|ballroom|salsa|waltz\w*|moonwalk\w*|pirouettes?|arabesque|disco|michael jackson"
        r"|barathanatiyam|choreograph\w*",
    ),
    ("sword", r"sword\w*|slash\w*"),
    ("kick", r"kick\w*|yokogeri"),
    (
        "punch",
        r"punch\w*|box(?:es|ed|ing|er)|karate|martial arts?|kung ?fu|fight\w*|jab(?:s|bing)?"
        r"|heiansyodan|empi|oiduki|syutouuke",
    ),
    ("throw", r"throw(?:s|ing|n)? (?:a|an|the|something|some)|threw|toss\w*|shoots? a basketball"),
    ("dribble", r"dribbl\w*|bounc\w+ (?:a|the|something)|jumpshot|crossover|basketball (?:-|game)"),
    ("wave", r"wav(?:e|es|ed|ing)|goodbyes?|bye"),
    ("bow", r"(?:bow|bows|bowed|bowing)(?! and arrow)"),
    (
        "raise-hand",
        rf"(?<!with )(?<!with his )(?<!with her )(?<!with their )(?:rais(?:e|es|ed|ing)|lift(?:s|ed|ing)?){_NEAR}"
        r"(?:hands?|arms?|forearms?)"
        rf"|(?:puts?|brings?|holds?|throws?){_NEAR}(?:hands?|arms?) (?:up|in the air|overhead|above|over)"
        r"|(?:hands?|arms?) (?:is|are) (?:raised|lifted)",
    ),
    (
        "gesture",
        r"gestur\w*|beckon\w*|guid(?:e|es|ing)|direct(?:s|ing)? traffic|motions traffic|calls? (?:out|to)"
        r"|responds?|points?(?= (?:off|at|to|toward|towards|with|his|her|their|forward))|pointing|wave, point",
    ),
    ("drink", r"drink\w*|sips?|soda|bottle\w*|unscrew\w*|chug\w*"),
    ("wash", r"wash\w*|wip(?:e|es|ed|ing)|mop\w*|scrub\w*|clean\w*|paint\w*"),
    ("laugh", r"laugh\w*"),
    (
        "exercise",
        r"jumping jacks?|star jumps?|exercis\w*|warm(?:s|ing|ed)? up|stretch(?:es|ed|ing)?|toe touch\w*|yoga"
        r"|side twists?|range of motion|elbow to (?:\w+ ){0,2}knee",
    ),
    ("arm-circle", rf"(?:rotat\w+|swings?){_NEAR}arms?(?= (?:\w+ ){{0,3}}(?:backwards?|circles?|(?:anti-)?clockwise))"),
    ("jump", r"(?:jump(?!ing jack| ?shot)|hop(?=s\b|ped\b|ping\b|\b)|leap|skip(?=s\b|ped\b|ping\b|\b))\w*"),
    ("pick-place", rf"pick(?:s|ed|ing)?{_NEAR}?up|picking|(?:puts?|plac\w+|sets?){_NEAR}(?:floor|ground|down)"),
    (
        "squat",
        r"squat\w*|crouch\w*|duck(?:s|ed|ing)?|kneel\w*|knelt|lung(?:e|es|ed|ing)"
        r"|bend(?:s|ing)? (?:at )?(?:the|his|her|their)? ?knees",
    ),
    ("bend", r"(?:bends?|bending|bent|leans?|leaning) (?:down|over|forward)"),
    ("reach", r"reach\w*|grab\w*|takes something"),
    (
        "balance",
        r"balanc\w*|(?:stand|stands|standing|stayed|hop|hops)(?: still)? on (?:one|the|his|her|their|a|othe)"
        r"(?: (?:left|right|single|one))? (?:leg|foot)",
    ),
    ("stand-up", r"(?:stands?|stood|gets?) (?:back )?up"),
    ("walk-backward", _BACKWARD),
    (
        "turn",
        r"turn(?:s|ed|ing)?|spin(?:s|ning)?|spun|pivot\w*|twirl\w*|veer\w*|curv(?:e|es|ed|ing)|circling|an arc"
        rf"|rotat(?:e|es|ed|ing)(?! (?:\w+ ){{0,2}}{_LIMB}s?\b)|(?:semi|half|quarter)[- ]?circles?"
        r"|in (?:a )?(?:\w+ )?circles?|(?:counter|anti)? ?-?clockwise",
    ),
    ("sneak", r"sneak\w*|tip ?-?toe\w*"),
    (
        "run",
        r"(?:runs?|running|ran)(?! way)(?! (?:his|her|their|its) (?:\w+ )?(?:hands?|fingers?))"
        r"|jog\w*|sprint\w*|dash(?:es|ed|ing)?|races|racing",
    ),
    (
        "walk",
        r"walk\w*|steps?|stepped|stepping|stroll\w*|strid(?:e|es|ing)|strode|saunter\w*|pac(?:es|ing)|march\w*|wander\w*"
        r"|stagger\w*|catwalks?|shuffl\w+|limp(?:s|ing|ed)?|(?:moves?|moving|goes|going|proceeds) (?:forwards?|ahead)",
    ),
    ("stand", r"stand|stands|standing|stood|stationary|(?:stays?|remains?|holding) still"),
)
_COMPILED = tuple((label, re.compile(rf"\b(?:{pattern})(?!\w)")) for label, pattern in RULES)
LABELS = tuple(label for label, _ in RULES)

_CLAUSE_ENDS = re.compile(r"[.,;]|\bthen\b|\bwhile\b|\bbefore\b")
_HAND_SIDE = re.compile(r"\b(left|right|both|two)(?: \w+)? (?:hand|arm)s?\b")
_PLURAL_HANDS = re.compile(r"\b(?:hands|arms)\b")
_LEG_SIDE = re.compile(r"\b(left|right|both)(?: \w+)? (?:leg|foot|feet|legs)\b")
_TURN_SIDE = re.compile(
    rf"\b(?:(?P<left>left|(?:counter|anti)[ -]*clockwise)|(?P<right>right|clockwise))\b(?! {_LIMB})"
)
SIDED = ("wave", "raise-hand", "kick", "turn")


@dataclass(frozen=True)
class Action:
    """One action that a caption names: a label of ``LABELS`` and a side of ``SIDES``, or "" where none is named."""

    label: str
    side: str = ""


@dataclass(frozen=True)
class ActionAccuracy:
    """How often captions name what their references name.

    Attributes:
        count: Captions whose references name at least one action; the others are `skipped`.
        correct: Main action is among all the actions of the references.
        strict: Main action is the main action of at least one reference.
        sided_count: Correct captions whose action is named with a side by a reference.
        sided_correct: Of these, those that name such a side too; naming none is wrong.
        skipped: Captions whose references name no action.
        unmapped: Captions that name no action themselves (counted as wrong).
        confusions: ((action of the first reference, action said), how often) of the wrong ones, most frequent first.
    """

    count: int
    correct: int
    strict: int
    sided_count: int
    sided_correct: int
    skipped: int
    unmapped: int
    confusions: tuple[tuple[tuple[str, str], int], ...]

    @property
    def accuracy(self) -> float:
        """Share of `correct`; NaN if nothing was counted."""
        return self.correct / self.count if self.count else float("nan")

    @property
    def strict_accuracy(self) -> float:
        """Share of `strict`; NaN if nothing was counted."""
        return self.strict / self.count if self.count else float("nan")

    @property
    def side_accuracy(self) -> float:
        """Share of `sided_correct`; NaN if no side was asked for."""
        return self.sided_correct / self.sided_count if self.sided_count else float("nan")


def named_actions(text: str) -> tuple[Action, ...]:
    """Every action a caption names, main action first, each label and side once."""
    text = _normalised(text)
    actions: dict[Action, None] = {}
    for label, pattern in _COMPILED:
        for match in pattern.finditer(text):
            actions[Action(label, _side(label, text, match))] = None
    return tuple(actions)


def action_labels(text: str) -> frozenset[str]:
    """The labels of all actions a caption names, sides left out."""
    return frozenset(action.label for action in named_actions(text))


def main_action(text: str) -> str:
    """Label of the most specific action a caption names; "" if it names none."""
    return next((action.label for action in named_actions(text)), "")


def action_accuracy(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> ActionAccuracy:
    """Compare captions with their references by the actions they name.

    Args:
        predicted: One caption for each clip.
        references: The reference captions of each clip, in the same order.

    Returns:
        Counts and confusions.

    Raises:
        ShapeError: there is not one list of references for each caption.
    """
    if len(predicted) != len(references):
        raise ShapeError("references", (len(references),), f"({len(predicted)},)", "Give one list for each caption.")
    count = correct = strict = sided_count = sided_correct = skipped = unmapped = 0
    confusions: Counter[tuple[str, str]] = Counter()
    for caption, texts in zip(predicted, references, strict=True):
        wanted = [named_actions(text) for text in texts]
        wanted = [actions for actions in wanted if actions]
        if not wanted:
            skipped += 1
            continue
        said = named_actions(caption)
        main = said[0].label if said else ""
        count += 1
        unmapped += not said
        strict += main in {actions[0].label for actions in wanted}
        if main not in {action.label for actions in wanted for action in actions}:
            confusions[wanted[0][0].label, main] += 1
            continue
        correct += 1
        sides = {action.side for actions in wanted for action in actions if action.label == main} - {""}
        sided_count += bool(sides)
        sided_correct += bool(sides & {action.side for action in said if action.label == main})
    return ActionAccuracy(
        count, correct, strict, sided_count, sided_correct, skipped, unmapped, tuple(confusions.most_common())
    )


def _normalised(text: str) -> str:
    text = re.sub(r"\s+", " ", text.lower()).strip()
    return re.sub(r"[a-z]+", lambda match: _CORRECTIONS.get(match[0], match[0]), text)


def _side(label: str, text: str, match: re.Match[str]) -> str:
    """Side named in the clause of a match: from the last clause end before it to the first one after it."""
    if label not in SIDED:
        return ""
    start = max((end.end() for end in _CLAUSE_ENDS.finditer(text, 0, match.start())), default=0)
    after = _CLAUSE_ENDS.search(text, match.end())
    stop = after.start() if after else len(text)
    if label == "turn":
        # "walks to the left and turns right": what follows the verb decides, else what stands before ("left turn")
        found = _TURN_SIDE.search(text, match.start(), stop) or _TURN_SIDE.search(text, start, stop)
        return "" if found is None else ("left" if found["left"] else "right")
    if label == "kick":
        found = _LEG_SIDE.search(text, start, stop)
        return found[1] if found else ""
    found = _HAND_SIDE.search(text, match.start(), stop) or _HAND_SIDE.search(text, start, stop)
    if found:
        return "both" if found[1] == "two" else found[1]
    return "both" if _PLURAL_HANDS.search(text, match.start(), stop) else ""
