from __future__ import annotations

import pytest
import torch

from llamo_ros.model.llamo import MOTION, PADDING, Llamo
from llamo_ros.model.mixture_of_transformers import KeyValueCache
from llamo_ros.model.slots import Slot, SlotCache

CPU = torch.device("cpu")


def cache_of(model: Llamo, rows: int = 2, capacity: int = 4) -> SlotCache:
    return SlotCache(model.config.backbone, torch.float32, CPU, rows, capacity)


def read(model: Llamo, cache: SlotCache, slots: list[Slot], rows: list[list[int]], latents: torch.Tensor) -> list:
    """Hidden states of the real tokens of each row."""
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])
    hidden = model(tokens, latents, cache.window(slots, longest, [len(row) for row in rows]))
    return [hidden[index, : len(row)] for index, row in enumerate(rows)]


def alone(model: Llamo, row: list[int], latents: torch.Tensor) -> torch.Tensor:
    return model(torch.tensor([row]), latents)[0]


def test_rows_of_different_lengths_read_together_what_each_reads_alone(tiny: Llamo) -> None:
    cache = cache_of(tiny)
    slots = [cache.open() for _ in range(3)]
    begin = tiny.begin_motion
    prompts = [[1, 5, 6, 7, begin], [1, begin], [1, 9, begin, MOTION, MOTION]]
    context = torch.randn(2, 8)
    first = read(tiny, cache, slots, prompts, context)
    steps = torch.randn(3, 8), torch.randn(3, 8)
    second = [read(tiny, cache, slots, [[MOTION]] * 3, latents) for latents in steps]
    for row, prompt in enumerate(prompts):
        known = [context] if row == 2 else []
        latents = torch.cat([*known, *(step[row : row + 1] for step in steps)])
        whole = alone(tiny, [*prompt, MOTION, MOTION], latents)
        together = torch.cat([first[row], *(hidden[row] for hidden in second)])
        torch.testing.assert_close(together, whole, rtol=1e-4, atol=1e-5)  # other batching of the same products


def test_any_order_and_choice_of_rows_can_be_read(tiny: Llamo) -> None:
    cache = cache_of(tiny)
    slots = [cache.open() for _ in range(4)]
    rows = [[1, 5], [1, 6, 7], [1, 8], [1, 9, 10, 11]]
    read(tiny, cache, slots, rows, torch.zeros(0, 8))
    chosen = [3, 1]
    further = read(tiny, cache, [slots[i] for i in chosen], [[20, 21], [22]], torch.zeros(0, 8))
    for (number, new), hidden in zip(((3, [20, 21]), (1, [22])), further, strict=True):
        whole = alone(tiny, rows[number] + new, torch.zeros(0, 8))
        torch.testing.assert_close(hidden, whole[-len(new) :], rtol=1e-4, atol=1e-5)
    assert [slot.length for slot in slots] == [2, 4, 2, 6]


def test_closing_a_row_keeps_the_others(tiny: Llamo) -> None:
    cache = cache_of(tiny)
    slots = [cache.open() for _ in range(3)]
    rows = [[1, 5], [1, 6, 7], [1, 8, 9, 10]]
    read(tiny, cache, slots, rows, torch.zeros(0, 8))
    cache.close(slots[0])
    assert cache.rows == 2
    assert {slot.row for slot in slots[1:]} == {0, 1}
    hidden = read(tiny, cache, slots[1:], [[30], [30]], torch.zeros(0, 8))
    for row, part in zip(rows[1:], hidden, strict=True):
        torch.testing.assert_close(part, alone(tiny, [*row, 30], torch.zeros(0, 8))[-1:], rtol=1e-4, atol=1e-5)


def test_a_row_that_is_opened_again_remembers_nothing(tiny: Llamo) -> None:
    cache = cache_of(tiny)
    slot = cache.open()
    read(tiny, cache, [slot], [[1, 5, 6, 7, 8, 9]], torch.zeros(0, 8))
    cache.close(slot)
    slot = cache.open()
    hidden = read(tiny, cache, [slot], [[1, 20]], torch.zeros(0, 8))[0]
    torch.testing.assert_close(hidden, alone(tiny, [1, 20], torch.zeros(0, 8)), rtol=1e-4, atol=1e-5)


def test_memory_is_copied_seldom_while_a_row_grows(tiny: Llamo) -> None:
    cache = cache_of(tiny, rows=1, capacity=1)
    slot, capacities = cache.open(), set()
    for _ in range(100):
        read(tiny, cache, [slot], [[5]], torch.zeros(0, 8))
        capacities.add(cache.capacity)
    assert capacities == {1, 2, 4, 8, 16, 32, 64, 128}


@pytest.mark.parametrize("length", [1, 5])
def test_one_full_row_gives_what_the_plain_cache_gives(tiny: Llamo, length: int) -> None:
    slots, plain = cache_of(tiny), KeyValueCache(tiny.config.backbone, 1, 20, torch.float32, CPU)
    slot = slots.open()
    for _ in range(3):
        tokens = torch.randint(0, 300, (1, length))
        expected = tiny(tokens, torch.zeros(0, 8), plain)
        actual = tiny(tokens, torch.zeros(0, 8), slots.window([slot], length))
        assert torch.equal(actual, expected)
