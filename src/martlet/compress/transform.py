"""The two ranks of transforms: of tables, then of the index over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from martlet.core import Dataset, Progress, SpecError
from martlet.scorers.bundle import Bundle


@dataclass(frozen=True, eq=False)
class IndexedBundle:
    """A bundle that is searched through an index: finished, for its tables are fixed.

    No bundle itself, so that no transform of tables can be called on it: it would leave an index
    over vectors that are no longer there.

    Attributes:
        bundle: what is saved, measured and served.
    """

    bundle: Bundle


class TableTransform(Protocol):
    """Stores tables in fewer bytes; a frozen dataclass with a name in the registry."""

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""

    def of_tables(
        self,
        bundle: Bundle,
        dataset: Dataset | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Bundle:
        """Return a new bundle whose lineage grew by one line; the given one stays as it is.

        Raises:
            SpecError: the transform does not apply; says to what and why.
        """


class IndexTransform(Protocol):
    """Builds an index over the item vectors; a frozen dataclass with a name in the registry."""

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""

    def of_index(
        self, bundle: Bundle, dataset: Dataset | None, seed: int, progress: Progress | None
    ) -> IndexedBundle:
        """Return a new bundle whose lineage grew by one line; the given one stays as it is.

        Raises:
            SpecError: the transform does not apply; says to what and why.
        """


Transform = TableTransform | IndexTransform


def index_of(scorer: Any) -> Any:
    """Return the index that a scorer, or the first of a cascade, is searched through; or None."""
    return getattr(getattr(scorer, "retrieve", scorer), "index", None)


def before_index(label: str, scorer: Any) -> None:
    """Check that tables may change.

    Raises:
        SpecError: the scorer is searched through an index.
    """
    if index_of(scorer) is not None:
        raise SpecError(
            f"{label} after {index_of(scorer).kind}: the index knows the old vectors; put {label} "
            "first, then the index"
        )


def smaller(label: str, before: Bundle, after: Bundle, advice: str) -> Bundle:
    """Return ``after``, if it is smaller.

    Raises:
        SpecError: answering with it takes as many bytes as before or more.
    """
    if after.scoring_bytes >= before.scoring_bytes:
        raise SpecError(
            f"{label} would take {after.scoring_bytes:,} bytes to answer with in place of "
            f"{before.scoring_bytes:,}: {advice}"
        )
    return after
