"""Training, validation and test sets such that one take is in one of them only.

A take is one recording. Pieces of it overlap or show the same person doing the same thing twice, and its mirror image
is the same motion, so a take in two sets would let the validation score see what was trained on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llamo_ros.core.errors import ParameterError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitShares:
    """How takes are shared out.

    Attributes:
        train: Share of the training set, 0 to 1.
        val: Share of the validation set.
        test: Share of the test set.
        seed: Another seed, another distribution.

    Raises:
        ParameterError: a share is negative or not a number, or they do not add up to 1.
    """

    train: float = 0.9
    val: float = 0.05
    test: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (self.train, self.val, self.test)
        if not all(math.isfinite(share) and share >= 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ParameterError(f"split shares are {', '.join(f'{share:g}' for share in shares)}; they must add to 1.")


def split_of(take: str, shares: SplitShares) -> str:
    """The split of a take: ``train``, ``val`` or ``test``. It depends on the name, shares and seed alone.

    So it is the same on every machine, and no take moves when others are added.
    """
    digest = hashlib.blake2b(f"{shares.seed}/{take}".encode(), digest_size=8).digest()
    position = (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: a float64 below 1
    edges = ((split, getattr(shares, split)) for split in SPLITS)
    wanted = [(split, share) for split, share in edges if share > 0]
    for split, share in wanted:
        if position < share:
            return split
        position -= share
    return wanted[-1][0]  # shares add to 1 but for rounding


def takes_in_several_splits(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Takes (``kind``, ``trial``) of index rows that are in more than one split, with their splits, sorted by name.

    Rows that do not name their take are passed over.
    """
    seen: dict[str, set[str]] = {}
    for row in rows:
        if row.get("trial"):
            seen.setdefault(str(row["trial"]), set()).add(row["split"])
    return {take: tuple(sorted(splits)) for take, splits in sorted(seen.items()) if len(splits) > 1}
