"""Generators of random numbers, from seeds as users give them."""

from __future__ import annotations

import torch

from llamo_ros.core.errors import ParameterError
from llamo_ros.core.numbers import whole_number

SEEDS = 2**63


def seeded_generator(seed: int) -> torch.Generator:
    """Generator on the CPU, so that a seed gives the same numbers on every device.

    Raises:
        ParameterError: the seed is not a whole number from 0 to 2^63 - 1.
    """
    return torch.Generator().manual_seed(checked_seed(seed))


def checked_seed(seed: int) -> int:
    """The seed as a plain number.

    Raises:
        ParameterError: it is not a whole number from 0 to 2^63 - 1.
    """
    number = whole_number(seed)
    if number is None or not 0 <= number < SEEDS:
        raise ParameterError(f"seed is {seed!r}, expected a whole number from 0 to 2^63 - 1.")
    return number
