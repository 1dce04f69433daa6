"""Captions as commands: "a person walks forward and turns" is "walk forward and turn" when said to a robot.

A caption becomes a command only where simple rules are sure: its verbs must be known ones, in places where verbs stand.
Everything else gives None, since a wrong command would teach the model wrong English.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

from llamo_ros.pipelines.wording import plain_caption

Form = Literal["base", "s", "ing", "past"]

_VERBS = """
    act adjust advance aim alternate approach arch attempt back backpedal balance beckon begin bend block bob bounce
    bow box brace break breakdance bring brush carry cartwheel catch change charge check circle clap clasp clean
    clench climb close clutch come complete conduct continue cough cover cower crawl creep cross crouch curl cut
    dance dangle dash demonstrate descend dial dip direct do dodge drag draw dribble drink drive drop duck dust eat
    end enter exercise extend fall fiddle fight finish flail flap flex flick fling flip fold follow gallop gather
    gesture get give glide go grab grasp greet grip halt hang hit hobble hold hop hug hunch hurry imitate jab jerk
    jig jiggle jog juggle jump keep kick kneel knock land lay lead lean leap leave let lie lift limp look lower
    lunge make march meander mime mimic mix moonwalk motion move nod open pace paddle paint pass pat pause paw
    perform pet pick pirouette pivot place play point pose position pour practice prance prepare press pretend
    proceed prowl pull pump punch push put raise reach rearrange recover regain relax release remove repeat rest
    resume return reverse rise rock roll rotate row rub run rush salute sashay saunter say scoop scratch scrub
    scurry search serve set shadowbox shake shift shimmy shoot shove show shrug shuffle sidestep sign signal sip sit
    skate skip slap slash slide slip slouch slow smash sneak spin spread spring sprint squat squeeze stack stagger
    stamp stand start stay steady steer step stir stomp stoop stop strafe straighten stretch stride strike stroke
    stroll strum strut stumble swat sway sweep swim swing swipe swirl switch swivel take talk tap throw thrust tie
    tilt tiptoe toss touch trace transfer trip trot try tumble turn twirl twist type uncross unfold use vault veer
    waddle wade wait walk waltz warm wash wave weave wiggle wind wipe wobble write zigzag
""".split()
_IRREGULAR_PASTS = """
    ate:eat began:begin bent:bend broke:break brought:bring came:come caught:catch cut:cut did:do drank:drink
    drew:draw drove:drive fell:fall fought:fight gave:give got:get held:hold hit:hit hung:hang kept:keep knelt:kneel
    laid:lay leapt:leap led:lead let:let put:put ran:run rose:rise said:say sat:sit set:set shook:shake
    shot:shoot slid:slide spread:spread spun:spin stood:stand strode:stride struck:strike swam:swim swept:sweep
    swung:swing threw:throw took:take went:go wound:wind wove:weave wrote:write
