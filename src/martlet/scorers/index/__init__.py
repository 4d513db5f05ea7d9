"""Indexes: what is searched in place of the item table, exactly or nearly so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from martlet.core import BundleError
from martlet.scorers.index.exact import ExactInt8
from martlet.scorers.index.hnsw import HNSW
from martlet.scorers.index.ivf import IVF
from martlet.scorers.index.ivf_pq import IVFPQ
from martlet.scorers.index.protocol import Index
from martlet.scorers.table import Table

__all__ = ["HNSW", "IVF", "IVFPQ", "KINDS", "ExactInt8", "Index", "load_index"]

KINDS: dict[str, type[Any]] = {cls.kind: cls for cls in (ExactInt8, IVF, IVFPQ, HNSW)}


def load_index(folder: Path, config: Mapping[str, Any], items: Table) -> Index:
    """Return the index over ``items`` that a bundle stored.

    Raises:
        BundleError: a kind that this version does not know, or a file that does not fit.
    """
    kind = config["kind"]
    if kind not in KINDS:
        raise BundleError(
            f"the index is of kind {kind!r}: expected {' or '.join(KINDS)}; "
            "load the bundle with the version that wrote it"
        )
    index: Index = KINDS[kind].load(folder, config, items)
    return index
