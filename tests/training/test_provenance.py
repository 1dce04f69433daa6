from __future__ import annotations

import re

import pytest

from llamo_ros.training.provenance import SOURCES, licence_of, sources_of

KNOWN = ["h3d: CMU, free", "cmu_trial: CMU, free", "bandai: CC BY-NC 4.0"]


def test_known_data_is_named_once_and_imports_by_kind_and_licence() -> None:
    assert sources_of([*KNOWN, "amass: research only; no models"]) == [
        SOURCES["h3d"],
        SOURCES["bandai"],
        "amass: research only, no models",
    ]


@pytest.mark.parametrize(
    ("licence_set", "lines", "licence"),
    [
        ("noncommercial", KNOWN, "CC-BY-NC-4.0"),
        ("open", KNOWN[:2], "Apache-2.0"),
        ("open", [*KNOWN[:2], "mine: CC0-1.0"], "Apache-2.0"),
        ("noncommercial", [*KNOWN, "amass: research only"], "no commercial use, and the terms of its data: amass: .*"),
    ],
)
def test_weights_say_what_may_be_done_with_them(licence_set: str, lines: list[str], licence: str) -> None:
    assert re.fullmatch(licence, licence_of(licence_set, sources_of(lines)))
