"""A generator in a process of its own: how long from start to first pose, and how much memory it takes.

python -m llamo_ros.benchmark.fresh_process --checkpoint llamo-mini     # what is started; prints JSON lines
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from llamo_ros.core.errors import LlamoError

TIMEOUT = 300.0  # [s]


class FreshProcessError(LlamoError, RuntimeError):
    """The process ended without its figures."""


def fresh_process(
    checkpoint: str, precision: str | None = None, seconds: float = 10.0, import_first: Sequence[str] = ()
) -> dict[str, float]:
    """Start a process that loads a model and performs a prompt.

    Args:
        checkpoint: Name or folder.
        precision: Of the compiled kernels; None takes the checkpoint's.
        seconds: Motion to make, [s].
        import_first: Modules that it imports as well, for example that of the node with all of ROS 2.

    Returns:
        "first_pose_s": from start of the process until the joints of the first frames are known, [s]; "loaded_s":
        until the model is loaded; "peak_mb": largest resident memory, [MB]; NaN where the system does not say.

    Raises:
        FreshProcessError: it failed; the message ends with what it said.
    """
    command = [sys.executable, "-m", "llamo_ros.benchmark.fresh_process", "--checkpoint", str(checkpoint)]
    command += ["--seconds", str(seconds), *(["--precision", precision] if precision else [])]
    command += [word for name in import_first for word in ("--import", name)]
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=_with_this_package())
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise FreshProcessError(f"a generator process ended with status {done.returncode} and said: {said[-1]}")
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "loaded_s": facts["loaded"] - began,
        "first_pose_s": facts["first_pose"] - began,
        "peak_mb": facts["peak_mb"],
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process since it began, [MB of 10^6 bytes]; NaN where the system does not say."""
    try:  # not ru_maxrss, which begins at the size of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return float("nan")
    return 1.024e-3 * kilobytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform a prompt and print one line of JSON; times are those of the wall clock, [s]."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini")
    parser.add_argument("--precision")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    options = parser.parse_args(arguments)
    for name in options.modules:
        importlib.import_module(name)
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    pipeline = TextToMotion.from_checkpoint(options.checkpoint, threads=1, precision=options.precision)
    loaded = time.time()
    chunks = pipeline.stream("a person walks forward", min_duration=options.seconds, max_duration=options.seconds)
    next(chunks).clip.joint_positions()
    first_pose = time.time()
    for chunk in chunks:
        chunk.clip.joint_positions()
    print(json.dumps({"loaded": loaded, "first_pose": first_pose, "peak_mb": peak_memory_mb()}))
    return 0


def _with_this_package() -> dict[str, str]:
    """The environment, with which another Python finds the same package."""
    folders = [folder for folder in sys.path if folder]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


if __name__ == "__main__":
    sys.exit(main())
