"""What a column is once it is fitted, and the checks on what a file says of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, SpecError
from martlet.features.source import Missing, Source
from martlet.features.values import Values

State = Mapping[str, Any]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


class Ragged(NamedTuple):
    """Several rows of the merged table for each of N examples.

    Attributes:
        indptr: (N + 1,) int64; example i has ``rows[indptr[i]:indptr[i + 1]]``.
        rows: (nnz,) int32.
    """

    indptr: NDArray[np.int64]
    rows: I32

    def take(self, at: NDArray[np.integer]) -> Ragged:
        """Return the given examples, in that order."""
        taken = CSR(self.indptr, self.rows, None, 0).take(at)
        return Ragged(taken.indptr, taken.indices)

    def last(self, length: int) -> Ragged:
        """Return the last ``length`` rows of each example."""
        lengths = np.diff(self.indptr)
        kept = np.minimum(lengths, min(length, len(self.rows)))
        if (kept == lengths).all():
            return self
        indptr = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        at = np.arange(indptr[-1]) + np.repeat(self.indptr[1:] - indptr[1:], kept)
        return Ragged(indptr, self.rows[at])


class Spec(ABC):
    """Which column, and how it becomes numbers or rows of a table; a frozen dataclass."""

    name: Any

    @abstractmethod
    def fit(self, source: Source) -> Fitted:
        """Learn the rest from the training part.

        Raises:
            DataError: the column cannot be read as the spec says.
        """

    @property
    def uses(self) -> tuple[str, ...]:
        """The columns it reads."""
        return (self.name,)

    @property
    def field(self) -> str:
        """What the field, or the number, is called."""
        return self.name  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Fitted(ABC):
    """A fitted column: its spec, and plain JSON and arrays that are all it needs.

    Attributes:
        spec: what it was fitted from.
        state: numbers and flags, plain JSON.
        stored: arrays by name.
    """

    spec: Any
    state: State
    stored: Mapping[str, Array]

    def __post_init__(self) -> None:
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Refuse a state that no ``fit`` leaves.

        Raises:
            BundleError: names what is wrong.
        """

    @property
    def size(self) -> int:
        """Rows that its field takes of the merged table; 0 for numbers."""
        return 0

    @property
    def vocabulary(self) -> Values | None:
        """The values of rows 1, 2, ...; None for numbers, and where rows stand for no one value."""
        return None

    def refuse(self, what: str) -> BundleError:
        """Return the error that says what of this column is damaged."""
        return BundleError(
            f"the features of column {self.spec.field!r} are damaged ({what}): copy the bundle "
            "again from where it was made"
        )

    def array(self, name: str, dtype: Any, length: int | None = None) -> Any:
        """Return a stored array of one dimension, checked.

        Raises:
            BundleError: it is missing, or of another dtype, shape or length.
        """
        array = self.stored.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
            raise self.refuse(f"{name} is no column of {np.dtype(dtype).name}")
        if length is not None and len(array) != length:
            raise self.refuse(f"{name} has {len(array)} values, expected {length}")
        return array

    def number(self, name: str, kind: Any, least: float | None = None) -> Any:
        """Return a value of the state, checked.

        Raises:
            BundleError: it is missing, of another type, not finite or below ``least``.
        """
        value: Any = self.state.get(name)
        if type(value) is not kind or (kind is float and not np.isfinite(value)):
            raise self.refuse(f"{name} is {value!r}, expected a {kind.__name__}")
        if least is not None and value < least:
            raise self.refuse(f"{name} is {value!r}, expected {least} or more")
        return value


def check_names(spec: Any, *names: str) -> None:
    """Refuse attributes that are no text, or empty.

    Raises:
        SpecError: the first that is none.
    """
    for name in names:
        value = getattr(spec, name)
        if not isinstance(value, str) or not value:
            raise SpecError(f"{name} is {value!r}: expected the name of a column")


def check_missing(missing: Missing) -> None:
    """Refuse a list of missing values that holds anything but text and numbers.

    Raises:
        SpecError: it does.
    """
    if not isinstance(missing, tuple) or not all(
        isinstance(value, (str, int, float)) and not isinstance(value, bool) for value in missing
    ):
        raise SpecError(f"missing is {missing!r}: expected a tuple of texts and numbers")


def check_choice(spec: Any, name: str, choices: tuple[str, ...]) -> None:
    """Refuse an attribute that is none of some words.

    Raises:
        SpecError: it is none of them.
    """
    if getattr(spec, name) not in choices:
        raise SpecError(f"{name} is {getattr(spec, name)!r}: expected one of {', '.join(choices)}")


class Numbers(Fitted):
    """A fitted column that gives numbers."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What each of its numbers is called."""

    @abstractmethod
    def apply(self, source: Source) -> F32:
        """Return (N, len(names)) float32."""


class Field(Fitted):
    """A fitted column that gives one row of its own range for each example."""

    @abstractmethod
    def apply(self, source: Source) -> I32:
        """Return (N,) int32 rows, 0 to ``size - 1``; 0 is unknown or missing."""


class Many(Fitted):
    """A fitted column that gives any number of rows of its own range for each example."""

    @abstractmethod
    def apply(self, source: Source) -> Ragged:
        """Return rows, each 0 to ``size - 1``; 0 is unknown."""
