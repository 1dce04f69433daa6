from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import ParameterError, PromptError
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.pipelines.motion_to_text import MotionToText
from llamo_ros.pipelines.text_to_motion import TextToMotion

SHORT = {"max_duration": 0.8, "flow_steps": 4}


@pytest.fixture(scope="module")
def pipeline(tiny: Llamo, tokenizer: TextTokenizer) -> TextToMotion:
    return TextToMotion(tiny, tokenizer)


def same(first: MotionClip, second: MotionClip) -> bool:
    return np.allclose(first.rotations, second.rotations, atol=1e-4) and len(first) == len(second)


def test_a_stream_is_checked_at_once_and_made_as_it_is_taken(pipeline: TextToMotion) -> None:
    with pytest.raises(PromptError):
        pipeline.stream("")
    with pytest.raises(ParameterError, match="solver"):
        pipeline.stream("walk", solver="rk4")
    chunks = list(pipeline.stream("walk", **SHORT))
    assert [chunk.start_index for chunk in chunks] == [4 * n for n in range(len(chunks))]
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_two_streams_may_be_taken_in_turn(pipeline: TextToMotion) -> None:
    pairs = zip(pipeline.stream("walk", seed=1, **SHORT), pipeline.stream("jump", seed=2, **SHORT), strict=True)
    first, second = zip(*pairs, strict=True)
    for chunks, (text, seed) in ((first, ("walk", 1)), (second, ("jump", 2))):
        alone = pipeline(text, seed=seed, **SHORT)
        assert np.allclose(np.concatenate([chunk.clip.rotations for chunk in chunks]), alone.rotations)


@pytest.mark.parametrize("options", [{}, {"solver": "midpoint", "temperature": 0.5, "guidance_scale": 1.0}], ids=str)
def test_a_batch_makes_what_each_prompt_makes_alone(pipeline: TextToMotion, options: dict) -> None:
    frames = []
    texts = ["walk", "a person jumps", ""]
    clips = pipeline.batch(texts, seeds=[3, 4, 5], progress=frames.append, **SHORT, **options)
    assert [clip.text for clip in clips] == texts
    assert frames[-1] == sum(map(len, clips))
    for text, seed, clip in zip(texts[:2], (3, 4), clips[:2], strict=True):
        assert same(clip, pipeline(text, seed=seed, **SHORT, **options))


def test_a_large_batch_begins_further_motions_as_others_end(
    pipeline: TextToMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamo_ros.pipelines.text_to_motion.MOST_AT_ONCE", 2)
    clips = pipeline.batch(["walk"] * 5, seeds=range(5), **SHORT)
    assert all(same(clip, pipeline("walk", seed=seed, **SHORT)) for seed, clip in enumerate(clips))


def test_samples_differ_by_their_seeds_only(pipeline: TextToMotion) -> None:
    first, again, other = pipeline.samples("walk", [1, 1, 2], **SHORT)
    assert same(first, again)
    assert not np.allclose(first.rotations[:20], other.rotations[:20], atol=1e-3)


def test_best_of_n_is_sorted_by_the_score(pipeline: TextToMotion) -> None:
    ranked = pipeline.best_of("walk", range(4), lambda clip: float(clip.root_positions[-1, 0]), **SHORT)
    scores = [motion.score for motion in ranked]
    assert scores == sorted(scores, reverse=True)
    assert {motion.seed for motion in ranked} == set(range(4))
    assert same(ranked[0].clip, pipeline("walk", seed=ranked[0].seed, **SHORT))


def test_the_captioner_scores_how_well_a_motion_fits_its_prompt(
    pipeline: TextToMotion, tiny: Llamo, tokenizer: TextTokenizer
) -> None:
    captioner = MotionToText(tiny, tokenizer)
    ranked = pipeline.best_of("a person walks", range(3), captioner.prompt_score, **SHORT)
    for motion in ranked:
        assert motion.score == captioner.log_likelihood(motion.clip, "a person walks") < 0


def test_a_score_that_is_no_number_is_refused(pipeline: TextToMotion) -> None:
    with pytest.raises(ParameterError, match="seed 7 is nan"):
        pipeline.best_of("walk", [7], lambda clip: math.nan, **SHORT)


@pytest.mark.parametrize("kind", [TextToMotion, MotionToText])
@pytest.mark.parametrize("threads", [0, -1, 10**6, True, "2", 1.5, None], ids=repr)
def test_a_number_of_threads_that_cannot_be_is_refused(kind: type, threads: object) -> None:
    with pytest.raises(ParameterError, match=f"threads is {threads!r}, expected a whole number from 1 to .*cores"):
        kind.from_checkpoint("none", threads=threads)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks the system for cores in another way")
def test_pytorch_gets_threads_only_where_it_runs_whole_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    before = torch.get_num_threads()
    try:
        for kind, options, expected in [
            (TextToMotion, {}, 1),
            (TextToMotion, {"backend": "reference"}, 2),
            (MotionToText, {}, 1),
        ]:
            kind.from_checkpoint("llamo-mini", threads=2, **options)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_whole_clips_cannot_be_endless(pipeline: TextToMotion) -> None:
    for ask in (pipeline, pipeline.stream):
        with pytest.raises(ParameterError, match="between 0 and 600"):
            ask("walk", max_duration=math.inf)
    with pytest.raises(ParameterError, match="one for each"):
        pipeline.batch(["walk"], seeds=[1, 2])


def test_to_generate_neither_transformers_nor_the_compiler_of_pytorch_is_imported() -> None:
    program = (
        "import sys\n"
        "from llamo_ros.pipelines.text_to_motion import TextToMotion\n"
        "TextToMotion.from_checkpoint('llamo-mini', threads=1)('a person waves', max_duration=0.5)\n"
        "sys.exit(', '.join({'transformers', 'torch._dynamo', 'sympy', 'triton'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"imported, which makes the start longer: {done.stderr}"
