from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError
from llamo_ros.training.motion_data import worded_clips, worded_segments
from llamo_ros.training.pack import open_pack
from llamo_ros.training.processes import Processes
from llamo_ros.training.shard_order import ShardOrder
from llamo_ros.training.shard_stream import ShardStream
from llamo_ros.training.shards import ShardSet, open_shards, write_shards


@pytest.fixture(scope="module")
def shards(packed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return write_shards(open_pack(packed_folder), tmp_path_factory.mktemp("shards"), samples_per_shard=5)


def rank(number: int, count: int) -> Processes:
    processes = Processes()
    processes.rank, processes.count = number, count
    return processes


def names(draw: list) -> list[tuple]:
    return [(words.key, words.mirrored, words.content, len(features)) for features, words in draw]


def test_shards_hold_every_clip_mirror_image_and_part_of_the_pack(shards: ShardSet, packed_folder: Path) -> None:
    pack = open_pack(packed_folder)
    expected = Counter()
    for features, words in (*worded_clips(pack, "train", True), *worded_segments(pack, 0)):
        expected[words.key, words.mirrored, words.content, words.captions] += len(features) >= 16
    found = Counter()
    for index, shard in enumerate(shards.shards["train"]):
        for position, length in enumerate(shard.lengths):
            features, words = shards.read("train", index, position)
            assert len(features) == length
            found[words.key, words.mirrored, words.content, words.captions] += 1
    assert found == +expected
    val = [shards.read("val", i, p)[1] for i, s in enumerate(shards.shards["val"]) for p in range(len(s.lengths))]
    assert {words.key for words in val} == {row.id for row in pack.split("val")}
    assert not any(words.mirrored for words in val)
    assert len(shards) == sum(found.values()) + len(val)


def test_features_come_back_as_they_were_up_to_rounding(shards: ShardSet, packed_folder: Path) -> None:
    pack = open_pack(packed_folder)
    rows = {row.id: row for row in pack.sequences}
    features, words = next(shards.read("val", 0, position) for position in range(3))
    # float16 has 11 bits: values up to 2 are rounded by at most 2 ** -11.
    np.testing.assert_allclose(features, pack.of(rows[words.key]), rtol=2**-11, atol=1e-7)
    np.testing.assert_allclose(shards.std, pack.std)
    assert (shards.licence_set, shards.licences) == (pack.licence_set, pack.licences)


def test_any_reader_of_tar_files_finds_pairs_of_features_and_words(shards: ShardSet) -> None:
    with tarfile.open(shards.folder / "train-000000.tar") as tar:
        members = tar.getnames()
        assert [name.partition(".")[2] for name in members] == ["npy", "json"] * 5
        assert [name.partition(".")[0] for name in members[::2]] == [f"{n:09d}" for n in range(5)]
        assert np.load(io.BytesIO(tar.extractfile(members[0]).read())).dtype == np.float16
        assert "captions" in json.loads(tar.extractfile(members[1]).read())


@pytest.mark.parametrize("sizes", [(7,), (5, 5, 3), (1, 40, 2, 9), (3, 0, 4)], ids=str)
@pytest.mark.parametrize("rows", [1, 4, 6, 64])
def test_every_sample_is_drawn_once_per_epoch(sizes: tuple[int, ...], rows: int) -> None:
    rng = np.random.default_rng(0)
    lengths = [list(rng.integers(16, 300, size)) for size in sizes]
    order = ShardOrder([range(10, 10 + size) for size in sizes], lengths, rows, seed=3, block=4, window=8)
    everything = Counter((shard, 10 + n) for shard, size in enumerate(sizes) for n in range(size))
    epochs = 5
    draws = -(-epochs * order.count // rows)
    drawn = [order.sample(draw, row) for draw in range(draws) for row in range(rows)]
    rounds = Counter()
    # Samples move within their lane and epoch only, so what an epoch holds is found by its places in the stream.
    stream = {}
    for number, place in enumerate(drawn):
        stream.setdefault(number // order.count, Counter())[place] += 1
    for epoch in range(epochs):
        assert stream[epoch] == everything
        rounds += stream[epoch]
    assert set(rounds.values()) == {epochs}


def test_epochs_and_seeds_differ_in_order() -> None:
    def drawn(seed: int) -> list[tuple[int, int]]:
        order = ShardOrder([range(30)] * 3, [[16] * 30] * 3, 5, seed)
        return [order.sample(draw, row) for draw in range(36) for row in range(5)]

    first = drawn(0)
    assert first == drawn(0)
    assert first != drawn(1)
    assert first[:90] != first[90:]


def test_samples_of_a_draw_are_of_similar_length_and_draws_are_not_in_order_of_length() -> None:
    rng = np.random.default_rng(0)
    lengths = [list(rng.integers(16, 300, 400)) for _ in range(8)]
    order = ShardOrder([range(400)] * 8, lengths, 16, seed=0)
    drawn = np.array([[lengths[s][p] for s, p in (order.sample(d, row) for row in range(16))] for d in range(192)])
    padded = drawn.max(1).sum() * 16 / drawn.sum()
    assert padded < 1.25, "at random it is 1.8"
    means = drawn.mean(1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.25


@pytest.mark.parametrize(("count", "workers"), [(1, 0), (2, 0), (3, 0), (4, 0), (1, 2), (2, 1)])
def test_any_processes_and_workers_see_the_same_draws(shards: ShardSet, count: int, workers: int) -> None:
    reference = ShardStream(shards, 4, seed=1)
    expected = [names(next(reference)) for _ in range(8)]
    got: list[list] = [[None] * 4 for _ in range(8)]
    for number in range(count):
        stream = ShardStream(shards, 4, 1, rank(number, count), workers)
        for draw in got:
            draw[number::count] = names(next(stream))
    assert got == expected


def test_a_stream_goes_on_at_every_position_with_another_number_of_processes(shards: ShardSet) -> None:
    whole = ShardStream(shards, 4, seed=1)
    expected = []
    states = []
    for _ in range(14):
        states.append(whole.state_dict())
        expected.append(names(next(whole)))
    for position, state in enumerate(states):
        parts = [ShardStream(shards, 4, 1, rank(number, 2)) for number in range(2)]
        for number, part in enumerate(parts):
            part.load_state_dict(state)
            for later in expected[position : position + 3]:
                assert names(next(part)) == later[number::2]


def test_static_clips_can_be_left_out(shards: ShardSet) -> None:
    marked = {"train": tuple(type(s)(s.file, s.lengths, (True, *s.static[1:])) for s in shards.shards["train"])}
    some = replace(shards, shards=marked)
    left_out = sum(sum(shard.static) for shard in marked["train"])
    assert left_out >= len(marked["train"])
    assert ShardStream(some, 2, 0, drop_static=True).order.count == ShardStream(some, 2, 0).order.count - left_out


def test_damage_is_named(shards: ShardSet, packed_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="already"):
        write_shards(open_pack(packed_folder), shards.folder)
    with pytest.raises(DatasetError, match="not a readable folder of shards"):
        open_shards(tmp_path)
    other = write_shards(open_pack(packed_folder), tmp_path / "other", dtype="float32")
    path = other.folder / other.shards["train"][0].file
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DatasetError, match="cannot be read"):
        other.read("train", 0, 0)
