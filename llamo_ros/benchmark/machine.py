"""What the machine is, and what one of its cores can do at most in this very run."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from llamo_ros.core.errors import BackendError
from llamo_ros.kernels import backends
from llamo_ros.kernels.backends import instruction_sets
from llamo_ros.kernels.machine_probe import multiply_add_rate, read_bandwidth

PRECISIONS = backends.PRECISIONS["cpu"]  # of the compiled kernels on a CPU
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "float8": 1}  # of a weight


@dataclass(frozen=True)
class Work:
    """What a call cannot do without.

    Attributes:
        size: Weights and other data that it reads again in each pass, [byte]; decides which cache level serves it.
        passes: How often it reads them.
        operations: Products and sums of its matrix products.
    """

    size: int
    passes: int = 1
    operations: float = 0.0


@dataclass
class Limits:
    """What one core can do, measured when it is first asked for; the best of some rounds counts.

    Attributes:
        instruction_set: Of the measurement; None takes the fastest.
        seconds: For each number, [s].
        bandwidths: Sustained rate of reading, [byte/s], by the size that is read, [byte].
        rates: Multiply-add rate, [operation/s], by kind of number.
    """

    instruction_set: str | None = None
    seconds: float = 0.15
    bandwidths: dict[int, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def bandwidth(self, size: int) -> float:
        """Rate of reading so many bytes again and again, [byte/s]."""
        if size not in self.bandwidths:
            self.bandwidths[size] = read_bandwidth(size, self.seconds, self.instruction_set)
        return self.bandwidths[size]

    def rate(self, precision: str) -> float:
        """Rate of products with weights of a precision, [operation/s]; those in bfloat16 are done in float32."""
        kind = "int8" if precision == "int8" else "float32"
        if kind not in self.rates:
            self.rates[kind] = multiply_add_rate(kind, self.seconds, self.instruction_set)
        return self.rates[kind]

    def least_time(self, work: Work, precision: str) -> tuple[float, str]:
        """The time that `work` takes at least, [s], and what limits it: "bandwidth" or "compute"."""
        reading = work.passes * work.size / self.bandwidth(work.size)
        calculating = work.operations / self.rate(precision)
        return max((reading, "bandwidth"), (calculating, "compute"))


def machine_facts() -> dict[str, object]:
    """Processor, caches, cores, load and versions, as JSON values; without the kernels no instruction sets."""
    try:
        usable = list(instruction_sets())
    except BackendError:  # on a machine that has a GPU to measure
        usable = []
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "caches": caches(),
        "instruction_sets": usable,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_gb": _memory_gb(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def envelope(about: str, commit: str) -> dict[str, object]:
    """What every result begins with: what it is, when, where, and of which commit."""
    return {
        "about": about,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": machine_facts(),
    }


def cpu_model() -> str:
    """Name of the processor as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """Size of each cache of the first core by its name, as "L2": "2048K"; empty where the system does not say."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = (
                (folder / name).read_text(encoding="utf-8").strip() for name in ("type", "level", "size")
            )
        except OSError:
            continue
        found[f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")] = size
    return found


def why_no_compiler() -> str:
    """Why torch.compile cannot run on this machine's CPU; empty if it can."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        compiler = get_cpp_compiler()
        subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=30)
    except Exception as error:  # whatever a PyTorch without a compiler comes up with
        return f"torch.compile needs a C++ compiler ({type(error).__name__})"
    return ""


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
