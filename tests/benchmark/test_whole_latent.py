"""Whole latents, streams and fresh processes with a tiny model; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llamo_ros.benchmark import whole_latent
from llamo_ros.benchmark.fresh_process import FreshProcessError, fresh_process
from llamo_ros.benchmark.whole_latent import (
    PERIOD,
    busy_neighbour,
    long_motion,
    streams_in_real_time,
    tick_times,
    usable_cores,
)
from llamo_ros.core.errors import ParameterError
from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.pipelines.text_to_motion import TextToMotion


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(list(whole_latent.PROMPTS), 300)
    folder = tmp_path_factory.mktemp("tiny")
    save_checkpoint(Llamo(preset("tiny")), tokenizer, folder, {"name": "random"}, None)
    return folder


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> TextToMotion:
    return TextToMotion.from_checkpoint(checkpoint)


def test_every_latent_of_every_motion_is_timed(pipeline: TextToMotion) -> None:
    times = tick_times(pipeline, seconds=2.4, each=0.8)
    assert len(times) == 18
    assert min(times) > 0


def test_a_long_motion_is_told_piece_by_piece(pipeline: TextToMotion) -> None:
    rows = long_motion(pipeline, seconds=2.0, piece=0.8)
    assert [row["calls"] for row in rows] == [6, 6, 3]
    assert [row["from_s"] for row in rows] == pytest.approx([0.0, 0.8, 1.6])


def test_the_search_ends_at_the_most_streams_that_keep_up(
    pipeline: TextToMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_latent, "_ticks_of_many", lambda _, count, ticks: [PERIOD * count / 10.5] * ticks)
    told: list[str] = []
    found = streams_in_real_time(pipeline, ticks=2, progress=told.append)
    assert found["streams"] == 10
    tried = [row["streams"] for row in found["rows"]]
    assert tried == sorted(set(tried))
    assert [row["keeps_up"] for row in found["rows"]] == [count <= 10 for count in tried]
    assert len(told) == len(tried)
    assert streams_in_real_time(pipeline, ticks=1, most=6)["streams"] == 6
    monkeypatch.setattr(whole_latent, "_ticks_of_many", lambda *_: [2 * PERIOD])
    assert streams_in_real_time(pipeline)["streams"] == 0
    for nothing in ({"ticks": 0}, {"most": 0}):
        with pytest.raises(ParameterError, match="expected both to be at least 1"):
            streams_in_real_time(pipeline, **nothing)


def test_many_streams_are_made_together(pipeline: TextToMotion) -> None:
    assert len(whole_latent._ticks_of_many(pipeline, count=3, ticks=2)) == 2


def test_a_neighbour_is_busy_only_meanwhile() -> None:
    with busy_neighbour("no"):
        pass
    with busy_neighbour("same machine", usable_cores()):
        (process,) = whole_latent.multiprocessing.active_children()
        assert process.is_alive()
    assert not whole_latent.multiprocessing.active_children()


def test_a_fresh_process_says_when_it_moved_and_what_memory_it_took(checkpoint: Path) -> None:
    found = fresh_process(str(checkpoint), "int8", seconds=0.4)
    assert 0 < found["loaded_s"] < found["first_pose_s"]
    assert found["peak_mb"] > 50  # PyTorch alone
    with pytest.raises(FreshProcessError, match="status 1 and said: .*no model 'none'"):
        fresh_process("none")