""".split()
_NAMES = "person man woman figure guy individual human character boy girl robot".split()
_SUBJECT = re.compile(rf"(?:(?:(?:a|an|the|this|one) )?(?:stick )?(?:{'|'.join(_NAMES)})|someone|somebody|he|she) ")
_ARTICLES = frozenset("a an the this one someone somebody he she they".split())
# Words that make the sentence one about somebody, or too involved for these rules.
_STOPPERS = frozenset(
    """am appear appears are be because been being can could had has have having i is its may might not seem
    seems self selves should so that was we were which who whom whose will would""".split()
)
_JOINERS = frozenset({"and", "then", ",", "but", "or"})
_PRONOUNS = frozenset({"he", "she", "they"})
_SUBORDINATORS = frozenset({"while", "by", "before", "after", "without", "like", "when", "for", "of", "from", "whilst"})
_NOT_LY = frozenset({"only", "fly", "belly", "jelly", "bully", "early", "likely", "ally", "rally", "imply"})
_ADVERBS = frozenset({"then", "also", "again", "once", "almost", "now", "just", "quick", "fast"})
_OWN = frozenset({"himself", "herself", "themselves", "themself", "themselve", "oneself"})
_PLURALS = frozenset(
    """across always ankles arms backwards circles clockwise counterclockwise downs downwards elbows feet fingers
    fists forwards hands heels hips inwards knees left legs outwards palms rights seconds shoulders
    sideways stairs steps thighs thumbs times toes towards ups upwards wrists""".split()
)
# Verb forms that are plurals of nouns too, and words that show it: "takes two steps", "in circles".
_NOUNS = frozenset(
    """bends cartwheels circles claps dips exercises flips gestures hops jabs jumps kicks leaps lunges motions
    moves paces pivots places points poses positions punches rolls shuffles sidesteps skips spins squats
    steps stretches strides strokes swings throws tiptoes turns twirls twists waves""".split()
)
_BEFORE_NOUNS = frozenset(
    """additional all baby ballet big both couple dance deep different eight even fast few five four front full
    giant her high his in jump jumping karate large little long low many martial more multiple nine no
    numerous of quick random several short side single six slow small some ten their these those three
    tiny two various wide with your""".split()
)
_BODY = frozenset("arm arms hand hands leg legs foot feet knee knees head left right body".split())
_AFTER_FULL_PRONOUN = frozenset("and then , but or while as before after to in on at with from by".split())
_SELF_PHRASES = re.compile(r"\b(front of|behind|around|beside|next to|towards?|above|below) (?:him|her|them)\b(?! own)")
_LOOKED_AT = frozenset("around up down to at left right behind over back from out in into".split())
_NOT_ONLY_VERBS = frozenset("back balance point place position motion circle".split())


class _Unsure(Exception):
    """The grammar of the caption is beyond the rules."""


def imperative(caption: str) -> str | None:
    """The caption as a command to the one it is about.

    Args:
        caption: A sentence such as "a person walks forward and waves his hand".

    Returns:
        "walk forward and wave your hand"; None where the caption has another shape or its grammar is not certain.
    """
    text = _SELF_PHRASES.sub(r"\1 you", plain_caption(caption))
    subject = _SUBJECT.match(text)
    tokens = _tokens(text[subject.end() :]) if subject else None
    if not tokens:
        return None
    head = _head(tokens)
    if head is None:
        return None
    command, rest, form = head
    try:
        return " ".join([*command, *_converted(rest, form)]).replace(" ,", ",")
    except _Unsure:
        return None


def as_command(caption: str) -> str | None:
    """The caption as a command, also where it is one already ("raise your right hand")."""
    text = plain_caption(caption)
    tokens = _tokens(text)
    if not tokens or "base" not in _forms(tokens[0]):
        return imperative(text)
    is_label = caption[1:] != caption[1:].lower()  # "Run Quick Stop Run"
    starts = [after for before, after in pairwise(tokens) if before == ","]
    verbs_only = len(tokens) > 1 and "base" in _forms(tokens[1]) and tokens[1] not in _NOT_ONLY_VERBS
    if is_label or verbs_only or not all("base" in _forms(start) for start in starts):
        return None
    return text


def is_sentence(caption: str) -> bool:
    """Whether the caption is a sentence about somebody, so that "show how {caption}" is one too."""
    tokens = plain_caption(caption).split()
    finite = {"is", "was", "are", "were", "has", "had"}
    verbs = (token.rstrip(",") for token in tokens[1:])
    return (
        bool(tokens)
        and tokens[0] in _ARTICLES
        and any(verb in finite or {"s", "past"} & _forms(verb).keys() for verb in verbs)
    )


def _tokens(text: str) -> list[str] | None:
    """Words, numbers and commas; None if there is anything else, such as a second sentence or an apostrophe."""
    tokens = re.findall(r"[^\s,]+|,", text)
    plain = all(re.fullmatch(r"[a-z]+(-[a-z]+)*|[0-9]+|,", token) for token in tokens)
    return tokens if plain else None


def _inflected() -> dict[str, dict[Form, str]]:
    """Base of every known form: forms["walks"] is {"s": "walk"}."""
    forms: dict[str, dict[Form, str]] = {}

    def add(word: str, form: Form, base: str) -> None:
        forms.setdefault(word, {})[form] = base

    for base in _VERBS:
        add(base, "base", base)
        stem = base[:-1] if base.endswith("e") and not base.endswith("ee") else base
        doubled = base + base[-1]  # "stopping"; harmless where it is not spelled so
        if re.search(r"[^aeiou]y$", base):
            add(base[:-1] + "ies", "s", base)
            add(base[:-1] + "ied", "past", base)
        else:
            add(base + ("es" if re.search(r"(s|x|z|ch|sh|o)$", base) else "s"), "s", base)
            add(stem + "ed", "past", base)
        for part in (stem, doubled):
            add(part + "ing", "ing", base)
        add(doubled + "ed", "past", base)
    add("lying", "ing", "lie")
    add("tying", "ing", "tie")
    for pair in _IRREGULAR_PASTS:
        word, base = pair.split(":")
        add(word, "past", base)
    return forms


_FORMS = _inflected()


def _forms(word: str) -> dict[Form, str]:
    return _FORMS.get(word, {})


def _is_adverb(word: str) -> bool:
    return word in _ADVERBS or (word.endswith("ly") and word not in _NOT_LY)


def _head(tokens: list[str]) -> tuple[list[str], list[str], Form] | None:
    """The command's first words, what follows, and the form in which the caption has its verbs."""
    adverbs: list[str] = []
    progressive = False
    for index, token in enumerate(tokens):
        if _is_adverb(token):
            adverbs += [] if token in {"then", "now", "just"} else [token]
        elif token in {"is", "was"} and not progressive:
            progressive = True
        else:
            forms = _forms(token)
            wanted: tuple[Form, ...] = ("ing",) if progressive else ("s", "past", "base", "ing")
            form = next((form for form in wanted if form in forms), None)
            rest = tokens[index + 1 :]
            if form is None or _is_no_command(forms[form], rest):
                return None
            return [*adverbs, forms[form]], rest, form
    return None


