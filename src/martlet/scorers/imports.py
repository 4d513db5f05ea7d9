"""Bundles of models that were trained elsewhere: from vectors, or from an ONNX encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from martlet.core import CSR, BundleError, Column, DataError, Text, Vocabulary
from martlet.core.columns import check_numbers
from martlet.scorers.bundle import Bundle, Id
from martlet.scorers.factors import Factors
from martlet.scorers.network import Network
from martlet.scorers.projections import LinearFold, Lookup, Projection
from martlet.scorers.registry import Stored
from martlet.scorers.shown import listed
from martlet.scorers.table import Table

Columns = Mapping[str, Column | Sequence[str]]


def from_vectors(
    item_vectors: ArrayLike,
    item_ids: Sequence[Id] | None = None,
    user_vectors: ArrayLike | None = None,
    user_ids: Sequence[Id] | None = None,
    histories: Sequence[Sequence[Id]] | None = None,
    *,
    catalogue: Columns | None = None,
    popularity: ArrayLike | None = None,
) -> Bundle:
    """Return a bundle that scores by the product of user and item vectors.

    Args:
        item_vectors: (n, d) numbers.
        item_ids: n distinct ids; None counts from 0.
        user_vectors: (m, d) numbers; None takes the mean of the history's item vectors, as for a
            user without a vector.
        user_ids: m distinct ids; None counts from 0.
        histories: for each user the item ids in time order: hidden from the answers, and what an
            unknown user's vector is made of.
        catalogue: item columns by name, n values each; "title" is used in explanations.
        popularity: (n,) scores to fall back on; None counts the histories.

    Raises:
        DataError: shapes or lengths that do not fit, a value that is no finite number, an id that
            occurs twice or a history with an unknown item.
    """
    items = _matrix("item_vectors", item_vectors)
    histories = None if histories is None else listed("histories", histories, DataError)
    projection: Projection = LinearFold()
    num_users = 0 if histories is None else len(histories)
    if user_vectors is not None:
        users = _matrix("user_vectors", user_vectors)
        if users.shape[1] != items.shape[1]:
            raise DataError(
                f"user_vectors have {users.shape[1]} columns, item_vectors {items.shape[1]}: "
                "expected as many"
            )
        projection, num_users = Lookup(Table.of(users)), len(users)
    scorer = Factors(Table.of(items), projection)
    line = {"spec": "from_vectors", "params": {"dim": items.shape[1]}}
    return _bundle(scorer, item_ids, user_ids, num_users, histories, catalogue, popularity, line)


def from_onnx(
    encoder: str | Path,
    item_vectors: ArrayLike,
    item_ids: Sequence[Id] | None = None,
    user_ids: Sequence[Id] | None = None,
    histories: Sequence[Sequence[Id]] | None = None,
    *,
    input_vectors: ArrayLike | None = None,
    max_length: int = 50,
    catalogue: Columns | None = None,
    popularity: ArrayLike | None = None,
) -> Bundle:
    """Return a bundle that encodes a history by an ONNX network and scores by product.

    Args:
        encoder: file of a network that takes ``x`` (B, L, d_in) float32 and ``lengths`` (B,)
            int64, L and B free, and gives (B, d) float32; its weights lie inside the file.
        item_vectors: (n, d) numbers to multiply with.
        item_ids: as in ``from_vectors``, and so are user_ids, histories, catalogue, popularity.
        user_ids: ids of the users that the histories belong to.
        histories: item ids in time order, a user each.
        input_vectors: (n, d_in) vectors that the network sees; None shows it ``item_vectors``.
        max_length: only so many of the last events are shown to the network.
        catalogue: item columns by name.
        popularity: (n,) scores to fall back on.

    Raises:
        DataError: as in ``from_vectors``, or an encoder that cannot be read or run, or gives
            another shape or numbers that are not finite.
    """
    items = _matrix("item_vectors", item_vectors)
    histories = None if histories is None else listed("histories", histories, DataError)
    inputs = None if input_vectors is None else _matrix("input_vectors", input_vectors)
    if inputs is not None and len(inputs) != len(items):
        raise DataError(f"input_vectors have {len(inputs)} rows, item_vectors {len(items)}")
    if type(max_length) is not int or max_length < 1:
        raise DataError(f"max_length is {max_length!r}: expected at least 1 event")
    try:
        model = Path(encoder).read_bytes()
    except (TypeError, ValueError) as error:
        raise DataError(f"the encoder {encoder!r} is no path: expected an ONNX file") from error
    except OSError as error:
        raise DataError(f"cannot read the encoder {encoder}: {error.strerror}") from error
    table = None if inputs is None else Table.of(inputs)
    scorer = Network(Table.of(items), model, table, max_length)
    _try(scorer, encoder, inputs if inputs is not None else items)
    num_users = 0 if histories is None else len(histories)
    line = {"spec": "from_onnx", "params": {"dim": items.shape[1], "max_length": max_length}}
    return _bundle(scorer, item_ids, user_ids, num_users, histories, catalogue, popularity, line)


def _try(scorer: Network, encoder: str | Path, inputs: NDArray[np.float32]) -> None:
    """Run the encoder once on two histories of two and one events."""
    x = inputs[[[0, -1], [-1, 0]]]
    try:
        out = scorer.runtime.run(x=x, lengths=np.array([2, 1]))
    except BundleError as error:
        raise DataError(f"the encoder {encoder} does not fit: {error}") from error
    if out.shape != (2, scorer.items.shape[1]):
        raise DataError(
            f"the encoder {encoder} gives {out.shape} for 2 histories: "
            f"expected (2, {scorer.items.shape[1]}), as wide as item_vectors"
        )
    if not np.isfinite(out).all():
        raise DataError(f"the encoder {encoder} gives numbers that are not finite")


def _bundle(
    scorer: Stored,
    item_ids: Sequence[Id] | None,
    user_ids: Sequence[Id] | None,
    num_users: int,
    histories: Sequence[Sequence[Id]] | None,
    catalogue: Columns | None,
    popularity: ArrayLike | None,
    line: Mapping[str, Any],
) -> Bundle:
    n = scorer.num_items
    items = _vocabulary("item_ids", item_ids, n)
    users = _vocabulary("user_ids", user_ids, num_users)
    seen = CSR.empty(len(users), n)
    if histories is not None:
        histories = [listed("a history", ids, DataError) for ids in histories]
        if len(histories) != len(users):
            raise DataError(f"{len(histories)} histories for {len(users)} users: expected as many")
        seen = CSR.from_rows([items.rows(ids) for ids in histories], n)
        if seen.nnz and seen.indices.min() < 0:
            user = int(seen.row_numbers()[seen.indices < 0][0])
            raise DataError(
                f"the history of user {users.ids[user]!r} holds an item that item_ids does not"
            )
    counts = np.bincount(seen.indices, minlength=n).astype(np.float32)
    popular = counts if popularity is None else _numbers("popularity", popularity)
    if popular.shape != (n,) or not np.isfinite(popular).all():
        raise DataError(f"popularity is {popular.shape}: expected ({n},) finite numbers")
    lineage = ({**line, "seed": None, "trained_on": [], "data": {}},)
    return Bundle(
        scorer, users, items, seen, popular, catalogue=_columns(catalogue, n), lineage=lineage
    )


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    """Return real numbers as float32; what it cannot hold becomes infinite."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise ValueError(f"it holds {array.dtype}")
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} is no array of real numbers: {error}") from error


