from __future__ import annotations

from itertools import product

import pytest

from llamo_ros.pipelines.imperative import as_command, imperative, is_sentence


@pytest.mark.parametrize(
    ("caption", "command"),
    [
        ("a person walks forward", "walk forward"),
        ("A person walks forward.", "walk forward"),
        ("a person is walking", "walk"),
        ("a man is slowly walking in a circle", "slowly walk in a circle"),
        ("someone waves their left hand.", "wave your left hand"),
        ("the person carries a box up the steps", "carry a box up the steps"),
        ("a person does two kicks and a jump", "do two kicks and a jump"),
        ("person stopped and sat down", "stop and sit down"),
        ("a person jogging in place", "jog in place"),
        ("a person tries to balance on one leg", "try to balance on one leg"),
        ("a man walks forward, turns around and walks back", "walk forward, turn around and walk back"),
        ("a person is walking and then stops", "walk and then stop"),
        ("a person is clapping and waving", "clap and wave"),
        ("a person walks while waving and clapping", "walk while waving and clapping"),
        ("a person is walking while waving and clapping", "walk while waving and clapping"),
        ("a person walks forward swinging arms and kicking legs", "walk forward swinging arms and kicking legs"),
        ("a man lifts his arms before bringing them down", "lift your arms before bringing them down"),
        ("a woman puts her hands in front of her", "put your hands in front of you"),
        ("a person steadies himself", "steady yourself"),
        ("a person swings the arms as they walk", "swing the arms as you walk"),
        ("he bows and then he quickly turns", None),  # "he" and "turns" are too far apart to be sure
        ("a person bows and he turns", "bow and turn"),
        ("someone waves with their right hand slowly, like an elderly person.",
         "wave with your right hand slowly, like an elderly person"),
    ],
)  # fmt: skip
def test_captions_of_known_shapes_become_commands(caption: str, command: str | None) -> None:
    assert imperative(caption) == command


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a person",
        "walk forward",
        "walking forward",
        "arms are raised",
        "two people dance",
        "the left arm swings",
        "a person with raised arms walks",
        "a person who is standing sits down",
        "a person standing makes a kick",
        "a person is pushed to the left",
        "a person gets pushed",
        "a person looks tired",
        "a person looks like they are swimming",
        "a person appears to swim",
        "a person has long arms",
        "a person is in a hurry",
        "a person frobnicates",
        "a person walks and frobnicates",
        "a person walks forward picks up speed",
        "a person jumped forward turned around",
        "a person walks. he then sits down",
        "a person doesn't move",
        "a person walks to the man and the man sits",
        "a person walks and and sits",
        "a person follows him",
        "a person walks/jogs",
    ],
)
def test_captions_beyond_the_rules_are_left_alone(caption: str) -> None:
    assert imperative(caption) is None


VERBS = [
    ("walk", "walks", "walked", "walking"),
    ("stop", "stops", "stopped", "stopping"),
    ("wave", "waves", "waved", "waving"),
    ("carry", "carries", "carried", "carrying"),
    ("play", "plays", "played", "playing"),
    ("sit", "sits", "sat", "sitting"),
    ("run", "runs", "ran", "running"),
    ("reach", "reaches", "reached", "reaching"),
    ("go", "goes", "went", "going"),
    ("do", "does", "did", "doing"),
    ("put", "puts", "put", "putting"),
    ("tie", "ties", "tied", "tying"),
    ("relax", "relaxes", "relaxed", "relaxing"),
    ("kneel", "kneels", "knelt", "kneeling"),
]


@pytest.mark.parametrize("first", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("second", VERBS[:5], ids=lambda verb: verb[0])
def test_two_joined_verbs_give_one_command_in_every_tense(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    tenses = (("", 1), ("", 2), ("is ", 3), ("was ", 3), ("", 3))
    joints = ("and", "then", ", and then", "and slowly")
    for subject, joint, (was, form) in product(("a person", "someone", "the man"), joints, tenses):
        expected = f"{first[0]} it {joint} {second[0]} it".replace(" ,", ",")
        assert imperative(f"{subject} {was}{first[form]} it {joint} {second[form]} it") == expected


@pytest.mark.parametrize(
    ("caption", "command"),
    [
        ("Raise your right hand.", "raise your right hand"),
        ("go back", "go back"),
        ("run as fast as you can", "run as fast as you can"),
        ("sit down, stand up", "sit down, stand up"),
        ("a person runs", "run"),
        ("hands up", None),
        ("run turn right", None),
        ("Run Quick Stop Run", None),
        ("walk, exaggerated stride", None),
        ("run/jog", None),
    ],
)
def test_commands_stay_commands_and_labels_are_none(caption: str, command: str | None) -> None:
    assert as_command(caption) == command


@pytest.mark.parametrize("caption", ["a person walks", "someone is running", "the man raised an arm"])
def test_sentences_are_told_apart(caption: str) -> None:
    assert is_sentence(caption)


@pytest.mark.parametrize("caption", ["", "walk forward", "walking forward", "a person walking forward", "salsa dance"])
def test_other_captions_are_no_sentences(caption: str) -> None:
    assert not is_sentence(caption)
