"""From the parts of a score to reasons that can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Queries, Reason, Scorer


def event_reasons(queries: Queries, parts: NDArray[np.floating]) -> list[list[Reason]]:
    """Return the reasons of each query from the (history.nnz,) part that each event adds.

    Events of one item count together. A share is a part over the sum of all magnitudes, so the
    shares of a query add to 1 where no part is negative. Largest first.
    """
    history, answer = queries.history, []
    for start, stop in zip(history.indptr[:-1].tolist(), history.indptr[1:].tolist(), strict=True):
        items, place = np.unique(history.indices[start:stop], return_inverse=True)
        part = np.bincount(place, parts[start:stop], len(items))
        total = float(np.abs(part).sum())
        share = part / total if total > 0 else part
        order = np.argsort(-share, kind="stable")
        answer.append(
            [Reason(int(items[i]), float(share[i]), "in the history") for i in order.tolist()]
        )
    return answer


def left_out_reasons(
    scorer: Scorer, queries: Queries, items: NDArray[np.int32]
) -> list[list[Reason]]:
    """Return the reasons of any scorer: an event's part is what leaving it out takes away.

    Scores every query once for each of its events. Where none of them changes the score, as for
    users with a vector of their own, there is one reason of row -1.
    """
    history = queries.history
    line, event = history.row_numbers(), np.arange(history.nnz)
    at = np.asarray(items, np.int32)
    parts = np.zeros(history.nnz, np.float32)
    for b in range(len(queries)):
        own = event[line == b]
        whole = queries.slice(b, b + 1)
        full = scorer.score(whole, at[b : b + 1, None])[0, 0]
        kept = [np.delete(own, i) for i in range(len(own))]
        flat = np.concatenate([*kept, own[:0]])
        indptr = np.arange(len(own) + 1, dtype=np.int64) * max(0, len(own) - 1)
        values = None if history.values is None else history.values[flat]
        without = CSR(indptr, history.indices[flat], values, history.num_cols)
        times = None if queries.time_s is None else queries.time_s[flat]
        again = replace(
            whole,
            history=without,
            user_row=np.repeat(whole.user_row, len(own)),
            time_s=times,
            context={name: np.repeat(column, len(own)) for name, column in whole.context.items()},
            candidates=None,
            exclude=None,
        )
        if len(own):
            parts[own] = full - scorer.score(again, np.full((len(own), 1), at[b], np.int32))[:, 0]
    found = event_reasons(queries, parts)
    known = [Reason(-1, 1.0, "close to what is known of the user")]
    return [known if one and not any(r.share for r in one) else one for one in found]
