from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import DatasetError, MotionFileError, ParameterError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.quality import global_mpjpe
from llamo_ros.training.filters import FilterSettings
from llamo_ros.training.importing import writer
from llamo_ros.training.importing.run import ImportSettings, import_collection, summarise
from llamo_ros.training.importing.takes import ImportedClip, Rejected, take_on_floor
from llamo_ros.training.pack import pack_data
from llamo_ros.training.source_data import TimedCaption, read_sequences
from llamo_ros.training.splits import SplitShares


class Numbered:
    """A collection of ``count`` takes of 60 to 64 frames, two clips each; can fail or be interrupted at one of them."""

    origin = "made up"
    notes = ("Nothing is left out.",)

    def __init__(self, make: Callable[..., MotionClip], count: int = 12, interrupt_at: int = -1) -> None:
        self._make, self._count, self.interrupt_at = make, count, interrupt_at
        self.reads: list[str] = []

    def keys(self) -> Iterator[str]:
        yield from (f"set/take {number:02d}" for number in range(self._count))

    def motion(self, key: str) -> MotionClip:
        number = int(key[-2:])
        return take_on_floor(self._make((60 + number % 5) / 30, 30.0, phase=float(number)))

    def read(self, key: str) -> list[ImportedClip | Rejected]:
        if int(key[-2:]) == self.interrupt_at:
            raise KeyboardInterrupt
        self.reads.append(key)
        motion = self.motion(key)
        caption = (TimedCaption(f"take {key[-2:]}"),)
        return [
            ImportedClip(f"{key}/{side}", clip, caption, take=key, source_file=f"{key}.npz")
            for side, clip in (("a", motion), ("b", motion.sliced(0, 50)))
        ]


@pytest.fixture
def collection(asymmetric_clip: Callable) -> Callable[..., Numbered]:
    return lambda **options: Numbered(asymmetric_clip, **options)


def contents(folder: Path) -> list[tuple]:
    return [
        (s.id, s.split, s.captions, s.row["trial"], s.rotvec_i16.tobytes(), s.trans.tobytes())
        for s in read_sequences(folder)
    ]


