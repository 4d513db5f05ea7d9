"""From raw batches to typed columns; bad rows are counted, shown and put aside with a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import Array, DataError, num_threads
from martlet.data.clean import RuleReport
from martlet.data.numbering import NO_ID, Numbering, Reasons, Texts
from martlet.data.reading import Log
from martlet.data.rejects import Rejects
from martlet.data.text import BROKEN, SURPLUS, spoilt, stated
from martlet.data.times import Times, as_floats
from martlet.kernels.parallel import in_order

_BATCH = 1 << 19
_EXAMPLES = 3
_WIDTH = 80
# A rating of zero or below is a rating; as a weight it would say that nothing happened.
LEAST_WEIGHT = np.float32(1e-6)

# Why a row is bad; where it is so twice, the first is told.
_REASONS = (
    "broken line", "too many fields", *NO_ID.values(), "unparsable rating", "unknown event",
    "bad weight", "unparsable time",
)  # fmt: skip
_GOOD = len(_REASONS)

Parsed = tuple[Array, Reasons]
"""The values of a column, and for each reason which of them are bad."""


class _Column(NamedTuple):
    """A column to come, from which ones, and how."""

    name: str
    sources: tuple[str, ...]
    read: Callable[..., Parsed]


class Grown:
    """An array that grows at its end. Where it is large, the system moves its pages, not bytes."""

    def __init__(self) -> None:
        self._array: Array = np.empty(0, np.int8)
        self._size = 0

    def add(self, piece: Array) -> None:
        """Append values; the type widens to hold them."""
        dtype = np.result_type(self._array, piece) if self._size else piece.dtype
        self._array = self._array.astype(dtype, copy=False)
        need = self._size + len(piece)
        if need > len(self._array):
            self._array.resize(need + need // 16, refcheck=False)
        self._array[self._size : need] = piece
        self._size = need

    def done(self) -> Array:
        """Return the values."""
        self._array.resize(self._size, refcheck=False)
        return self._array


def parse(
    log: Log,
    ids: Mapping[str, Numbering],
    codes: Mapping[str, Texts],
    rejects: Rejects,
    *,
    strict: bool,
) -> tuple[dict[str, Array], list[RuleReport]]:
    """Read the log in streaming; return its good rows as columns, and reports.

    ``user_id`` and ``item_id`` are what their numberings read; of ``rating``, ``weight`` and
    ``time_s`` there are those that the log has.

    Args:
        log: what ``read`` gave.
        ids: the numberings of ``user_id`` and ``item_id``.
        codes: of each column to carry along that is no number.
        rejects: takes the bad rows.
        strict: whether a bad row is an error.

    Raises:
        DataError: it cannot be read, has no good row, or under ``strict`` a bad one.
    """
    with stated(log.files):
        columns = _plan(log, log.frame.collect_schema(), ids, codes)
        grown = {column.name: Grown() for column in columns}
        bad, rows_in = BadRows(log.files[0], _REASONS, strict, rejects), 0
        for batch in log.batches(_BATCH):
            values = _values(batch, columns)
            reason = np.full(len(batch), _GOOD, np.uint8)
            as_read = [(name, rows.to_numpy()) for name, rows in spoilt(batch)]
            for name, wrong in chain(as_read, *(reasons for _, reasons in values)):
                reason[wrong] = np.minimum(reason[wrong], _REASONS.index(name))
            good = reason == _GOOD
            clean = bool(good.all())
            if not clean:
                bad.add(batch, reason, rows_in)
            for column, (array, _) in zip(columns, values, strict=True):
                grown[column.name].add(array if clean else array[good])
            rows_in += len(batch)
    if not rows_in:
        raise DataError(f"{log.files[0]} holds no event: expected rows below the header")
    return {name: column.done() for name, column in grown.items()}, bad.reports(rows_in)


def _values(batch: pl.DataFrame, columns: list[_Column]) -> list[Parsed]:
    return list(
        in_order(lambda c: c.read(*map(batch.get_column, c.sources)), columns, num_threads())
    )


def _plan(
    log: Log, schema: Mapping[str, Any], ids: Mapping[str, Numbering], codes: Mapping[str, Texts]
) -> list[_Column]:
    """Return how each column is read."""
    plan = [_Column(name, (name,), numbering.read) for name, numbering in ids.items()]
    if "rating" in schema:
        plan.append(_Column("rating", ("rating",), _ratings))
    weighed = tuple(name for name in ("event", "weight") if name in schema)
    if weighed:
        known = {str(name).lower(): float(value) for name, value in log.event_weights.items()}
        of_event = partial(_event_weights, Texts(), known)
        alone: dict[str, Callable[..., Parsed]] = {"event": of_event, "weight": _weights}
        read = partial(_products, of_event) if len(weighed) == 2 else alone[weighed[0]]
        plan.append(_Column("weight", weighed, read))
    if "time" in schema:
        plan.append(_Column("time_s", ("time",), partial(_times, Times(log.time_unit))))
    carried = [name for name in ("basket", *log.context) if name in schema]
    return plan + [_Column(name, (name,), partial(_carried, codes.get(name))) for name in carried]


class BadRows:
    """Counts bad rows by reason, keeps a few to show, and hands all of them on.

    Args:
        file: where they are from, in words.
        reasons: why a row may be bad; a row that is good has the number behind them.
        strict: whether a bad row is an error.
        rejects: takes them.
    """

    def __init__(self, file: str, reasons: Sequence[str], strict: bool, rejects: Rejects) -> None:
        self._file, self._reasons, self._strict, self._rejects = file, reasons, strict, rejects
        self._counts: dict[str, int] = defaultdict(int)
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, batch: pl.DataFrame, reason: NDArray[np.uint8], done: int) -> None:
        """Take the rows of a batch that have a reason; ``done`` rows came before it."""
        at = np.flatnonzero(reason != len(self._reasons))
        if self._strict:
            raise DataError(
                f"{self._file}, row {done + at[0] + 1}: {self._reasons[reason[at[0]]]} in "
                f"{_shown(batch, int(at[0]))}; mend it, or leave out --strict to count such rows "
                "and go on"
            )
        for code in dict.fromkeys(reason[at].tolist()):
            name, rows = self._reasons[code], np.flatnonzero(reason == code)
            self._counts[name] += len(rows)
            for row in rows[: _EXAMPLES - len(self._examples[name])].tolist():
                self._examples[name].append(f"row {done + row + 1}: {_shown(batch, row)}")
        if self._rejects.wanted:
            why_of = pl.Series("reason", [self._reasons[code] for code in reason[at].tolist()])
            row_of = pl.Series("row", done + at + 1)
            self._rejects.add(batch[at].with_columns(why_of, row_of))

    def reports(self, rows_in: int) -> list[RuleReport]:
        """Return a report a reason, in the order in which they were met.

        Raises:
            DataError: no good row is left.
        """
        reports, left = [], rows_in
        for name, count in self._counts.items():
            reports.append(RuleReport(name, left, left - count, self._examples[name]))
            left -= count
        if not left:
            counted = ", ".join(f"{r.rule} {r.rows_in - r.rows_out:,}" for r in reports)
            raise DataError(
                f"{self._file} has no good row among {rows_in:,} ({counted}; first: "
                f"{reports[0].examples[0]}): check the columns and the separator"
            )
        return reports or [RuleReport("parsed", rows_in, rows_in, [])]


def _shown(batch: pl.DataFrame, row: int) -> str:
    """Return a row in words; a value of any length takes a line at most."""
    cells = batch.row(row, named=True)
    words = {
        name: repr(value)
        for name, value in cells.items()
        if value is not None or name not in (SURPLUS, BROKEN)
    }
    short = {name: one if len(one) <= _WIDTH else f"{one[:_WIDTH]}…" for name, one in words.items()}
    return ", ".join(f"{name}={one}" for name, one in short.items())


def _ratings(column: pl.Series) -> Parsed:
    rating = as_floats(column, pl.Float32).to_numpy()
    return rating, [("unparsable rating", ~np.isfinite(rating))]


def _weights(column: pl.Series) -> Parsed:
    weight = as_floats(column, pl.Float32).to_numpy()
    return weight, [("bad weight", ~_is_weight(weight))]


def _is_weight(value: Any) -> NDArray[np.bool_]:
    return (value > 0) & (value < np.inf)  # type: ignore[no-any-return]


def _event_weights(kinds: Texts, known: Mapping[str, float], column: pl.Series) -> Parsed:
    codes = kinds.codes(column)
    of_kind = [known.get(str(kind).strip().lower(), 0.0) for kind in kinds.texts]
    weight = np.array([*of_kind, 0.0], np.float32)[np.maximum(codes, -1)]  # -1 is the last
    return weight, [("unknown event", weight == 0)]


def _products(
    of_event: Callable[[pl.Series], Parsed], event: pl.Series, weight: pl.Series
) -> Parsed:
    """Return the weight of the event's type times the row's own."""
    (by_type, unknown), (own, bad) = of_event(event), _weights(weight)
    with np.errstate(over="ignore", invalid="ignore"):
        product: Array = np.multiply(by_type, own, dtype=np.float32)
    return product, [*unknown, *bad, ("bad weight", ~_is_weight(product))]


def _times(times: Times, column: pl.Series) -> Parsed:
    seconds = times.seconds(column)
    return seconds.fill_null(0).to_numpy(), [("unparsable time", seconds.is_null().to_numpy())]


def _carried(codes: Texts | None, column: pl.Series) -> Parsed:
    """Numbers stay; all else becomes a code, below 0 where there is none."""
    return (column.to_numpy() if codes is None else codes.codes(column)), ()
