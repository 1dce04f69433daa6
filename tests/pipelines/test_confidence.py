from __future__ import annotations

import pytest

from llamo_ros.core.errors import CheckpointError
from llamo_ros.pipelines.confidence import METADATA_KEY, ConfidenceCalibration


def test_a_calibration_keeps_the_order_and_stays_between_0_and_1() -> None:
    calibration = ConfidenceCalibration(3.0, 2.0, 50)
    values = [calibration(raw) for raw in (0.0, 1e-9, 0.1, 0.5, 0.9, 1.0)]
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] < 1
    assert values[-1] == pytest.approx(0.8808, abs=1e-4)  # sigmoid(2)


def test_a_calibration_survives_the_metadata_of_a_checkpoint() -> None:
    calibration = ConfidenceCalibration(3.25, -0.5, 50)
    assert ConfidenceCalibration.of_metadata(calibration.to_metadata()) == calibration
    assert ConfidenceCalibration.of_metadata({}) is None


@pytest.mark.parametrize("text", ["{", "[1]", '{"slope": 1}', '{"slope": 1, "offset": 1, "clips": 1, "x": 1}'])
def test_a_damaged_calibration_is_named(text: str) -> None:
    with pytest.raises(CheckpointError, match="calibration"):
        ConfidenceCalibration.of_metadata({METADATA_KEY: text})
