"""Subcommands that import, check, describe and pack motion data."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamo_ros.training.importing.takes import Collection
    from llamo_ros.training.statistics import DataStatistics
    from llamo_ros.viewer.charts import Chart

_LABELS_SHOWN = 16


def data_import_amass(options: argparse.Namespace) -> None:
    """Import a folder of AMASS archives."""
    from llamo_ros.training.importing.amass import Amass

    _import(Amass(options.folder, options.texts, options.longest_piece), options, {"texts": str(options.texts or "")})


def data_import_humanml3d(options: argparse.Namespace) -> None:
    """Import HumanML3D, its motion from AMASS."""
    from llamo_ros.training.importing.humanml3d import HumanML3D

    collection = HumanML3D(options.folder, options.amass, options.mirrored, options.splits == "official")
    chosen = {"amass": str(options.amass.absolute()), "mirrored": options.mirrored, "splits": options.splits}
    _import(collection, options, chosen)


def data_import_bvh(options: argparse.Namespace) -> None:
    """Import a folder of BVH files."""
    from llamo_ros.training.importing.bvh_folder import BvhFolder

    collection = BvhFolder(options.folder, options.captions, options.joint_map, options.longest_piece)
    _import(collection, options, {"captions": str(options.captions), "joint_map": options.joint_map or ""})


def _import(collection: Collection, options: argparse.Namespace, chosen: dict[str, str | bool]) -> None:
    from llamo_ros.training.filters import load_filter_settings
    from llamo_ros.training.importing.run import REPORT_NAME, ImportSettings, import_collection
    from llamo_ros.training.splits import SplitShares

    settings = ImportSettings(
        name=options.name,
        licence=options.licence,
        filters=load_filter_settings(options.filters),
        keep_static=options.keep_static,
        shares=SplitShares(*options.shares, seed=options.seed),
    )
    origin = {"folder": str(options.folder.absolute()), "longest_piece": getattr(options, "longest_piece", 0), **chosen}
    import_collection(collection, options.out, settings, origin)
    print((options.out / REPORT_NAME).read_text(encoding="utf-8"), end="")
    print(f"{options.out}: ready for `llamo data pack {options.out}`; what was dropped is in dropped.jsonl there")


def data_check(options: argparse.Namespace) -> None:
    """Put a source folder through the filters and write what they would drop."""
    from tqdm import tqdm

    from llamo_ros.training.filter_report import DropTable, check_source
    from llamo_ros.training.filters import load_filter_settings
    from llamo_ros.training.source_data import sequence_count

    settings = load_filter_settings(options.filters)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tables: dict[str, DropTable] = {}
    clips: Counter[str] = Counter()
    with open(options.out, "w", encoding="utf-8") as file:
        checked = check_source(options.source, settings, options.keep_static)
        for row, dropped in tqdm(checked, desc="checking", unit="clip", total=sequence_count(options.source)):
            clips[row["kind"]] += 1
            table = tables.setdefault(row["kind"], DropTable())
            if dropped is not None:
                table.add(dropped)
                file.write(json.dumps(dropped, ensure_ascii=False) + "\n")
    for kind, table in tables.items():
        print(f"{kind}: {clips[kind]} clips")
        print("\n".join(f"  {line}" for line in table.lines()))
    print(f"{options.out}: to leave these out, `llamo data pack {options.source} --without {options.out}`")


def data_shards(options: argparse.Namespace) -> None:
    """Write a pack as shards."""
    from llamo_ros.training.pack import open_pack
    from llamo_ros.training.shards import write_shards

    written = write_shards(
        open_pack(options.pack), options.out, options.samples, options.mirror, options.dtype, options.seed
    )
    for split, shards in written.shards.items():
        print(f"  {split:6} {sum(len(shard.lengths) for shard in shards):8} samples in {len(shards)} shards")
    print(f"{options.out}: train on it with `llamo train motion --data {options.out} ...`")


def data_stats(options: argparse.Namespace) -> None:
    """Describe a source folder or a pack with tables and, if asked for, plots."""
    from llamo_ros.training.statistics import data_statistics
    from llamo_ros.viewer.charts import draw_charts

    found = data_statistics(options.data)
    print("\n".join(found.lines()))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "statistics.json").write_text(json.dumps(found.record(), indent=1), encoding="utf-8")
        draw_charts(_amount_charts(found), options.out / "amount.png", f"{options.data}: how much of what")
        draw_charts(_measure_charts(found), options.out / "measures.png", f"{options.data}: clips by what they measure")
        print(f"written: {options.out}/statistics.json, amount.png, measures.png")


def _amount_charts(found: DataStatistics) -> list[Chart]:
    from llamo_ros.training.statistics import SIDE_WORDS
    from llamo_ros.viewer.charts import Bars

    kinds = sorted({kind for kind, _ in found.groups})
    splits = [split for split in ("train", "val", "test") if any(split == other for _, other in found.groups)]
    hours, words = (
        {split: [getattr(found.groups.get((kind, split)), name, 0) / scale for kind in kinds] for split in splits}
        for name, scale in (("seconds", 3600), ("captions", 1))
    )
    charts: list[Chart] = [Bars("hours", kinds, hours), Bars("captions", kinds, words)]
    if found.content:
        labels = found.content.most_common(_LABELS_SHOWN)
        charts.append(Bars("clips by content label", [name for name, _ in labels], {"": [n for _, n in labels]}))
    if found.sides:
        sides = {kind: [counts[word] for word in SIDE_WORDS] for kind, counts in sorted(found.sides.items())}
        named = 4 if len(sides) <= 4 else 3  # a chart has four colours
        shown = dict(list(sides.items())[:named])
        rest = [sum(values) for values in zip(*list(sides.values())[named:], strict=True)]
        charts.append(Bars("side words in captions", SIDE_WORDS, shown | ({"others": rest} if rest else {})))
    return charts


def _measure_charts(found: DataStatistics) -> list[Chart]:
    from llamo_ros.training.statistics import MEASURES, QUANTILES
    from llamo_ros.viewer.charts import Histogram

    charts: list[Chart] = []
    quantiles = found.quantiles()
    for measure in MEASURES:
        edges, counts = found.histogram(measure)
        middle = dict(zip(QUANTILES, quantiles[measure.name], strict=False)).get(0.5)
        median = "" if middle is None else f", median {middle:.3g}"
        charts.append(Histogram(f"{measure.name} [{measure.unit}]{median}", edges.tolist(), counts.tolist(), True))
    return charts


def data_pack(options: argparse.Namespace) -> None:
    """Pack source folders and say what the pack holds."""
    from llamo_ros.training.filter_report import read_dropped
    from llamo_ros.training.pack import pack_data

    without = frozenset(row["id"] for path in options.without or () for row in read_dropped(path))
    pack_data(options.source, options.out, options.licence, without)
    _print_pack(options.out)


def data_info(options: argparse.Namespace) -> None:
    """Say what a pack holds."""
    _print_pack(options.pack)


def _print_pack(folder: Path) -> None:
    from llamo_ros.motion.skeleton import FRAME_RATE
    from llamo_ros.training.pack import open_pack

    pack = open_pack(folder)
    hours = len(pack.features) / FRAME_RATE / 3600
    print(f"{folder}: {len(pack.sequences)} sequences, {hours:.2f} hours, licence set {pack.licence_set}")
    counts = Counter((row.kind, row.split) for row in pack.sequences)
    frames: Counter[tuple[str, str]] = Counter()
    for row in pack.sequences:
        frames[row.kind, row.split] += row.length
    for (kind, split), count in sorted(counts.items()):
        print(f"  {kind:10} {split:6} {count:6} sequences {frames[kind, split] / FRAME_RATE / 60:8.1f} minutes")
    for licence, count in pack.licences.items():
        print(f"  {count:6} under {licence}")
    for reason, count in pack.left_out.items():
        print(f"  {count:6} left out: {reason}")
