"""The kinds of scorer that a bundle may hold, by name; each is imported when it is met."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, BundleError, Queries, Ranking, Scorer
from martlet.scorers.table import Table

KINDS = {
    "popular": "martlet.scorers.popular:Popular",
    "factors": "martlet.scorers.factors:Factors",
    "item_item": "martlet.scorers.item_item:ItemItem",
    "network": "martlet.scorers.network:Network",
    "ranker": "martlet.scorers.ranker:Ranker",
    "cascade": "martlet.scorers.cascade:Cascade",
    "fields": "martlet.scorers.fields:Fields",
}


@runtime_checkable
class Stored(Scorer, Protocol):
    """A scorer that a bundle can hold: tables, plain JSON, and perhaps files beside them.

    One with files has ``save_files(folder)`` too; ``from_parts`` is given the folder.
    """

    @property
    def kind(self) -> str:
        """Name in ``KINDS``."""

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables and the files, as plain JSON."""

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Scorer:
        """Return the scorer that ``config``, ``tables`` and ``save_files`` described."""


def scorer_from(
    kind: str, config: Mapping[str, Any], tables: Mapping[str, Table], files: Path
) -> Stored:
    """Return the scorer of ``kind`` that a bundle stored.

    Raises:
        BundleError: a kind that this version does not know.
    """
    if kind not in KINDS:
        raise BundleError(
            f"the scorer is of kind {kind!r}: expected one of {', '.join(KINDS)}; "
            "load the bundle with the version that wrote it"
        )
    module, name = KINDS[kind].split(":")
    found: Stored = getattr(import_module(module), name).from_parts(config, tables, files)
    return found


def knows(scorer: Scorer, queries: Queries) -> NDArray[np.bool_]:
    """Return (B,) bool: the queries that the scorer knows something of.

    Those with a history, unless the scorer has a word of its own (``knows``) on it.
    """
    own = getattr(scorer, "knows", None)
    known: NDArray[np.bool_] = queries.history.lengths > 0 if own is None else own(queries)
    return known


def context_of(scorer: Scorer) -> tuple[str, ...]:
    """Return the names of the columns of ``Queries.context`` that the scorer reads."""
    return tuple(getattr(scorer, "context", ()))


def tells_numbers(scorer: Stored) -> bool:
    """Whether ``predict`` gives any numbers, in place of chances of label 1."""
    return getattr(scorer, "loss", None) == "squared"


def similar(scorer: Scorer, item_row: int, k: int) -> Ranking:
    """Return the (1, k) items nearest to one, itself left out.

    By the scorer's own ``similar``, else as its answer to a history of that one item.
    """
    own = getattr(scorer, "similar", None)
    if own is not None:
        ranking: Ranking = own(item_row, k)
        return ranking
    return scorer.topk(Queries.of(CSR.from_rows([[item_row]], scorer.num_items)), k)


def save_files(scorer: Scorer, folder: Path) -> None:
    """Write what a scorer keeps beside its tables, if anything, into ``folder``."""
    write = getattr(scorer, "save_files", None)
    if write is not None:
        write(folder)
