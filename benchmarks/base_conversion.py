"""What it takes to turn a Llama of a preset's size into a LLaMo and to make latents with it: memory and time.

    python benchmarks/base_conversion.py --json benchmarks/results/base_conversion.json
    python benchmarks/base_conversion.py --preset 3b --dtype bfloat16 --threads 2

The base is synthetic: random weights in the sizes of the preset, as several shards in bfloat16, and a small tokenizer.
Each measured step is a process of its own. Peak memory is the largest resident set the kernel saw, which counts pages
of mapped files too. A latent is 4 frames: backbone, 50 steps of the flow head, VAE decoder and forward kinematics; it
must take less than 133 ms to keep up with 30 FPS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from llamo_ros.model.config import LATENT_RATE, LlamoConfig, preset
from llamo_ros.model.llama import LlamaBranch
from llamo_ros.model.shards import write_shards
from llamo_ros.model.text_tokenizer import TextTokenizer

BAR_GB = 8.0  # of peak memory, for a conversion in bfloat16
SHARD_BYTES = 1_000_000_000
PROMPT = "a person walks forward"


def write_base(folder: Path, config: LlamoConfig) -> None:
    """A random Llama of a preset's sizes, as transformers would have saved it."""
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    sizes = config.backbone
    rope = {"rope_type": "default", "rope_theta": sizes.rope_theta}
    if scaling := sizes.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    LlamaConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn_width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=sizes.max_positions,
        rms_norm_eps=sizes.norm_eps,
        tie_word_embeddings=sizes.tie_embeddings,
        rope_parameters=rope,
        dtype="bfloat16",
    ).save_pretrained(folder)
    with torch.device("meta"):
        branch = LlamaBranch(sizes, with_embedding=True).state_dict()
    shapes = {name if name.startswith("lm_head") else f"model.{name}": t.shape for name, t in branch.items()}
    generator = torch.Generator().manual_seed(0)

    def read(name: str) -> Tensor:
        if len(shapes[name]) == 1:
            return torch.ones(shapes[name], dtype=torch.bfloat16)
        return torch.empty(shapes[name], dtype=torch.bfloat16).normal_(0.0, 0.02, generator=generator)

    write_shards(folder, {name: 2 * shape.numel() for name, shape in shapes.items()}, read, SHARD_BYTES)
    TextTokenizer.train([PROMPT] * 5, 300).save(folder / "tokenizer.json")
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special).save_pretrained(folder)


# A small process between: Linux lets a peak begin with that of the process that started it.
_LAUNCHER = """
import os, subprocess, sys
with subprocess.Popen([sys.executable, *sys.argv[2:]]) as process:
    _, status, usage = os.wait4(process.pid, 0)  # its own peak, where getrusage has the largest of all children
    process.returncode = os.waitstatus_to_exitcode(status)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(process.returncode)
"""


def measured(*command: str) -> tuple[str, dict[str, float]]:
    """Standard output of a Python process, its peak memory [GB] and how long it ran [s]."""
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder) / "peak"
        words = [sys.executable, "-c", _LAUNCHER, str(peak), *command]
        process = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed with exit status {process.returncode}.")
        seconds = time.perf_counter() - began
        return process.stdout, {"peak_gb": int(peak.read_text()) * 1024 / 1e9, "seconds": seconds}


