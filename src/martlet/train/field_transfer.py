"""What a fit on fields takes over of another: rows by id and by value, a teacher's answers."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from martlet.core import Dataset, Examples, SpecError, Tabular
from martlet.features import Features
from martlet.features.fitted import Field, Fitted, Many
from martlet.scorers.bundle import Bundle
from martlet.scorers.field_rows import Layout, Side
from martlet.scorers.registry import tells_numbers

I64 = NDArray[np.int64]
_ROWS = 1 << 14  # a teacher is asked at a time


def items_in(bundle: Bundle, dataset: Dataset | Tabular) -> I64:
    """Return (num_items,) the bundle's row of each item of the dataset, by id; -1 for none."""
    if isinstance(dataset, Tabular):
        return np.empty(0, np.int64)
    return bundle.items.rows(dataset.items.names(np.arange(dataset.num_items))).astype(np.int64)


def taught(teacher: Bundle, rows: Examples, share: float, *, numbers: bool) -> NDArray[np.float32]:
    """Return (N,) labels, ``share`` of which is what a teacher tells.

    Args:
        teacher: fitted on labelled rows, of any family.
        rows: N of them, with the columns that the teacher reads.
        share: from 0 to 1.
        numbers: whether labels are numbers; else they are chances.

    Raises:
        QueryError: the teacher ranks items.
        SpecError: it tells chances where numbers are learnt, or the other way round.
    """
    teacher.check_predicts()
    if tells_numbers(teacher.scorer) != numbers:
        told, learnt = ("chances", "numbers") if numbers else ("numbers", "chances")
        raise SpecError(f"the teacher tells {told}, and {learnt} are to be learnt")
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _ROWS):
        some = rows.slice(start, min(start + _ROWS, len(rows)))
        found[start : start + _ROWS] = teacher.predict(
            {name: some.columns[name] for name in teacher.columns if name in some.columns}
        )
    return (1 - np.float32(share)) * rows.label + np.float32(share) * found


def rows_in(theirs: Layout, ours: Layout, items: I64) -> I64:
    """Return (num_rows,) the row of ``theirs`` that means the same as each of ``ours``; -1: none.

    A value of a vocabulary is found by itself. Rows of a hash, or of buckets of numbers, are those
    of the same place, where there are as many.

    Args:
        theirs: of the fit to start from.
        ours: of the fit that starts.
        items: (num_items,) their row of each of our items, -1 for none.

    Raises:
        SpecError: they read other columns, or other kinds of them.
    """
    if theirs.sides.keys() != ours.sides.keys():
        raise SpecError(f"it has the sides {', '.join(theirs.sides)}: {', '.join(ours.sides)} here")
    found = np.full(ours.num_rows, -1, np.int64)
    for name, side in ours.sides.items():
        _fill(found, side, theirs.sides[name], items)
    there, here = (None if one.pairs is None else one.pairs.features for one in (theirs, ours))
    _check_columns(there, here)
    if there is not None and here is not None:
        starts = [
            [layout.first_pair + at for at in features.offsets[:-1].tolist()]
            for layout, features in ((ours, here), (theirs, there))
        ]
        _fill_fields(found, here, there, starts)
    return found


def _fill(found: I64, ours: Side, theirs: Side, items: I64) -> None:
    """Set the rows of one side."""
    if ours.own:
        found[ours.first] = theirs.first
        own = slice(ours.first + 1, ours.first + ours.own)
        found[own] = np.where(items >= 0, theirs.first + 1 + items, -1)
    _check_columns(theirs.features, ours.features)
    if ours.features is None or theirs.features is None:
        return
    starts = [_starts(side) for side in (ours, theirs)]
    _fill_fields(found, ours.features, theirs.features, starts)


def _fill_fields(found: I64, ours: Features, theirs: Features, starts: list[list[int]]) -> None:
    """Set the rows of each field, which begin at ``starts`` of ours and of theirs."""
    for mine, other, start, origin in zip(
        _with_rows(ours), _with_rows(theirs), *starts, strict=True
    ):
        place = _places(mine, other)
        found[start : start + len(place)] = np.where(place >= 0, origin + place, -1)


def _starts(side: Side) -> list[int]:
    """Return the first row of each field: of all with a vector, then of the crossed ones."""
    features = side.features
    assert features is not None
    split = len(features.offsets) - 1 - side.num_crossed
    ends = features.offsets.tolist()
    crossed = side.first_cross - features.num_vector_rows
    return [
        at + (side.first + side.own if number < split else crossed)
        for number, at in enumerate(ends[:-1])
    ]


def _with_rows(features: Features) -> list[Fitted]:
    """Return the columns that have rows, in the order of the table."""
    by_name = {one.spec.field: one for one in features.columns if isinstance(one, Field | Many)}
    plain = [name for name in features.fields if name not in features.wide_only]
    return [by_name[name] for name in (*plain, *features.bags, *features.wide_only)]


def _places(ours: Fitted, theirs: Fitted) -> I64:
    """Return (size,) the place in ``theirs`` of each row; unknown is the first of both."""
    if type(ours.spec) is not type(theirs.spec):
        kinds = [type(one.spec).__name__ for one in (theirs, ours)]
        raise SpecError(f"field {ours.spec.field!r} is a {kinds[0]} there and a {kinds[1]} here")
    mine, other = ours.vocabulary, theirs.vocabulary
    if mine is None or other is None:
        if ours.size != theirs.size:
            raise SpecError(f"field {ours.spec.field!r} has {theirs.size} rows: {ours.size} here")
        return np.arange(ours.size)
    place = mine.places_in(other).astype(np.int64)
    return np.concatenate([[0], np.where(place > 0, place, -1)])


def _check_columns(theirs: Features | None, ours: Features | None) -> None:
    """Refuse fields or numbers that do not stand in the same order."""
    told = [[] if one is None else [*one.fields, *one.bags, *one.numbers] for one in (theirs, ours)]
    for there, here in zip_longest(*told):
        if there != here:
            raise SpecError(f"it reads {there or 'no column'!r} where {here or 'none'!r} is here")
