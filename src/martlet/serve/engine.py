"""From a question to an answer, without the wire: whatever serves calls a ``Recommend``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np

from martlet.core import Array, QueryError, Text

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle, Recommendation

MAX_N = 1000
MAX_IDS = 10_000

N = Annotated[int, msgspec.Meta(ge=1, le=MAX_N)]
Id = str | int
Ids = Annotated[list[Id], msgspec.Meta(max_length=MAX_IDS)]
Value = str | float | bool


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question: a known user, or a history given as item ids.

    Attributes:
        user_id: the outside id; an integer is the text of its digits.
        history: item ids in time order, in place of what the bundle knows of a user.
        context: a value by column name, for scorers that know the column; others ignore it.
        n: how many items, 1 to 1000; a smaller catalogue gives a shorter list.
        exclude: item ids never to show; unknown ones are of no effect.
        candidates: rank these item ids only; None ranks the whole catalogue.
        seen: "hide" drops what the history holds, "keep" lets it be shown again.
    """

    user_id: Id | None = None
    history: Ids | None = None
    context: dict[str, Value] = {}
    n: N = 10
    exclude: Ids = []
    candidates: Ids | None = None
    seen: Literal["hide", "keep"] = "hide"


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of the list; ``title`` stands where the catalogue has one."""

    item_id: str
    score: float
    title: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The list for a user; ``fallback`` marks popularity given for want of any history."""

    user_id: str | None
    items: list[Item]
    fallback: bool


class Similar(msgspec.Struct, frozen=True):
    """The items nearest to an item, itself left out."""

    item_id: str
    items: list[Item]


Recommend = Callable[[Ask], Awaitable[Answer]]
"""The seam of serving: a cache, a batcher or a fallback takes one of these and is one."""
