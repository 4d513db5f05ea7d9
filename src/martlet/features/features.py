"""All columns of a table as rows of one merged table and as scaled numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Array, BundleError, DataError, SpecError
from martlet.features.cross import FittedCross
from martlet.features.fitted import F32, I32, Field, Fitted, Many, Numbers, Ragged, Spec
from martlet.features.plain import of_plain, to_plain
from martlet.features.source import Given, Source

MAX_ROWS = 2**31 - 1  # rows are int32
_BLOCK = 1 << 16  # examples encoded at a time, so that memory beside the result stays bounded


@dataclass(frozen=True, eq=False)
class Encoded:
    """N examples as a network takes them.

    Attributes:
        rows: (N, F) int32 rows of the merged table, one a single-valued field.
        numbers: (N, M) float32.
        bags: one ``Ragged`` a multi-valued field, rows of the merged table too.
    """

    rows: I32
    numbers: F32
    bags: tuple[Ragged, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: NDArray[np.integer]) -> Encoded:
        """Return the given examples, in that order."""
        return Encoded(self.rows[at], self.numbers[at], tuple(bag.take(at) for bag in self.bags))


@dataclass(frozen=True, eq=False)
class Features:
    """Fitted columns, each with a range of rows of one merged table.

    The table's ranges, one after the other: the single-valued fields in the order of the plan, the
    multi-valued ones, the crossed ones. Row 0 of each range is "unknown or missing".

    Attributes:
        columns: the fitted columns in the order of the plan.
    """

    columns: tuple[Fitted, ...]

    @staticmethod
    def fit(
        plan: Sequence[Spec], columns: Mapping[str, Given], label: NDArray[Any] | None = None
    ) -> Features:
        """Learn vocabularies, ranges and quantiles from the training part, and nothing else.

        Args:
            plan: the column specs; see ``automatic`` for a guess.
            columns: a value a row each: text, numbers, a list, or a CSR for a Bag.
            label: (N,); only its length is looked at: no column is encoded by its labels.

        Raises:
            SpecError: the plan is empty, or two of its fields have one name.
            DataError: a column that is not there, or columns of different lengths or types.

        >>> columns = {"tail": ["long", "short", "long"], "wing_cm": [12.0, 30.0, 21.0]}
        >>> from martlet.features import Category, Numeric
        >>> features = Features.fit([Category("tail"), Numeric("wing_cm")], columns)
        >>> features.apply({"tail": ["short", "forked"]}).rows.tolist()
        [[2], [0]]
        """
        source = Source(columns)
        if label is not None and len(label) != source.num_rows:
            raise SpecError(f"{len(label)} labels for {source.num_rows} rows: expected as many")
        for spec in plan:
            for name in spec.uses:
                if name not in columns:
                    raise DataError(
                        f"there is no column {name!r} to fit on: expected one of "
                        f"{', '.join(map(repr, columns))}"
                    )
        # A source keeps what it computed; each spec has its own, so that memory stays that of one.
        return Features(tuple(spec.fit(Source(columns)) for spec in plan))

    def __post_init__(self) -> None:
        if not self.columns:
            raise SpecError("the plan is empty: name at least one column")
        for names in ([*self.fields, *self.bags], list(self.numbers)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise SpecError(f"the plan has {twice[0]!r} twice: name a column once a kind")
        needed = sum(one.size for one in self.columns)  # before any array, whose numbers are finite
        if needed > MAX_ROWS:
            raise SpecError(f"the fields need {needed:,} rows, more than {MAX_ROWS:,}")

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return tuple(dict.fromkeys(name for one in self.columns for name in one.spec.uses))

    @cached_property
    def _plain(self) -> list[Field]:
        return [
            one
            for one in self.columns
            if isinstance(one, Field) and not isinstance(one, FittedCross)
        ]

    @cached_property
    def _bags(self) -> list[Many]:
        return [one for one in self.columns if isinstance(one, Many)]

    @cached_property
    def _crosses(self) -> list[FittedCross]:
        return [one for one in self.columns if isinstance(one, FittedCross)]

    @cached_property
    def _numbers(self) -> list[Numbers]:
        return [one for one in self.columns if isinstance(one, Numbers)]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the F single-valued fields, the columns of ``Encoded.rows``; crosses last."""
        return tuple(one.spec.field for one in [*self._plain, *self._crosses])

    @property
    def bags(self) -> tuple[str, ...]:
        """Names of the B multi-valued fields, the order of ``Encoded.bags``."""
        return tuple(one.spec.field for one in self._bags)

    @property
    def wide_only(self) -> tuple[str, ...]:
        """Names of the crossed fields, the last of ``fields``: a weight each, no vector."""
        return tuple(one.spec.field for one in self._crosses)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the M numbers, marks of missing ones among them."""
        return tuple(name for one in self._numbers for name in one.names)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(F + B + 1,) int64, rising: where each range begins, and where the last ends.

        In the table's order: plain fields, bags, crosses.
        """
        sizes = [one.size for one in [*self._plain, *self._bags, *self._crosses]]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    @property
    def num_rows(self) -> int:
        """Rows of the merged table."""
        return int(self.offsets[-1])

    @property
    def num_vector_rows(self) -> int:
        """Rows that have a vector: all before the crosses."""
        return int(self.offsets[len(self._plain) + len(self._bags)])

    def apply(self, columns: Mapping[str, Given]) -> Encoded:
        """Encode N rows; a column that is absent counts as missing. O(bytes + N F log rows).

        Raises:
            DataError: columns of different lengths or types.
        """
        whole = Source({name: columns[name] for name in self.uses if name in columns} or columns)
        rows = np.empty((whole.num_rows, len(self.fields)), np.int32)
        numbers = np.empty((whole.num_rows, len(self.numbers)), np.float32)
        bags = []
        for begin in range(0, max(whole.num_rows, 1), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            bags.append(self._encode(whole.part(begin, begin + _BLOCK), rows[part], numbers[part]))
        return Encoded(rows, numbers, tuple(_join(one) for one in zip(*bags, strict=True)))

    def _encode(self, source: Source, rows: I32, numbers: F32) -> list[Ragged]:
        """Fill the rows and numbers of a block, and return its bags."""
        first = self.offsets.astype(np.int32)
        num_plain, num_bags = len(self._plain), len(self._bags)
        for i, one in enumerate(self._plain):
            rows[:, i] = one.apply(source) + first[i]
        for i, one in enumerate(self._crosses, num_plain):
            rows[:, i] = one.apply(source) + first[i + num_bags]
        begin = 0
        for number in self._numbers:
            end = begin + len(number.names)
            numbers[:, begin:end] = number.apply(source)
            begin = end
        bags = [many.apply(source) for many in self._bags]
        return [
            Ragged(bag.indptr, bag.rows + at)
            for bag, at in zip(bags, first[num_plain:], strict=False)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; with ``arrays`` it is all there is to store."""
        return {"columns": [to_plain(one) for one in self.columns]}

    def arrays(self) -> dict[str, Array]:
        """Return the arrays to store, each named by the place of its column."""
        return {
            f"{i}.{name}": array
            for i, one in enumerate(self.columns)
            for name, array in one.stored.items()
        }

    @staticmethod
    def from_parts(json: Mapping[str, Any], arrays: Mapping[str, Array]) -> Features:
        """Return the features that ``to_json`` and ``arrays`` came from; everything is checked.

        Raises:
            BundleError: names the part that no fitted features have.
        """
        told = json.get("columns") if isinstance(json, Mapping) else None
        if not isinstance(told, list):
            raise BundleError("the features are damaged: they list no columns")
        columns = []
        for i, one in enumerate(told):
            mine = {n.removeprefix(f"{i}."): a for n, a in arrays.items() if n.startswith(f"{i}.")}
            columns.append(of_plain(one, mine))
        try:
            return Features(tuple(columns))
        except SpecError as error:
            raise BundleError(f"the features are damaged: {error}") from error


def _join(parts: tuple[Ragged, ...]) -> Ragged:
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([[0], *(np.diff(part.indptr) for part in parts)])
    rows = np.concatenate([part.rows for part in parts])
    return Ragged(np.cumsum(lengths, dtype=np.int64), rows)
