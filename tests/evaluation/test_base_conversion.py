"""The benchmark of `llamo init`, at a size for tests."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file, save_file

from llamo_ros.model.config import RopeScaling, preset
from llamo_ros.model.conversion import config_for, convert_base
from llamo_ros.model.llama_base import open_base

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "base_conversion.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("base_conversion", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def another_base(folder: Path) -> Path:
    """A checkpoint of a base that differs in one value."""
    shutil.copytree(folder / "base", folder / "other")
    (shard,) = (folder / "other").glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(shard).items()}
    tensors["model.norm.weight"][3] += 0.01
    save_file(tensors, shard)
    base = open_base(str(folder / "other"))
    convert_base(base, config_for(base, "custom"), folder / "changed")
    return folder / "changed"


@pytest.mark.parametrize("tied", [True, False])
def test_the_synthetic_base_has_the_sizes_of_the_preset_and_makes_latents(
    benchmark: ModuleType, tied: bool, tmp_path: Path
) -> None:
    tiny = preset("tiny").backbone
    backbone = replace(tiny, vocab_size=400, tie_embeddings=tied, rope_scaling=RopeScaling())
    (tmp_path / "base").mkdir()
    benchmark.write_base(tmp_path / "base", replace(preset("tiny"), backbone=backbone))
    base = open_base(str(tmp_path / "base"))
    assert base.config == backbone
    convert_base(base, config_for(base, "custom"), tmp_path / "llamo")
    assert benchmark.same_text(str(tmp_path / "base"), str(tmp_path / "llamo"))
    assert not benchmark.same_text(str(tmp_path / "base"), str(another_base(tmp_path)))
    figures = benchmark.time_latents(str(tmp_path / "llamo"), "bfloat16", 1, 4)
    assert figures["latents"] == 4
    assert 0 < figures["latent_median_ms"] <= figures["latent_p95_ms"]


def test_a_measured_process_has_a_peak_of_its_own(benchmark: ModuleType) -> None:
    ballast = b"x" * 300_000_000  # the peak of the process that measures is not to count
    output, small = benchmark.measured("-c", "print('done')")
    assert output == "done\n"
    _, large = benchmark.measured("-c", "x = b'x' * 200_000_000")
    assert small["peak_gb"] < 0.1 < 0.2 < large["peak_gb"] < 0.3 <= len(ballast) / 1e9
    with pytest.raises(SystemExit, match="exit status 3"):
        benchmark.measured("-c", "raise SystemExit(3)")
