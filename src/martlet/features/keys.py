"""A 64-bit key for each value of a column: what vocabularies, buckets and crosses look up.

Key 0 stands for a missing value. Two texts, or two numbers, share a key by chance once in 2^64, so
a key is as good as the value; the keys are the same on every machine and in every version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Array, Text

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LENGTH = np.uint64(0xD6E8FEB86659FD93)
_FRACTION = np.uint64(0xA0761D6478BD642F)
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # n bytes of a word
_BLOCK = 8192  # spans hashed at a time, so that what is between stays in the cache


def mix(keys: Keys) -> Keys:
    """Scramble keys in place, one to one (the finalizer of SplitMix64), and return them."""
    keys ^= keys >> np.uint64(30)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    return keys


def span_keys(blob: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64]) -> Keys:
    """Return the (n,) key of each span of bytes; an empty one gives 0. O(bytes).

    A span is cut into words of 8 bytes; each is mixed with its place, and the sum with the length.
    """
    keys = np.zeros(len(start), np.uint64)
    if len(blob) < 8:
        blob = np.concatenate([blob, np.zeros(8, np.uint8)])
    blob = np.ascontiguousarray(blob)
    words: Any = np.ndarray((len(blob) - 7,), "<u8", blob, strides=(1,))  # one from every byte on
    for begin in range(0, len(start), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        used = np.flatnonzero(length[part])
        if len(used):
            keys[begin + used] = _block_keys(words, start[part][used], length[part][used])
    return keys


def _block_keys(words: Any, start: NDArray[np.int64], length: NDArray[np.int64]) -> Keys:
    """``span_keys`` of spans that are not empty."""
    count = (length + 7) >> 3
    end = np.cumsum(count)
    first, last = end - count, end - 1
    number = np.arange(end[-1])  # of a word in the block; its place in its span is less the first
    at = np.repeat(start - 8 * first, count)
    at += 8 * number
    beyond = np.flatnonzero(at[last] >= len(words))  # only a span's last word may reach too far
    over = at[last[beyond]] - (len(words) - 1)
    at[last[beyond]] -= over
    word = words[at]
    word[last[beyond]] >>= (8 * over).astype(np.uint64)
    word[last] &= _FIRST_BYTES[length - 8 * (count - 1)]
    word += np.repeat((1 - first).astype(np.uint64) * _GOLDEN, count)
    word += number.astype(np.uint64) * _GOLDEN
    keys = np.add.reduceat(mix(word), first)
    keys += length.astype(np.uint64) * _LENGTH
    return np.maximum(mix(keys), np.uint64(1))


def text_keys(text: Text) -> Keys:
    """Return the (n,) key of each string; "" gives 0. O(bytes)."""
    return span_keys(text.blob, text.offsets[:-1], np.diff(text.offsets))


def gather(blob: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64]) -> Text:
    """Return the text of some spans of bytes. O(bytes)."""
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return Text(blob[at], offsets)


def number_keys(numbers: Array) -> Keys:
    """Return the (n,) key of each number; NaN gives 0, and 94 and 94.0 give the same. O(n)."""
    values: Any = numbers
    if values.dtype.kind != "f":
        return np.maximum(mix(values.astype(np.int64).view(np.uint64) + _GOLDEN), np.uint64(1))
    values = values.astype(np.float64)
    whole = (np.floor(values) == values) & (np.abs(values) < 2.0**63)
    keys = values.view(np.uint64) ^ _FRACTION
    keys[whole] = values[whole].astype(np.int64).view(np.uint64)
    keys = np.maximum(mix(keys + _GOLDEN), np.uint64(1))
    keys[np.isnan(values)] = 0
    return keys


def cross_keys(parts: list[Keys]) -> Keys:
    """Return the (n,) key of each row of several columns in order; 0 where one is missing."""
    keys = np.full(len(parts[0]), _LENGTH, np.uint64)
    known = np.ones(len(parts[0]), bool)
    for part in parts:
        keys = mix((keys ^ part) + _GOLDEN)
        known &= part != 0
    return np.where(known, np.maximum(keys, np.uint64(1)), np.uint64(0))


def bucket_rows(keys: Keys, buckets: int) -> NDArray[np.int32]:
    """Return the (n,) row of each key, 1 to ``buckets``; 0 where it is missing. O(n)."""
    rows = (keys % np.uint64(buckets)).astype(np.int32) + np.int32(1)
    rows[keys == 0] = 0
    return rows
