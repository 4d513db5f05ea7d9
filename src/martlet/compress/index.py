"""An index over the item vectors, tuned until its answers are as good as an exact search's."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from martlet.compress.depth import Loss, Recall, least
from martlet.compress.transform import IndexedBundle, index_of
from martlet.core import Dataset, Progress, SpecError
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.index import KINDS, ExactInt8

Kind = Literal["ivf", "exact-int8", "ivf-pq", "hnsw"]
_OPTIONS: dict[str, tuple[str, ...]] = {
    "exact-int8": (),
    "ivf": ("nlist", "nprobe"),
    "ivf-pq": ("nlist", "nprobe", "refine"),
    "hnsw": ("links", "ef"),
}
_OF_ALL = ("kind", "recall", "loss")
_REFINE = (4, 16, 64)  # tried in turn, where none is given: the least with which the goal is met


@dataclass(frozen=True)
class Index:
    """Search the items through an index.

    ``exact-int8`` gives the same answers; ``ivf`` scans the clusters nearest to the query and is
    the fastest; ``ivf-pq`` is the smallest; ``hnsw`` walks a graph. All but the first search as
    deep as it takes: to find ``recall`` of the exact ten best items of training users, with what
    they saw hidden, or, with ``loss`` and a dataset, to lose no more than that share of NDCG@10 on
    its validation users, by the bound of a paired 95% interval. Where the users are too few for
    that bound, recall decides, and the lineage says so.

    Attributes:
        kind: "ivf", "exact-int8", "ivf-pq" or "hnsw".
        nlist: clusters; None takes about sqrt(items).
        nprobe: clusters that are searched; None takes the fewest that do.
        recall: the least share of the exact ten best that must be found.
        loss: the largest share of NDCG@10 that may be lost; None goes by recall alone.
        refine: of ivf-pq: how many times more than asked for are scored again; None tries.
        links: of hnsw: neighbours a row; None takes 16.
        ef: of hnsw: rows that the walk keeps; None takes the fewest that do.
    """

    kind: Kind = "ivf"
    nlist: int | None = None
    nprobe: int | None = None
    recall: float = 0.99
    loss: float | None = None
    refine: int | None = None
    links: int | None = None
    ef: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SpecError(
                f"index:{self.kind} is unknown: expected index:ivf or :{', :'.join(_OTHERS)}"
            )
        if not 0 < self.recall <= 1:
            raise SpecError(f"recall is {self.recall}: expected more than 0 and at most 1")
        if self.loss is not None and not 0 <= self.loss < 1:
            raise SpecError(f"loss is {self.loss}: expected a share from 0 to less than 1")
        for field in fields(self):
            known = field.name in (*_OF_ALL, *_OPTIONS[self.kind])
            if not known and getattr(self, field.name) is not None:
                raise SpecError(
                    f"index:{self.kind} has no {field.name}: leave it out; it has "
                    f"{' and '.join(_OPTIONS[self.kind]) or 'nothing to set'}"
                )

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""
        own = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)[1:]
            if getattr(self, field.name) != field.default
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
            index, found = self._tuned(bundle, scorer, dataset, seed, progress)
        line = {"transform": self.label, "seed": seed, **found}
        indexed = scorer.with_index(index)
        if isinstance(bundle.scorer, Cascade):
            indexed = replace(bundle.scorer, retrieve=indexed)
        return IndexedBundle(bundle.then(indexed, line))

    def _tuned(
        self,
        bundle: Bundle,
        scorer: Any,
        dataset: Dataset | None,
        seed: int,
        progress: Progress | None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the index and what the lineage tells of it."""
        given = {name: getattr(self, name) for name in _OPTIONS[self.kind]}
        given = {name: value for name, value in given.items() if value is not None}
        index = KINDS[self.kind].build(scorer.items, seed=seed, **given)
        recall = Recall.of(bundle, scorer, dataset, seed)
        goal = _Goal(self, recall, progress)
        if self.nprobe is None and self.ef is None:
            index = self._deep_enough(index, goal)
        reached = recall.at(index)
        loss = None if self.loss is None or dataset is None else Loss.of(
            bundle, scorer, dataset, seed
        )  # fmt: skip
        about: dict[str, Any] = {}
        if isinstance(loss, Loss):
            assert self.loss is not None
            tuned = self.nprobe is None and self.ef is None
            index, about = _by_loss(index, loss, self.loss, tuned)
            reached = recall.at(index)
        elif self.loss is not None:
            about = {"tuned": f"by recall: {loss or 'there is no dataset'}"}
        by_loss = about.get("tuned") == "by loss"
        if reached < self.recall and not by_loss:
            raise SpecError(self._out_of_reach(index, reached))
        about = {**index.settings(), "recall@10": round(reached, 6), **about}
        return index, about | {"num_queries": len(recall.queries)}

    def _deep_enough(self, index: Any, goal: _Goal) -> Any:
        """Return the index at the least depth that reaches the recall, or at its deepest."""
        if self.kind == "ivf-pq" and self.refine is None:
            for refine in _REFINE:
                index = replace(index, refine=refine)
                if goal.reached(index.at(index.deepest)):
                    break
        return index.at(least(1, index.deepest, lambda depth: goal.reached(index.at(depth))))

    def _out_of_reach(self, index: Any, reached: float) -> str:
        if self.kind == "hnsw":
            return (
                f"{self.label} finds {reached:.4f} of the exact ten best with ef {index.ef}: "
                f"expected {self.recall}; give a larger ef, more links or a lower recall"
            )
        return (
            f"{self.label} finds {reached:.4f} of the exact ten best with {index.nprobe} of "
            f"{index.nlist} clusters: expected {self.recall}; give a larger nprobe or a lower "
            "recall"
        )


_OTHERS = tuple(kind for kind in get_args(Kind) if kind != "ivf")


@dataclass(frozen=True)
class _Goal:
    """The recall that is to be reached, told of as it is looked for."""

    spec: Index
    recall: Recall
    progress: Progress | None

    def reached(self, index: Any) -> bool:
        """Return whether an index finds enough."""
        if self.progress is not None:
            told = ", ".join(f"{name} {value}" for name, value in index.settings().items())
            self.progress(f"{self.spec.label}: {told}", index.depth, index.deepest)
        return self.recall.at(index) >= self.spec.recall


def _by_loss(index: Any, loss: Loss, limit: float, tuned: bool) -> tuple[Any, dict[str, Any]]:
    """Return the index at the least depth whose bound is within the limit, and what to tell.

    Given is the index at the depth that recall asks for. Where the mean there is within the limit
    and its bound is not, the users are too few to tell: that depth stays. Where the mean is not,
    the search goes deeper.
    """
    mean, bound = loss.at(index)
    told = {"num_valid_users": len(loss.queries)}
    if tuned and bound <= limit:
        index = index.at(least(1, index.depth, lambda depth: loss.at(index.at(depth))[1] <= limit))
    elif tuned and mean > limit:
        within = lambda depth: loss.at(index.at(depth))[1] <= limit  # noqa: E731
        index = index.at(least(index.depth, index.deepest, within))
    mean, bound = loss.at(index)
    about = {"lost": round(mean, 6), "lost_at_most": round(bound, 6), **told}
    if bound <= limit:
        return index, {"tuned": "by loss", **about}
    return index, {"tuned": "by recall: too few users to resolve the loss", **about}
