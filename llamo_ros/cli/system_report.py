"""What ``llamo doctor`` finds out: versions, the machine, and by trying it what a model runs on and how fast.

Also the words for what ``llamo bench`` measures.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pkgutil
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import llamo_ros.kernels
from llamo_ros import __version__
from llamo_ros.benchmark.machine import cpu_model
from llamo_ros.core.errors import BackendError
from llamo_ros.kernels.backends import compiled_kernels, instruction_sets, why_not_triton
from llamo_ros.model.checkpoint import load_checkpoint, read_config
from llamo_ros.model.config import LATENT_RATE, LlamoConfig
from llamo_ros.pipelines.motion_engine import MotionEngine
from llamo_ros.retarget.catalogue import robot_names
from llamo_ros.retarget.profile import load_robot
from llamo_ros.retarget.retargeter import Retargeter

REQUIRED = ("torch", "numpy")
OPTIONAL = {
    "transformers": "only `llamo init` and chat templates need it",
    "triton": "only kernels on an NVIDIA GPU need it",
    "rclpy": "only the nodes and `llamo demo` need it",
}
LATENT_SECONDS = 1 / LATENT_RATE  # [s] that the four frames of a latent play
TRIAL_DURATION = 2.0  # [s] of motion
TRIAL_LIMIT = 20.0  # [s] after which a slow machine has said enough

Row = tuple[str, ...]


@dataclass
class Trial:
    """What came of making some motion.

    Attributes:
        device: PyTorch device.
        config: Of the model.
        operations: The operations of ``llamo_ros.kernels`` that were used, by the name of their folder.
        latencies: Time each latent took, [s].
    """

    device: str
    config: LlamoConfig
    operations: dict[str, object] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    @property
    def latency(self) -> float:
        """Median time a latent takes, [s]; without the first, which reads the prompt, if there are others."""
        return statistics.median(self.latencies[1:] or self.latencies)


def try_model(checkpoint: str, device: str) -> Trial:
    """Make a little motion, on one thread as the nodes do.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        BackendError: the kernels are not built.
    """
    torch.set_num_threads(1)
    model, tokenizer = load_checkpoint(checkpoint, device)
    engine = MotionEngine(model, tokenizer)
    stream = engine.open("a person walks forward", min_duration=TRIAL_DURATION, max_duration=TRIAL_DURATION)
    retargeter = Retargeter(load_robot(robot_names()[0]))  # any will do
    trial = Trial(device, model.config, engine.operations | {"inverse_kinematics": retargeter.operation})
    began = time.monotonic()
    while made := engine.tick():
        trial.latencies += [chunk.latency for _, chunk in made]
        if time.monotonic() - began > TRIAL_LIMIT:
            stream.cancel()
    return trial


def operations() -> list[str]:
    """Names of the folders under ``llamo_ros.kernels`` that are operations: those with a reference."""
    packages = [module.name for module in pkgutil.iter_modules(llamo_ros.kernels.__path__) if module.ispkg]
    return [name for name in packages if importlib.util.find_spec(f"llamo_ros.kernels.{name}.reference")]


def version_rows() -> list[Row]:
    """Versions of what the package needs or can use. Nothing is imported for it."""
    rows = [("llamo_ros", __version__), ("python", platform.python_version())]
    rows += [(name, _version(name) or "not installed") for name in REQUIRED]
    rows += [(name, _version(name) or f"not installed; {why}") for name, why in OPTIONAL.items()]
    rmw = os.environ.get("RMW_IMPLEMENTATION", "ROS 2's own choice; RMW_IMPLEMENTATION is not set")
    return [*rows, ("RMW", rmw if _version("rclpy") else "none without ROS 2")]


def machine_rows() -> list[Row]:
    """Processor, what the kernels can use of it, and GPUs."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    missing = {name: reason for name in operations() if (reason := why_not_compiled(name))}
    if len(missing) == len(operations()):
        sets, kernels = "not known without the compiled kernels", f"not built: {next(iter(missing.values()))}"
    else:
        first, *others = instruction_sets()
        sets = f"{first}, which is used" + (f"; also {', '.join(others)}" if others else "")
        kernels = f"built: {compiled_kernels('instruction_sets').__file__}"
        kernels += f", without {', '.join(missing)}" if missing else ""
    rows = [("CPU", cpu_model()), ("cores", f"{usable} usable of {os.cpu_count()}")]
    rows += [("instruction sets", sets), ("compiled kernels", kernels)]
    if not torch.cuda.is_available():
        return [*rows, ("CUDA", "no GPU that PyTorch can use")]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB"))
    return rows


