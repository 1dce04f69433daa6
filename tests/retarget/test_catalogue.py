from __future__ import annotations

import pytest

from llamo_ros.core.errors import RobotError
from llamo_ros.retarget.catalogue import robot_called
from llamo_ros.retarget.profile import load_robot


def test_a_part_of_a_name_is_enough_if_it_means_one_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("booster_t1", "unitree_g1", "unitree_h1", "unitree_h1_2")
    monkeypatch.setattr("llamo_ros.retarget.catalogue.robot_names", lambda: names)
    meant = {"g1": "unitree_g1", "G1": "unitree_g1", "h1": "unitree_h1", "h1_2": "unitree_h1_2", "boost": "booster_t1"}
    assert {text: robot_called(text) for text in meant} == meant
    assert robot_called("1") == "1"  # not within a word
    assert robot_called("c3po") == "c3po"  # whoever loads it lists the known ones
    assert robot_called("./my.yaml") == "./my.yaml"
    with pytest.raises(RobotError, match="unitree_g1 or unitree_h1 or unitree_h1_2"):
        robot_called("unitree")


def test_a_robot_loads_by_a_part_of_its_name() -> None:
    assert load_robot("g1").name == "unitree_g1"
    with pytest.raises(RobotError, match="unitree_g1 or unitree_h1"):
        load_robot("unitree")
    with pytest.raises(RobotError, match="Known robots: booster_t1"):
        load_robot("c3po")
