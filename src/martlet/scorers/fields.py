"""Merged tables of fields and a network over what is looked up: chances of rows, or a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, Queries, QueryError, Ranking, Reason
from martlet.core.queries import is_missing
from martlet.features import Encoded, Features, Ragged
from martlet.scorers.field_rows import Layout, Side, as_column, join, mean_of_bags
from martlet.scorers.pairs import Pairs
from martlet.scorers.reasons import left_out_reasons
from martlet.scorers.shared import Placed, shared_of
from martlet.scorers.shown import topk_scores
from martlet.scorers.storage import read_tensors, write_tensors
from martlet.scorers.table import Table, check_csr, tables_under
from martlet.scorers.tiles import Tiles

NETWORK, ARRAYS = "fields.onnx", "features.safetensors"
F32 = NDArray[np.float32]
_LARGEST = np.float32(80)  # of a logit whose odds float32 still holds
_PAIRS = 1 << 14  # looked up at a time


class _Looked(NamedTuple):
    """What the tables hold for N examples of one side: vectors (N, K, d), wide (N,), numbers."""

    vectors: F32
    wide: F32
    numbers: F32

    def take(self, rows: NDArray[np.integer]) -> _Looked:
        return _Looked(self.vectors[rows], self.wide[rows], self.numbers[rows])


@dataclass(frozen=True, eq=False)
class Fields:
    """Scores an example by its fields: wide weights are summed, vectors go through a network.

    The network takes ``vectors`` (N, K, d) and, where there are any, ``numbers`` (N, M), float32,
    and gives (N,) logits. Examples are run in ``Tiles``, so neither the batch nor the number of
    candidates touches a digit. A bag's vector is the mean of its rows'.

    Fitted on labelled rows it has one side and answers ``predict``. Fitted on events it has two,
    of the item and of the user, whose history is a bag, and ranks the catalogue.

    Attributes:
        vectors: (R, d) vectors of the merged fields, which may share numbers.
        wide: (R + crossed, 1) weights; None for a model without them.
        network: the ONNX file's content.
        layout: which field lies where.
        loss: "logistic" makes the answers of ``predict`` chances; "squared" leaves them numbers;
            "odds" makes them e^logit, and the scores too.
        items: every item's side, as rows of the tables; None with one side.
        max_length: only so many of the last events are read.
        parameters: the network's own weights, which it was derived from.
        unit: mean and spread of the labels, in which numbers were learnt.
    """

    vectors: Table | Placed
    wide: Table | None
    network: bytes
    layout: Layout
    loss: str = "logistic"
    items: Encoded | None = None
    max_length: int = 50
    parameters: Mapping[str, Table] = field(default_factory=dict)
    unit: tuple[float, float] = (0.0, 1.0)
    kind: ClassVar[str] = "fields"

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary; 0 where none is ranked."""
        return self.layout.num_items

    @property
    def lookups(self) -> tuple[str, ...]:
        """Names of the tables that hold a row for each value, or for several."""
        names = [name for name in self.tables() if not name.startswith("network.")]
        return tuple(name for name in names if not name.startswith("vectors.up"))

    @property
    def context(self) -> tuple[str, ...]:
        """Names of the user's columns that a query may bring."""
        user = self.layout.sides.get("user")
        own = () if user is None or user.features is None else user.features.uses
        both = () if self.layout.pairs is None else self.layout.pairs.of_user
        return tuple(dict.fromkeys((*own, *both)))

    @property
    def extra_bytes(self) -> int:
        """Bytes of the network."""
        return len(self.network)

    @cached_property
    def _tiles(self) -> Tiles:
        numbers = {"numbers": 2} if self.layout.num_numbers else {}
        return Tiles(self.network, {"vectors": 3, **numbers})

    def predict(self, columns: Mapping[str, Any]) -> F32:
        """Return (N,) float32 chances of rows of columns; numbers or odds where ``loss`` says so.

        A column that is absent counts as missing in every row.

        Raises:
            QueryError: no column at all, or a scorer that ranks items.
            DataError: columns of different lengths, or of neither text nor numbers.
            BundleError: the network cannot be run.
        """
        if "row" not in self.layout.sides:
            raise QueryError("this scorer ranks items for users: ask for topk or score")
        if not columns:
            raise QueryError("no columns are given: expected those that the model was fitted on")
        side, size = self.layout.sides["row"], len(next(iter(columns.values())))
        value = self._logits([self._looked(side, side.encode(columns, size))])
        return chance(value) if self.loss == "logistic" else self._told(value)

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with a history, or with a column of the user."""
        known = queries.history.lengths > 0
        for name in self.context:
            if name in queries.context:
                known = known | ~is_missing(queries.context[name])
        return known

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> F32:
        """Return (B, C) float32 logits, or odds; -inf where a candidate is -1.

        Raises:
            QueryError: a scorer of rows, which ranks nothing.
            BundleError: the network cannot be run.
        """
        if self.items is None:
            raise QueryError("this scorer was fitted on rows without items: ask it to predict")
        user, side, items = self._users(queries), self.layout.sides["item"], self.items
        keys = self._user_keys(queries)
        scores = np.full(candidates.shape, -np.inf, np.float32)
        query, place = np.nonzero(candidates >= 0)
        for start in range(0, len(query), _PAIRS):
            q, p = query[start : start + _PAIRS], place[start : start + _PAIRS]
            item = self._looked(side, items.take(candidates[q, p]))
            logits = self._logits([item, user.take(q)])
            if keys is not None:
                logits += self._pair_weights(candidates[q, p], keys[q])
            scores[q, p] = self._told(logits)
        return scores

    def _user_keys(self, queries: Queries) -> NDArray[np.uint64] | None:
        """Return what crosses of both sides need of the users; None without such."""
        if self.layout.pairs is None:
            return None
        given = {name: as_column(column) for name, column in queries.context.items()}
        return self.layout.pairs.user_keys(given, len(queries))

    def _pair_weights(self, items: NDArray[np.int32], keys: NDArray[np.uint64]) -> F32:
        """Return the (N,) sums of the weights of what items and users are together."""
        assert self.layout.pairs is not None
        assert self.wide is not None
        rows = self.layout.pairs.rows(items, keys)
        weights: F32 = self.wide.rows(rows.reshape(-1) + self.layout.first_pair)
        return np.asarray(weights.reshape(rows.shape).sum(1), np.float32)

    def _told(self, logits: F32) -> F32:
        """Return the logits, or the odds or numbers where they are the answer."""
        if self.loss == "odds":
            return np.exp(np.minimum(logits, _LARGEST))
        mean, spread = map(np.float32, self.unit)
        return logits if self.unit == (0, 1) else logits * spread + mean

    def _users(self, queries: Queries) -> _Looked:
        """Look the users' side up: histories, and columns of the context."""
        side = self.layout.sides["user"]
        given = {name: queries.context[name] for name in self.context if name in queries.context}
        encoded = side.with_history(
            side.encode(given, len(queries)), last_events(queries.history, self.max_length)
        )
        return self._looked(side, encoded)

    def _looked(self, side: Side, encoded: Encoded) -> _Looked:
        """Look N examples of one side up in the tables."""
        size, d = encoded.rows.shape[0], self.vectors.shape[1]
        single = encoded.rows[:, : encoded.rows.shape[1] - side.num_crossed]
        parts = [self.vectors.rows(single.reshape(-1)).reshape(size, single.shape[1], d)]
        parts += [mean_of_bags(self.vectors.rows(rows), at)[:, None] for at, rows in encoded.bags]
        wide = np.zeros(size, np.float32)
        if self.wide is not None:
            weights = self.wide.rows(encoded.rows.reshape(-1))
            wide = weights.reshape(encoded.rows.shape).sum(1)
            for at, rows in encoded.bags:
                wide = wide + mean_of_bags(self.wide.rows(rows), at)[:, 0]
        return _Looked(join(parts), wide, encoded.numbers)

    def _logits(self, sides: Sequence[_Looked]) -> F32:
        """Return (N,) logits of the examples."""
        given = {"vectors": join([side.vectors for side in sides])}
        if self.layout.num_numbers:
            given["numbers"] = join([side.numbers for side in sides])
        logits = self._tiles.run(**given)
        logits += sum(side.wide for side in sides)
        return logits

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k best items that each query may be shown; scores the whole catalogue.

        In blocks of bounded memory; O(B n) pairs through the network.

        Raises:
            QueryError: ``k`` is below 1, or a scorer of rows.
        """
        return topk_scores(self, queries, k)

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return what leaving out each event takes from the score; a scoring each."""
        return left_out_reasons(self, queries, items)

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        if isinstance(self.vectors, Placed):
            found = {f"vectors.{name}": table for name, table in self.vectors.tables().items()}
        else:
            found = {"vectors": self.vectors}
        if self.wide is not None:
            found["wide"] = self.wide
        return found | {f"network.{name}": table for name, table in self.parameters.items()}

    def with_tables(self, tables: Mapping[str, Table]) -> Fields:
        """Return the same scorer over other storages."""
        return replace(
            self,
            vectors=_vectors(tables, self.layout),
            wide=tables.get("wide"),
            parameters=tables_under(tables, "network"),
        )

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables and the files, as plain JSON."""
        sides = {
            name: None if side.features is None else side.features.to_json()
            for name, side in self.layout.sides.items()
        }
        pairs = self.layout.pairs
        both = {} if pairs is None else {"pairs": [pairs.features.to_json(), list(pairs.of_item)]}
        return {
            **both,
            "sides": sides,
            "num_items": self.num_items,
            "max_length": self.max_length,
            "loss": self.loss,
            "unit": list(self.unit),
        }

    def save_files(self, folder: Path) -> None:
        """Write the network, the features' arrays and the items' side into ``folder``."""
        (folder / NETWORK).write_bytes(self.network)
        arrays: dict[str, Array] = {}
        for name, side in self.layout.sides.items():
            if side.features is not None:
                arrays |= {f"{name}/{key}": a for key, a in side.features.arrays().items()}
        if (pairs := self.layout.pairs) is not None:
            arrays |= {f"pairs/{key}": array for key, array in pairs.features.arrays().items()}
            arrays["items/keys"] = pairs.item_keys
        if self.items is not None:
            arrays |= {"items/rows": self.items.rows, "items/numbers": self.items.numbers}
            for at, (indptr, rows) in enumerate(self.items.bags):
                arrays |= {f"items/indptr{at}": indptr, f"items/bag{at}": rows}
        write_tensors(folder / ARRAYS, arrays)

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Fields:
        """Return the scorer that a bundle stored."""
        groups: dict[str, dict[str, Array]] = {}
        for name, array in read_tensors(files / ARRAYS).items():
            group, key = name.split("/", 1)
            groups.setdefault(group, {})[key] = array
        features = {
            name: None if about is None else Features.from_parts(about, groups.get(name, {}))
            for name, about in config["sides"].items()
        }
        size = int(config["num_items"])
        layout = Layout.of(features, size, _pairs(config.get("pairs"), groups, size))
        vectors, wide = _vectors(tables, layout), tables.get("wide")
        _check_size("vectors", vectors, layout.num_vector_rows)
        if wide is not None:
            _check_size("wide", wide, layout.num_rows)
        return Fields(
            vectors,
            wide,
            (files / NETWORK).read_bytes(),
            layout,
            str(config["loss"]),
            _items(groups["items"], layout) if layout.num_items else None,
            int(config["max_length"]),
            tables_under(tables, "network"),
            _two_numbers(config.get("unit", (0.0, 1.0))),
        )


def chance(logits: F32) -> F32:
    """Return (N,) float32 sigmoids, exact to their last digits however small."""
    with np.errstate(under="ignore"):
        return np.exp(-np.logaddexp(np.float32(0), -logits))


def last_events(history: CSR, most: int) -> CSR:
    """Return the last ``most`` events of each row."""
    if not history.nnz or history.lengths.max() <= most:
        return history
    kept = np.minimum(history.lengths, most)
    indptr = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    at = np.arange(indptr[-1]) + np.repeat(history.indptr[1:] - indptr[1:], kept)
    return CSR(indptr, history.indices[at], None, history.num_cols)


def _items(arrays: Mapping[str, Any], layout: Layout) -> Encoded:
    """Return the items' side, checked against the tables."""
    side, rows, numbers = layout.sides["item"], arrays["rows"], arrays["numbers"]
    bags = [Ragged(arrays[f"indptr{at}"], arrays[f"bag{at}"]) for at in range(side.num_bags)]
    single = side.num_vectors - side.num_bags + side.num_crossed
    for name, array, kind, shape in (
        ("rows", rows, np.int32, (layout.num_items, single)),
        ("numbers", numbers, np.float32, (layout.num_items, side.num_numbers)),
    ):
        if array.dtype != kind or array.shape != shape:
            raise BundleError(
                f"{ARRAYS}: the {name} of the items are {array.dtype}{array.shape}, expected "
                f"{np.dtype(kind)}{shape}"
            )
    crossed = side.num_crossed and rows.shape[1] - side.num_crossed
    most = [(rows[:, :crossed] if crossed else rows, layout.num_vector_rows)]
    most += [(rows[:, crossed:], layout.num_rows)] if crossed else []
    for found, limit in most:
        if found.size and not 0 <= found.min() <= found.max() < limit:
            raise BundleError(f"{ARRAYS}: the items have rows beyond the tables' {limit}")
    for indptr, bag in bags:
        if indptr.shape != (layout.num_items + 1,):
            raise BundleError(f"{ARRAYS}: a bag has {len(indptr) - 1} rows for {len(rows)} items")
        check_csr(ARRAYS, indptr, bag, layout.num_vector_rows)
    return Encoded(rows, numbers, tuple(bags))


def _pairs(config: Any, groups: Mapping[str, Mapping[str, Array]], num_items: int) -> Pairs | None:
    """Return the crosses of both sides that a bundle stored, if any."""
    if config is None:
        return None
    about, of_item = config
    features = Features.from_parts(about, groups.get("pairs", {}))
    keys: Any = groups["items"]["keys"]
    return Pairs(features, tuple(map(str, of_item)), keys).check(num_items)


def _two_numbers(unit: Any) -> tuple[float, float]:
    mean, spread = map(float, unit)
    return mean, spread


def _vectors(tables: Mapping[str, Table], layout: Layout) -> Table | Placed:
    """Return the table of vectors, which may be made of several."""
    if "vectors" in tables:
        return tables["vectors"]
    return Placed(shared_of(tables_under(tables, "vectors")), layout.places)


def _check_size(name: str, table: Table | Placed, expected: int) -> None:
    if table.shape[0] != expected:
        raise BundleError(
            f"table {name} has {table.shape[0]} rows, its features {expected}: "
            "copy the bundle again from where it was made"
        )
