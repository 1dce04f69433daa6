from __future__ import annotations

import pytest
import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.training.processes import Processes


def processes(rank: int, count: int) -> Processes:
    some = Processes()
    some.rank, some.count = rank, count
    return some


def test_one_process_has_everything_and_waits_for_nobody() -> None:
    alone = Processes()
    assert alone.is_first
    assert alone.share_of("abc") == ["a", "b", "c"]
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(alone.summed(values), values)
    assert alone.agreed(True, 3.5) == (True, 3.5)
    assert alone.agreed(False, 0.0) == (False, 0.0)
    alone.wait()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_all_items_once_and_of_like_size(count: int) -> None:
    items = list(range(11))
    shares = [processes(rank, count).share_of(items) for rank in range(count)]
    assert sorted(sum(shares, [])) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_step_with_fewer_samples_than_processes_is_refused() -> None:
    with pytest.raises(ParameterError, match="less than one for each"):
        processes(0, 3).share_of([1, 2])
