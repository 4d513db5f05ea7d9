"""A first guess at what each column is, from its type and its counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from martlet.core import CSR, DataError, Text
from martlet.features.bag import Bag, Words
from martlet.features.category import Category, Hashed
from martlet.features.fitted import Spec
from martlet.features.keys import span_keys, text_keys
from martlet.features.numeric import Numeric
from martlet.features.pieces import split, words
from martlet.features.source import Given, Source, as_column
from martlet.features.vector import Vector

FEW = 64  # distinct whole numbers up to which they are a category
OFTEN = 10  # how often each such number occurs at least, on average
MANY = 100_000  # distinct values above which they are hashed
OWN = 0.95  # distinct values a known one, above which a column is an id
SKEWED = 2.0  # third standardised moment above which a number is taken by its logarithm
SEPARATORS = "|;,"
_SAMPLE = 20_000  # rows looked at for separators and words
_ID_ENDINGS = ("_id", "_code", "_row", "_zip")


class Guess(NamedTuple):
    """What a column was taken for.

    Attributes:
        spec: how it is encoded; None leaves it out.
        why: what was seen of it.
    """

    spec: Spec | None
    why: str


def automatic(columns: Mapping[str, Given]) -> tuple[Spec, ...]:
    """Return a spec for each column that is worth one; ``guess`` tells why, and what is left out.

    Raises:
        DataError: columns of different lengths, or none that is worth a spec.

    >>> columns = {"tail": ["long", "short"] * 50, "wing_cm": [n / 7 for n in range(100)]}
    >>> [type(spec).__name__ for spec in automatic(columns)]
    ['Category', 'Numeric']
    """
    guesses = guess(columns)
    plan = tuple(one.spec for one in guesses.values() if one.spec is not None)
    if not plan:
        told = "; ".join(f"{name}: {one.why}" for name, one in guesses.items()) or "there are none"
        raise DataError(f"no column can be learnt from ({told}): name the specs by hand")
    return plan


def guess(columns: Mapping[str, Given]) -> dict[str, Guess]:
    """Return what each column was taken for. O(n log n) a column.

    Raises:
        DataError: columns of different lengths, or values that no column holds.
    """
    lengths = Source(columns).num_rows
    return {name: _guess(name, given, lengths) for name, given in columns.items()}


def _guess(name: str, given: Given, num_rows: int) -> Guess:
    if isinstance(given, CSR):
        return Guess(Bag(name), "several rows each")
    if isinstance(given, np.ndarray) and given.ndim == 2:
        return Guess(Vector(name), f"vectors of {given.shape[1]} numbers")
    if isinstance(given, list) and any(isinstance(row, (list, tuple)) for row in given):
        return Guess(Bag(name), "several values each")
    column = as_column(name, given)
    source = Source({name: column})
    text = isinstance(column, Text)
    keys, counts = np.unique(source.keys(name, text), return_counts=True)
    missing = int(counts[0]) if len(keys) and keys[0] == 0 else 0
    known, distinct = num_rows - missing, len(keys) - (missing > 0)
    if distinct == 0:
        return Guess(None, "it holds nothing")
    if len(keys) == 1:
        return Guess(None, "it holds one value only")
    seen = f"{distinct:,} distinct values in {known:,}"
    if isinstance(column, Text):
        numbers = source.numbers(name)
        if int(np.isfinite(numbers).sum()) < known:
            return _of_text(name, column, known, distinct, seen)
    return _of_numbers(name, source, known, distinct, seen)


def _of_text(name: str, text: Text, known: int, distinct: int, seen: str) -> Guess:
    some = text if len(text) <= _SAMPLE else Source({name: text}).part(0, _SAMPLE).columns[name]
    assert isinstance(some, Text)
    separator = _separator(some)
    if separator is not None:
        return Guess(Bag(name, separator=separator), f"several values each, cut at {separator!r}")
    full = max(int((np.diff(some.offsets) > 0).sum()), 1)
    if distinct > known / 2 and words(some).indptr[-1] > 3 * full:
        return Guess(Words(name), f"free text, {seen}")
    return _by_count(name, known, distinct, seen)


def _of_numbers(name: str, source: Source, known: int, distinct: int, seen: str) -> Guess:
    values = source.numbers(name)
    values = values[~np.isnan(values)]
    if not len(values):
        return Guess(None, "it holds no finite number")
    whole = bool((values == np.floor(values)).all())
    if whole and (name.lower() == "id" or name.lower().endswith(_ID_ENDINGS)):
        return _by_count(name, known, distinct, seen)
    if whole and _are_ids(known, distinct):
        return Guess(None, f"an id, {seen}")
    if distinct <= 2 or (whole and distinct <= FEW and known >= OFTEN * distinct):
        return Guess(Category(name, min_count=_least(distinct)), f"few numbers, {seen}")
    spread = values / max(float(np.abs(values).max()), 1e-300)
    deviation = float(spread.std())
    skew = float((((spread - spread.mean()) / deviation) ** 3).mean()) if deviation else 0.0
    scale: Any = "log" if abs(skew) > SKEWED else "standard"
    return Guess(Numeric(name, scale=scale), f"numbers, {seen}")


def _by_count(name: str, known: int, distinct: int, seen: str) -> Guess:
    if _are_ids(known, distinct):
        return Guess(None, f"an id, {seen}")
    if distinct > MANY:
        buckets = 1 << int(np.ceil(np.log2(distinct)))
        return Guess(Hashed(name, buckets=buckets), f"too many for a vocabulary, {seen}")
    return Guess(Category(name, min_count=_least(distinct)), f"a vocabulary, {seen}")


def _least(distinct: int) -> int:
    """Return how often a value must occur: what occurs once among many teaches nothing."""
    return 1 if distinct <= FEW else 2


def _are_ids(known: int, distinct: int) -> bool:
    return known >= OFTEN and distinct > OWN * known


def _separator(text: Text) -> str | None:
    """Return the character that cuts text into pieces that come again and again."""
    keys = text_keys(text)
    whole = len(np.unique(keys[keys != 0]))
    for separator in SEPARATORS:
        pieces = split(text, separator)
        lengths = np.diff(pieces.indptr)
        if (lengths > 1).sum() < 0.1 * (lengths > 0).sum():
            continue
        distinct = len(np.unique(span_keys(pieces.blob, pieces.start, pieces.length)))
        if distinct < whole and len(pieces.start) >= 4 * distinct:
            return separator
    return None
