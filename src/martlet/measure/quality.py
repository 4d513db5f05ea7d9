"""How good a bundle is: every user of a part, the whole catalogue, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import (
    CSR,
    Column,
    DataError,
    Dataset,
    Examples,
    Interactions,
    Progress,
    Queries,
    Scorer,
    SpecError,
    Tabular,
    Text,
    num_threads,
)
from martlet.core.queries import Seen, context_at
from martlet.kernels.parallel import in_order
from martlet.measure.crossing import Crossing, crossing
from martlet.metrics import METRICS, Tally
from martlet.metrics.quality import check_value

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

F64 = NDArray[np.float64]
_MOST = 2048  # users of a batch: more gain nothing
CELL = 48  # bytes that a score costs while it is found: itself, where it stands, copies of both


@dataclass(frozen=True, eq=False)
class Quality:
    """What was measured.

    Attributes:
        figures: metric at k to its mean over the users.
        num_users: users measured: those with at least one event to find.
        num_fallback: those of them of whom nothing was known, so that popularity answered.
        num_repeats: events left out because their user had met the item before.
        users: (num_users,) float64 values by metric, where asked for.
        user_row: (num_users,) int32, whose values they are.
    """

    figures: Mapping[str, float]
    num_users: int
    num_fallback: int
    num_repeats: int
    users: Mapping[str, F64] = field(default_factory=dict)
    user_row: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))


def evaluate(
    scorer: Scorer | Bundle,
    dataset: Dataset,
    *,
    part: str = "test",
    ks: Sequence[int] = (10,),
    metrics: Sequence[str] = ("recall", "ndcg"),
    users: NDArray[np.integer] | None = None,
    value: str | None = None,
    seen: Seen = "hide",
    memory_mb: float = 256,
    per_user: bool = False,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Quality:
    """Measure the ranking of the whole catalogue for each user of a part.

    What a user did before the part (``dataset.before``) is the history; the distinct items of the
    part are to be found. With ``seen="hide"`` an item of the history cannot be shown, so it is not
    to be found either; such events are counted. A bundle answers as it would when served, with
    popularity for users it knows nothing of; one with other rows is asked by id. The same digits
    whatever the batch and the threads.

    Args:
        scorer: what answers.
        dataset: the parts.
        part: "valid" or "test".
        ks: lengths of the lists.
        metrics: names from ``METRICS``; "auc" scores the whole catalogue by ``scorer.score``.
        users: rows of the users to measure; default all.
        value: numeric column of the catalogue that ``value_recall`` weighs by.
        seen: "hide", or "keep" where people repeat (music, baskets).
        memory_mb: bound on what the batches under way may hold, in 10^6 bytes; what a scorer needs
            for its own work (32 MB at most for item vectors) comes on top where it is small.
        per_user: keep each user's values.
        batch: users at a time, in place of the bound.
        progress: told how far it is.

    Raises:
        DataError: the part is empty, was trained on, has no column ``value`` of 0 or more, or no
            item in common with the bundle.
        SpecError: an unknown metric, or a bound of memory that is none.
    """
    check_memory(memory_mb)
    if isinstance(dataset, Tabular):
        raise DataError(
            "labelled rows have no items to rank: ask measure, or measure.labels.evaluate_labels"
        )
    refuse_seen_in_training(scorer, dataset.part(part), part)
    scorer = crossing(scorer, dataset)
    history, truth, num_repeats = questions(dataset, part, seen)
    asked = np.flatnonzero(truth.lengths)
    if users is not None:
        asked = np.intersect1d(asked, users)
    if not len(asked):
        raise DataError(
            f"no user of part {part!r} has an item to find: expected events of items that their "
            "user had not met before; split differently, or measure with seen='keep'"
        )
    listed = [name for name in metrics if name != "auc"]
    tally = Tally(
        dataset.num_items, ks, listed or ["recall"], *item_columns(dataset, metrics, value)
    )

    columns = columns_read(scorer)

    def answer(rows: NDArray[np.integer]) -> tuple[NDArray[np.int32], CSR, int, F64 | None]:
        queries = history.queries(rows, columns, seen)
        wanted = truth.take(rows)
        ranking, fallback = _topk(scorer, queries, max(ks))
        auc = _auc(scorer, queries, wanted) if "auc" in metrics else None
        return ranking.item_row, wanted, int(fallback.sum()), auc

    workers = num_threads()
    if batch is None:
        # Scores of all items, held at worst; AUC holds them for certain, and sorts them.
        of_item = CELL if "auc" in metrics else 8
        cost = of_item * dataset.num_items + 40 * max(ks) + 64 * history.csr.lengths[asked]
        tasks = batches(asked, cost, memory_mb / workers)
    else:
        tasks = [asked[start : start + batch] for start in range(0, len(asked), batch)]
    auc: list[F64] = []
    done = num_fallback = 0
    for rows, wanted, fell, shares in in_order(answer, tasks, workers):
        tally.add(rows, wanted)
        num_fallback += fell
        auc += [] if shares is None else [shares]
        done += len(rows)
        if progress is not None:
            progress("measure", done, len(asked))
    figures = {name: v for name, v in tally.figures().items() if name.split("@")[0] in metrics}
    values = {name: v for name, v in tally.users().items() if name.split("@")[0] in metrics}
    if auc:
        values["auc"] = np.concatenate(auc)
        figures["auc"] = float(values["auc"].mean())
    kept = values if per_user else {}
    return Quality(figures, len(asked), num_fallback, num_repeats, kept, asked.astype(np.int32))


@dataclass(frozen=True, eq=False)
class History:
    """What every user did before the part, and when, and the users' columns."""

    csr: CSR
    time_s: NDArray[np.int64] | None
    user_table: Mapping[str, Column]

    def queries(self, rows: NDArray[np.integer], columns: Sequence[str], seen: Seen) -> Queries:
        """Return what some users ask, with the named ones of their columns."""
        times = None if self.time_s is None else self.time_s[self.csr.positions(rows)[1]]
        context = context_at(self.user_table, columns, rows)
        return Queries.of(self.csr.take(rows), rows, time_s=times, context=context, seen=seen)


