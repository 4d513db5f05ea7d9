"""A labelled table read in batches: its labels and weights, its numbers and texts, its bad rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import Array, Column, DataError, Examples, Text, num_threads
from martlet.data.clean import RuleReport
from martlet.data.formats import Raw, stated
from martlet.data.parse import BadRows, Grown
from martlet.data.reading import TimeUnit
from martlet.data.rejects import Rejects
from martlet.data.text import spoilt
from martlet.data.times import Times, as_floats
from martlet.kernels.parallel import in_order

_BATCH = 1 << 18
_TRUE, _FALSE = ("1", "1.0", "yes", "y", "true", "t"), ("0", "0.0", "no", "n", "false", "f")
_MOST = 1e30  # of a label that is a number: squares of larger ones leave float32 soon
_REASONS = (
    "broken line", "too many fields", "no label", "unknown label", "bad weight", "unparsable time",
)  # fmt: skip
GOOD = len(_REASONS)
_SHOWN = 5  # labels that an error tells


@dataclass(frozen=True)
class Roles:
    """Which columns of a table are no features, and how they are written.

    Attributes:
        label: the column to be predicted.
        positive: the text that makes a label 1, any other makes it 0; None takes 0 and 1, yes and
            no, true and false.
        regression: the label is any number.
        weight: a column of weights of 0 or more, or None.
        time: a column of times, or None.
        time_unit: how they are written.
    """

    label: str
    positive: str | None = None
    weight: str | None = None
    time: str | None = None
    time_unit: TimeUnit = "auto"
    regression: bool = False

    @property
    def columns(self) -> list[str]:
        """Names of those there are."""
        return [name for name in (self.label, self.weight, self.time) if name is not None]


class Source:
    """A table, read in batches of which the bad rows are known."""

    def __init__(self, raw: Raw, roles: Roles, features: Sequence[str], kind: str) -> None:
        self._raw, self._roles, self._features, self._kind = raw, roles, features, kind
        self.file = raw.files[0]
        with stated(raw.files):
            self.schema = raw.parts[0].frame.collect_schema()
        for name in (*roles.columns, *features):
            if name not in raw.names:
                raise DataError(
                    f"{self.file} has no column {name!r}: it has {', '.join(raw.names)}"
                )
            if isinstance(self.schema[name], pl.Struct | pl.Object):
                raise DataError(
                    f"column {name!r} of {self.file} is {self.schema[name]}: expected numbers, "
                    f"text or a list; leave it out with --drop {name}"
                )

    def batches(self) -> Iterator[tuple[pl.DataFrame, NDArray[np.uint8], list[Array]]]:
        """Yield rows, the (n,) number of what is wrong with each, and their label, weight, time.

        Raises:
            DataError: the table cannot be read, or no label of the first batch is known.
        """
        roles, times = self._roles, Times(self._roles.time_unit)
        wanted = [*roles.columns, *self._features, *self._raw.spoilt]
        first = True
        with stated(self._raw.files):
            for part in self._raw.parts:
                for batch in part.select(*map(pl.col, wanted)).batches(_BATCH):
                    reason = np.full(len(batch), GOOD, np.uint8)
                    blame = partial(_blame, reason)
                    for why, bad in spoilt(batch):
                        blame(why, bad)
                    whole = reason == GOOD
                    label = batch[roles.label]
                    value, missing, unknown = (
                        numbers(label) if roles.regression else labels(label, roles.positive)
                    )
                    if first and whole.any() and not (whole & ~missing & ~unknown).any():
                        raise DataError(self._unknown(label))
                    first = first and not whole.any()
                    blame("no label", missing)
                    blame("unknown label", unknown)
                    read: list[Array] = [value]
                    if roles.weight is not None:
                        given = as_floats(batch[roles.weight], pl.Float32).to_numpy()
                        blame("bad weight", ~((given >= 0) & (given < np.inf)))
                        read.append(given)
                    if roles.time is not None:
                        seconds = times.seconds(batch[roles.time])
                        blame("unparsable time", seconds.is_null().to_numpy())
                        read.append(seconds.fill_null(0).to_numpy())
                    yield batch, reason, read

    def read(
        self, texts: set[str], aside: Rejects, *, strict: bool
    ) -> tuple[Examples, list[RuleReport]]:
        """Return the good rows, and reports; the columns ``texts`` as text, all others as numbers.

        Raises:
            DataError: as in ``batches``, no good row, or a bad one under ``strict``.
        """
        bad, rows_in = BadRows(self.file, _REASONS, strict, aside), 0
        roles = [Grown() for _ in self._roles.columns]
        columns: dict[str, Any] = {
            name: _GrownText() if name in texts else Grown() for name in self._features
        }
        with stated(self._raw.files):
            for batch, reason, values in self.batches():
                good = reason == GOOD
                clean = bool(good.all())
                if not clean:
                    bad.add(batch, reason, rows_in)
                rows_in += len(batch)
                kept = batch if clean else batch.filter(pl.Series(good))
                for grown, value in zip(roles, values, strict=True):
                    grown.add(value if clean else value[good])
                parse = partial(_parsed, kept, texts)
                for name, column in zip(
                    self._features, in_order(parse, self._features, num_threads()), strict=True
                ):
                    columns[name].add(column)
        if not rows_in:
            raise DataError(f"{self.file} holds no row: expected rows below the header")
        reports = bad.reports(rows_in)
        label, *rest = (grown.done() for grown in roles)
        weight = rest.pop(0) if self._roles.weight is not None else None
        examples = Examples(
            {name: grown.done() for name, grown in columns.items()},
            label,  # type: ignore[arg-type]
            weight,  # type: ignore[arg-type]
            rest[0] if rest else None,  # type: ignore[arg-type]
        )
        return examples, [one._replace(rule=self._kind + one.rule) for one in reports]

    def _unknown(self, label: pl.Series) -> str:
        some = label.drop_nulls().cast(pl.String).unique(maintain_order=True).head(_SHOWN)
        words = ", ".join(map(repr, some.to_list())) or "nothing"
        if self._roles.regression:
            return (
                f"the label column {label.name!r} of {self.file} holds {words}: expected numbers "
                "for a regression"
            )
        expected = "0 and 1, yes and no, or true and false"
        if self._roles.positive is not None:
            expected = f"{self._roles.positive!r} in some row"
        return (
            f"the label column {label.name!r} of {self.file} holds {words}: expected {expected}; "
            "say which text makes a label 1 with --positive VALUE"
        )


class _GrownText:
    """Text that grows at its end."""

    def __init__(self) -> None:
        self._blob, self._length = Grown(), Grown()

    def add(self, piece: Text) -> None:
        """Append strings."""
        self._blob.add(piece.blob)
        self._length.add(np.diff(piece.offsets))

    def done(self) -> Text:
        """Return the strings."""
        offsets = np.zeros(len(length := self._length.done()) + 1, np.int64)
        np.cumsum(length, out=offsets[1:])
        return Text(self._blob.done().astype(np.uint8, copy=False), offsets)


def labels(
    column: pl.Series, positive: str | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (n,) labels of 0 or 1, which rows have none, and which have an unknown word for it."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        number = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
        missing = np.isnan(number)
        if positive is None:
            return (number == 1).astype(np.float32), missing, ~missing & ~np.isin(number, (0, 1))
        wanted = as_floats(pl.Series([_as_number_word(positive)])).fill_null(np.nan)[0]
        return (number == wanted).astype(np.float32), missing, np.zeros(len(number), bool)
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    missing = (text == "").to_numpy()
    if positive is not None:
        happened = (text == positive.strip()).to_numpy()
        return happened.astype(np.float32), missing, np.zeros(len(text), bool)
    lower = text.str.to_lowercase()
    happened, not_so = lower.is_in(_TRUE).to_numpy(), lower.is_in(_FALSE).to_numpy()
    return happened.astype(np.float32), missing, ~missing & ~happened & ~not_so


def numbers(
    column: pl.Series,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (n,) numbers, which rows have none, and which have another word for it or no end."""
    value = as_floats(column).fill_null(np.nan).to_numpy()
    text = column.cast(pl.String).fill_null("").str.strip_chars()
    missing = (text == "").to_numpy() if is_text(column.dtype) else np.isnan(value)
    unknown = ~missing & ~(np.abs(value) <= _MOST)
    return np.where(missing | unknown, 0, value).astype(np.float32), missing, unknown


