"""How well does the motion VAE reconstruct real motion? Whole clips of a split, by forward kinematics from rotations.

llamo data pack ../shared/data
python benchmarks/vae_reconstruction.py --checkpoint llamo-mini --split test
python benchmarks/vae_reconstruction.py --run runs/vae      # a VAE straight from `llamo train vae`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from llamo_ros.core.errors import LlamoError
from llamo_ros.model.checkpoint import load_checkpoint
from llamo_ros.training.pack import open_pack
from llamo_ros.training.vae_task import reconstruction_figures, trained_vae


def main(arguments: list[str] | None = None) -> int:
    """Print one row per source; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", default="llamo-mini", metavar="NAME", help="model name or checkpoint folder")
    which.add_argument("--run", type=Path, metavar="RUN", help="run folder of `llamo train vae`")
    parser.add_argument(
        "--data", type=Path, default=Path("data/packed"), metavar="PACK", help="pack of `llamo data pack`"
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        pack = open_pack(options.data)
        vae = load_checkpoint(options.checkpoint)[0].vae if options.run is None else trained_vae(options.run, pack)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    figures = {}
    print("source   clips  MPJPE mm rotation deg jerk / real heading deg slide cm/s")
    for source in ("h3d", "bandai"):
        rows = [row for row in pack.split(options.split) if row.kind == source]
        if not rows:
            continue
        f = figures[source] = reconstruction_figures(vae, pack, rows)
        print(
            f"{source:8} {len(rows):5d} {f['mpjpe_mm']:9.2f} {f['rotation_deg']:12.2f} {f['jerk_ratio']:11.2f} "
            f"{f['turn_deg']:11.2f} {f['slide_cm_s']:10.2f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"split": options.split, "sources": figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
