"""SlotCache: keys and values of many independent sequences that begin and end at different times.

Every row has its own length. Open rows are always rows 0 to n - 1, so that a pass over all of them works on views; a
row that is closed is filled with the last one. Memory doubles when it is short, so a long sequence is copied seldom.
"""

# B rows, S new tokens, K key/value heads, E head width, L columns (tokens of the longest row)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llamo_ros.model.config import BackboneConfig


@dataclass(eq=False)
class Slot:
    """Place of one sequence in a :class:`SlotCache`.

    Attributes:
        row: Its row at present; changes when other sequences are closed.
        length: Tokens it holds.
    """

    row: int
    length: int = 0


class SlotCache:
    """Keys and values of all layers, one row per open sequence. For one thread."""

    def __init__(
        self, config: BackboneConfig, dtype: torch.dtype, device: torch.device, rows: int = 4, capacity: int = 128
    ) -> None:
        shape = (config.layers, rows, config.kv_heads, capacity, config.head_dim)
        # Zeros, not empty: masked columns are multiplied by 0, and 0 * NaN is NaN.
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._slots: list[Slot] = []

    @property
    def rows(self) -> int:
        """Open sequences."""
        return len(self._slots)

    @property
    def capacity(self) -> int:
        """Tokens that each row has room for at present."""
        return self._keys.shape[3]

    def open(self) -> Slot:
        """A new, empty sequence."""
        slot = Slot(len(self._slots))
        self._slots.append(slot)
        if self.rows > self._keys.shape[1]:
            self._grow(2 * self._keys.shape[1], self.capacity)
        return slot

    def close(self, slot: Slot) -> None:
        """Forget a sequence; the last row moves to its place."""
        last = self._slots.pop()
        if last is not slot:
            for buffer in (self._keys, self._values):
                buffer[:, slot.row, :, : last.length] = buffer[:, last.row, :, : last.length]
            last.row = slot.row
            self._slots[slot.row] = last

    def window(self, slots: Sequence[Slot], tokens: int, counts: Sequence[int] | None = None) -> SlotWindow:
        """A cache for one pass over some of the sequences.

        Args:
            slots: The sequences, in the order of the pass's rows.
            tokens: Tokens S of the pass.
            counts: How many of them are real in each row, the first ones; None if all are.
        """
        longest = max(slot.length for slot in slots)
        if longest + tokens > self.capacity:
            self._grow(self._keys.shape[1], max(2 * self.capacity, longest + tokens))
        return SlotWindow(self._keys, self._values, slots, tokens, counts or [tokens] * len(slots))

    @torch.inference_mode(False)  # rows are also moved outside of a pass, which inference tensors do not allow
    def _grow(self, rows: int, capacity: int) -> None:
        layers, old_rows, heads, old_capacity, width = self._keys.shape
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            new = old.new_zeros(layers, rows, heads, capacity, width)
            new[:, :old_rows, :, :old_capacity] = old
            setattr(self, name, new)


class SlotWindow:
    """Some sequences of a :class:`SlotCache` during one pass of S tokens; good for that pass only.

    Attributes:
        length: Tokens before this pass in the longest row.
        is_ragged: Whether the rows differ in length.
    """

    def __init__(self, keys: Tensor, values: Tensor, slots: Sequence[Slot], tokens: int, counts: Sequence[int]) -> None:
        lengths = [slot.length for slot in slots]
        rows = [slot.row for slot in slots]
        self.length = max(lengths)
        self.is_ragged = min(lengths) != self.length
        self._slots, self._counts, self._tokens = slots, counts, tokens
        self._keys, self._values = keys, values
        self._numbers = rows, lengths
        self._span = slice(rows[0], rows[-1] + 1) if rows == list(range(rows[0], rows[0] + len(rows))) else None
        self._rows_B = torch.tensor(rows, device=keys.device)
        self._columns_BS = torch.tensor(lengths, device=keys.device)[:, None] + torch.arange(tokens, device=keys.device)

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the whole cache, shape (layers, rows, K, capacity, E) each."""
        return self._keys, self._values

    @property
    def numbers(self) -> tuple[list[int], list[int]]:
        """Row of the cache of each row of the pass, and the tokens it held before."""
        return self._numbers

    def positions(self, count: int, device: torch.device) -> Tensor:
        """Positions of the new tokens, each row from its own length on, shape (B, S)."""
        return self._columns_BS

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values (B, K, S, E) of new tokens behind each row; all of the layer's (B, K, L, E)."""
        return self._extended(self._keys[layer], keys), self._extended(self._values[layer], values)

    def _extended(self, buffer: Tensor, new: Tensor) -> Tensor:
        buffer[self._rows_B[:, None], :, self._columns_BS] = new.transpose(1, 2)
        buffer = buffer.index_select(0, self._rows_B) if self._span is None else buffer[self._span]
        return buffer[:, :, : self.length + self._tokens]

    def advance(self, count: int) -> None:
        """Each row holds its real tokens of this pass; what padding left behind them is overwritten by the next."""
        for slot, real in zip(self._slots, self._counts, strict=True):
            slot.length += real
