"""Put a training run into few small files, and back: for machines that hand back only little.

    python scripts/run_parts.py split runs/motion2 out/run      # at most 8 parts below 16 MiB, and parts.json
    python scripts/run_parts.py join out/run runs/motion2

What the parts hold is the first of these that fits: the whole run, so that it goes on exactly; the run without best.pt;
the checkpoint that `llamo train export` makes of it, from which a new run begins. parts.json says which, with SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llamo_ros.core.errors import CheckpointError, LlamoError

PART_BYTES = 16 * 2**20 - 2**16  # a little below 16 MiB
MOST_PARTS = 8
INDEX = "parts.json"


def split(run: Path, out: Path, part_bytes: int = PART_BYTES, most: int = MOST_PARTS) -> dict[str, object]:
    """Write a run folder, or what fits of it, as parts; returns what parts.json says.

    Args:
        run: Run folder.
        out: Folder of the parts; parts of before are replaced.
        part_bytes: Largest size of a part, [byte].
        most: Parts at most.

    Raises:
        CheckpointError: it is no run, or not even its checkpoint fits.
    """
    if not (run / "run.json").is_file():
        raise CheckpointError(f"{run} is not a training run: it has no run.json.")
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".partial"]
    choices = [("run", files), ("run without best.pt", [path for path in files if path.name != "best.pt"])]
    for holds, chosen in choices:
        if sum(path.stat().st_size + 1536 for path in chosen) + 2 * tarfile.RECORDSIZE <= part_bytes * most:
            return _write(_packed(run, chosen), out, holds, part_bytes)
    from llamo_ros.training.stages import export

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = export(run, Path(folder) / "checkpoint", run.name, None)
        content = _packed(checkpoint, [path for path in sorted(checkpoint.rglob("*")) if path.is_file()])
    if len(content) > part_bytes * most:
        raise CheckpointError(
            f"the checkpoint of {run} takes {len(content) / 2**20:.0f} MiB, and {most} parts hold "
            f"{part_bytes * most / 2**20:.0f} MiB. Allow more parts, or copy the folder itself."
        )
    return _write(content, out, "checkpoint", part_bytes)


def join(parts: Path, out: Path) -> str:
    """Inverse of :func:`split`: writes what the parts hold into a fresh folder, and returns what it is.

    Raises:
        CheckpointError: a part is missing or damaged, or `out` is there already and not empty.
    """
    try:
        index = json.loads((parts / INDEX).read_text(encoding="utf-8"))
        content = b"".join((parts / name).read_bytes() for name in index["parts"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{parts} does not hold all parts of a run ({error}). Copy the folder again.") from error
    if hashlib.sha256(content).hexdigest() != index["sha256"]:
        raise CheckpointError(f"the parts in {parts} are damaged, or of different runs. Copy the folder again.")
    if out.is_dir() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty. Choose another folder, or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(out, filter="data")
    return index["holds"]


def _packed(folder: Path, files: Sequence[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in files:
            archive.add(path, arcname=str(path.relative_to(folder)))
    return buffer.getvalue()


def _write(content: bytes, out: Path, holds: str, part_bytes: int) -> dict[str, object]:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part_*"):
        old.unlink()
    names = []
    for number, start in enumerate(range(0, len(content), part_bytes)):
        names.append(f"part_{number}")
        (out / names[-1]).write_bytes(content[start : start + part_bytes])
    index = {"holds": holds, "parts": names, "sha256": hashlib.sha256(content).hexdigest()}
    (out / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Split or join; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.action == "split":
            made = split(options.source, options.target)
            print(f"{options.target}: {made['holds']}, in {len(made['parts'])} parts")
        else:
            print(f"{options.target}: {join(options.source, options.target)}")
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
