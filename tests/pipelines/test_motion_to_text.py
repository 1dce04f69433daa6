from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.core.errors import MotionDataError, ParameterError, PromptError
from llamo_ros.model.caption_generation import CaptionOptions
from llamo_ros.model.caption_runtime import CaptionRuntime
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.caption_stream import CaptionStream
from llamo_ros.pipelines.caption_writer import Caption, CaptionWriter
from llamo_ros.pipelines.confidence import ConfidenceCalibration
from llamo_ros.pipelines.motion_to_text import MotionToText

Walker = Callable[..., MotionClip]


@pytest.fixture
def captioner(tiny: Llamo, tokenizer: TextTokenizer) -> MotionToText:
    return MotionToText(tiny, tokenizer)


def alike(first: Caption, second: Caption) -> bool:
    return first.text == second.text and abs(first.confidence - second.confidence) < 1e-4


def test_a_caption_has_the_confidence_of_its_tokens_and_says_that_it_is_raw(
    captioner: MotionToText, walker: Walker
) -> None:
    caption = captioner(walker(40))
    pieces = list(captioner.pieces(walker(40)))
    assert "".join(piece.text for piece in pieces).strip() == caption.text
    # The caption also counts the token that ends it, if it was not cut at 40.
    mean = np.exp(np.mean([np.log(piece.probability) for piece in pieces]))
    assert len(pieces) < 40 or caption.confidence == pytest.approx(mean, abs=1e-6)
    assert 0 < caption.confidence < 1
    assert not caption.is_calibrated


def test_a_calibrated_caption_says_so_and_a_sampled_one_never_is(
    tiny: Llamo, tokenizer: TextTokenizer, walker: Walker
) -> None:
    calibration = ConfidenceCalibration(slope=2.0, offset=1.0, clips=10)
    raw = MotionToText(tiny, tokenizer)(walker(40))
    captioner = MotionToText(tiny, tokenizer, calibration)
    caption = captioner(walker(40))
    assert caption == Caption(raw.text, calibration(raw.confidence), is_calibrated=True)
    assert not captioner(walker(40), CaptionOptions(temperature=1.0)).is_calibrated


def test_any_frame_rate_and_place_is_described_and_long_clips_by_their_first_ten_seconds(
    captioner: MotionToText, walker: Walker
) -> None:
    clip = walker(320)
    moved = MotionClip(clip.rotations, clip.root_positions + [3.0, 0.0, -2.0])
    assert alike(captioner(clip), captioner(clip.sliced(0, 300)))
    assert alike(captioner(clip), captioner(moved))
    captioner(walker(60).resampled(50.0))
    with pytest.raises(MotionDataError, match="at least 8"):
        captioner(walker(7))


@pytest.mark.parametrize("sizes", [[1], [3, 7], [40], [0, 5, 2]], ids=str)
def test_a_growing_window_gives_the_caption_of_the_whole_window_at_once(
    captioner: MotionToText, walker: Walker, sizes: list[int]
) -> None:
    clip, stream, taken = walker(50), captioner.open(), 0
    while taken < 50:
        for size in sizes:
            stream.add(clip.sliced(taken, taken + size))
            taken = min(50, taken + size)
        if stream.frames >= 8 and taken % 3 == 0:
            assert alike(stream.caption(), captioner(clip.sliced(0, taken)))
            assert stream.frames == taken // 4 * 4
    assert stream.start_index == 0


def test_each_frame_is_encoded_once_whatever_is_captioned(
    captioner: MotionToText, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = [], CaptionRuntime.encode
    monkeypatch.setattr(
        CaptionRuntime, "encode", lambda self, x, state=None: encoded.append(x.shape[1]) or encode(self, x, state)
    )
    stream, clip = captioner.open(), walker(200)
    for start in range(0, 200, 10):
        stream.add(clip.sliced(start, start + 10))
        if stream.frames >= 8:
            stream.caption()
    assert sum(encoded) == 200


def test_a_full_window_slides_to_its_newest_part(tiny: Llamo, tokenizer: TextTokenizer, walker: Walker) -> None:
    stream = CaptionStream(CaptionWriter(tiny, tokenizer), window=10, kept=4)
    clip = walker(200)
    windows = []
    for start in range(0, 200, 4):
        stream.add(clip.sliced(start, start + 4))
        windows.append((stream.start_index, stream.frames))
    assert windows[9] == (0, 40)
    assert windows[10] == (24, 20)  # four latents kept, and the new one
    assert max(frames for _, frames in windows) == 40
    assert all(begin + frames == 4 * number + 4 for number, (begin, frames) in enumerate(windows))
    at_once = CaptionStream(CaptionWriter(tiny, tokenizer), window=10, kept=4)
    at_once.add(clip)
    assert (at_once.start_index, at_once.frames) == windows[-1]
    assert alike(at_once.caption(), stream.caption())


def test_the_likelihood_of_a_text_depends_on_the_motion(captioner: MotionToText, walker: Walker) -> None:
    first, second = (captioner.log_likelihood(walker(40, seed), "a person walks") for seed in (0, 1))
    assert first < 0
    assert first != second
    with pytest.raises(PromptError):
        captioner.log_likelihood(walker(40), " ")


def test_a_stream_refuses_what_it_cannot_read(captioner: MotionToText, walker: Walker) -> None:
    stream = captioner.open()
    with pytest.raises(MotionDataError, match="30"):
        stream.add(walker(20).resampled(60.0))
    stream.add(walker(7))
    for ask in (stream.caption, stream.pieces, lambda: stream.log_likelihood("walk")):
        with pytest.raises(MotionDataError, match="at least 8"):
            ask()
    with pytest.raises(ParameterError, match="kept"):
        CaptionStream(captioner._writer, window=5, kept=5)
