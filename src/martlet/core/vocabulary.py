"""The two-way map between outside ids (text) and dense rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from martlet.core.columns import Array, Text
from martlet.core.errors import DataError, QueryError


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Ids by row, and rows by id through a sorted table of 64-bit hashes.

    Everything is an array, so a vocabulary is memory-mapped and shared by all workers. An integer
    id is the text of its digits.

    Attributes:
        ids: (n,) text, the id of each row.
        sorted_hash: (n,) uint64, the hashes of the ids in rising order.
        sorted_row: (n,) int32, the row that each hash belongs to.
    """

    ids: Text
    sorted_hash: NDArray[np.uint64]
    sorted_row: NDArray[np.int32]

    @staticmethod
    def of(ids: Iterable[str | int]) -> Vocabulary:
        """Build from distinct ids, row by row.

        Raises:
            DataError: an id occurs twice, or is no UTF-8 text.

        >>> Vocabulary.of(["u1", "u2"]).rows(["u2", "nobody"]).tolist()
        [1, -1]
        """
        names = [str(name) for name in ids]
        text, hashes = Text.of(names), _hash(names)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        vocabulary = Vocabulary(text, hashes[order], order)
        if len(set(names)) != len(names):
            seen: set[str] = set()
            twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise DataError(f"the id {twice!r} occurs twice: a vocabulary needs distinct ids")
        return vocabulary

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the ids in their order: two vocabularies agree on every row or differ here."""
        digest = hashlib.sha256(np.ascontiguousarray(self.ids.offsets).tobytes())
        digest.update(np.ascontiguousarray(self.ids.blob).tobytes())
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.ids.nbytes + self.sorted_hash.nbytes + self.sorted_row.nbytes

    def rows(self, ids: Sequence[str | int]) -> NDArray[np.int32]:
        """Return the (n,) int32 rows of ``ids``; an unknown id gives -1. O(n log size).

        Raises:
            QueryError: an id that is no UTF-8 text, as no id of a vocabulary is.
        """
        names = [str(name) for name in ids]
        try:
            hashes = _hash(names)
        except UnicodeEncodeError as error:
            raise QueryError(
                f"the id {error.object!r} is no UTF-8 text, as every id must be"
            ) from error
        found = np.full(len(names), -1, np.int32)
        for i, at in enumerate(np.searchsorted(self.sorted_hash, hashes).tolist()):
            # Two ids may share a hash, so the text itself decides.
            while at < len(self) and self.sorted_hash[at] == hashes[i]:
                row = int(self.sorted_row[at])
                if self.ids[row] == names[i]:
                    found[i] = row
                    break
                at += 1
        return found

    def row(self, one: str | int) -> int:
        """Return the row of one id, or -1."""
        return int(self.rows([one])[0])

    def names(self, rows: NDArray[np.integer] | Sequence[int]) -> list[str]:
        """Return the ids of ``rows``."""
        return [self.ids[row] for row in np.asarray(rows).tolist()]

    def arrays(self) -> dict[str, Array]:
        """Return the arrays to store."""
        return {
            "ids.blob": self.ids.blob,
            "ids.offsets": self.ids.offsets,
            "sorted_hash": self.sorted_hash,
            "sorted_row": self.sorted_row,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, Array]) -> Vocabulary:
        """Return the vocabulary that ``arrays`` made the arrays from."""
        text = Text(arrays["ids.blob"], arrays["ids.offsets"])  # type: ignore[arg-type]
        return Vocabulary(text, arrays["sorted_hash"], arrays["sorted_row"])  # type: ignore[arg-type]


def _hash(names: Sequence[str]) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, "<u8").astype(np.uint64)