def _is_no_command(base: str, rest: list[str]) -> bool:
    """Whether the verb and what follows it is a state nobody can be told to be in ("looks tired", "gets pushed")."""
    following = next((token for token in rest if not _is_adverb(token)), "")
    if base == "look":
        return following not in _LOOKED_AT
    return base == "get" and ("past" in _forms(following) or following.endswith("ed"))


def _converted(tokens: list[str], form: Form) -> list[str]:
    """The words after the first verb, with the verbs on a par with it and the pronouns changed."""
    out: list[str] = []
    joined = False  # a verb on a par with the first one may come
    gerunds_stay = False  # "while walking and waving": both belong to "while"
    participles = False  # "walks swinging arms and clapping"
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else ""
        after = tokens[index + 1] if index + 1 < len(tokens) else ""
        if token in _JOINERS:
            if token == before:
                raise _Unsure  # a slip
            joined = True
            gerunds_stay = gerunds_stay and token != "then"
            out.append(token)
            continue
        if token in _PRONOUNS and before in _JOINERS:
            continue  # "and they turn" is "and turn"
        if before in _PRONOUNS:
            out.append(_clause_verb(token, before))
        elif joined:
            if "ing" in _forms(token) and form != "ing" and before != "," and not participles:
                raise _Unsure  # "walks and waving"
            out.append(_joined_verb(token, after, form, gerunds_stay))
        else:
            out.append(_personal(token, before, after, form))
        joined = joined and _is_adverb(token)
        participles = participles or "ing" in _forms(token)
        gerunds_stay = gerunds_stay or ("ing" in _forms(token) and before in _SUBORDINATORS)
    return out


def _clause_verb(token: str, pronoun: str) -> str:
    """The verb after "he" or "they", which becomes the verb after "you"."""
    forms = _forms(token)
    wanted: Form = "base" if pronoun == "they" else "s"
    if wanted not in forms:
        raise _Unsure
    return forms[wanted]


def _joined_verb(token: str, after: str, form: Form, gerunds_stay: bool) -> str:
    """What follows "and", "then" or a comma: a verb to convert, or no verb at all."""
    forms = _forms(token)
    if "s" in forms and form != "past":
        return forms["s"]
    if form in forms and not (form == "ing" and gerunds_stay):
        return forms[form]
    unknown_verb = not forms and re.search(r"(?<!s)s$|ed$|ing$", token) and token not in _PLURALS
    if unknown_verb or ("past" in forms and "base" not in forms):
        raise _Unsure
    return _personal(token, ",", after, form)


def _personal(token: str, before: str, after: str, form: Form) -> str:
    """A word in a place where no converted verb stands, addressed to "you"."""
    if token in _OWN:
        return "yourself"
    if token in _PRONOUNS:
        return "you"
    if (
        token in {"his", "their"}
        or (token == "there" and after in _BODY)
        or (token == "her" and after and after not in _AFTER_FULL_PRONOUN)
    ):
        return "your"
    names_somebody = token in {"him", "her"} or (token in _NAMES and before in {"the", "this", "that"})
    if names_somebody or token in _STOPPERS:
        raise _Unsure
    forms = _forms(token)
    if "s" in forms and not _is_noun(token, before):
        raise _Unsure  # a verb whose place is not understood
    if form == "past" and "past" in forms and before != "to":
        raise _Unsure
    return token


def _is_noun(token: str, before: str) -> bool:
    """Whether a third person form is the plural of a noun here."""
    if token == "steps" and before in {"up", "down", "the"}:
        return True  # stairs
    return token in _NOUNS and (before in _BEFORE_NOUNS or before.isdigit())
