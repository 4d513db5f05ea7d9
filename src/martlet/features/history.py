"""What a user had met before each event: histories without a glimpse of what comes after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Interactions, check_counts


def spans_before(
    interactions: Interactions, max_length: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the history of each event begins and ends among the events. O(n).

    Events of the same user at the same time know nothing of each other: which came first is not
    known, and a basket bought at once must not give itself away. Without times the given order
    rules.

    Args:
        interactions: n events, by user, then time.
        max_length: the last so many are kept; None keeps all.

    Returns:
        begin, end: (n,) int64 each; event e has the history ``item_row[begin[e]:end[e]]``.
    """
    users, times = interactions.user_row, interactions.time_s
    place = np.arange(len(users), dtype=np.int64)
    fresh = np.ones((2, len(users)), bool)  # the first event of a user, the first of a moment
    fresh[0, 1:] = users[1:] != users[:-1]
    if times is not None:
        fresh[1, 1:] = fresh[0, 1:] | (times[1:] != times[:-1])
    first, end = (np.maximum.accumulate(np.where(new, place, 0)) for new in fresh)
    return first if max_length is None else np.maximum(
        first, end - min(max_length, len(users))
    ), end


def history_before(
    interactions: Interactions,
    max_length: int | None = None,
    events: NDArray[np.integer] | None = None,
) -> CSR:
    """Return what each event's user had met before it, in time order, repeats kept.

    Nothing of the event itself, of its moment or of later ones is in it; see ``spans_before``.
    O(n + entries); give ``events`` for a batch where all at once would not fit.

    Args:
        interactions: n events, by user, then time.
        max_length: the last so many are kept; None keeps all.
        events: which events, in any order; None takes all.

    Returns:
        (n or len(events), num_items) CSR of item rows with the events' weights: what a Bag or a
        Sequence takes.

    Raises:
        SpecError: ``max_length`` is no whole number above 0.

    >>> log = Interactions.sort(np.zeros(4, int), np.array([2, 0, 2, 1]), num_users=1, num_items=3)
    >>> history_before(log, max_length=2).row(3).tolist()
    [0, 2]
    """
    if max_length is not None:
        check_counts(SimpleNamespace(max_length=max_length), "max_length")
    begin, end = spans_before(interactions, max_length)
    if events is not None:
        begin, end = begin[events], end[events]
    indptr = np.concatenate([[0], np.cumsum(end - begin)]).astype(np.int64)
    at: Any = np.arange(indptr[-1]) + np.repeat(begin - indptr[:-1], end - begin)
    return CSR(indptr, interactions.item_row[at], interactions.weight[at], interactions.num_items)
