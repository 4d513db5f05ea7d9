"""What two items have in common, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from martlet.core import Column, Text

WORD = r"\w+"
_MOST = 4
_SHORT = 4  # plain words below this many letters ("the", "of") tell nobody anything


def shared_words(
    catalogue: Mapping[str, Column], columns: Sequence[str], one: int, other: int
) -> list[str]:
    """Return some words that stand in the same text column of two items, in the first's order.

    >>> texts = {"genre": Text.of(["Crime|Drama", "drama, film noir", "war"])}
    >>> shared_words(texts, ["genre"], 0, 1)
    ['drama']
    """
    found: dict[str, None] = {}
    for name in columns:
        column = catalogue.get(name)
        if isinstance(column, Text):
            there = set(words(column[other]))
            found |= dict.fromkeys(word for word in words(column[one]) if word in there)
    return [word for word in found if len(word) >= _SHORT or not word.isascii()][:_MOST]


def words(text: str) -> list[str]:
    """Return the words of a text in small letters, in order."""
    return re.findall(WORD, text.lower())
