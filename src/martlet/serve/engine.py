"""From a question to an answer, without the wire: whatever serves calls a ``Recommend``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np

from martlet.core import Array, QueryError, Text

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

MAX_N = 1000
MAX_IDS = 10_000
MAX_ROWS = 1000

_EXACT = 2**53  # below it a float tells whole numbers apart
_MAX_LISTED = 500  # characters of names that an error lists

N = Annotated[int, msgspec.Meta(ge=1, le=MAX_N)]
Id = str | int
Ids = Annotated[list[Id], msgspec.Meta(max_length=MAX_IDS)]
Value = str | float | bool
Cell = str | int | float | bool | list[str | int | float] | None


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


class Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows whose label is asked for, 1 to 1000; a value by column name.

    A column that a row lacks, null and "" count as missing; one that the model was not fitted on is
    of no effect. A list stands for its values with bars between them.
    """

    rows: Annotated[list[dict[str, Cell]], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]


class Predictions(msgspec.Struct, frozen=True):
    """The probability of label 1 of each row, in their order."""

    predictions: list[float]


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of the list; ``title`` stands where the catalogue has one."""

    item_id: str
    score: float
    title: str | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The list for a user.

    Attributes:
        user_id: None where a history was given.
        items: best first.
        fallback: popularity stands in, for nothing is known of the user.
        num_ignored: ids of the given history that the catalogue does not know.
    """

    user_id: str | None
    items: list[Item]
    fallback: bool
    num_ignored: int = 0


class Similar(msgspec.Struct, frozen=True):
    """The items nearest to an item, itself left out."""

    item_id: str
    items: list[Item]


Recommend = Callable[[Ask], Awaitable[Answer]]
"""The seam of serving: a cache, a batcher or a fallback takes one of these and is one."""


@dataclass(frozen=True, eq=False)
class Engine:
    """Answers from a bundle; ``recommend`` is the innermost ``Recommend``."""

    bundle: Bundle

    @property
    def bundle_id(self) -> str:
        """The bundle's own hash."""
        return self.bundle.id

    async def recommend(self, ask: Ask) -> Answer:
        """Return the best items for a user or a history.

        Raises:
            QueryError: neither or both of user and history, or a context that the scorer refuses.
        """
        if (ask.user_id is None) == (ask.history is None):
            raise QueryError("expected either user_id or history")
        bundle = self.bundle
        queries = bundle.queries(
            None if ask.user_id is None else [ask.user_id],
            histories=None if ask.history is None else [ask.history],
            candidates=ask.candidates,
            exclude=ask.exclude or None,
            context={name: [value] for name, value in ask.context.items()},
            seen=ask.seen,
        )
        ranking, fallback = bundle.topk(queries, max(1, min(ask.n, len(bundle.items))))
        found = zip(ranking.item_row[0].tolist(), ranking.score[0].tolist(), strict=True)
        return Answer(
            None if ask.user_id is None else str(ask.user_id),
            [self._item(row, score) for row, score in found if row >= 0],
            bool(fallback[0]),
            0 if ask.history is None else len(ask.history) - queries.history.nnz,
        )

    def similar(self, item_id: str, n: int) -> Similar | None:
        """Return the ``n`` items nearest to one, or None where no item is called ``item_id``.

        Raises:
            QueryError: the scorer knows of no likeness, as popularity does not.
        """
        bundle = self.bundle
        if bundle.items.row(item_id) < 0:
            return None
        found = bundle.similar(item_id, max(1, min(n, len(bundle.items))))
        rows = bundle.items.rows([name for name, _ in found]).tolist()
        items = [self._item(row, score) for row, (_, score) in zip(rows, found, strict=True)]
        return Similar(item_id, items)

    def predict(self, rows: Sequence[Mapping[str, Cell]]) -> Predictions:
        """Return what the model says of each row.

        Raises:
            QueryError: the bundle ranks items, a row has none of the model's columns, or a word
                where the model takes a number.
        """
        bundle = self.bundle
        bundle.check_predicts()
        known = bundle.columns
        for at, row in enumerate(rows, 1):
            if known.keys().isdisjoint(row):
                raise QueryError(
                    f"row {at} has none of the model's columns: expected some of "
                    f"{', '.join(known)[:_MAX_LISTED]}"
                )
        columns = {name: _column(rows, name, kind) for name, kind in known.items()}
        return Predictions(bundle.predict(columns).tolist())

    async def warm(self) -> None:
        """Answer one question of each kind, so that no client waits for a kernel or a page.

        A kind that the scorer refuses is refused to clients too, and has nothing to warm.
        """
        if self.bundle.predicts:
            self.predict([dict.fromkeys(self.bundle.columns)])
            return
        users, items = self.bundle.users.ids, self.bundle.items.ids
        known = np.flatnonzero(self.bundle.histories.lengths)
        if len(known):
            await self.recommend(Ask(user_id=users[int(known[0])]))
        if len(items):
            await self.recommend(Ask(history=[items[0]]))
            with suppress(QueryError):
                self.similar(items[0], 10)
        await self.recommend(Ask(history=[]))

    def _item(self, row: int, score: float) -> Item:
        titles = self.bundle.catalogue.get("title")
        title = titles[row] or None if isinstance(titles, Text) else None
        return Item(self.bundle.items.ids[row], score, title)


def _column(rows: Sequence[Mapping[str, Cell]], name: str, kind: str) -> Text | Array:
    """Return the values of a column as the model was fitted on them; missing is NaN or ""."""
    values = [row.get(name) for row in rows]
    if kind == "text":
        return Text.of(map(_text, values))
    found = np.empty(len(rows), np.float64)
    for at, value in enumerate(values):
        try:
            if isinstance(value, list) or (isinstance(value, str) and "_" in value):
                raise ValueError  # Python would read 1_000
            found[at] = np.nan if value is None or value == "" else float(value)
        except (ValueError, OverflowError):
            told = repr(value)[:_MAX_LISTED]
            raise QueryError(
                f"row {at + 1} has {told} for {name!r}: expected a number, or null where there is "
                "none"
            ) from None
    return found


def _text(value: Cell) -> str:
    """Return a value as ``prepare`` reads it from a file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "|".join(map(_text, value))
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return str(int(value)) if whole else str(value)
