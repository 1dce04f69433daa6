"""Fit the confidence of captions to how often they name the right action; report what that does on test clips.

    python benchmarks/caption_calibration.py --data ../shared/data --checkpoint llamo-mini --write

Fitted on validation clips, measured on test clips, both captioned greedily and whole. "raw" is the geometric mean
probability of a caption's tokens, "calibrated" the fitted chance that it names the right action
(``benchmarks/caption_actions.py`` has the rule). ECE is the mean distance of confidence and accuracy over ten bins of
equal size; Brier is the mean squared distance of confidence and right (1) or wrong (0), NLL the mean negative
log-likelihood. --write puts the calibration into the checkpoint's config.json; exporting a model anew drops it, so this
is run again then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence as Items
from dataclasses import asdict
from pathlib import Path

import numpy as np

from llamo_ros.core.errors import DatasetError, LlamoError
from llamo_ros.evaluation.calibration import (
    expected_calibration_error,
    fit_calibration,
    reliability,
    right_captions,
    save_calibration,
)
from llamo_ros.model.checkpoint import checkpoint_folder, load_checkpoint
from llamo_ros.pipelines.motion_to_text import MotionToText
from llamo_ros.training.source_data import read_sequences


def main(arguments: list[str] | None = None) -> int:
    """Fit and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="source data folder")
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--sources", default="h3d,bandai", metavar="A,B", help="kinds of clips (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the calibration into the checkpoint")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(arguments)
    try:
        captioner = MotionToText(*load_checkpoint(options.checkpoint))  # without a calibration it may have
        sources = options.sources.split(",")
        fitted_on = _captioned(captioner, options.data, "val", sources)
        tested_on = _captioned(captioner, options.data, "test", sources)
        calibration = fit_calibration(*fitted_on)
        calibrated = np.array([calibration(raw) for raw in tested_on[0]])
        if options.write:
            save_calibration(checkpoint_folder(options.checkpoint), calibration)
    except LlamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    raw, right = tested_on
    print(f"confidence = sigmoid({calibration.slope:.3f} ln(raw) + {calibration.offset:.3f})")
    print(f"fitted on {len(fitted_on[0])} validation clips, {fitted_on[1].mean():.3f} of the captions right")
    print(f"{len(raw)} test clips, {right.mean():.3f} of the captions right")
    figures = {"raw": _figures(raw, right), "calibrated": _figures(calibrated, right)}
    for name, values in figures.items():
        print(f"  {name:11}" + "  ".join(f"{key} {values[key]:.3f}" for key in ("mean", "ece", "brier", "nll")))
    bins = reliability(calibrated, right)
    print("calibrated, by bin: " + ", ".join(f"{part.confidence:.2f}: {part.accuracy:.2f}" for part in bins))
    if options.json is not None:
        result = {
            "checkpoint": options.checkpoint,
            "sources": sources,
            "calibration": asdict(calibration),
            "test_clips": len(raw),
            "test_accuracy": float(right.mean()),
            "test": figures,
            "bins": [asdict(part) for part in bins],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _captioned(captioner: MotionToText, data: Path, split: str, sources: Items[str]) -> tuple[np.ndarray, np.ndarray]:
    """Raw confidence of the caption of each clip, and whether it is right."""
    clips = list(read_sequences(data, lambda row: row["split"] == split and row["kind"] in sources))
    if not clips:
        raise DatasetError(f"{data} has no {split} clips of {', '.join(sources)}; choose other sources.")
    captions = [captioner(clip.clip) for clip in clips]
    right, counted = right_captions([caption.text for caption in captions], [clip.captions for clip in clips])
    return np.array([captions[index].confidence for index in counted]), right


def _figures(confidence: np.ndarray, right: np.ndarray) -> dict[str, float]:
    inside = np.clip(confidence, 1e-9, 1 - 1e-9)
    return {
        "mean": float(confidence.mean()),
        "ece": expected_calibration_error(confidence, right),
        "brier": float(((confidence - right) ** 2).mean()),
        "nll": float(-np.log(np.where(right, inside, 1 - inside)).mean()),
    }


if __name__ == "__main__":
    sys.exit(main())
