"""From the parts of a score to reasons that can be read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from martlet.core import Queries, Reason


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
