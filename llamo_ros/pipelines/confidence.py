"""ConfidenceCalibration: from token probabilities to the chance that a caption names the right action."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from llamo_ros.core.errors import CheckpointError

METADATA_KEY = "caption_calibration"  # in the metadata of a checkpoint's config.json


@dataclass(frozen=True)
class ConfidenceCalibration:
    """Platt's scaling (1999): confidence = sigmoid(slope * ln(raw) + offset).

    Attributes:
        slope: Not negative, so that the order of captions stays.
        offset: Log-odds of a caption the model is wholly sure of.
        clips: Validation clips it was fitted on.
    """

    slope: float
    offset: float
    clips: int

    def __call__(self, raw: float) -> float:
        """Calibrated confidence, 0 to 1, of a geometric mean probability of tokens, 0 < raw <= 1."""
        return 1.0 / (1.0 + math.exp(-(self.slope * math.log(max(raw, 1e-30)) + self.offset)))

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> ConfidenceCalibration | None:
        """The calibration of a checkpoint; None if it has none.

        Raises:
            CheckpointError: it is damaged.
        """
        text = metadata.get(METADATA_KEY)
        if text is None:
            return None
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the caption calibration in config.json cannot be read ({error}). Fit it again with "
                "benchmarks/caption_calibration.py, or delete the line."
            ) from error

    def to_metadata(self) -> dict[str, str]:
        """Metadata entry that :meth:`of_metadata` reads."""
        return {METADATA_KEY: json.dumps(asdict(self))}
