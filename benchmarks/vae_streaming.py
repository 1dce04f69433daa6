"""What does one latent cost the motion VAE in streaming, to encode and to decode? Random weights: time is the same.

python benchmarks/vae_streaming.py --preset 1b --threads 1
python benchmarks/vae_streaming.py --preset mini --batch 1 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from llamo_ros.core.errors import LlamoError
from llamo_ros.model.config import FRAMES_PER_LATENT, preset
from llamo_ros.model.motion_vae import FEATURE_COUNT, MotionVae

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARMUP = 5


def milliseconds(run: Callable[[Tensor, list[Tensor] | None], tuple[Tensor, list[Tensor]]], inputs: Tensor) -> float:
    """Median time of one call, [ms], each with the state that the one before returned."""
    state, times = None, []
    for part in inputs:
        began = time.perf_counter()
        _, state = run(part, state)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[WARMUP:])


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> int:
    """Print one row per batch size; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="1b", metavar="NAME", help="(default: %(default)s, the paper's VAE)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="streams in one pass")
    parser.add_argument("--latents", type=int, default=50, metavar="N", help="timed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args(arguments)
    if min(options.latents, options.threads, *options.batch) < 1:
        parser.error("--batch, --latents and --threads must be at least 1")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    try:
        config = preset(options.preset).vae
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    vae = MotionVae(config).to(DTYPES[options.dtype]).eval()
    sizes = {
        name: sum(parameter.numel() for parameter in body.parameters()) / 1e6
        for name, body in (("encoder", vae.encoder), ("decoder", vae.decoder))
    }
    state_kb = sum(past.nbytes for past in vae.empty_decoder_state(1)) / 1e3
    print(
        f"{options.preset}: body {config.body}, width {config.width}, encoder {sizes['encoder']:.1f} M, "
        f"decoder {sizes['decoder']:.1f} M parameters, {state_kb:.0f} kB of decoder state per stream, "
        f"{options.dtype}, {options.threads} thread(s)"
    )
    print("streams  encode ms  decode ms  (per latent of every stream, median)")
    rows = []
    for batch in options.batch:
        frames = torch.randn(WARMUP + options.latents, batch, FRAMES_PER_LATENT, FEATURE_COUNT)
        latents = torch.randn(WARMUP + options.latents, batch, 1, config.latent_dim)
        row = {
            "streams": batch,
            "encode_ms": milliseconds(vae.encode, frames),
            "decode_ms": milliseconds(vae.decode, latents),
        }
        print(f"{batch:7d} {row['encode_ms']:10.2f} {row['decode_ms']:10.2f}")
        rows.append(row)
    if options.json is not None:
        figures = {"preset": options.preset, "dtype": options.dtype, "threads": options.threads, "rows": rows}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
