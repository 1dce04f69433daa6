"""A benchmark of half a minute: what ``llamo bench`` measures. The thorough ones are in benchmarks/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llamo_ros.benchmark.backbone_operation import step_candidates
from llamo_ros.benchmark.candidates import Candidate, measure
from llamo_ros.benchmark.decoder_operation import frame_decoder_candidates, vae_decoder_candidates
from llamo_ros.benchmark.flow_operation import sampler_candidates
from llamo_ros.benchmark.fresh_process import fresh_process
from llamo_ros.benchmark.machine import Limits, envelope
from llamo_ros.benchmark.results import limits_json
from llamo_ros.benchmark.timing import one_core, spread
from llamo_ros.benchmark.whole_latent import PERIOD, Progress, quiet, streams_in_real_time, tick_times
from llamo_ros.core.errors import ParameterError
from llamo_ros.kernels.backends import instruction_sets
from llamo_ros.model.config import LlamoConfig
from llamo_ros.pipelines.text_to_motion import TextToMotion


@dataclass(frozen=True)
class QuickSettings:
    """How long to measure.

    Attributes:
        operation_seconds: For each operation, [s].
        motion_seconds: Motion that is made for the whole latent, [s].
        stream_ticks: Timed ticks for each number of streams.
        with_process: Whether to start a fresh process as well.
        core: Core to stay on; None takes the quietest one.
    """

    operation_seconds: float = 1.5
    motion_seconds: float = 75.0
    stream_ticks: int = 8
    with_process: bool = True
    core: int | None = None

    def __post_init__(self) -> None:
        for name in ("operation_seconds", "motion_seconds"):
            if not getattr(self, name) > 0:
                raise ParameterError(f"{name} is {getattr(self, name)}, expected a positive number.")
        if self.stream_ticks < 1:
            raise ParameterError(f"stream_ticks is {self.stream_ticks}, expected at least 1.")


def quick_benchmark(
    checkpoint: str | Path = "llamo-mini",
    precision: str | None = None,
    settings: QuickSettings = QuickSettings(),
    commit: str = "unknown",
    progress: Progress = quiet,
) -> dict[str, object]:
    """Measure a model on one core.

    Args:
        checkpoint: Name or folder.
        precision: Of the compiled kernels; None takes the checkpoint's.
        settings: How long.
        commit: Kept in the result.
        progress: Told what is measured next.

    Returns:
        JSON values: machine, limits, "operations" (rows of :func:`~llamo_ros.benchmark.candidates.measure`, with random
        weights of the model's sizes), "latent" (spread of the ticks, with "real_time", how much faster than it plays),
        "streams" (see :func:`~llamo_ros.benchmark.whole_latent.streams_in_real_time`) and "processes" (what
        :func:`~llamo_ros.benchmark.fresh_process.fresh_process` says, or nothing).

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        BackendError: the kernels are not built, or have no such precision.
    """
    result = envelope("llamo bench", commit) | {"checkpoint": str(checkpoint)}
    progress(f"loading {checkpoint}")
    pipeline = TextToMotion.from_checkpoint(checkpoint, precision=precision)
    config = pipeline.model.config
    precision = precision or config.generation.precision
    limits, rows = Limits(), []
    with one_core(settings.core) as core:
        progress(f"whole latents, {settings.motion_seconds:g} s of motion")
        pipeline.warm_up()
        times = tick_times(pipeline, settings.motion_seconds)
        for name, candidates in _operations(config, precision):
            progress(name)
            rows += measure(name, candidates, limits, settings.operation_seconds)
        progress("streams in real time")
        streams = streams_in_real_time(pipeline, settings.stream_ticks, progress=lambda line: progress(f"  {line}"))
    processes = []
    if settings.with_process:
        progress("a fresh process")
        processes = [fresh_process(str(checkpoint), precision, seconds=2.0)]
    return result | {
        "precision": precision,
        "core": core,
        "latent": {**spread(times), "real_time": len(times) * PERIOD / sum(times)},
        "operations": rows,
        "streams": streams,
        "limits": limits_json(limits),
        "processes": processes,
    }


def _operations(config: LlamoConfig, precision: str) -> list[tuple[str, list[Candidate]]]:
    """What a latent of this model is made of, compiled and in eager PyTorch."""
    guided = config.generation.guidance_scale != 1.0
    best, sets = [precision], instruction_sets()[:1]
    backbone = step_candidates(config.backbone, best, sets, rows=2 if guided else 1)
    return [
        ("backbone step", [candidate for candidate in backbone if not candidate.name.startswith("ONNX")]),
        ("flow sampler", sampler_candidates(config.flow_head, best, guided, config.generation.flow_steps)),
        ("VAE decoder", vae_decoder_candidates(config.vae, best, sets)),
        ("frames and joints", frame_decoder_candidates()),
    ]
