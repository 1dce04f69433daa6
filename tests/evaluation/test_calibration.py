from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from llamo_ros.core.errors import CheckpointError, DatasetError, ShapeError
from llamo_ros.evaluation.calibration import (
    expected_calibration_error,
    fit_calibration,
    reliability,
    right_captions,
    save_calibration,
)
from llamo_ros.model.checkpoint import load_checkpoint, read_config, save_checkpoint
from llamo_ros.model.config import preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.pipelines.confidence import ConfidenceCalibration
from llamo_ros.pipelines.motion_to_text import MotionToText


def drawn(truth: ConfidenceCalibration, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Captions whose chance to be right follows a known calibration."""
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0.05, 1.0, count)
    return raw, rng.random(count) < [truth(value) for value in raw]


def test_the_fit_finds_the_calibration_that_made_the_data() -> None:
    truth = ConfidenceCalibration(2.5, 2.0, 0)
    fitted = fit_calibration(*drawn(truth, 20_000, seed=0))
    # Standard errors of the two at this many draws are about 0.05.
    assert fitted.slope == pytest.approx(truth.slope, abs=0.2)
    assert fitted.offset == pytest.approx(truth.offset, abs=0.2)
    assert fitted.clips == 20_000


def test_a_fit_on_some_captions_lowers_the_calibration_error_on_others() -> None:
    truth = ConfidenceCalibration(2.5, 3.0, 0)
    fitted = fit_calibration(*drawn(truth, 200, seed=0))
    raw, right = drawn(truth, 5000, seed=1)
    before = expected_calibration_error(raw, right)
    after = expected_calibration_error([fitted(value) for value in raw], right)
    assert after < 0.5 * before


@pytest.mark.parametrize(
    "right", [[True] * 30, [False] * 30, [i < 15 for i in range(30)]], ids=["all", "none", "worse"]
)
def test_a_fit_stays_finite_and_never_turns_the_order_round(right: list[bool]) -> None:
    fitted = fit_calibration(np.linspace(0.1, 1.0, 30), right)
    assert np.isfinite([fitted.slope, fitted.offset]).all()
    assert fitted.slope >= 0
    assert fitted(0.5) == pytest.approx(np.mean(right), abs=0.1)


def test_the_calibration_error_is_zero_where_confidence_is_the_share_that_is_right() -> None:
    confidence = np.repeat([0.2, 0.8], 50)
    right = np.concatenate([np.arange(50) < 10, np.arange(50) < 40])
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(confidence + 0.1, right, bins=2) == pytest.approx(0.1)
    assert [part.accuracy for part in reliability(confidence, right, bins=2)] == [0.2, 0.8]


def test_a_caption_is_right_if_it_names_an_action_of_its_references() -> None:
    captions = ["a person waves", "a person walks", "someone jumps"]
    right, counted = right_captions(captions, [["he waves the left hand"], ["a person sits"], ["something happens"]])
    assert right.tolist() == [True, False]
    assert counted == [0, 1]


def test_too_little_or_unequal_data_is_refused() -> None:
    with pytest.raises(DatasetError, match="at least 20"):
        fit_calibration([0.5] * 5, [True] * 5)
    with pytest.raises(ShapeError):
        fit_calibration([0.5] * 30, [True] * 29)
    with pytest.raises(ShapeError):
        expected_calibration_error([], [])
    with pytest.raises(ShapeError):
        right_captions(["a"], [])


def test_a_checkpoint_carries_its_calibration_until_it_is_exported_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = Llamo(preset("tiny")), TextTokenizer.train(["a person walks"] * 5, 300)
    save_checkpoint(model, tokenizer, tmp_path, {"licence": "test"})
    before = json.loads((tmp_path / "config.json").read_text())
    save_calibration(tmp_path, ConfidenceCalibration(2.0, 1.0, 30))
    config, metadata = read_config(tmp_path)
    assert json.loads(json.dumps(config.to_json())) == before["model"]
    assert metadata["licence"] == "test"
    assert ConfidenceCalibration.of_metadata(metadata) == ConfidenceCalibration(2.0, 1.0, 30)
    assert MotionToText.from_checkpoint(tmp_path)._writer.calibration is not None
    load_checkpoint(tmp_path)
    save_checkpoint(model, tokenizer, tmp_path, {"licence": "test"})
    assert MotionToText.from_checkpoint(tmp_path)._writer.calibration is None
    with pytest.raises(CheckpointError):
        save_calibration(tmp_path / "nothing", ConfidenceCalibration(2.0, 1.0, 30))
