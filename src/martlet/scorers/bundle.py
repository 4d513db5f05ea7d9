"""All that an answer needs: scorer, vocabularies, histories, catalogue, and their lineage."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import (
    CSR,
    BundleError,
    Column,
    Queries,
    QueryError,
    Ranking,
    Reason,
    Text,
    Vocabulary,
    new_folder,
)
from martlet.core.files import stated
from martlet.core.queries import Seen, context_at
from martlet.scorers.alike import shared_words
from martlet.scorers.popular import Popular
from martlet.scorers.registry import Stored, context_of, knows, similar
from martlet.scorers.saved import PROOF, read_bundle, write_bundle
from martlet.scorers.shown import check_k, listed
from martlet.scorers.table import Table

Id = str | int


class Recommendation(NamedTuple):
    """The answer for one user, best item first.

    Attributes:
        user_id: None where a history was given in place of a user.
        item_ids: at most k; fewer where no more may be shown.
        scores: one an item, in the scorer's own unit.
        fallback: True where nothing is known of the user and popularity stands in.
        num_ignored: ids of the given history that the catalogue does not know.
    """

    user_id: str | None
    item_ids: list[str]
    scores: list[float]
    fallback: bool
    num_ignored: int = 0


@dataclass(frozen=True, eq=False)
class Bundle:
    """A scorer with everything that turns outside ids into answers.

    Attributes:
        scorer: any of the five.
        users: vocabulary of the users; empty where it was fitted on labelled rows.
        items: vocabulary of the items; empty where it was fitted on labelled rows.
        histories: (num_users x num_items) CSR, each user's events in time order.
        popularity: (num_items,) float32, the fallback's scores.
        history_time_s: (nnz,) int64 aligned with the histories, or None.
        catalogue: item columns by name; "title" is used in explanations.
        user_table: user columns by name, a value a user row: those that the scorer reads.
        lineage: plain JSON; first how it was fitted, then a line a transform.
    """

    scorer: Stored
    users: Vocabulary
    items: Vocabulary
    histories: CSR
    popularity: NDArray[np.float32]
    history_time_s: NDArray[np.int64] | None = None
    catalogue: Mapping[str, Column] = field(default_factory=dict)
    lineage: tuple[Mapping[str, Any], ...] = ()
    user_table: Mapping[str, Column] = field(default_factory=dict)

    def queries(
        self,
        user_ids: Sequence[Id] | None = None,
        *,
        histories: Sequence[Sequence[Id]] | None = None,
        candidates: Sequence[Id] | None = None,
        exclude: Sequence[Id] | None = None,
        allow: NDArray[np.bool_] | None = None,
        context: Mapping[str, Sequence[Any]] | None = None,
        seen: Seen = "hide",
    ) -> Queries:
        """Return the batch for users of the bundle, or for histories given as item ids.

        An unknown user has an empty history; an unknown item id is left out. ``candidates`` and
        ``exclude`` hold for every query of the batch; ``allow`` is (num_items,) bool; ``context``
        has a value a query by column, in place of what the bundle knows of a user.

        Raises:
            QueryError: neither or both of users and histories, what is no list of ids (a text is
                none), or a part of the wrong size or kind.
        """
        self._check_ranks()
        if (user_ids is None) == (histories is None):
            raise QueryError("expected either user ids or histories of item ids")
        time_s, row = None, None
        columns: dict[str, Any] = {}
        if user_ids is not None:
            row = self.users.rows(listed("user_ids", user_ids))
            indptr, at = self.histories.positions(row)
            weights = self.histories.values
            history = CSR(
                indptr,
                self.histories.indices[at],
                None if weights is None else weights[at],
                len(self.items),
            )
            if self.history_time_s is not None:
                time_s = self.history_time_s[at]
            columns = context_at(self.user_table, context_of(self.scorer), row)
        else:
            given = listed("histories", histories)
            rows = [self.items.rows(listed("a history", ids)) for ids in given]
            history = CSR.from_rows([row[row >= 0] for row in rows], len(self.items))
        return Queries.of(
            history,
            row,
            time_s=time_s,
            context=columns | dict(context or {}),
            candidates=self._same("candidates", candidates, history.num_rows),
            exclude=self._same("exclude", exclude, history.num_rows),
            allow=allow,
            seen=seen,
        )

    def _same(self, name: str, ids: Sequence[Id] | None, size: int) -> CSR | None:
        """Return ``size`` equal rows of the known ones of ``ids``."""
        if ids is None:
            return None
        rows = np.unique(self.items.rows(listed(name, ids)))
        return CSR.from_rows([rows[rows >= 0]] * size, len(self.items))

    def topk(self, queries: Queries, k: int) -> tuple[Ranking, NDArray[np.bool_]]:
        """Return the ranking of a batch, and (B,) bool: which of it popularity stands in for.

        A list has k places and is padded, as a scorer's is.

        Raises:
            QueryError: ``k`` is no whole number, or below 1; the bundle has no items.
        """
        self._check_ranks()
        check_k(k)
        known = knows(self.scorer, queries)
        if known.all():
            return self.scorer.topk(queries, k), ~known
        popular = self._popular.topk(queries, k)
        if not known.any():
            return popular, ~known
        ranking = self.scorer.topk(queries, k)
        choose = known[:, None]
        return (
            Ranking(
                np.where(choose, ranking.item_row, popular.item_row),
                np.where(choose, ranking.score, popular.score),
            ),
            ~known,
        )

    def _places(self, k: int) -> int:
        """Return how many of k places can be filled: a k without bounds must cost no memory."""
        check_k(k)
        return min(k, max(1, len(self.items)))

    @cached_property
    def _popular(self) -> Popular:
        return Popular(Table.of(self.popularity))

    def recommend(
        self,
        user_ids: Sequence[Id] | None = None,
        k: int = 10,
        *,
        histories: Sequence[Sequence[Id]] | None = None,
        candidates: Sequence[Id] | None = None,
        exclude: Sequence[Id] | None = None,
        allow: NDArray[np.bool_] | None = None,
        context: Mapping[str, Sequence[Any]] | None = None,
        seen: Seen = "hide",
    ) -> list[Recommendation]:
        """Return the k best items of each user, or of each history; arguments as in ``queries``.

        A user of whom nothing is known gets popularity, marked ``fallback``.

        Raises:
            QueryError: ``k`` is no whole number or below 1, or as in ``queries``.
        """
        k = self._places(k)
        user_ids = None if user_ids is None else listed("user_ids", user_ids)
        if histories is not None:
            histories = [listed("a history", ids) for ids in listed("histories", histories)]
        queries = self.queries(
            user_ids,
            histories=histories,
            candidates=candidates,
            exclude=exclude,
            allow=allow,
            context=context,
            seen=seen,
        )
        if not len(queries):
            return []
        names = [None] * len(queries) if user_ids is None else [str(user) for user in user_ids]
        ignored = [0] * len(queries)
        if histories is not None:
            lengths = queries.history.lengths.tolist()
            ignored = [len(h) - n for h, n in zip(histories, lengths, strict=True)]
        ranking, fallback = self.topk(queries, k)
        ids = self.items.ids
        answer = []
        for name, rows, scores, fell, unknown in zip(
            names,
            ranking.item_row.tolist(),
            ranking.score.tolist(),
            fallback.tolist(),
            ignored,
            strict=True,
        ):
            size = k if rows[-1] >= 0 else rows.index(-1)
            shown = [ids[row] for row in rows[:size]]
            answer.append(Recommendation(name, shown, scores[:size], fell, unknown))
        return answer

    def recommend_all(
        self,
        k: int = 10,
        *,
        batch: int = 1024,
        allow: NDArray[np.bool_] | None = None,
        seen: Seen = "hide",
    ) -> Iterator[list[Recommendation]]:
        """Yield the answers of every user in the order of the vocabulary, ``batch`` at a time.

        Raises:
            QueryError: ``batch`` is below 1, or as in ``recommend``.
        """
        self._check_ranks()
        if batch < 1:
            raise QueryError(f"batch is {batch}: expected at least 1 user")
        for start in range(0, len(self.users), batch):
            rows = np.arange(start, min(start + batch, len(self.users)))
            yield self.recommend(self.users.names(rows), k, allow=allow, seen=seen)

    def similar(self, item_id: Id, k: int = 10) -> list[tuple[str, float]]:
        """Return the k items nearest to one, with their scores, itself left out.

        By cosine of the item vectors where the scorer has them, else as the answer to a history of
        that one item.

        Raises:
            QueryError: the item is unknown, or ``k`` is no whole number or below 1.
        """
        row = self._item_row(item_id)
        ranking = similar(self.scorer, row, self._places(k))
        found = zip(ranking.item_row[0].tolist(), ranking.score[0].tolist(), strict=True)
        return [(self.items.ids[row], score) for row, score in found if row >= 0]

    def explain(self, user_id: Id, item_id: Id) -> list[Reason]:
        """Return why the user would be shown the item, the largest share of its score first.

        Raises:
            QueryError: the item is unknown.
        """
        row = self._item_row(item_id)
        queries = self.queries([user_id])
        if not knows(self.scorer, queries)[0]:
            return [Reason(-1, 1.0, "popular with everyone (nothing is known of this user)")]
        reasons = self.scorer.explain(queries, np.array([row], np.int32))[0]
        return [
            reason if reason.item_row < 0 else reason._replace(words=self._words(reason, row))
            for reason in reasons
        ]

    def _words(self, reason: Reason, item_row: int) -> str:
        """Say which event of the history counts for an item, and what the two share."""
        words = f"with {self.title(reason.item_row)!r} in the history ({reason.share:.0%})"
        columns = getattr(self.scorer, "columns", ())
        shared = shared_words(self.catalogue, columns, item_row, reason.item_row)
        return f"{words}, alike in {', '.join(shared)}" if shared else words

    def title(self, item_row: int) -> str:
        """Return the item's title where the catalogue has one, else its id."""
        titles = self.catalogue.get("title")
        text = titles[item_row] if isinstance(titles, Text) else ""
        return text or self.items.ids[item_row]

    @property
    def predicts(self) -> bool:
        """Whether it was fitted on labelled rows: it answers ``predict``, and ranks nothing."""
        return not len(self.items) and hasattr(self.scorer, "predict")

    @property
    def columns(self) -> Mapping[str, str]:
        """The columns of the labelled rows that it was fitted on, "number" or "text" each."""
        found: Mapping[str, str] = self.lineage[0].get("columns", {}) if self.lineage else {}
        return found if self.predicts else {}

    def predict(self, columns: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return (N,) float32 chances of label 1, of N rows given as columns.

        A column is text or numbers, a value a row (a list will do); one that is absent counts as
        missing in every row, and one that the model does not read is of no effect.

        Raises:
            QueryError: the bundle ranks items, or no column is given, or a value in its place.
            DataError: columns of different lengths, or of neither text nor numbers.
        """
        self.check_predicts()
        if not isinstance(columns, Mapping):
            raise QueryError(f"the rows are {columns!r:.80}: expected columns by name")
        for name, values in columns.items():
            if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                raise QueryError(
                    f"column {name!r} is {values!r:.80}: expected its values as a list, one a row"
                )
        found: NDArray[np.float32] = getattr(self.scorer, "predict")(columns)  # noqa: B009
        return found

    def check_predicts(self) -> None:
        """Refuse a bundle that ranks items.

        Raises:
            QueryError: it was not fitted on labelled rows.
        """
        if not self.predicts:
            raise QueryError(
                "this bundle ranks items for users, and predicts no label: ask it to recommend, or "
                "fit a model of fields on labelled rows (martlet prepare --label)"
            )

    def _check_ranks(self) -> None:
        if self.predicts:
            raise QueryError(
                "this bundle was fitted on labelled rows and has no users or items to rank: ask it "
                "to predict"
            )

    def _item_row(self, item_id: Id) -> int:
        self._check_ranks()
        row = self.items.row(item_id)
        if row < 0:
            raise QueryError(
                f"the item {item_id!r} is unknown: expected one of the bundle's {len(self.items)}"
            )
        return row

    def then(self, scorer: Stored, line: Mapping[str, Any]) -> Bundle:
        """Return the bundle with another scorer and a lineage that grew by ``line``."""
        return replace(self, scorer=scorer, lineage=(*self.lineage, dict(line)))

    @property
    def id(self) -> str:
        """SHA-256 of everything that ``save`` writes."""
        return str(self.manifest["id"])

    @property
    def scoring_bytes(self) -> int:
        """Bytes that answering holds: the scorer's tables, its index and network."""
        tables = sum(int(table.nbytes) for table in self.scorer.tables().values())
        return tables + int(getattr(self.scorer, "extra_bytes", 0))

    @property
    def bundle_bytes(self) -> int:
        """Bytes of the saved folder's files, the manifest left out."""
        return int(sum(file["bytes"] for file in self.manifest["files"].values()))

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What ``manifest.json`` holds; a bundle not yet saved is written once to find out.

        Raises:
            OutputError: there is no room for temporary files.
        """
        with (
            stated("temporary files"),
            tempfile.TemporaryDirectory(prefix="martlet-") as folder,
        ):
            return write_bundle(Path(folder), self)

    def save(self, folder: str | Path) -> None:
        """Write the bundle as a folder, whole or not at all; another that is there is replaced.

        Raises:
            OutputError: the folder could not be written, or something else is there.
        """
        with new_folder(folder, proof=PROOF) as target:
            self.__dict__["manifest"] = write_bundle(target, self)

    @staticmethod
    def load(folder: str | Path, *, verify: bool = True) -> Bundle:
        """Read a saved bundle; its arrays are memory-mapped.

        With ``verify`` the SHA-256 of every file is checked, and every offset and row number in
        them: do so once, in the parent of the processes that serve.

        Raises:
            BundleError: the folder is no bundle, of another version, or damaged; names the file.
        """
        try:
            place = Path(folder)
        except TypeError as error:
            raise BundleError(f"{folder!r} is no path: expected the folder of a bundle") from error
        manifest, parts = read_bundle(place, verify=verify)
        bundle = Bundle(**parts)
        bundle.__dict__["manifest"] = manifest
        return bundle