def as_numbers(column: pl.Series) -> NDArray[np.float64]:
    """Return (n,) float64; NaN where there is no number, or one without end."""
    value = as_floats(column).fill_null(np.nan).to_numpy()
    endless = np.isinf(value)
    return np.where(endless, np.nan, value) if endless.any() else value


def as_text(column: pl.Series) -> Text:
    """Return strings, "" where there is none; the values of a list with bars between them."""
    if isinstance(column.dtype, pl.List | pl.Array):
        lists = column.cast(pl.List(pl.String))
        column = lists.list.join("|")
    array: Any = column.cast(pl.String).fill_null("").rechunk().to_arrow(
        compat_level=pl.CompatLevel.oldest()
    )  # fmt: skip
    _, ends, data = array.buffers()
    if not len(array):
        return Text.of([])
    offsets = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
    start, stop = int(offsets[0]), int(offsets[-1])
    blob = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[start:stop]
    return Text(blob, offsets - start)


def is_text(dtype: Any) -> bool:
    """Whether values of a Polars type are strings, or would be written as such."""
    return not (dtype.is_numeric() or dtype == pl.Boolean)


def columns_of(frame: pl.DataFrame, kinds: Mapping[str, str]) -> dict[str, Column]:
    """Return the columns of a frame that stand in ``kinds``, read as these say."""
    return {
        name: as_text(frame[name]) if kind == "text" else as_numbers(frame[name])
        for name, kind in kinds.items()
        if name in frame.columns
    }


def _parsed(frame: pl.DataFrame, texts: set[str], name: str) -> Column:
    return as_text(frame[name]) if name in texts else as_numbers(frame[name])


def _blame(reason: NDArray[np.uint8], why: str, rows: Any) -> None:
    """Note what is wrong with (n,) bool ``rows``; where it is so twice, the first is told."""
    at = np.asarray(rows)
    reason[at] = np.minimum(reason[at], _REASONS.index(why))


def _as_number_word(text: str) -> str:
    return {"true": "1", "false": "0"}.get(text.strip().lower(), text.strip())
