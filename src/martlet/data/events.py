"""The columns of a log while it is prepared, changed one at a time: only one is held twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import Array, Interactions, num_threads
from martlet.kernels.events import order_by
from martlet.kernels.parallel import spread

T = TypeVar("T", bound=np.generic)
_CHUNK = 1 << 16  # positions that are widened to 64 bits at a time
_OWN = ("user_row", "item_row", "weight", "time_s")


@dataclass(eq=False)
class Events:
    """Columns by name that are replaced in place; two names may share one array.

    Attributes:
        columns: user_row, item_row, weight, perhaps time_s, and further ones, all of one length.
        num_users: rows of users.
        num_items: rows of items.
    """

    columns: dict[str, Array]
    num_users: int
    num_items: int

    def __len__(self) -> int:
        return len(self.columns["user_row"])

    def view(self) -> Interactions:
        """Return the same arrays as ``Interactions``; call ``sort`` before."""
        own = {name: self.columns.get(name) for name in _OWN}
        extra = {name: array for name, array in self.columns.items() if name not in _OWN}
        return Interactions(
            **own,  # type: ignore[arg-type]
            num_users=self.num_users,
            num_items=self.num_items,
            extra=extra,
        )

    def range(self, start: int, stop: int) -> Interactions:
        """Return the events from ``start`` to ``stop``; they share the arrays."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        return Events(columns, self.num_users, self.num_items).view()

    def sort(self, part: NDArray[np.int8] | None = None, num_parts: int = 1) -> None:
        """Sort by part if given, then by user, then by time if there is no part.

        Equal ones keep their order. The users come anew from their counts: all else is read in
        any order, which takes most of the time.
        """
        key: Any = self.columns.pop("user_row")
        time_s: Any = self.columns.get("time_s")
        if part is not None:
            time_s = None
            key += part.astype(np.int32) * np.int32(self.num_users)
        order, counts = order_by(key, num_parts * self.num_users, time_s, num_threads())
        del key, time_s
        self._replace(lambda column: gather(column, order))
        users = np.tile(np.arange(self.num_users, dtype=np.int32), num_parts)
        self.columns["user_row"] = np.repeat(users, counts)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the events outside the mask."""
        self._replace(lambda column: column[mask])

    def _replace(self, change: Callable[[Array], Array]) -> None:
        names_of: dict[int, list[str]] = {}
        for name, column in self.columns.items():
            names_of.setdefault(id(column), []).append(name)
        del column
        for names in names_of.values():
            self.columns |= dict.fromkeys(names, change(self.columns[names[0]]))


def gather(column: NDArray[T], order: NDArray[Any]) -> NDArray[T]:
    """Return ``column[order]`` by all threads, with the positions widened a chunk at a time."""
    found = np.empty(len(order), column.dtype)

    def piece(start: int, stop: int) -> None:
        for first in range(start, stop, _CHUNK):
            part = slice(first, min(first + _CHUNK, stop))
            np.take(column, order[part], out=found[part], mode="clip")

    spread(piece, len(order), num_threads(), _CHUNK)
    return found
