"""An index over the item vectors, tuned until it finds what an exact search finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from martlet.compress.transform import IndexedBundle, index_of
from martlet.core import CSR, Dataset, Progress, Queries, SpecError, rng
from martlet.core.queries import context_at
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.index import ExactInt8, FaissIVF
from martlet.scorers.registry import context_of

Kind = Literal["ivf", "exact-int8"]
_QUERIES = 512
_DEPTH = 10


@dataclass(frozen=True)
class Index:
    """Search the items through an index: ``exact-int8`` for the same answers, ``ivf`` for speed.

    ``ivf`` searches as many clusters as it takes for recall@10 against an exact search, on users
    of the training part with what they saw hidden, to reach ``recall``.

    Attributes:
        kind: "ivf" or "exact-int8".
        nlist: clusters; None takes about sqrt(items).
        nprobe: clusters that are searched; None takes the fewest that reach ``recall``.
        recall: the least share of the exact ten best that must be found.
    """

    kind: Kind = "ivf"
    nlist: int | None = None
    nprobe: int | None = None
    recall: float = 0.99

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SpecError(f"index:{self.kind} is unknown: expected index:ivf or :exact-int8")
        if not 0 < self.recall <= 1:
            raise SpecError(f"recall is {self.recall}: expected more than 0 and at most 1")
        if self.kind != "ivf" and (self.nlist, self.nprobe) != (None, None):
            raise SpecError("index:exact-int8 has no clusters: leave out nlist and nprobe")

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""
        default = Index(self.kind)
        own = [
            f"{name}={getattr(self, name)}"
            for name in ("nlist", "nprobe", "recall")
            if getattr(self, name) != getattr(default, name)
        ]
        return ",".join([f"index:{self.kind}", *own])

    def of_index(
        self,
        bundle: Bundle,
        dataset: Dataset | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> IndexedBundle:
        """Return a new bundle that is searched through the index.

        Raises:
            SpecError: there are no item vectors, there is an index already, the item table cannot
                be indexed so, or ``recall`` is out of reach.
        """
        scorer: Any = getattr(bundle.scorer, "retrieve", bundle.scorer)
        if not hasattr(scorer, "with_index"):
            raise SpecError(
                f"{self.label} over a {scorer.kind} scorer: it has no item vectors to search; "
                "an index needs factors or a network"
            )
        if index_of(scorer) is not None:
            raise SpecError(f"{self.label} after {index_of(scorer).kind}: one index is enough")
        if self.kind == "exact-int8":
            index: Any = ExactInt8.build(scorer.items)
            found: dict[str, Any] = {}
        else:
            queries = _sample(bundle, dataset, seed)
            index, found = self._tuned(scorer, queries, seed, progress)
        line = {"transform": self.label, "seed": seed, **found}
        indexed = scorer.with_index(index)
        if isinstance(bundle.scorer, Cascade):
            indexed = replace(bundle.scorer, retrieve=indexed)
        return IndexedBundle(bundle.then(indexed, line))

    def _tuned(
        self, scorer: Any, queries: Queries, seed: int, progress: Progress | None
    ) -> tuple[FaissIVF, dict[str, Any]]:
        """Return the index and what the lineage tells of it."""
        index = FaissIVF.build(scorer.items, self.nlist, self.nprobe or 1, seed)
        exact = scorer.topk(queries, _DEPTH).item_row

        def reached(nprobe: int) -> float:
            if progress is not None:
                progress(f"{self.label}: nprobe {nprobe}", nprobe, index.nlist)
            searched = scorer.with_index(index.with_nprobe(nprobe))
            return _recall(searched.topk(queries, _DEPTH).item_row, exact)

        if self.nprobe is None:
            # The fewest clusters that do, as far as recall grows with them: double, then halve.
            high = 1
            while high < index.nlist and reached(high) < self.recall:
                high = min(2 * high, index.nlist)
            low = high // 2
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if reached(middle) >= self.recall else (middle, high)
            index = index.with_nprobe(high)
        recall = reached(index.nprobe)
        if recall < self.recall:
            raise SpecError(
                f"{self.label} finds {recall:.4f} of the exact ten best with {index.nprobe} of "
                f"{index.nlist} clusters: expected {self.recall}; give a larger nprobe or a lower "
                "recall"
            )
        about = {"nlist": index.nlist, "nprobe": index.nprobe, "recall@10": round(recall, 6)}
        return index, about | {"num_queries": len(queries)}


def _recall(found: NDArray[np.int32], exact: NDArray[np.int32]) -> float:
    """Return the share of the exact lists' items that were found."""
    there = exact >= 0
    hit = (exact[:, :, None] == found[:, None, :]).any(2) & there
    return float(hit.sum() / max(1, there.sum()))


def _sample(bundle: Bundle, dataset: Dataset | None, seed: int) -> Queries:
    """Return queries of training users; where nobody is known, of one item each."""
    random, n = rng(seed, "index", "queries"), len(bundle.items)
    histories = bundle.histories
    rows = np.flatnonzero(histories.lengths > 0)
    if dataset is not None:
        trained = np.unique(dataset.train.user_row)
        rows = np.intersect1d(rows, bundle.users.rows(dataset.users.names(trained)))
    if not len(rows):
        one_each = CSR.from_rows([[row] for row in random.permutation(n)[:_QUERIES].tolist()], n)
        return Queries.of(one_each)
    rows = np.sort(random.permutation(rows)[:_QUERIES])
    context = context_at(bundle.user_table, context_of(bundle.scorer), rows)
    return Queries.of(histories.take(rows), rows.astype(np.int32), context=context)