def same_text(base: str, checkpoint: str) -> bool:
    """Whether a checkpoint has the logits that transformers has for its base, bit for bit; with a cache and without."""
    from transformers import AutoModelForCausalLM

    from llamo_ros.model.checkpoint import load_checkpoint
    from llamo_ros.model.mixture_of_transformers import KeyValueCache

    tokens = torch.randint(0, 300, (1, 48), generator=torch.Generator().manual_seed(0))
    parts = tokens.split([40, *[1] * 8], dim=1)
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(base, dtype="auto").eval()
        expected, past = [theirs(tokens).logits], None
        for part in parts:
            out = theirs(part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            expected.append(out.logits)
        del theirs, past
        model, _ = load_checkpoint(checkpoint)
        cache = KeyValueCache(model.config.backbone, 1, 48, model.special_tokens.dtype, torch.device("cpu"))
        actual = [model.text_logits(tokens), *(model.text_logits(part, cache) for part in parts)]
    return all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def time_latents(checkpoint: str, dtype: str, threads: int, count: int) -> dict[str, float]:
    """Time of loading a checkpoint and of each latent of a motion, in this process."""
    from llamo_ros.model.checkpoint import load_checkpoint
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    torch.set_num_threads(threads)
    began = time.perf_counter()
    performer = TextToMotion(*load_checkpoint(checkpoint, dtype=dtype))
    loaded = time.perf_counter()
    duration = count / LATENT_RATE
    ready = [time.perf_counter()]
    for _ in performer.stream(PROMPT, min_duration=duration, max_duration=duration):
        ready.append(time.perf_counter())
    first, *rest = (after - before for before, after in pairwise(ready))
    return {
        "load_seconds": loaded - began,
        "first_latent_ms": 1e3 * first,
        "latent_fastest_ms": 1e3 * min(rest),
        "latent_median_ms": 1e3 * statistics.median(rest),
        "latent_p95_ms": 1e3 * sorted(rest)[int(0.95 * (len(rest) - 1))],
        "latents": 1 + len(rest),
    }


def main(arguments: list[str] | None = None) -> int:
    """Make a base, convert it, generate, print the figures; 1 if it took too much memory or the text has changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="1b", choices=("1b", "3b", "8b"))
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], help="dtypes to make latents in")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of CPU threads to try")
    parser.add_argument("--latents", type=int, default=16, help="length of the motion")
    parser.add_argument("--folder", type=Path, help="where the temporary files go; 1b needs 9 GB")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--write-base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--same-text", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--generate", nargs=3, metavar=("CHECKPOINT", "DTYPE", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write_base:
        write_base(options.write_base, preset(options.preset))
        return 0
    if options.same_text:
        print(same_text(*options.same_text))
        return 0
    if options.generate:
        checkpoint, dtype, threads = options.generate
        print(json.dumps(time_latents(checkpoint, dtype, int(threads), options.latents)))
        return 0

    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        base, out = Path(work, "base"), Path(work, "llamo")
        base.mkdir()
        measured(__file__, "--write-base", str(base), "--preset", options.preset)
        words = ("init", "--base", str(base), "--preset", options.preset, "--out", str(out))
        _, conversion = measured("-m", "llamo_ros.cli", *words)
        conversion |= {"base_gb": size_gb(base), "checkpoint_gb": size_gb(out)}
        print(
            f"{options.preset}: base {conversion['base_gb']:.2f} GB -> checkpoint {conversion['checkpoint_gb']:.2f} GB "
            f"in {conversion['seconds']:.1f} s, peak {conversion['peak_gb']:.2f} GB (bar: {BAR_GB:.0f} GB)"
        )
        conversion["text_identical"] = measured(__file__, "--same-text", str(base), str(out))[0].strip() == "True"
        print(f"  text logits bit-identical to transformers: {conversion['text_identical']}")
        generation = []
        for dtype in options.dtype:
            for threads in options.threads:
                words = ("--generate", str(out), dtype, str(threads), "--latents", str(options.latents))
                output, usage = measured(__file__, *words)
                row = {"dtype": dtype, "threads": threads, "peak_gb": usage["peak_gb"], **json.loads(output)}
                generation.append(row)
                print(
                    f"  {dtype:9} {threads} threads: {row['latent_median_ms']:7.1f} ms per latent "
                    f"(fastest {row['latent_fastest_ms']:.1f}, 95 % "
                    f"{row['latent_p95_ms']:.1f}), first {row['first_latent_ms']:.0f} ms, loaded in "
                    f"{row['load_seconds']:.1f} s, peak {row['peak_gb']:.2f} GB"
                )
    if options.json:
        machine = {"torch": torch.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
        report = {"preset": options.preset, **machine, "conversion": conversion, "generation": generation}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(conversion["peak_gb"] >= BAR_GB or not conversion["text_identical"])


def size_gb(folder: Path) -> float:
    """Size of the files of a folder, [GB]."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e9


if __name__ == "__main__":
    sys.exit(main())
