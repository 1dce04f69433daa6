"""Videos from drawn frames: GIF by Pillow, MP4 by ffmpeg where there is one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from llamo_ros.core.errors import ParameterError

GIF_RATE = 15.0  # [Hz]
MP4_RATE = 30.0  # [Hz]
_COLOURS = 128  # of all frames together; more make the file larger and look the same


def write_gif(frames: Iterable[Image.Image], rate: float, path: Path) -> None:
    """Write an endless GIF of frames of one size, `rate` per second, [Hz]; one palette, so that nothing flickers."""
    drawn = list(frames)
    palette = _palette(drawn[:: max(1, len(drawn) // 8)])
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in drawn]
    # GIF counts hundredths of a second: cumulative rounding keeps the whole at its true length.
    ticks = np.rint(np.arange(len(indexed) + 1) * 100.0 / rate).astype(int)
    indexed[0].save(
        path,
        save_all=True,
        append_images=indexed[1:],
        duration=[10 * int(tick) for tick in np.diff(ticks)],
        loop=0,
        optimize=False,
    )


def _palette(frames: list[Image.Image]) -> Image.Image:
    """Half of the colours by how many pixels have them (the floor fades in fine steps), half by hue (limbs are few)."""
    pixels = np.concatenate([np.asarray(frame).reshape(1, -1, 3) for frame in frames], axis=1)
    seen = np.zeros((32, 32, 32), dtype=bool)
    seen[tuple(np.moveaxis(pixels // 8, -1, 0))] = True
    hues = (np.argwhere(seen)[None] * 8 + 4).astype(np.uint8)
    colours: list[int] = []
    for sample in (pixels, hues):
        colours += Image.fromarray(sample).quantize(_COLOURS // 2, method=Image.Quantize.MEDIANCUT).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


def write_mp4(frames: Iterable[Image.Image], rate: float, path: Path) -> None:
    """Write an H.264 MP4 of frames of one size, `rate` per second, [Hz].

    Raises:
        ParameterError: there is no ffmpeg, or it failed; the message has its last line.
    """
    encoder = ffmpeg_path()
    frames = iter(frames)
    first = next(frames)
    width, height = first.width // 2 * 2, first.height // 2 * 2  # H.264 wants even sizes
    command = [encoder, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", f"{rate:g}", "-i", "-", "-an", "-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p"]
    command += ["-movflags", "+faststart", str(path.absolute())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            for frame in chain([first], frames):
                process.stdin.write(frame.crop((0, 0, width, height)).tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg has stopped; its message says why
        message = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise ParameterError(f"ffmpeg could not write {path} ({(message.splitlines() or ['no message'])[-1]}).")


def ffmpeg_path() -> str:
    """The ffmpeg of the system, or that of the ``imageio-ffmpeg`` package.

    Raises:
        ParameterError: there is neither.
    """
    if (program := shutil.which("ffmpeg")) is not None:
        return program
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    raise ParameterError(
        "an .mp4 needs ffmpeg and there is none. Run `pip install imageio-ffmpeg` or install ffmpeg, or write a .gif."
    )
