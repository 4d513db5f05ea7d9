"""What the rows of a table are multiplied by: for whom their ranges are chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.queries import training_queries
from martlet.core import Dataset
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.projections import Lookup
from martlet.scorers.table import Table, blocks

F64 = NDArray[np.float64]

_QUERIES = 4096


def moments(bundle: Bundle, dataset: Dataset, seed: int = 0) -> dict[str, F64]:
    """Return, by a table's name, the (d, d) mean of q q^T over what its rows are multiplied by.

    Item vectors meet the vectors of training users, and stored vectors of users those of all items.
    A row that is off by e errs on a score by e^T M e in the mean square. Tables whose rows go into
    a network or a fold-in have no such matrix. O(queries d^2 + n d^2).
    """
    retrieves = isinstance(bundle.scorer, Cascade)
    scorer: Any = bundle.scorer.retrieve if isinstance(bundle.scorer, Cascade) else bundle.scorer
    if not hasattr(scorer, "encode"):
        return {}
    found = {"items": _moment(scorer.encode(training_queries(bundle, dataset, seed, _QUERIES)))}
    if isinstance(getattr(scorer, "projection", None), Lookup):
        found["projection.users"] = _moment_of_rows(scorer.items)
    return {f"retrieve.{name}" if retrieves else name: found[name] for name in found}


def _moment(vectors: NDArray[np.floating]) -> F64:
    wide = vectors.astype(np.float64)
    return wide.T @ wide / max(1, len(wide))


def _moment_of_rows(table: Table) -> F64:
    total = np.zeros((table.shape[1], table.shape[1]))
    for start, stop in blocks(*table.shape):
        total += _moment(table.rows(slice(start, stop))) * (stop - start)
    return total / max(1, table.shape[0])
