"""Examples of fields, batch by batch: slices of what was encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Column, DataError, Dataset, Examples, Interactions, Tabular, Text, rng
from martlet.features import Encoded, Features, Ragged
from martlet.features.automatic import guess
from martlet.features.history import spans_before
from martlet.features.plain import spec_of_plain
from martlet.features.source import Source
from martlet.scorers.field_rows import Layout
from martlet.scorers.pairs import Pairs
from martlet.train.field_batch import Batch
from martlet.train.negatives import Negatives

if TYPE_CHECKING:
    from martlet.train.field_model import FieldModel

_IN_MEMORY_BYTES = 1 << 30  # of encoded rows; what is larger is memory-mapped
_ENCODED_ROWS = 1 << 18  # at a time into a file
_VALID_ROWS = 8192  # examples at a time
_VALID_EVENTS = 20_000  # of the validation part that are looked at


class Rows:
    """Labelled rows, encoded once: in memory, or in temporary files where there are many."""

    draws: ClassVar[bool] = False  # whether examples of label 0 are drawn: no row tells them
    unit: tuple[float, float]  # mean and spread of the labels, in which they are learnt

    def __init__(self, spec: FieldModel, data: Tabular, seed: int) -> None:
        if not len(data.train):
            raise DataError("the train part holds no row: expected at least one")
        _check_labels(spec, data)
        self.unit = _unit(data.train) if spec.loss == "squared" else (0.0, 1.0)
        self.spec, self.data, self.seed = spec, data, seed
        features = Features.fit(_plan(spec, data.train.columns), data.train.columns)
        self.layout = Layout.of({"row": features})
        self.items: Encoded | None = None
        self._parts = {"train": self._encode(data.train), "valid": self._encode(data.valid)}

    @property
    def num_examples(self) -> int:
        """Examples of an epoch."""
        return len(self.data.train)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each batch; of nearly equal sizes, so that none is tiny."""
        order = rng(self.seed, "rows", epoch).permutation(self.num_examples)
        return np.array_split(order, -(-len(order) // self.spec.batch))

    def take(self, rows: NDArray[np.int64], step: int) -> Batch:
        """Return the batch of some rows of the train part."""
        return self._batch("train", self.data.train, rows)

    def validation(self) -> Iterator[Batch]:
        """Yield the validation part."""
        size = len(self.data.valid)
        for start in range(0, size, _VALID_ROWS):
            rows = np.arange(start, min(start + _VALID_ROWS, size))
            yield self._batch("valid", self.data.valid, rows)

    def describe(self, rows: NDArray[np.int64]) -> str:
        """Return which rows of the data a batch holds."""
        return f"rows {_said(rows + 1)} of the train part"

    def _encode(self, examples: Examples) -> Encoded:
        side, size = self.layout.sides["row"], len(examples)
        width = side.num_vectors - side.num_bags + side.num_crossed, side.num_numbers
        if 4 * size * sum(width) <= _IN_MEMORY_BYTES:
            return side.encode(examples.columns, size)
        rows, numbers = _room(size, width[0], np.int32), _room(size, width[1], np.float32)
        whole, bags = Source(examples.columns), list[list[Ragged]]()
        for start in range(0, size, _ENCODED_ROWS):
            stop = min(start + _ENCODED_ROWS, size)
            found = side.encode(whole.part(start, stop).columns, stop - start)
            rows[start:stop], numbers[start:stop] = found.rows, found.numbers
            bags.append(list(found.bags))
        return Encoded(rows, numbers, tuple(map(_stacked, zip(*bags, strict=True))))

    def _batch(self, name: str, examples: Examples, rows: NDArray[np.int64]) -> Batch:
        weight = None if examples.weight is None else examples.weight[rows]
        part = self.layout.sides["row"], self._parts[name].take(rows), 1
        mean, spread = map(np.float32, self.unit)
        label = examples.label[rows]
        return Batch.of([part], label if self.unit == (0, 1) else (label - mean) / spread, weight)


class Events:
    """Events beside items drawn evenly that the user never met; users are known by what was before.

    An event's history holds what the user met earlier in the train part, nothing of its own moment
    or after it. The examples of an event, itself first, share the user's side.
    """

    draws: ClassVar[bool] = True
    unit = (0.0, 1.0)

    def __init__(self, spec: FieldModel, data: Dataset, seed: int) -> None:
        if not len(data.train):
            raise DataError("the train part holds no event: expected at least one")
        self.spec, self.data, self.seed = spec, data, seed
        met = data.train.item_count > 0
        seen = np.bincount(data.train.user_row, minlength=data.num_users) > 0
        self.layout = Layout.of(
            {
                "item": _fitted(spec, data.catalogue, met),
                "user": _fitted(spec, data.user_table, seen),
            },
            data.num_items,
            _fitted_pairs(spec, data),
        )
        self._user_keys = None
        if self.layout.pairs is not None:
            self._user_keys = self.layout.pairs.user_keys(data.user_table, data.num_users)
        item, user = self.layout.sides["item"], self.layout.sides["user"]
        everything = item.encode(data.catalogue, data.num_items)
        self.items = item.with_item(everything, np.arange(data.num_items))
        self._users = user.encode(data.user_table, data.num_users)
        self._drawn = Negatives(data.train.item_count, 0.0, seed)
        self._met = _keys(data.train, data.num_items)
        self._before = spans_before(data.train)[1]

    @property
    def num_examples(self) -> int:
        """Examples of an epoch, drawn ones among them."""
        return len(self.data.train) * (1 + self.spec.negatives)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the events of each batch; with what is drawn they fill it."""
        order = rng(self.seed, "events", epoch).permutation(len(self.data.train))
        size = max(1, self.spec.batch // (1 + self.spec.negatives))
        return np.array_split(order, -(-len(order) // size))

    def take(self, events: NDArray[np.int64], step: int) -> Batch:
        """Return the batch of some events of the train part."""
        return self._batch(self.data.train, events, self._before[events], step)

    def validation(self) -> Iterator[Batch]:
        """Yield the validation part, or an even share of a large one."""
        valid, known = self.data.valid, self.data.train.histories
        events = np.flatnonzero(known.lengths[valid.user_row] > 0)
        events = events[:: -(-len(events) // _VALID_EVENTS) or 1]
        for step, some in enumerate(np.array_split(events, -(-len(events) // 1024) or 1), 1):
            if len(some):
                yield self._batch(valid, some, known.indptr[valid.user_row[some] + 1], -step)

    def describe(self, events: NDArray[np.int64]) -> str:
        """Return whose events a batch holds."""
        users = np.unique(self.data.train.user_row[events])
        names = ", ".join(self.data.users.names(users[:3]))
        return f"events of users {names}" + (" ..." if len(users) > 3 else "")

    def _batch(
        self, part: Interactions, events: NDArray[Any], before: NDArray[np.int64], step: int
    ) -> Batch:
        """Return the batch of some events; ``before``: where in the log each history ends."""
        sides, spec, known = self.layout.sides, self.spec, self.data.train.histories
        user, item = part.user_row[events], part.item_row[events]
        drawn = self._drawn.draw((len(user), spec.negatives), step)
        items = np.column_stack([item, drawn])
        key = user[:, None].astype(np.int64) * self.data.num_items + drawn
        at = np.minimum(np.searchsorted(self._met, key), len(self._met) - 1)
        label = np.zeros(items.shape, np.float32)
        label[:, 0] = 1
        weight = np.ones(items.shape, np.float32)
        if spec.odds:
            weight[:, 0] = part.weight[events]
        elif spec.weighted:
            weight *= part.weight[events][:, None]
        weight[:, 1:] *= (self._met[at] != key) & (drawn != item[:, None])
        length = np.minimum(before - known.indptr[user], spec.max_length)
        indptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        place = np.arange(indptr[-1]) + np.repeat(before - indptr[1:], length)
        history = CSR(indptr, known.indices[place], None, known.num_cols)
        users = sides["user"].with_history(self._users.take(user), history)
        parts = [
            (sides["item"], self.items.take(items.reshape(-1)), 1),
            (sides["user"], users, items.shape[1]),
        ]
        crossed, pairs = None, self.layout.pairs
        if pairs is not None and self._user_keys is not None:
            keys = np.repeat(self._user_keys[user], items.shape[1], 0)
            crossed = pairs.rows(items.reshape(-1), keys) + np.int32(self.layout.first_pair)
        return Batch.of(parts, label.reshape(-1), weight.reshape(-1), crossed)


def _unit(rows: Examples) -> tuple[float, float]:
    """Return the mean of the labels and their standard deviation; 1 where they are all alike."""
    label = rows.label.astype(np.float64)
    return float(label.mean()), float(label.std()) or 1.0


def _check_labels(spec: FieldModel, data: Tabular) -> None:
    """Refuse labels that are no chances where such are learnt, and rows that tell no odds.

    Raises:
        DataError: the first that is wrong.
    """
    if spec.odds:
        _check_seconds(data.train)
    for part in (data.train, data.valid):
        wrong = (part.label < 0) | (part.label > 1)
        if spec.loss == "logistic" and wrong.any():
            raise DataError(
                f"a label is {part.label[wrong][0]:g}, and the logistic loss learns chances from "
                "0 to 1: set loss=squared to learn numbers"
            )


def _check_seconds(rows: Examples) -> None:
    """Refuse rows without weights, or with labels other than 0 and 1."""
    if rows.weight is None:
        raise DataError(
            "the rows have no weights: expected what each is worth (such as seconds) where the "
            "label is 1, and 1 where it is 0"
        )
    if not np.isin(rows.label, (0, 1)).all():
        raise DataError("a label is neither 0 nor 1: expected 1 where a row ended well")


def _plan(spec: FieldModel, columns: Any) -> Sequence[Any]:
    """Return the specs that are given, of columns that are there; else those of a guess."""
    if spec.columns is None:
        return [one.spec for one in guess(columns).values() if one.spec is not None]
    given = [spec_of_plain(one) for one in spec.columns]
    return [one for one in given if set(one.uses) <= columns.keys()]


def _fitted(spec: FieldModel, table: Any, known: NDArray[np.bool_]) -> Features | None:
    """Return the features of a table of items or users, fitted on those of the train part."""
    rows = np.flatnonzero(known)
    seen: dict[str, Column] = {
        name: column.take(rows) if isinstance(column, Text) else column[rows]
        for name, column in table.items()
    }
    plan = _plan(spec, seen) if seen else ()
    return Features.fit(plan, seen) if plan else None


def _fitted_pairs(spec: FieldModel, data: Dataset) -> Pairs | None:
    """Return the crosses of columns of both tables, fitted on the events of the train part."""
    tables = data.user_table, data.catalogue
    plan = [
        one
        for one in map(spec_of_plain, spec.columns or ())
        if set(one.uses) <= tables[0].keys() | tables[1].keys()
        and not any(set(one.uses) <= table.keys() for table in tables)
    ]
    if not plan:
        return None
    rows = data.train.user_row, data.train.item_row
    joined: dict[str, Column] = {}
    for table, at in zip(tables, rows, strict=True):
        for name in {name for one in plan for name in one.uses} & table.keys():
            column = table[name]
            joined[name] = column.take(at) if isinstance(column, Text) else column[at]
    return Pairs.of(Features.fit(plan, joined), data.catalogue, data.num_items)


def _keys(train: Interactions, num_items: int) -> NDArray[np.int64]:
    """Return user and item of every event as one number, rising."""
    return np.unique(train.user_row.astype(np.int64) * num_items + train.item_row)


def _room(size: int, width: int, dtype: Any) -> NDArray[Any]:
    """Return a (size, width) array in a file without a name, which ends with it."""
    if not width:
        return np.empty((size, 0), dtype)
    with TemporaryFile(prefix="martlet-") as file:
        return np.memmap(file, dtype, "w+", shape=(size, width))


def _stacked(parts: Sequence[Ragged]) -> Ragged:
    """Return the examples of all parts, one part after another."""
    ends = np.cumsum([0] + [len(part.rows) for part in parts])
    starts = [part.indptr[:-1] + end for part, end in zip(parts, ends, strict=False)]
    return Ragged(
        np.concatenate([*starts, ends[-1:]]).astype(np.int64),
        np.concatenate([part.rows for part in parts]),
    )


def _said(rows: NDArray[np.int64]) -> str:
    return ", ".join(map(str, rows[:3].tolist())) + (" ..." if len(rows) > 3 else "")
