"""Which figures of a result have to be what, and whether they are."""

from __future__ import annotations

from llamo_ros.benchmark.bars import Bar, bars_json, operation_bars, whole_latent_bars


def test_a_bar_is_the_most_or_the_least() -> None:
    assert Bar("time", 1.0, 1.0).holds
    assert not Bar("time", 1.1, 1.0).holds
    assert Bar("speed", 1.1, 1.0, is_least=True).holds
    assert not Bar("speed", float("nan"), 1.0, is_least=True).holds


def test_the_flow_head_is_held_to_its_bars() -> None:
    kernel = {"candidate": "kernel", "instruction_set": "avx2", "p50_ms": 1.0, "speedup": 30.0, "to_limit": 1.6}
    rows = [
        {"candidate": "eager PyTorch, naive", "operation": "flow sampler", "size": "256 x 4", "precision": "float32"},
        kernel | {"operation": "flow sampler", "size": "256 x 4", "precision": "int8"},
        kernel | {"operation": "flow sampler", "size": "256 x 4, guided", "precision": "int8"},
        kernel | {"operation": "flow loop", "size": "256 x 4", "precision": "int8"},
        kernel | {"operation": "flow loop", "size": "1536 x 12", "precision": "bfloat16"},
    ]
    assert [(bar["name"], bar["holds"]) for bar in bars_json(operation_bars(rows))] == [
        ("flow sampler 256 x 4, int8, p50 [ms]", True),
        ("flow sampler 256 x 4, int8, times naive eager PyTorch", True),
        ("flow loop 1536 x 12, bfloat16 avx2, times the limit", False),
    ]


def test_whole_latents_and_processes_are_held_to_theirs() -> None:
    times = {"precision": "int8", "p50_ms": 4.0, "p99_ms": 39.0}
    result = {
        "latents": [{**times, "busy": "no"}, {**times, "busy": "same machine"}],
        "processes": [{"precision": "int8", "imports": "the pipeline", "peak_mb": 701.0, "first_pose_s": 2.0}],
        "long_motion": [{"precision": "int8", "seconds": 600.0, "rows": [{"mean_ms": 4.0}, {"mean_ms": 4.1}]}],
    }
    assert [bar.holds for bar in whole_latent_bars(result)] == [True, False, True, False, True, True]
