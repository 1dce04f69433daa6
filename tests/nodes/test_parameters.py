from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.resources import config_path
from llamo_ros.nodes.parameters import CAPTIONER, GENERATOR, PUBLISHER, Parameter

TABLES = {"generator": GENERATOR, "publisher": PUBLISHER, "captioner": CAPTIONER}
ALL = [pytest.param(p, id=f"{name}.{p.name}") for name, table in TABLES.items() for p in table]


@pytest.mark.parametrize("parameter", ALL)
def test_every_parameter_says_what_it_does_and_has_a_default_within_bounds(parameter: Parameter) -> None:
    assert parameter.description.endswith(".")
    assert parameter.checked(parameter.default) == parameter.default
    if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
        assert parameter.bounds[0] <= parameter.default <= parameter.bounds[1]
    assert parameter.unit in parameter.descriptor().description


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e9, "2", True, None])
def test_a_number_of_the_wrong_kind_or_size_is_refused_by_name(value: object) -> None:
    with pytest.raises(ParameterError, match="'lead_time'"):
        next(p for p in GENERATOR if p.name == "lead_time").checked(value)


def test_a_whole_number_is_good_where_a_number_is_wanted() -> None:
    assert next(p for p in GENERATOR if p.name == "lead_time").checked(2) == 2.0


def test_the_parameter_file_sets_known_parameters_to_their_defaults_under_the_wildcard() -> None:
    content = yaml.safe_load(Path(config_path("nodes.yaml")).read_text(encoding="utf-8"))
    assert list(content) == ["/**"]  # a node's own name would win over launch arguments
    known = {p.name: p.default for table in TABLES.values() for p in table}
    values = content["/**"]["ros__parameters"]
    assert values == {name: known[name] for name in values}
