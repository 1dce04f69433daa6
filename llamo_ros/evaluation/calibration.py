"""How well confidence says how often captions are right, and a calibration fitted on validation clips.

A caption is right when its main action is among those that the clip's references name
(``llamo_ros.evaluation.actions``); clips whose references name no action are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llamo_ros.core.errors import DatasetError, ShapeError
from llamo_ros.evaluation.actions import action_accuracy
from llamo_ros.model.checkpoint import read_config
from llamo_ros.pipelines.confidence import ConfidenceCalibration

MIN_CLIPS = 20  # two parameters are not fitted on fewer


@dataclass(frozen=True)
class ReliabilityBin:
    """Captions of similar confidence.

    Attributes:
        count: How many.
        confidence: Their mean confidence.
        accuracy: Share that is right.
    """

    count: int
    confidence: float
    accuracy: float


def right_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[NDArray[np.bool_], list[int]]:
    """Which captions name the right action, and the index of each among those given.

    Raises:
        ShapeError: there is not one list of references for each caption.
    """
    if len(captions) != len(references):
        raise ShapeError("references", (len(references),), f"({len(captions)},)", "Give one list for each caption.")
    scores = [action_accuracy([caption], [texts]) for caption, texts in zip(captions, references, strict=True)]
    counted = [index for index, score in enumerate(scores) if score.count]
    return np.array([scores[index].correct == 1 for index in counted], dtype=bool), counted


def fit_calibration(raw: ArrayLike, right: ArrayLike) -> ConfidenceCalibration:
    """Platt's scaling of raw confidence by maximum likelihood, with his smoothed targets; the slope is not negative.

    Args:
        raw: Raw confidence of each caption, 0 to 1, shape (N,).
        right: Whether it is right, shape (N,).

    Raises:
        ShapeError: the shapes differ.
        DatasetError: there are fewer than 20 captions.
    """
    raw, right = np.asarray(raw, dtype=np.float64), np.asarray(right, dtype=bool)
    if raw.ndim != 1 or raw.shape != right.shape:
        raise ShapeError("right", right.shape, str(raw.shape), "One truth value for each confidence.")
    if len(raw) < MIN_CLIPS:
        raise DatasetError(f"{len(raw)} captions are too few to calibrate on, give at least {MIN_CLIPS}.")
    # Targets a little inside 0 and 1 keep the fit finite where right and wrong are separable (Platt 1999).
    positives = int(right.sum())
    targets = np.where(right, (positives + 1) / (positives + 2), 1 / (len(right) - positives + 2))
    logs = np.log(np.maximum(raw, 1e-30))
    features = np.stack([logs, np.ones_like(logs)], axis=1)
    slope, offset = _newton(features, targets)
    if slope < 0:
        slope, (offset,) = 0.0, _newton(features[:, 1:], targets)
    return ConfidenceCalibration(float(slope), float(offset), len(raw))


def _newton(features: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the logistic regression; its loss is convex, and a step is halved until it helps."""

    def loss(weights: NDArray[np.float64]) -> float:
        z = features @ weights
        return float((np.logaddexp(0, z) - targets * z).sum())

    weights = np.zeros(features.shape[1])
    for _ in range(100):
        chances = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (chances - targets)
        hessian = (features * (chances * (1 - chances))[:, None]).T @ features + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Captions in bins of (nearly) equal size, the least confident first.

    Raises:
        ShapeError: the shapes differ or are empty.
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if confidence.shape != right.shape or confidence.ndim != 1 or not len(right):
        raise ShapeError("right", right.shape, f"{confidence.shape}, not empty", "One truth value for each confidence.")
    order = np.argsort(confidence, kind="stable")
    return [
        ReliabilityBin(len(part), float(confidence[part].mean()), float(right[part].mean()))
        for part in np.array_split(order, min(bins, len(order)))
    ]


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over bins of equal size, 0 (perfect) to 1.

    Raises:
        ShapeError: the shapes differ or are empty.
    """
    parts = reliability(confidence, right, bins)
    total = sum(part.count for part in parts)
    return sum(part.count * abs(part.confidence - part.accuracy) for part in parts) / total


def save_calibration(folder: Path, calibration: ConfidenceCalibration) -> None:
    """Write a calibration into the metadata of a checkpoint's config.json; a new export drops it with the old weights.

    Raises:
        CheckpointError: the folder is no checkpoint.
    """
    read_config(folder)
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["metadata"] |= calibration.to_metadata()
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