def checkpoint_rows(folder: Path) -> list[Row]:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: its config.json cannot be read.
    """
    config, metadata = read_config(folder)
    megabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    return [
        ("checkpoint", f"{metadata.get('name', config.name)}, {megabytes:.1f} MB in {folder}"),
        ("licence", metadata.get("licence", "not recorded")),
        ("backbone", f"{config.dtype} in memory"),
        ("precision", f"{config.generation.precision} in the compiled kernels"),
        ("quantised", metadata.get("quantised", "no")),
    ]


def operation_rows(trial: Trial | None, error: Exception | None) -> list[Row]:
    """Backend, instruction set and precision of each operation, and why; without a trial, why there is none."""
    rows: list[Row] = [("operation", "backend", "instructions", "precision", "why")]
    for name in operations():
        if trial is None:
            reason = why_not_compiled(name) if isinstance(error, BackendError) else str(error)
            rows.append((name, "none", "-", "-", reason or str(error)))
        elif name in trial.operations:
            rows.append((name, *_used(trial.operations[name], trial)))
        else:
            rows.append((name, *_unused(trial)))
    return rows


def why_not_compiled(operation: str) -> str:
    """Why the compiled kernels do not have an operation; empty if they do."""
    try:
        compiled_kernels(operation)
    except BackendError as error:
        return str(error).split(". Build ")[0]
    return ""


def bench_text(result: Mapping[str, Any]) -> str:
    """What ``llamo bench`` says of a result of :func:`llamo_ros.benchmark.quick.quick_benchmark`."""
    machine, limits, latent, many = (result[name] for name in ("machine", "limits", "latent", "streams"))
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    about = [("CPU", f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}")]
    about += [("caches", caches or "not known"), ("instructions", machine["instruction_sets"][0])]
    about += [("model", f"{result['checkpoint']}, {result['precision']}, one thread on core {result['core']}")]
    reads = (f"{int(size) / 1e6:.1f} MB at {rate / 1e9:.0f} GB/s" for size, rate in limits["bandwidths"].items())
    about += [("reading again", ", ".join(reads))]
    rates = (f"{rate / 1e9:.0f} G/s in {kind}" for kind, rate in limits["rates"].items())
    about += [("multiply-adds", ", ".join(rates))]
    rows: list[Row] = [("operation", "how", "weights", "p50 [ms]", "p99 [ms]", "speed", "of the limit")]
    for row in result["operations"]:
        ratio = f"{row['to_limit']:.1f} x {row['limit_ms']:.2f} ms ({row['bound']})" if "to_limit" in row else "-"
        times = (f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}", f"{row['speedup']:.1f} x")
        rows.append((row["operation"], row["candidate"], row["precision"], *times, ratio))
    started = [
        f"a fresh process: first pose after {found['first_pose_s']:.1f} s, at most {found['peak_mb']:.0f} MB of memory"
        for found in result["processes"]
    ]
    quantiles = ", ".join(f"{name} {latent[f'{name}_ms']:.1f} ms" for name in ("p50", "p90", "p99"))
    return "\n".join(
        [
            table(about),
            "",
            table(rows),
            "",
            f"whole latent (four frames, joints included): {quantiles}, longest {latent['max_ms']:.1f} ms",
            f"real time: {latent['real_time']:.0f} x; one core makes {many['streams']} streams together in real time",
            *started,
        ]
    )


def table(rows: Sequence[Row]) -> str:
    """Rows with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _used(operation: object, trial: Trial) -> Row:
    has_weights = hasattr(operation, "precision")  # the others compute on NumPy arrays
    where = f"memory of {trial.device}" if has_weights and trial.device != "cpu" else "main memory"
    why = f"its data are in {where}"
    if operation.backend == "reference" and trial.device != "cpu":
        why += f"; {why_not_triton(torch.device(trial.device))}".rstrip("; ")
    precision, wanted = getattr(operation, "precision", None), trial.config.generation.precision
    if precision is not None and precision == wanted:
        why += f"; {precision} by the checkpoint"
    elif precision is not None:
        why += f"; not the checkpoint's {wanted}, which kernels on a CPU or in Triton know"
    return operation.backend, getattr(operation, "instruction_set", None) or "-", precision or "-", why


def _unused(trial: Trial) -> Row:
    if trial.device != "cpu":
        return "reference", "-", trial.config.dtype, f"on {trial.device} PyTorch runs this part"
    if trial.config.dtype != "float32":
        return "reference", "-", trial.config.dtype, f"PyTorch runs this part of models in {trial.config.dtype}"
    return "-", "-", "-", "this model does without it"


def _version(name: str) -> str:
    """Version of an installed package, empty if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
