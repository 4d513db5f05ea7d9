"""Ids to codes, batch by batch: a log is held as four bytes an id, and each text once."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.data.reading import whole
from martlet.kernels.events import new_slots, number_keys

I32 = NDArray[np.int32]
_WIDE = (pl.Int128, pl.UInt128)
_MAX_ID_BYTES = 4096  # more is a broken line, not a name

# Why a value is no id: codes below 0.
NO_ID = {-1: "missing id", -2: "overlong id", -3: "id that is not UTF-8"}


def is_number(dtype: Any) -> bool:
    """Tell whether NumPy has numbers of this type."""
    return bool(dtype.is_float() or dtype.is_integer()) and dtype not in _WIDE


def kind_of(dtypes: list[Any]) -> Any:
    """Return as what the ids of columns of these types are numbered: one integer type, or text."""
    first = dtypes[0]
    plain = first.is_integer() and first not in _WIDE
    return first if plain and all(dtype == first for dtype in dtypes) else pl.String


class Numbering:
    """Gives each distinct id a code, in the order of appearance.

    Text is known by 96 bits of two hashes, so only a new id is looked at: at 10^8 distinct ids the
    chance that any two fall together is 10^-13. Blanks around an id do not count.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._slots = new_slots()
        self._count = 0
        self._ids: list[pl.Series] = []
        self._same = np.empty(0, np.int32)  # code to the code that counts, or to one of ``NO_ID``
        self._all_differ = True

    def codes(self, column: pl.Series) -> I32:
        """Return the (n,) int32 code of each value, or one of ``NO_ID``. O(n)."""
        if column.dtype.is_float():
            column = whole(column)
        column = column.cast(self._kind, strict=False)
        if self._kind == pl.String:
            keys = column.hash(seed=1).to_numpy()
            checks = (column.hash(seed=2).to_numpy() >> np.uint64(32)).astype(np.uint32)
        else:
            # A null is numbered as 0, for nothing; the next lines take it away again.
            keys = column.fill_null(0).to_numpy().astype(np.int64, copy=False).view(np.uint64)
            checks = np.zeros(len(keys), np.uint32)
        codes, new_at, self._slots = number_keys(keys, checks, self._slots, self._count)
        if len(new_at):
            self._add(column.gather(new_at))
        if not self._all_differ:
            codes = self._same[codes]
        if self._kind != pl.String and column.null_count():
            codes[column.is_null().to_numpy()] = -1
        return codes

    @property
    def ids(self) -> pl.Series:
        """The id of each code; some may stand for nothing."""
        return pl.concat([pl.Series([], dtype=self._kind), *self._ids], rechunk=True)

    def ranked(self) -> tuple[pl.Series, I32]:
        """Return the ids in rising order, as text, and each code's place in that order."""
        counts = self._same == np.arange(len(self._same))
        ids = self.ids.filter(counts)
        order = ids.arg_sort()
        place = np.empty(len(ids), np.int32)
        place[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
        rank = np.full(len(counts), -1, np.int32)
        rank[counts] = place
        return ids.gather(order).cast(pl.String), rank

    def _add(self, new: pl.Series) -> None:
        first, self._count = self._count, self._count + len(new)
        same = np.arange(first, self._count, dtype=np.int32)
        self._same = np.concatenate([self._same, same])
        if self._kind != pl.String:
            self._ids.append(new.fill_null(0))
            return
        # Arrow's layout copies the texts; a view would keep the whole batch that they came with.
        self._ids.append(pl.Series(new.to_arrow(compat_level=pl.CompatLevel.oldest())))
        bare = new.str.strip_chars()
        not_one = pl.select(
            pl.when(bare.is_null() | (bare == "")).then(-1)
            .when(bare.str.len_bytes() > _MAX_ID_BYTES).then(-2)
            .when(bare.str.contains("\ufffd", literal=True)).then(-3)
            .otherwise(0)
        ).to_series().to_numpy()  # fmt: skip
        odd = (not_one < 0) | (bare != new).fill_null(True).to_numpy()
        if odd.any():
            self._all_differ = False
            target = not_one[odd].astype(np.int32)
            target[target == 0] = self.codes(bare.filter(odd & (not_one == 0)))
            self._same[same[odd]] = target
