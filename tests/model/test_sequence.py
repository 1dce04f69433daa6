from __future__ import annotations

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.model.llamo import MOTION, PADDING
from llamo_ros.model.sequence import Markers, MotionPart, TextPart, collated, prompt_of

MARKERS = Markers(bos=1, eos=2, begin_motion=300, end_motion=301)


def motion(length: int, is_target: bool = True, ends: bool = True) -> MotionPart:
    return MotionPart(torch.randn(length, 8), is_target, ends)


def test_parts_are_laid_out_as_the_paper_writes_them_to_any_depth() -> None:
    parts = [
        TextPart((11, 12)),
        motion(2),
        TextPart((13,)),
        motion(3, is_target=False),
        TextPart((14, 15), is_target=True),
        motion(1),
    ]
    batch = collated([parts], MARKERS)
    assert batch.prefix.tolist() == [[1, 11, 12]]
    m = MOTION
    assert batch.tokens.tolist() == [[300, m, m, 301, 13, 300, m, m, m, 301, 14, 15, 2, 300, m]]
    written = batch.text_target[0].nonzero()[:, 0].tolist()
    assert [batch.tokens[0, place].item() for place in written] == [14, 15, 2]
    assert batch.flow_target[0].nonzero()[:, 0].tolist() == [1, 2, 14]
    assert batch.exit_label[0].nonzero()[:, 0].tolist() == [2, 14]
    torch.testing.assert_close(batch.latents[0, 6:9], parts[3].latents, rtol=0, atol=0)


def test_rows_of_different_lengths_are_padded_at_the_outer_ends() -> None:
    rows = [[TextPart((11, 12, 13)), motion(2)], [TextPart(()), motion(5, ends=False)]]
    batch = collated(rows, MARKERS)
    assert batch.prefix.tolist() == [[1, 11, 12, 13], [PADDING] * 3 + [1]]
    assert batch.tokens.tolist() == [[300, *[MOTION] * 5]] * 2
    assert batch.flow_target.sum(1).tolist() == [2, 5]
    assert batch.latents[0, 3:].abs().sum() == 0
    assert batch.exit_label.sum(1).tolist() == [1, 0], "a motion that is cut off does not end"


def test_neighbouring_texts_run_on_and_neighbouring_motions_are_kept_apart() -> None:
    batch = collated([[motion(1), motion(1), TextPart((7,)), TextPart((8,)), motion(1)]], MARKERS)
    m = MOTION
    assert batch.prefix.tolist() == [[1]]
    assert batch.tokens.tolist() == [[300, m, 301, 300, m, 301, 7, 8, 300, m]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([TextPart((5,))], "no motion"),
        ([TextPart((5,), is_target=True), motion(2)], "before its first motion"),
        ([MotionPart(torch.zeros(0, 8))], "no latents"),
    ],
)
def test_a_sequence_that_trains_nothing_is_refused(parts: list, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        collated([parts], MARKERS)


def test_a_prompt_stands_before_its_motion_as_in_training() -> None:
    given = [TextPart((11, 12)), motion(2), TextPart((13,)), motion(3), TextPart((14,))]
    batch = collated([[*given, motion(4)]], MARKERS)
    prompt = prompt_of(given, MARKERS)
    row = [*batch.prefix[0].tolist(), *batch.tokens[0].tolist()]
    assert [MARKERS.bos, *prompt.ids, MARKERS.begin_motion, *[MOTION] * 4] == row
    places = (batch.tokens[0] == MOTION).nonzero()[:5, 0]
    torch.testing.assert_close(batch.latents[0, places], prompt.latents, rtol=0, atol=0)
    assert prompt_of([TextPart((5,))], MARKERS).latents is None
    with pytest.raises(ParameterError, match="no latents"):
        prompt_of([MotionPart(torch.zeros(0, 8))], MARKERS)