def _matrix(name: str, values: ArrayLike) -> NDArray[np.float32]:
    matrix = _numbers(name, values)
    if matrix.ndim != 2 or not matrix.size:
        raise DataError(f"{name} is of shape {matrix.shape}: expected (rows, columns), not empty")
    bad = np.flatnonzero(~np.isfinite(matrix).all(1))
    if len(bad):
        raise DataError(
            f"{name} holds a number that is not finite in row {bad[0]} ({len(bad)} such rows): "
            "mend or drop them"
        )
    return matrix


def _vocabulary(name: str, ids: Sequence[Id] | None, size: int) -> Vocabulary:
    ids = range(size) if ids is None else listed(name, ids, DataError)
    if len(ids) != size:
        raise DataError(f"{name} has {len(ids)} ids for {size} rows: expected as many")
    return Vocabulary.of(ids)


def _columns(given: Columns | None, n: int) -> dict[str, Column]:
    if given is not None and not isinstance(given, Mapping):
        raise DataError(f"catalogue is {given!r}: expected columns by name")
    return {str(name): _column(name, values, n) for name, values in (given or {}).items()}


def _column(name: str, values: Column | Sequence[str], n: int) -> Column:
    name = f"catalogue column {name!r}"
    if not isinstance(values, Text | np.ndarray) or (
        isinstance(values, np.ndarray) and values.dtype.kind in "OUS"
    ):
        values = Text.of(str(value) for value in listed(name, values, DataError))
    column = values if isinstance(values, Text) else check_numbers(name, values)
    if len(column) != n:
        raise DataError(f"{name} has {len(column)} values for {n} items")
    return column
