"""Vectors for a catalogue from those of another: by id, or else from what the items are."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Column, DataError, Dataset, SpecError, rng
from martlet.features import Encoded, Features, automatic

if TYPE_CHECKING:
    from torch import nn

    from martlet.scorers.bundle import Bundle

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_REGS = (0.03, 0.3, 3.0, 30.0, 300.0)
_HELD_OUT = 0.1  # of the items, on which the weight of the squares is chosen
_STEPS, _CLOSE = 200, 1e-5  # of the conjugate gradients: most of them, and the residual


def item_vectors(bundle: Bundle, dataset: Dataset) -> tuple[F32, NDArray[np.bool_]]:
    """Return (n, d) vectors for the dataset's items, and (n,) bool: which of them there are.

    An item that the bundle knows by id takes its vector over. One that it does not know takes what
    a ridge regression from catalogue columns makes of its own: the columns that both have, learnt
    from the items of the bundle that were met in training. Without such columns it has none.
    """
    theirs: F32 = bundle.scorer.tables()["items"].dense()
    rows = bundle.items.rows(dataset.items.names(np.arange(dataset.num_items)))
    known = rows >= 0
    vectors = np.zeros((dataset.num_items, theirs.shape[1]), np.float32)
    vectors[known] = theirs[rows[known]]
    common = [name for name in dataset.catalogue if name in bundle.catalogue]
    met = np.flatnonzero(bundle.popularity > 0)
    if known.all() or not common or len(met) < 2:
        return vectors, known
    told = columns_to_vectors(
        {name: bundle.catalogue[name] for name in common},
        met,
        theirs[met],
        {name: dataset.catalogue[name] for name in common},
    )
    if told is None:
        return vectors, known
    vectors[~known] = told[~known]
    return vectors, np.ones(dataset.num_items, bool)


def check_same_rows(bundle: Bundle, dataset: Dataset) -> None:
    """Check that a row of the bundle's tables is the same user or item in the dataset.

    Raises:
        SpecError: it has other users or items, or in another order.
    """
    for name in ("users", "items"):
        if getattr(bundle, name).hash != getattr(dataset, name).hash:
            raise SpecError(
                f"the bundle to start from has other {name} than the dataset: expected one that "
                "was fitted on the same preparation"
            )


def same_features(one: Features | None, other: Features | None) -> bool:
    """Whether columns become the same rows and numbers by both."""
    if one is None or other is None:
        return one is other
    if one.to_json() != other.to_json():
        return False
    mine, theirs = one.arrays(), other.arrays()
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


def columns_to_vectors(
    columns: Mapping[str, Column], rows: NDArray[np.integer], vectors: F32,
    others: Mapping[str, Column],
) -> F32 | None:  # fmt: skip
    """Return (n, d) vectors made of the columns of other items; None where columns tell nothing.

    Args:
        columns: of a catalogue.
        rows: (m,) its items that have a vector to learn from.
        vectors: (m, d) float32.
        others: the same columns of another catalogue.

    Returns:
        The vectors are those of X W + mean, W the minimizer of |X W - (V - mean)|^2 + reg |W|^2
        over the items that are learnt from. ``reg`` is the best of five on a tenth of them. X has
        the rows of ``martlet.features``; the values of a field share a sum of squares of 1.
        O(steps d nnz(X)).
    """
    try:
        features = Features.fit(automatic(columns), columns)
    except DataError:  # no column that is worth learning from
        return None
    x, y = _matrix(features, features.apply(columns))[rows], vectors.astype(np.float64)
    mixed = rng(0, "transfer").permutation(len(rows))
    out, kept = np.split(mixed, [max(1, int(_HELD_OUT * len(rows)))])
    middle = y[kept].mean(0)

    def error(reg: float) -> float:
        found = x[out] @ _ridge(x[kept], y[kept] - middle, reg) + middle
        return float(((found - y[out]) ** 2).sum())

    reg = min(_REGS, key=error)
    middle = y.mean(0)
    weights = _ridge(x, y - middle, reg)
    found = _matrix(features, features.apply(others)) @ weights + middle
    return np.asarray(found, np.float32)


def freeze(network: nn.Module, patterns: str) -> None:
    """Keep parameters and tables whose name fits a pattern, apart by commas, as they are.

    Raises:
        SpecError: a pattern that fits none, or nothing is left to train.
    """
    from martlet.train.embeddings import tables_of

    tables = tables_of(network)
    named: dict[str, Any] = dict(network.named_parameters()) | tables
    for pattern in (one.strip() for one in patterns.split(",") if one.strip()):
        found = [name for name in named if fnmatchcase(name, pattern)]
        if not found:
            raise SpecError(
                f"freeze has {pattern!r}, and no parameter is called so: there are "
                f"{', '.join(named)}"
            )
        for name in found:
            if name in tables:
                tables[name].frozen = True
            else:
                named[name].requires_grad_(False)
    moved = any(parameter.requires_grad for parameter in network.parameters())
    if not moved and all(table.frozen for table in tables.values()):
        raise SpecError(f"freeze is {patterns!r}, which leaves nothing to train: freeze less")


def _matrix(features: Features, encoded: Encoded) -> Any:
    """Return the (n, p) sparse matrix of encoded items; row 0 of a field, unknown, is left out."""
    import scipy.sparse as sp

    size = len(encoded)
    unknown = np.zeros(features.num_rows, bool)
    unknown[features.offsets[:-1]] = True
    one_each = np.arange(size + 1)
    fields = [(one_each, encoded.rows[:, field]) for field in range(encoded.rows.shape[1])]
    whole = sp.csr_matrix((size, features.num_rows))
    for indptr, rows in [*fields, *encoded.bags]:
        length = np.diff(indptr)
        value = np.repeat(np.maximum(length, 1) ** -0.5, length)
        value[unknown[rows]] = 0
        whole = whole + sp.csr_matrix((value, rows, indptr), whole.shape)
    return sp.hstack([encoded.numbers.astype(np.float64), whole], "csr")


def _ridge(x: Any, y: F64, reg: float) -> F64:
    """Return (p, d) W with (X^T X + reg) W = X^T Y: conjugate gradients, all columns at once."""
    xt = x.T.tocsr()
    residual: F64 = xt @ y
    w: F64 = np.zeros_like(residual)
    step = residual.copy()
    size = (residual**2).sum(0)
    goal = _CLOSE**2 * np.maximum(size, np.finfo(float).tiny)
    for _ in range(_STEPS):
        if (size <= goal).all():
            break
        image = xt @ (x @ step) + reg * step
        by = size / np.maximum((step * image).sum(0), np.finfo(float).tiny)
        w += by * step
        residual -= by * image
        new = (residual**2).sum(0)
        step = residual + new / np.maximum(size, np.finfo(float).tiny) * step
        size = new
    return w
