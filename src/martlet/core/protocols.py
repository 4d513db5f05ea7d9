"""What the packages promise each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from martlet.core.queries import Queries
    from martlet.core.ranking import Ranking

S = TypeVar("S")
T = TypeVar("T")


class Reason(NamedTuple):
    """A part of a score: the item of the history that it came from (-1: no single one)."""

    item_row: int
    share: float
    words: str


@runtime_checkable
class Scorer(Protocol):
    """A fitted model, immutable and free of any training library."""

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k best items that each query may be shown."""

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (B, C) float32 scores of (B, C) candidate rows; -inf where a candidate is -1."""

    def tables(self) -> Mapping[str, Any]:
        """Return every parameter by name, each a ``Table``."""

    def with_tables(self, tables: Mapping[str, Any]) -> Scorer:
        """Return the same scorer over other storages of the same tables."""

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return, for item ``items[b]`` of query b, the parts of its score, largest first."""


class Spec(Protocol):
    """A frozen set of hyper-parameters that can be fitted.

    A class attribute ``accepts`` names what ``fit`` takes besides: "init" (a bundle to start from),
    "teacher" (one to distil from), "executor", "run". Without it nothing is taken. One that is
    True, ``takes_rows``, says that ``dataset`` may be labelled rows (``Tabular``).
    """

    def fit(self, dataset: Any, *, seed: int, **given: Any) -> Scorer:
        """Return what was learnt from ``dataset.train``, of a ``Dataset``."""


class Executor(Protocol):
    """Where work runs: on this machine, or on a cluster."""

    def map(self, function: Callable[[S], T], tasks: Iterable[S]) -> Iterator[T]:
        """Yield ``function(task)`` for each task, in order."""


class Progress(Protocol):
    """Told how far a long piece of work is."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` units of ``step`` are finished."""
