"""Tables, their place in a document, and that the one in the repository shows what benchmarks/results/ holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamo_ros.benchmark.tables import (
    begin_mark,
    end_mark,
    gpu_table,
    markdown,
    operations_table,
    section,
    whole_latent_table,
    write_section,
)
from llamo_ros.core.errors import ParameterError

ROOT = Path(__file__).resolve().parents[2]
TABLES = {
    "operations": operations_table,
    "whole_latent": whole_latent_table,
    "whole_latent_gpu": whole_latent_table,
    "gpu_flow_sampler": gpu_table,
}


def test_numbers_have_three_digits() -> None:
    assert markdown(("a", "b"), [(0.012345, None), (1234.5, "x"), (7, 9.996)]) == (
        "| a | b |\n| --- | --- |\n| 0.0123 | - |\n| 1234 | x |\n| 7 | 10 |"
    )


def test_only_what_is_between_the_marks_is_written(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{begin_mark('a')}\nold\n{end_mark('a')}\nafter {begin_mark('b')}{end_mark('b')}\n")
    write_section(path, "a", "| new |")
    assert path.read_text() == (
        f"before\n{begin_mark('a')}\n\n| new |\n\n{end_mark('a')}\nafter {begin_mark('b')}{end_mark('b')}\n"
    )
    with pytest.raises(ParameterError, match="no place for 'c'"):
        write_section(path, "c", "")


@pytest.mark.parametrize("name", TABLES)
def test_the_document_shows_the_results(name: str) -> None:
    shown = section((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"), name)
    result = ROOT / "benchmarks" / "results" / f"{name}.json"
    if result.is_file():
        assert shown == TABLES[name](json.loads(result.read_text(encoding="utf-8")))
    else:
        assert shown == "Not measured yet."