def questions(dataset: Dataset, part: str, seen: Seen) -> tuple[History, CSR, int]:
    """Return the histories, the distinct items to find, and how many repeats were left out.

    Raises:
        DataError: no such part.
    """
    before = dataset.before(part)
    truth = dataset.part(part).matrix
    key = truth.row_numbers().astype(np.int64) * truth.num_cols + truth.indices
    keep = np.ones(len(key), bool)
    if seen == "hide":
        met = before.matrix
        met_key = met.row_numbers().astype(np.int64) * met.num_cols + met.indices
        keep = ~np.isin(key, met_key, assume_unique=True)
    users = truth.row_numbers()[keep]
    shape = truth.num_rows, truth.num_cols
    wanted = CSR.from_pairs(users, truth.indices[keep], None, shape)
    history = History(before.histories, before.time_s, dataset.user_table)
    return history, wanted, int((~keep).sum())


def columns_read(scorer: Any) -> tuple[str, ...]:
    """Return the users' columns that a scorer, a bundle or a ``Crossing`` reads."""
    from martlet.scorers.registry import context_of

    bundle = getattr(scorer, "bundle", scorer)
    return context_of(getattr(bundle, "scorer", bundle))


def refuse_seen_in_training(scorer: Any, events: Interactions | Examples, part: str) -> None:
    """Refuse to measure a bundle on what it was fitted on.

    Raises:
        DataError: the lineage says so.
    """
    lineage = getattr(scorer, "lineage", ())
    if lineage and events.hash in lineage[0].get("trained_on", ()):
        what = "rows" if isinstance(events, Examples) else "events"
        raise DataError(
            f"part {part!r} was trained on: its {what} stand in the bundle's lineage; measure on "
            "a part that the model has not seen"
        )


