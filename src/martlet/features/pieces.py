"""Text cut into several pieces a row: by a separator, or into words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from martlet.core import Text

_SPACE = ord(" ")
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
_LETTER = np.zeros(256, bool)
for _first, _last in (("0", "9"), ("A", "Z"), ("a", "z")):
    _LETTER[ord(_first) : ord(_last) + 1] = True
_LETTER[0x80:] = True  # any letter beyond ASCII


@dataclass(frozen=True, eq=False)
class Pieces:
    """Spans of a block of UTF-8, several a row.

    Attributes:
        blob: (bytes,) uint8.
        start: (nnz,) int64 first byte of each piece.
        length: (nnz,) int64 bytes of each, above 0.
        indptr: (n + 1,) int64; row i has pieces ``indptr[i]:indptr[i + 1]``.
    """

    blob: NDArray[np.uint8]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    indptr: NDArray[np.int64]

    def keep(self, mask: NDArray[np.bool_]) -> Pieces:
        """Return the pieces that a (nnz,) mask keeps."""
        before = np.concatenate([[0], np.cumsum(mask)]).astype(np.int64)
        return Pieces(self.blob, self.start[mask], self.length[mask], before[self.indptr])


def split(text: Text, separator: str) -> Pieces:
    """Cut each string at a separator of one byte; spaces around a piece, and empty ones, go.

    O(bytes), no Python a value.

    >>> pieces = split(Text.of(["wren | swift", "", "|lark"]), "|")
    >>> pieces.indptr.tolist(), pieces.length.tolist()
    ([0, 2, 2, 3], [4, 5, 4])
    """
    blob, offsets = text.blob, text.offsets
    cuts = np.flatnonzero(blob == ord(separator))
    cuts = cuts[(cuts >= offsets[0]) & (cuts < offsets[-1])]
    indptr = np.searchsorted(cuts, offsets).astype(np.int64) + np.arange(len(offsets))
    opens, closes = np.zeros((2, indptr[-1]), bool)
    opens[indptr[:-1]] = True
    closes[indptr[1:] - 1] = True
    start, end = np.empty((2, len(opens)), np.int64)
    start[opens], start[~opens] = offsets[:-1], cuts + 1
    end[closes], end[~closes] = offsets[1:], cuts
    solid = np.flatnonzero(blob != _SPACE)
    if len(solid) < len(blob):
        start = np.append(solid, len(blob))[np.searchsorted(solid, start)]
        end = np.append(solid + 1, 0)[np.searchsorted(solid, end) - 1]
    return Pieces(blob, start, end - start, indptr).keep(end > start)


def words(text: Text) -> Pieces:
    """Cut each string into words in small letters (of ASCII); O(bytes).

    A word is a run of digits and letters, any letter beyond ASCII among them. A character of the
    scripts that put no spaces between words (Chinese, Japanese, Korean) is a word of its own.

    >>> words(Text.of(["Wren, the 2nd", "雨燕"])).indptr.tolist()
    [0, 3, 5]
    """
    offsets = text.offsets
    blob = np.ascontiguousarray(text.blob[offsets[0] : offsets[-1]])
    offsets = offsets - offsets[0]
    kind = _LETTER[blob].astype(np.uint8)  # 0 between words, 1 in a word, 2 a word of its own
    lead = np.empty(0, np.int64)
    if len(blob) and blob.max() >= 0x80:
        # In UTF-8 those scripts are three bytes, the first 0xE3 to 0xED.
        lead = np.flatnonzero((blob >= 0xE3) & (blob <= 0xED))
        _paint(kind, lead, 3, 2)
        _paint(kind, *_marks(blob))
    cut = np.ones(len(blob) + 1, bool)
    cut[1:-1] = kind[1:] != kind[:-1]
    cut[lead] = True
    cut[offsets] = True
    edges = np.flatnonzero(cut)
    start, end = edges[:-1], edges[1:]
    indptr = np.searchsorted(start, offsets).astype(np.int64)
    return Pieces(_LOWER[blob], start, end - start, indptr).keep(kind[start] > 0)


def _marks(blob: NDArray[np.uint8]) -> tuple[NDArray[np.int64], int, int]:
    """Return where quotes, dashes and full-width punctuation beyond ASCII begin, each 3 bytes."""
    second, third = np.append(blob[1:], 0), np.append(blob[2:], [0, 0])[: len(blob)]
    mark = ((blob == 0xE2) | (blob == 0xE3)) & (second == 0x80)  # U+2000 to 203F, 3000 to 303F
    digits = (third >= 0x90) & (third < 0x9A) | (third >= 0xA0)
    mark |= (blob == 0xEF) & (second == 0xBC) & ~digits  # U+FF00 to FF1F but its digits
    return np.flatnonzero(mark), 3, 0


def _paint(kind: NDArray[np.uint8], first: NDArray[np.int64], width: int, value: int) -> None:
    for byte in range(width):
        kind[np.minimum(first + byte, len(kind) - 1)] = value