def test_what_is_written_reads_back_as_the_motion(
    collection: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    numbered = collection()
    import_collection(numbered, tmp_path, settings, {})
    sequences = list(read_sequences(tmp_path))
    assert len(sequences) == 24
    assert len({sequence.row["shard"] for sequence in sequences}) == 6  # 110 to 114 frames a take, 200 a shard
    for sequence in sequences[::2]:
        expected = numbered.motion(sequence.row["trial"]).joint_positions()
        # Rotations are stored to 1e-4 rad: over arms and legs of 1 m that is below 0.2 mm.
        assert global_mpjpe(sequence.clip.joint_positions(), expected) < 2e-4
    assert {(s.kind, s.licence, s.row["origin"]) for s in sequences} == {("mine", "CC BY 4.0", "made up")}


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 11])
def test_an_interrupted_import_goes_on_without_losing_or_doubling_a_clip(
    stop: int, collection: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    import_collection(collection(), tmp_path / "whole", settings, {})
    first, second = collection(interrupt_at=stop), collection()
    with pytest.raises(KeyboardInterrupt):
        import_collection(first, tmp_path / "parts", settings, {})
    import_collection(second, tmp_path / "parts", settings, {})
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(first.reads) + len(second.reads) == 12  # nothing is read twice


@pytest.mark.parametrize("what", ["shard", "index", "state"])
def test_a_crash_at_any_place_of_a_commit_leaves_a_folder_that_can_be_gone_on_with(
    what: str, collection: Callable, settings: ImportSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_collection(collection(), tmp_path / "whole", settings, {})
    calls = []

    def failing_replace(source: Path, target: Path) -> None:
        calls.append(Path(target).name)
        is_third_commit = sum(name.endswith(".npz") for name in calls) == 3
        if is_third_commit and what == "shard" and Path(target).suffix == ".npz":
            raise KeyboardInterrupt
        if is_third_commit and what == "state" and Path(target).name == writer.STATE_NAME:
            raise KeyboardInterrupt
        real_replace(source, target)

    def failing_lines(rows: object) -> bytes:
        calls.append("lines")
        if what == "index" and calls.count("lines") == 6:  # after the shard and the index of the third commit
            raise KeyboardInterrupt
        return real_lines(rows)

    real_replace, real_lines = writer.os.replace, writer._lines
    monkeypatch.setattr(writer.os, "replace", failing_replace)
    monkeypatch.setattr(writer, "_lines", failing_lines)
    with pytest.raises(KeyboardInterrupt):
        import_collection(collection(), tmp_path / "parts", settings, {})
    monkeypatch.undo()
    import_collection(collection(), tmp_path / "parts", settings, {})
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not list((tmp_path / "parts").glob("*.partial"))


def test_a_finished_import_is_not_read_again(collection: Callable, settings: ImportSettings, tmp_path: Path) -> None:
    import_collection(collection(), tmp_path, settings, {})
    again = collection()
    import_collection(again, tmp_path, settings, {})
    assert again.reads == []


def test_a_name_that_training_uses_itself_is_refused(settings: ImportSettings) -> None:
    with pytest.raises(ParameterError, match="'segment' is reserved"):
        replace(settings, name="segment")


def test_going_on_asks_for_the_same_settings(collection: Callable, settings: ImportSettings, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        import_collection(collection(interrupt_at=5), tmp_path, settings, {})
    with pytest.raises(DatasetError, match="another licence"):
        import_collection(collection(), tmp_path, replace(settings, licence="MIT"), {})
    with pytest.raises(DatasetError, match="another origin"):
        import_collection(collection(), tmp_path, settings, {"folder": "elsewhere"})


def test_a_collection_that_changed_meanwhile_is_refused(
    collection: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        import_collection(collection(interrupt_at=5), tmp_path, settings, {})
    changed = collection()
    changed.keys = lambda: (f"set/other {number:02d}" for number in range(12))
    with pytest.raises(DatasetError, match="changed"):
        import_collection(changed, tmp_path, settings, {})


def test_a_folder_with_data_of_another_make_is_not_written_into(
    collection: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    (tmp_path / "index.jsonl").write_text("precious\n")
    with pytest.raises(DatasetError, match="already holds"):
        import_collection(collection(), tmp_path, settings, {})
    assert (tmp_path / "index.jsonl").read_text() == "precious\n"


def test_all_clips_of_a_take_are_in_one_split(collection: Callable, settings: ImportSettings, tmp_path: Path) -> None:
    import_collection(collection(), tmp_path, replace(settings, shares=SplitShares(0.4, 0.3, 0.3)), {})
    summary = summarise(tmp_path)
    assert summary.torn_takes == {}
    assert len(summary.clips) > 1


def test_dropped_clips_are_reported_with_reason_and_measure(
    collection: Callable, settings: ImportSettings, filters: FilterSettings, tmp_path: Path
) -> None:
    strict = replace(settings, filters=replace(filters, shortest_s=1.9))
    import_collection(collection(), tmp_path, strict, {})
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(lines) == 12  # the second clip of each take
    reason = lines[0]["reasons"][0]
    assert (reason["reason"], reason["unit"], reason["limit"]) == ("too short", "s", 1.9)
    assert reason["value"] == pytest.approx(50 / 30)
    report = (tmp_path / "report.txt").read_text()
    assert "dropped: 12 clips" in report and "too short" in report and "note: Nothing is left out." in report


@pytest.mark.parametrize("keep", [True, False])
def test_static_clips_are_kept_and_marked_or_dropped(
    keep: bool, collection: Callable, settings: ImportSettings, tmp_path: Path
) -> None:
    numbered = collection(count=2)
    clip = numbered.motion("set/take 00")
    still = MotionClip(np.repeat(clip.rotations[:1], 60, 0), np.repeat(clip.root_positions[:1], 60, 0))
    numbered.motion = lambda key: still if key.endswith("00") else clip
    import_collection(numbered, tmp_path, replace(settings, keep_static=keep), {})
    assert [bool(s.row["static"]) for s in read_sequences(tmp_path)] == [True] * 2 * keep + [False] * 2
    assert summarise(tmp_path).dropped.counts() == ({} if keep else {"static": 2})


def test_an_import_of_nothing_says_why(collection: Callable, settings: ImportSettings, tmp_path: Path) -> None:
    numbered = collection()

    def broken(key: str) -> list:
        raise MotionFileError(f"{key} is cut short.")

    numbered.read = broken
    with pytest.raises(DatasetError, match=r"nothing was imported.*12 clips.*is cut short"):
        import_collection(numbered, tmp_path, settings, {})


def test_ids_are_plain_words_and_stay_apart(collection: Callable, settings: ImportSettings, tmp_path: Path) -> None:
    import_collection(collection(), tmp_path, settings, {})
    ids = [sequence.id for sequence in read_sequences(tmp_path)]
    assert len(set(ids)) == len(ids)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in ids)


def test_an_import_can_be_packed_by_its_licence(collection: Callable, settings: ImportSettings, tmp_path: Path) -> None:
    import_collection(collection(), tmp_path / "free", settings, {})
    import_collection(collection(), tmp_path / "amass", replace(settings, name="amass", licence="AMASS terms"), {})
    both = [tmp_path / "free", tmp_path / "amass"]
    assert {row.kind for row in pack_data(both, tmp_path / "all").sequences} == {"mine", "amass"}
    pack = pack_data(both, tmp_path / "open", "open")
    assert {row.kind for row in pack.sequences} == {"mine"}
    assert dict(pack.licences) == {"mine: CC BY 4.0": 24}
    assert list(pack.left_out.values()) == [24]


@pytest.mark.parametrize(
    "change", [{"name": "bandai"}, {"name": "a/b"}, {"name": ""}, {"licence": " "}, {"frames_per_shard": 0}], ids=str
)
def test_unusable_settings_are_refused(change: dict, settings: ImportSettings) -> None:
    with pytest.raises(ParameterError):
        replace(settings, **change)
