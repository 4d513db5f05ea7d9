"""A neural network encodes the history; the product with an item's vector is the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import BundleError, Queries, Ranking, Reason
from martlet.scorers.factors import Factors, index_config, index_from
from martlet.scorers.projections import LinearFold
from martlet.scorers.reasons import left_out_reasons
from martlet.scorers.runtime import Runtime
from martlet.scorers.search import topk_vectors
from martlet.scorers.shown import check_k, dot_candidates, topk_candidates
from martlet.scorers.side import Side
from martlet.scorers.table import Table, tables_under

if TYPE_CHECKING:
    from martlet.scorers.index import Index

ENCODER = "encoder.onnx"


@dataclass(frozen=True, eq=False)
class Network:
    """Encodes the vectors of a history to one vector, and ranks items by their product with it.

    The network takes ``x`` (B, L, d_in) float32 and ``lengths`` (B,) int64, never rows, and gives
    (B, d). With side columns it takes ``side`` (B, width) float32 too, and an empty history is one
    vector of zeros of length 0. Queries are run one at a time at their own length, so neither
    padding nor neighbours touch a digit.

    Attributes:
        items: (n, d) item vectors.
        encoder: the ONNX file's content.
        inputs: (n, d_in) vectors of the history where they are not the item vectors.
        max_length: only so many of the last events are read.
        parameters: the network's own weights, which the encoder was derived from; empty for a
            network that was trained elsewhere.
        index: searched in place of the whole table, where there is one.
        side: the users' columns that the encoder reads, where it reads any.
    """

    items: Table
    encoder: bytes
    inputs: Table | None = None
    max_length: int = 50
    parameters: Mapping[str, Table] = field(default_factory=dict)
    index: Index | None = None
    side: Side | None = None
    kind: ClassVar[str] = "network"

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return self.items.shape[0]

    @cached_property
    def runtime(self) -> Runtime:
        """The encoder, ready to run."""
        beside = {} if self.side is None else {"side": 2}
        return Runtime(self.encoder, {"x": 3, "lengths": 1, **beside})

    @property
    def context(self) -> tuple[str, ...]:
        """Names of the query's columns that are read."""
        return () if self.side is None else self.side.columns

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with a history, or with a column that is read."""
        known = queries.history.lengths > 0
        return known if self.side is None else known | self.side.knows(queries)

    @property
    def extra_bytes(self) -> int:
        """Bytes of the encoder and the index."""
        return len(self.encoder) + (0 if self.index is None else self.index.nbytes)

    def encode(self, queries: Queries) -> NDArray[np.float32]:
        """Return the (B, d) float32 vectors of the users; zeros where nothing is known of one.

        Raises:
            BundleError: the network cannot be run.
            DataError: a column of neither text nor numbers.
        """
        table = self.items if self.inputs is None else self.inputs
        vectors = np.zeros((len(queries), self.items.shape[1]), np.float32)
        if self.side is not None:
            return self._encode_with(self.side, table, vectors, queries)
        indptr, indices = queries.history.indptr.tolist(), queries.history.indices
        for b, (start, stop) in enumerate(pairwise(indptr)):
            if stop > start:
                x = table.rows(indices[max(start, stop - self.max_length) : stop])
                vectors[b] = self.runtime.run(x=x[None], lengths=np.array([len(x)]))[0]
        return vectors

    def _encode_with(
        self, side: Side, table: Table, vectors: NDArray[np.float32], queries: Queries
    ) -> NDArray[np.float32]:
        beside, nothing = side.encode(queries), np.zeros((1, table.shape[1]), np.float32)
        indptr, indices = queries.history.indptr.tolist(), queries.history.indices
        for b in np.flatnonzero(self.knows(queries)).tolist():
            start, stop = max(indptr[b], indptr[b + 1] - self.max_length), indptr[b + 1]
            x = table.rows(indices[start:stop]) if stop > start else nothing
            length = np.array([stop - start])
            vectors[b] = self.runtime.run(x=x[None], lengths=length, side=beside[b : b + 1])[0]
        return vectors

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k items of largest product that each query may be shown.

        Raises:
            QueryError: ``k`` is below 1.
        """
        check_k(k)
        if queries.candidates is not None:
            return topk_candidates(self, queries, k)
        return topk_vectors(self.encode(queries), self.items, queries, k, self.index)

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (B, C) float32 products; -inf where a candidate is -1."""
        return dot_candidates(self.encode(queries), self.items, candidates)

    def similar(self, item_row: int, k: int) -> Ranking:
        """Return the (1, k) items of largest cosine with one item, itself left out. O(n d)."""
        return self._factors.similar(item_row, k)

    @cached_property
    def _factors(self) -> Factors:
        return Factors(self.items, LinearFold())

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return what leaving out each event takes from the score; a run of the network each."""
        return left_out_reasons(self, queries, items)

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        own = {f"network.{name}": table for name, table in self.parameters.items()}
        found = {"items": self.items} | ({} if self.inputs is None else {"inputs": self.inputs})
        return found | ({} if self.side is None else {"side": self.side.vectors}) | own

    def with_tables(self, tables: Mapping[str, Table]) -> Network:
        """Return the same scorer over other storages, without an index: it knew the old vectors."""
        parameters = tables_under(tables, "network")
        return replace(
            self,
            items=tables["items"],
            inputs=tables.get("inputs"),
            parameters=parameters,
            index=None,
            side=None if self.side is None else replace(self.side, vectors=tables["side"]),
        )

    def with_index(self, index: Index | None) -> Network:
        """Return the same scorer searched through another index."""
        return replace(self, index=index)

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables and the files, as plain JSON."""
        beside = {} if self.side is None else {"side": self.side.features.to_json()}
        return {"max_length": self.max_length, "index": index_config(self.index), **beside}

    def save_files(self, folder: Path) -> None:
        """Write the encoder, the index and the features of the columns into ``folder``."""
        (folder / ENCODER).write_bytes(self.encoder)
        if self.index is not None:
            self.index.save(folder)
        if self.side is not None:
            self.side.save(folder)

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Network:
        """Return the scorer that a bundle stored."""
        inputs = tables.get("inputs", tables["items"])
        if inputs.shape[0] != tables["items"].shape[0]:
            raise BundleError(
                f"table inputs has {inputs.shape[0]} rows, items {tables['items'].shape[0]}"
            )
        side = None
        if "side" in config:
            side = Side.from_parts(config["side"], tables["side"], files)
        return Network(
            tables["items"],
            (files / ENCODER).read_bytes(),
            tables.get("inputs"),
            int(config["max_length"]),
            tables_under(tables, "network"),
            index_from(config["index"], files, tables["items"]),
            side,
        )
