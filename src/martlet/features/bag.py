"""Columns of several values a row that become several rows of a table."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from martlet.core import CSR, DataError, SpecError, Text, check_counts
from martlet.features.fitted import Many, Ragged, Spec, check_missing, check_names
from martlet.features.keys import Keys, bucket_rows, gather, span_keys, text_keys
from martlet.features.pieces import Pieces, split, words
from martlet.features.source import Given, Missing, Source, as_column, as_text
from martlet.features.values import Values, frequent


class ManyValued(Spec):
    """What the specs here share: a vocabulary of pieces, or buckets for them."""

    name: str
    buckets: int | None
    min_count: int
    max_length: int | None
    missing: Missing

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_counts(self, "min_count")
        check_counts(self, *(n for n in ("buckets", "max_length") if getattr(self, n) is not None))
        check_missing(self.missing)

    @abstractmethod
    def cut(self, text: Text) -> Pieces:
        """Return the pieces of each string."""

    def fit(self, source: Source) -> FittedMany:
        """Learn the vocabulary, or how many rows there are to be given. O(bytes log n)."""
        given = source.columns[self.name]
        if isinstance(given, CSR):
            return FittedMany(self, {"given_rows": given.num_cols}, {})
        values = Text.of([])
        if self.buckets is None:
            pieces, keys = self.keyed(given)
            _, first = frequent(keys, self.min_count)
            values = gather(pieces.blob, pieces.start[first], pieces.length[first])
        stored: Any = {"values.blob": values.blob, "values.offsets": values.offsets}
        return FittedMany(self, {"given_rows": None}, stored)

    def keyed(self, given: Given) -> tuple[Pieces, Keys]:
        """Return the pieces of each row but the missing ones, and the key of each.

        Raises:
            DataError: rows of a table, or values that are no text.
        """
        if isinstance(given, CSR):
            raise DataError(f"column {self.name!r} has rows, but it was fitted on text")
        pieces = self._pieces(given)
        keys = span_keys(pieces.blob, pieces.start, pieces.length)
        known = ~np.isin(keys, text_keys(Text.of(["NaN", *map(str, self.missing)])))
        return pieces.keep(known), keys[known]

    def _pieces(self, given: Given) -> Pieces:
        """Cut text; a list of lists is cut already."""
        if isinstance(given, list) and any(isinstance(row, (list, tuple)) for row in given):
            rows = [row if isinstance(row, (list, tuple)) else [row] for row in given]
            flat = as_text(as_column(self.name, [value for row in rows for value in row]))
            indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
            length = np.diff(flat.offsets)
            return Pieces(flat.blob, flat.offsets[:-1], length, indptr).keep(length > 0)
        return self.cut(as_text(as_column(self.name, given)))


class FittedMany(Many):
    """Arrays: "values.blob" and "values.offsets", the text by row; none where rows are given."""

    spec: ManyValued

    def check(self) -> None:
        """Refuse a vocabulary that is no text or holds a value twice."""
        if "given_rows" not in self.state:
            raise self.refuse("it does not say whether rows are given")
        if self.state["given_rows"] is not None:
            self.number("given_rows", int, least=0)
            return
        blob, offsets = self.array("values.blob", np.uint8), self.array("values.offsets", np.int64)
        if not Text(blob, offsets).is_sound():
            raise self.refuse("offsets or bytes that are not those of a text")
        if not self._values.distinct:
            raise self.refuse("a value stands twice in its vocabulary")

    @cached_property
    def _values(self) -> Values:
        stored: Any = self.stored
        return Values(text_keys(Text(stored["values.blob"], stored["values.offsets"])))

    @property
    def size(self) -> int:
        """One more than its values, its buckets or the rows that are given."""
        given = self.state["given_rows"]
        if given is not None:
            return given + 1  # type: ignore[no-any-return]
        return (len(self._values) if self.spec.buckets is None else self.spec.buckets) + 1

    @property
    def vocabulary(self) -> Values | None:
        """Its values, unless they are hashed or are rows themselves."""
        hashed = self.spec.buckets is not None or self.state["given_rows"] is not None
        return None if hashed else self._values

    def apply(self, source: Source) -> Ragged:
        """Return what each row holds, in its order; a value that training never held gives 0.

        Raises:
            DataError: text where rows were given to ``fit``, or the other way round.
        """
        given = source.columns.get(self.spec.name)
        if given is None:
            return Ragged(np.zeros(source.num_rows + 1, np.int64), np.empty(0, np.int32))
        if self.state["given_rows"] is not None:
            return self._last(self._given(given))
        pieces, keys = self.spec.keyed(given)
        buckets = self.spec.buckets
        rows = self._values.rows(keys) if buckets is None else bucket_rows(keys, buckets)
        return self._last(Ragged(pieces.indptr, rows))

    def _given(self, given: Given) -> Ragged:
        if not isinstance(given, CSR):
            raise DataError(f"column {self.spec.name!r} was fitted on rows: expected a CSR of them")
        rows = given.indices.astype(np.int32)
        known = (rows >= 0) & (rows < self.state["given_rows"])
        return Ragged(given.indptr.astype(np.int64), np.where(known, rows + 1, np.int32(0)))

    def _last(self, ragged: Ragged) -> Ragged:
        """Keep the last ``max_length`` of each row."""
        return ragged if self.spec.max_length is None else ragged.last(self.spec.max_length)


@dataclass(frozen=True)
class Bag(ManyValued):
    """Several values a row whose order says nothing: genres, tags.

    Attributes:
        name: a column of text, or a CSR of rows, which become themselves plus 1.
        separator: one ASCII character between the values; spaces around them do not count.
        buckets: values are hashed into as many; None keeps a vocabulary.
        min_count: a value that occurs less often counts as unknown.
        max_length: the last so many of a row are used; None uses all.
        missing: values that count as none beside "" and "NaN".
    """

    name: str
    separator: str = "|"
    buckets: int | None = None
    min_count: int = 1
    max_length: int | None = None
    missing: Missing = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_separator(self.separator)

    def cut(self, text: Text) -> Pieces:
        """Return the pieces between separators."""
        return split(text, self.separator)


@dataclass(frozen=True)
class Sequence(ManyValued):
    """Several values a row in an order: the last events before this one.

    Attributes:
        name: a column of text, or a CSR of rows, which become themselves plus 1.
        max_length: the last so many of a row are used.
        separator: one ASCII character between the values; spaces around them do not count.
        buckets: values are hashed into as many; None keeps a vocabulary.
        min_count: a value that occurs less often counts as unknown.
        missing: values that count as none beside "" and "NaN".
    """

    name: str
    max_length: int | None = 50
    separator: str = "|"
    buckets: int | None = None
    min_count: int = 1
    missing: Missing = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_separator(self.separator)

    def cut(self, text: Text) -> Pieces:
        """Return the pieces between separators."""
        return split(text, self.separator)


@dataclass(frozen=True)
class Words(ManyValued):
    """The words of a text, hashed: titles and descriptions as a bag.

    A word is a run of letters and digits, in small letters; a Chinese, Japanese or Korean
    character is a word of its own. Word order is kept, repeats too.

    Attributes:
        name: a column of free text.
        buckets: words are hashed into as many; None keeps a vocabulary.
        min_count: a word that occurs less often counts as unknown, with a vocabulary.
        max_length: the last so many words of a text are used; None uses all.
        missing: words that count as none, such as "the".
    """

    name: str
    buckets: int | None = 10_000
    min_count: int = 1
    max_length: int | None = None
    missing: Missing = ()

    def cut(self, text: Text) -> Pieces:
        """Return the words."""
        return words(text)


def _check_separator(separator: object) -> None:
    if not isinstance(separator, str) or len(separator) != 1 or not separator.isascii():
        raise SpecError(f"separator is {separator!r}: expected one ASCII character")
