"""Options of the ``llamo data`` commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llamo_ros.cli import data_commands
from llamo_ros.cli.arguments import add_command, add_group, count, not_negative, positive, whole


def add_data_commands(commands: Any) -> None:
    """Add ``data`` with import, check, stats, pack, shards and info."""
    about, example = "Import, check, describe and pack motion data.", "llamo data pack ../shared/data --out data/packed"
    data = add_group(commands, "data", about, example)
    _import_commands(data)
    check = add_command(
        data,
        "check",
        data_commands.data_check,
        "Put a source folder through the filters: which clips are implausible or static, and why.",
        "llamo data check ../shared/data --out dropped.jsonl",
    )
    check.add_argument("source", type=Path, help="folder with index.jsonl and its npz shards; it is not changed")
    check.add_argument("--out", type=Path, default=Path("dropped.jsonl"), help="report (default: %(default)s)")
    _filter_options(check, "leave static clips out of the report")
    stats = add_command(
        data,
        "stats",
        data_commands.data_stats,
        "Describe a source folder or a pack: amounts, motion, words, duplicates.",
        "llamo data stats data/packed --out data/statistics",
    )
    stats.add_argument("data", type=Path, help="source folder or pack folder")
    stats.add_argument("--out", type=Path, help="folder for plots (.png) and numbers (.json)")
    pack = add_command(
        data,
        "pack",
        data_commands.data_pack,
        "Turn folders of motion capture with captions into a pack.",
        "llamo data pack ../shared/data --out data/packed --licence open",
    )
    pack.add_argument("source", type=Path, nargs="+", help="folder with index.jsonl and its npz shards; may be several")
    pack.add_argument("--out", type=Path, default=Path("data/packed"), help="pack folder (default: %(default)s)")
    pack.add_argument(
        "--licence",
        choices=("noncommercial", "open"),
        default="noncommercial",
        help="open leaves out all data that is not known to be free for any use (default: %(default)s)",
    )
    pack.add_argument(
        "--without",
        type=Path,
        action="append",
        metavar="REPORT",
        help="leave out the clips of a report of `llamo data check`; may be given again",
    )
    shards = add_command(
        data,
        "shards",
        data_commands.data_shards,
        "Write a pack as tar shards in WebDataset's layout, for training that does not hold all clips in memory.",
        "llamo data shards data/packed --out data/shards",
    )
    shards.add_argument("pack", type=Path, help="pack folder")
    shards.add_argument("--out", type=Path, required=True, help="folder to write")
    shards.add_argument("--samples", type=count, default=1000, help="samples of a shard (default: %(default)s)")
    shards.add_argument(
        "--mirror", action=argparse.BooleanOptionalAction, default=True, help="mirror images too (default: on)"
    )
    shards.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="of the features; float16 rounds positions by up to 1 mm (default: %(default)s)",
    )
    shards.add_argument("--seed", type=whole, default=0, help="of the order (default: %(default)s)")
    info = add_command(data, "info", data_commands.data_info, "Say what a pack holds.", "llamo data info data/packed")
    info.add_argument("pack", type=Path, help="pack folder")


def _import_commands(data: Any) -> None:
    example = "llamo data import amass ~/AMASS --name amass --licence 'AMASS, research only' --out data/amass"
    imports = add_group(data, "import", "Import a motion collection as a source folder.", example)
    amass = add_command(
        imports,
        "amass",
        data_commands.data_import_amass,
        "Import AMASS archives (SMPL, SMPL-H, SMPL-X): body joints only, body shape is ignored.",
        example,
    )
    amass.add_argument("folder", type=Path, help="folder that holds the data sets (KIT, CMU, ...)")
    amass.add_argument("--texts", type=Path, help="captions: .csv (file,text[,start_s,end_s,...]) or BABEL's .json")
    _piece_option(amass)
    _import_options(amass, "amass")
    humanml3d = add_command(
        imports,
        "humanml3d",
        data_commands.data_import_humanml3d,
        "Import HumanML3D: captions and splits from it, motion from AMASS.",
        "llamo data import humanml3d ~/HumanML3D --amass ~/AMASS --licence 'AMASS, research only' --out data/humanml3d",
    )
    humanml3d.add_argument("folder", type=Path, help="its repository: index.csv, HumanML3D/texts, HumanML3D/train.txt")
    humanml3d.add_argument("--amass", type=Path, required=True, help="folder that holds AMASS's data sets")
    humanml3d.add_argument(
        "--mirrored", action="store_true", help="mirrored clips (M...) too; training mirrors every clip by itself"
    )
    humanml3d.add_argument(
        "--splits",
        choices=("official", "by-take"),
        default="official",
        help="by-take keeps all clips of one take in one split (default: %(default)s)",
    )
    _import_options(humanml3d, "humanml3d")
    bvh = add_command(
        imports,
        "bvh",
        data_commands.data_import_bvh,
        "Import a folder of BVH files with a table of captions.",
        "llamo data import bvh takes --captions captions.csv --name mine --licence CC0-1.0 --out data/mine",
    )
    bvh.add_argument("folder", type=Path, help="folder with .bvh files, any depth")
    bvh.add_argument(
        "--captions",
        type=Path,
        required=True,
        help="table: file,text and, if you like, start_s,end_s,take,split,content,style",
    )
    bvh.add_argument("--joint-map", help="rig: name or path of a joint map (default: told by the joint names)")
    _piece_option(bvh)
    _import_options(bvh, "bvh")


def _import_options(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, help="source folder to write; an import that was broken off goes on"
    )
    parser.add_argument("--name", default=name, help="name of the data set (default: %(default)s)")
    parser.add_argument(
        "--licence",
        required=True,
        help="of motion and captions, e.g. CC-BY-4.0; what is not known to be free counts as non-commercial",
    )
    parser.add_argument(
        "--shares",
        type=not_negative,
        nargs=3,
        default=(0.9, 0.05, 0.05),
        metavar=("TRAIN", "VAL", "TEST"),
        help="of the takes, where the collection has no splits (default: 0.9 0.05 0.05)",
    )
    parser.add_argument("--seed", type=whole, default=0, help="of the splits (default: %(default)s)")
    _filter_options(parser, "keep static clips, marked; stage 3 leaves them out by itself", default=True)


def _filter_options(parser: argparse.ArgumentParser, keep_static: str, default: bool = False) -> None:
    parser.add_argument("--filters", type=Path, help="your limits (default: config/training/filters.yaml)")
    parser.add_argument(
        "--keep-static",
        action=argparse.BooleanOptionalAction,
        default=default,
        help=f"{keep_static} (default: {'on' if default else 'off'})",
    )


def _piece_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--longest-piece",
        type=positive,
        default=20.0,
        metavar="SECONDS",
        help="takes without captions are cut into equal pieces up to this, [s] (default: %(default)s)",
    )
