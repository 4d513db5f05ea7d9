"""From times as they are written to Unix seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from martlet.data.reading import TimeUnit

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = "%Y%m%d"
_DAYS = r"^\s*(19[7-9]\d|20\d\d|2100)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\s*$"
_LOOKED_AT = 1000
_TRIED = 50
_MOST = 0.9  # of seconds in the same range, one in 27 looks like a day


def _forms() -> Iterator[str]:
    """Yield the forms of ISO 8601 and its kin, the usual ones first."""
    for zone in ("", "%#z", " UTC", " %#z"):  # %#z: Z, +02, +0200, +02:00
        for parting in ("T", " "):
            for time in ("%H:%M:%S%.f", "%H:%M"):
                yield f"%Y-%m-%d{parting}{time}{zone}"
    yield "%Y-%m-%d"


_ISO = tuple(_forms())


class Times:
    """Reads a column of times, a batch after the other.

    By themselves, numbers are seconds below 1e11 (the year 5138), milliseconds below 1e14,
    microseconds below 1e17, else nanoseconds; what is no number is ISO 8601 or its like
    (``2020-09-13 12:26:40.5+02``), UTC without a zone. Where nearly all numbers that come first
    look like days such as 20200913, from 1970 to 2100, all are read as days.
    """

    def __init__(self, unit: TimeUnit) -> None:
        self._unit = unit
        self._are_days: bool | None = None if unit in ("auto", "iso") else False

    def seconds(self, column: pl.Series) -> pl.Series:
        """Return int64 Unix seconds; what is no time is null."""
        if column.dtype in (pl.Datetime, pl.Date):
            return column.cast(pl.Datetime("us")).dt.epoch("s")
        if self._are_days is None:
            self._are_days = _are_days(column)
        if self._are_days or self._unit == "iso":
            text = column.cast(pl.String, strict=False).str.strip_chars()
            nothing = pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
            return _from_text(text, (_DAY, *_ISO) if self._are_days else _ISO, nothing)
        if column.dtype.is_integer():
            return self._whole(column.cast(pl.Int64, strict=False))
        if column.dtype != pl.String:
            return self._whole(as_floats(column))
        # Digits are read as integers: a float has 53 bits, and nanoseconds need 61.
        digits = column.cast(pl.Int64, strict=False)
        if digits.null_count():
            column = column.str.strip_chars()
            digits = column.cast(pl.Int64, strict=False)
        seconds = self._whole(digits)
        if seconds.null_count():
            others = self._whole(as_floats(column))
            seconds = seconds.zip_with(seconds.is_not_null(), others)
        return _from_text(column, _ISO, seconds)

    def _whole(self, number: pl.Series) -> pl.Series:
        frame = pl.DataFrame({"t": number})
        parts: Any = _PER_SECOND.get(self._unit, 1)
        size = pl.col("t").cast(pl.Float64).abs()
        # Where none is large, as in most logs, no time is scaled.
        if self._unit == "auto" and (frame.select(size.max()).item() or 0) >= 1e11:
            parts = pl.when(size < 1e11).then(1).when(size < 1e14).then(10**3)
            parts = parts.when(size < 1e17).then(10**6).otherwise(10**9)
        elif parts == 1 and number.dtype == pl.Int64:
            return number
        return frame.select((pl.col("t") // parts).cast(pl.Int64, strict=False))["t"]


def as_floats(column: pl.Series, dtype: Any = pl.Float64) -> pl.Series:
    """Return a column as floats; what is no number becomes null."""
    number = column.cast(dtype, strict=False)
    if column.dtype == pl.String and number.null_count() > column.null_count():
        number = column.str.strip_chars().cast(dtype, strict=False)
    return number


def _are_days(column: pl.Series) -> bool | None:
    """Tell whether the numbers of a column are days; None where there is none among the first."""
    if column.dtype != pl.String and not column.dtype.is_integer():
        return False
    text = column.drop_nulls().head(_LOOKED_AT).cast(pl.String)
    numbers = text.filter(text.str.contains(r"^\s*\d+\s*$"))
    # The least share, for one that is no day is a bad row and turns no others into seconds.
    return int(numbers.str.contains(_DAYS).sum()) >= _MOST * len(numbers) if len(numbers) else None


def _from_text(text: pl.Series, forms: tuple[str, ...], seconds: pl.Series) -> pl.Series:
    """Return the seconds with times in the place of nulls, where the text there has a form."""
    left = (seconds.is_null() & text.is_not_null()).arg_true()
    if len(left):
        some = text.gather(left.head(_TRIED))
        # A log is mostly written in one form; each other that is tried before it takes as long.
        forms = tuple(sorted(forms, key=lambda form: _read(some, form).null_count()))
    for form in forms:
        if not len(left):
            break
        found = _read(text.gather(left), form)
        seconds = seconds.scatter(left, found)
        left = left.filter(found.is_null())
    return seconds


def _read(text: pl.Series, form: str) -> pl.Series:
    return text.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s")