def _topk(scorer: Any, queries: Queries, k: int) -> tuple[Any, NDArray[np.bool_]]:
    answer = scorer.topk(queries, k)
    return answer if isinstance(answer, tuple) else (answer, np.zeros(len(queries), bool))


def scores_of(
    scorer: Any, queries: Queries, rows: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return (B, C) scores of candidate rows, and (B,) bool: which of it popularity stands in for.

    As ``_topk`` answers: a bundle by popularity where its scorer knows nothing, a scorer by itself.
    A score that is no number is -inf, as is that of row -1.
    """
    from martlet.scorers.bundle import Bundle
    from martlet.scorers.registry import knows

    if isinstance(scorer, Crossing):
        queries, rows = scorer.queries(queries), np.where(rows >= 0, scorer.item_row[rows], -1)
        scorer = scorer.bundle
    if not isinstance(scorer, Bundle):
        found, fallback = scorer.score(queries, rows), np.zeros(len(queries), bool)
    else:
        found, fallback = scorer.scorer.score(queries, rows), ~knows(scorer.scorer, queries)
    if fallback.any():
        asked = rows[fallback]
        found = np.array(found)
        found[fallback] = np.where(asked >= 0, scorer.popularity[asked], -np.inf)
    return np.where(np.isnan(found), np.float32(-np.inf), found), fallback


def _auc(scorer: Any, queries: Queries, wanted: CSR) -> F64:
    """Return (B,) shares of (item to find, other item) pairs that are in the right order.

    Other items are those that may be shown and are not to be found. A tie counts one half, and so
    does a user without any other item: nothing is known of the order. O(n) an item to find,
    and the scores.
    """
    from martlet.kernels.rank import pairs_in_order

    n = queries.num_items
    everything = np.broadcast_to(np.arange(n, dtype=np.int32), (len(queries), n))
    scores, _ = scores_of(scorer, queries, everything)
    return pairs_in_order(np.ascontiguousarray(scores, np.float32), wanted, queries.hidden())


def item_columns(
    dataset: Dataset, metrics: Sequence[str], value: str | None
) -> tuple[F64 | None, F64 | None]:
    """Return what an item is worth, and the share of the training users who met it.

    An item without a value is worth nothing.

    Raises:
        DataError: the catalogue has no such column of numbers, or one of them is below 0.
    """
    worth = popularity = None
    if value is not None:
        column = dataset.catalogue.get(value)
        if column is None or isinstance(column, Text):
            have = [name for name, c in dataset.catalogue.items() if not isinstance(c, Text)]
            raise DataError(
                f"the catalogue has no numeric column {value!r}: it has {', '.join(have) or 'none'}"
            )
        worth = np.asarray(column, np.float64)
        worth = np.where(np.isnan(worth), 0.0, worth)
        check_value(worth, dataset.items.ids.__getitem__)
    if any(METRICS[name].needs == "popularity" for name in metrics if name in METRICS):
        met = np.bincount(dataset.train.matrix.indices, minlength=dataset.num_items)
        active = max(int((dataset.train.matrix.lengths > 0).sum()), 1)
        popularity = met / active
    return worth, popularity


def check_memory(memory_mb: float) -> None:
    """Refuse a bound that bounds nothing.

    Raises:
        SpecError: it is no finite number above 0.
    """
    if not 0 < memory_mb < np.inf:
        raise SpecError(f"memory_mb is {memory_mb}: expected a finite number of MB above 0")


def batches(
    asked: NDArray[np.integer], cost: NDArray[np.integer], memory_mb: float
) -> list[NDArray[np.integer]]:
    """Cut users of (n,) ``cost`` in bytes into batches within the bound."""
    limit = max(memory_mb * 1e6, cost.max())
    # Half of the bound, and one user more, whatever that one costs.
    cut = np.diff(np.cumsum(cost) // (limit / 2)) > 0
    cut |= np.diff(np.arange(len(asked)) // _MOST) > 0
    return np.split(asked, np.flatnonzero(cut) + 1)
