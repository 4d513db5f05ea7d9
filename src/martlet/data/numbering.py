"""Ids to rows, whatever they are: a log is held as numbers, and each text once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import Array, num_threads
from martlet.data.events import gather
from martlet.data.reading import whole
from martlet.kernels.events import new_slots, number_keys
from martlet.kernels.parallel import spread

I32 = NDArray[np.int32]
Reasons = Sequence[tuple[str, NDArray[np.bool_]]]
_WIDE = (pl.Int128, pl.UInt128)
_MAX_ID_BYTES = 4096  # more is a broken line, not a name
_CHUNK = 1 << 16
_DIRECT = 1 << 22  # a range of ids that is always looked up by place

# Why a value is no id: codes below 0.
NO_ID = {-1: "missing id", -2: "overlong id", -3: "id that is not UTF-8"}


def is_number(dtype: Any) -> bool:
    """Tell whether NumPy has numbers of this type."""
    return bool(dtype.is_float() or dtype.is_integer()) and dtype not in _WIDE


class Numbering(Protocol):
    """Turns the ids of one or more logs into rows, in the rising order of the ids."""

    def read(self, column: pl.Series) -> tuple[Array, Reasons]:
        """Return what stands for each value of a batch, and which values are no ids."""

    def rows(self, columns: Sequence[Array]) -> tuple[pl.Series, list[I32]]:
        """Return the ids in rising order, as text, and the rows of all that was read, by log."""


def numbering_of(dtypes: Sequence[Any]) -> Numbering:
    """Return the numbering for the ids of columns of these types."""
    first = dtypes[0]
    plain = first.is_integer() and first not in _WIDE
    return Integers() if plain and all(dtype == first for dtype in dtypes) else Texts()


class Integers:
    """Integers stay as they are until all are read: most fill their range, and need no search."""

    def read(self, column: pl.Series) -> tuple[Array, Reasons]:
        """Return the integers themselves."""
        missing = [(NO_ID[-1], column.is_null().to_numpy())] if column.null_count() else []
        return column.fill_null(0).to_numpy(), missing

    def rows(self, columns: Sequence[Array]) -> tuple[pl.Series, list[I32]]:
        """Return ids and rows. O(n + range) where the range is small, else by a table of hashes."""
        filled: list[Any] = [column for column in columns if len(column)]
        low = min(int(column.min()) for column in filled)
        span = max(int(column.max()) for column in filled) - low + 1
        if span > max(_DIRECT, 4 * sum(map(len, filled))):
            return self._searched(columns)
        met = np.zeros(span, np.bool_)
        for column in columns:
            for part in _chunks(len(column)):
                met[_offsets(column[part], low)] = True
        row_of = np.cumsum(met, dtype=np.int32) - np.int32(1)
        ids = np.flatnonzero(met).view(np.uint64) + np.uint64(low % 2**64)
        text = pl.Series(ids.astype(columns[0].dtype)).cast(pl.String)
        return text, [_at(row_of, column, low) for column in columns]

    def _searched(self, columns: Sequence[Array]) -> tuple[pl.Series, list[I32]]:
        slots, count, news, codes = new_slots(), 0, [], []
        checks = np.zeros(_CHUNK, np.uint32)
        for column in columns:
            found = np.empty(len(column), np.int32)
            for part in _chunks(len(column)):
                keys = _offsets(column[part], 0).view(np.uint64)
                given = number_keys(keys, checks[: len(keys)], slots, count)
                found[part], new_at, slots = given
                count += len(new_at)
                news.append(column[part][new_at])
            codes.append(found)
        ids, rank = _ranked(pl.Series(np.concatenate(news)))
        return ids.cast(pl.String), [gather(rank, found) for found in codes]


class Texts:
    """Gives each distinct text a code, in the order of appearance. Blanks around do not count.

    A text is known by 96 bits of two hashes, so only a new one is looked at: at 10^8 distinct ids
    the chance that any two fall together is 10^-13.
    """

    def __init__(self) -> None:
        self._slots = new_slots()
        self._count = 0
        self._texts: list[pl.Series] = []
        self._same = np.empty(0, np.int32)  # code to the code that counts, or to one of ``NO_ID``
        self._all_differ = True

    def read(self, column: pl.Series) -> tuple[Array, Reasons]:
        """Return the codes, and which of them are none."""
        codes = self.codes(column)
        if codes.min(initial=0) >= 0:
            return codes, ()
        return codes, [(reason, codes == code) for code, reason in NO_ID.items()]

    def codes(self, column: pl.Series) -> I32:
        """Return the (n,) int32 code of each value, or one of ``NO_ID``. O(n)."""
        if column.dtype.is_float():
            column = whole(column)
        column = column.cast(pl.String, strict=False)
        keys = column.hash(seed=1).to_numpy()
        checks = (column.hash(seed=2).to_numpy() >> np.uint64(32)).astype(np.uint32)
        codes, new_at, self._slots = number_keys(keys, checks, self._slots, self._count)
        if len(new_at):
            self._add(column.gather(new_at))
        return codes if self._all_differ else self._same[codes]

    @property
    def texts(self) -> pl.Series:
        """The text of each code; some may stand for nothing."""
        return pl.concat([pl.Series([], dtype=pl.String), *self._texts], rechunk=True)

    def rows(self, columns: Sequence[Array]) -> tuple[pl.Series, list[I32]]:
        """Return ids and rows of columns of codes."""
        counts = self._same == np.arange(len(self._same))
        ids, rank = _ranked(self.texts.filter(counts))
        row_of = np.full(len(counts), -1, np.int32)
        row_of[counts] = rank
        return ids, [gather(row_of, column) for column in columns]

    def _add(self, new: pl.Series) -> None:
        first, self._count = self._count, self._count + len(new)
        same = np.arange(first, self._count, dtype=np.int32)
        self._same = np.concatenate([self._same, same])
        # Arrow's layout copies the texts; a view would keep the whole batch that they came with.
        self._texts.append(pl.Series(new.to_arrow(compat_level=pl.CompatLevel.oldest())))
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


def _ranked(ids: pl.Series) -> tuple[pl.Series, I32]:
    """Return distinct ids in rising order, and the place of each in that order."""
    order = ids.arg_sort()
    rank = np.empty(len(ids), np.int32)
    rank[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
    return ids.gather(order), rank


def _at(row_of: I32, column: Array, low: int) -> I32:
    """Return ``row_of[column - low]``, by all threads."""
    found = np.empty(len(column), np.int32)

    def piece(start: int, stop: int) -> None:
        for part in _chunks(stop, start):
            np.take(row_of, _offsets(column[part], low), out=found[part], mode="clip")

    spread(piece, len(column), num_threads(), _CHUNK)
    return found


def _offsets(values: Any, low: int) -> NDArray[np.int64]:
    """Return how far integers of any type are above ``low``: exact, for 64 bits wrap around."""
    return (values.astype(np.uint64) - np.uint64(low % 2**64)).view(np.int64)  # type: ignore[no-any-return]


def _chunks(stop: int, start: int = 0) -> Iterator[slice]:
    return (slice(at, min(at + _CHUNK, stop)) for at in range(start, stop, _CHUNK))
