"""One generator of synthetic logs, calibrated on a real one; every scale figure uses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Interactions, Progress, SpecError, new_file, rng
from martlet.data.calibration import EVEN, F64, Calibration, spread

CIRCLES = 8  # orders of the items; see docs/decisions/synthetic.md
CHUNK_EVENTS = 2_000_000
PILOTS, PILOT_EVENTS = 5, 200_000
# Where a standard normal number passes from one quantile of ``EVEN`` to the next.
SCORES = np.array([NormalDist().inv_cdf(share) for share in (EVEN[1:] + EVEN[:-1]) / 2])


def synthesize(
    calibration: Calibration | None = None,
    *,
    num_users: int,
    num_items: int,
    num_events: int,
    seed: int = 0,
) -> Interactions:
    """Return a log of exactly ``num_events`` events that looks like the calibration's source.

    Rows fall by expected frequency. O(events) time, about 100 bytes an event at the peak.

    Args:
        calibration: of which log; None takes MovieLens 100K's.
        num_users: users, each with 1 event or more.
        num_items: items; the least popular may have no event.
        num_events: events of the log.
        seed: same seed, same log.

    Raises:
        SpecError: sizes that no log can have.
    """
    plan = Plan.of(calibration or Calibration.default(), num_users, num_items, num_events, seed)
    user, item, weight, time_s = plan.draw(0, num_users)
    return Interactions.sort(user, item, weight, time_s, num_users=num_users, num_items=num_items)


def synthesize_parquet(
    path: str | Path,
    calibration: Calibration | None = None,
    *,
    num_users: int,
    num_items: int,
    num_events: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write such a log as Parquet: user_id, item_id (shuffled integers), rating, timestamp.

    A row group of about ``CHUNK_EVENTS`` events holds whole users, its rows in time order. Memory
    is that of one row group and of the arrays over users and items, whatever the log's size.

    Raises:
        SpecError: sizes that no log can have.
        OutputError: the file could not be written; nothing of it is left.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    plan = Plan.of(calibration or Calibration.default(), num_users, num_items, num_events, seed)
    user_id, item_id = (
        rng(seed, "synthetic", name).permutation(np.arange(1, size + 1, dtype=np.int32))
        for name, size in (("user ids", num_users), ("item ids", num_items))
    )
    fields = [("user_id", pa.int32()), ("item_id", pa.int32()), ("rating", pa.float32())]
    if plan.calibration.clock_s is not None:
        fields.append(("timestamp", pa.int64()))
    schema = pa.schema(fields)
    done = 0
    with new_file(path) as target, pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for first, last in plan.chunks():
            user, item, weight, time_s = plan.draw(first, last)
            columns = [user_id[user], item_id[item], weight]
            if time_s is not None:
                order = np.argsort(time_s, kind="stable")
                columns = [column[order] for column in (*columns, time_s)]
            writer.write_table(pa.table(columns, schema=schema))
            done += len(user)
            if progress is not None:
                progress("synthesize", done, num_events)
    return Path(path)


@dataclass(frozen=True, eq=False)
class Plan:
    """All that stands before the first draw: a length and a stay a user, a map of the items.

    Attributes:
        calibration: what the log is like.
        seed: of every stream.
        lengths: (num_users,) int64 events of each user, falling.
        weight: (num_items,) float64 how often the map offers each item.
    """

    calibration: Calibration
    seed: int
    lengths: NDArray[np.int64]
    weight: F64

    @staticmethod
    def of(
        calibration: Calibration, num_users: int, num_items: int, num_events: int, seed: int
    ) -> Plan:
        """Spread the events over the users, and make the popularity of the items come out right.

        Raises:
            SpecError: sizes that no log can have.
        """
        sizes = f"{num_events} events of {num_users} users and {num_items} items"
        if min(num_users, num_items) < 1 or num_events < num_users:
            raise SpecError(f"{sizes}: expected 1 or more of each, and an event for every user")
        longest = num_items if calibration.repeat_share == 0 else num_events
        if num_events > 0.8 * num_users * longest:
            raise SpecError(
                f"{sizes}: over 80% of all pairs would be met; ask for more users or items"
            )
        lengths = _lengths(spread(calibration.length, num_users), num_events, longest)
        return Plan(calibration, seed, lengths, np.ones(num_items))._with_popularity()

    @cached_property
    def item_map(self) -> tuple[NDArray[np.int32], F64, NDArray[np.int32]]:
        """Items on circles, each with an arc as long as its weight."""
        from martlet.kernels.draw import arcs

        return arcs(self.weight, CIRCLES, rng(self.seed, "synthetic", "map"))

    @cached_property
    def slope(self) -> F64:
        """(num_items,) how far each item's log-popularity moves over the log."""
        drift = 0.0 if self.calibration.clock_s is None else self.calibration.drift
        return drift * rng(self.seed, "synthetic", "drift").normal(size=len(self.weight))

    @cached_property
    def level(self) -> F64:
        """(num_items,) share of all events that less popular items have, less a half."""
        share = spread(self.calibration.popularity, len(self.weight)) / len(self.weight)
        return 0.5 - np.cumsum(share) + share / 2

    @cached_property
    def lean(self) -> F64:
        """(num_users,) how far each user prefers the popular items; negative the rare ones."""
        normal = rng(self.seed, "synthetic", "lean").normal(size=len(self.lengths))
        return self.calibration.lean * normal

    @cached_property
    def stay(self) -> tuple[F64, F64]:
        """(num_users,) when each user begins and how long it stays, as shares of the clock."""
        of, stream = self.calibration, rng(self.seed, "synthetic", "stay")
        start = np.interp(stream.random(len(self.lengths)), EVEN, of.start)
        span = np.interp(stream.random(len(self.lengths)), EVEN, of.span)
        return start, span * (1 - start)

    @cached_property
    def opinion(self) -> tuple[F64, F64]:
        """(num_items,) and (num_users,) parts of the latent weight that are theirs."""
        of, stream = self.calibration, rng(self.seed, "synthetic", "opinion")
        by_item = np.sqrt(of.weight_of_item) * stream.normal(size=len(self.weight))
        return by_item, np.sqrt(of.weight_of_user) * stream.normal(size=len(self.lengths))

    def draw(self, first: int, last: int) -> tuple[Any, ...]:
        """Return user_row, item_row, weight and time_s (or None) of users ``first`` to ``last``."""
        of = self.calibration
        item, share = self.histories(np.arange(first, last), "events")
        user = np.repeat(np.arange(first, last, dtype=np.int32), self.lengths[first:last])
        latent = rng(self.seed, "synthetic", "weights", first).normal(size=len(item))
        latent *= np.sqrt(max(0.0, 1 - of.weight_of_item - of.weight_of_user))
        latent += self.opinion[0][item] + self.opinion[1][user]
        weight = np.array(of.weight, np.float32)[np.searchsorted(SCORES, latent)]
        if of.clock_s is None:
            return user, item, weight, None
        begin, end = of.clock_s
        return user, item, weight, (begin + share * (end - begin)).astype(np.int64)

    def histories(self, users: NDArray[np.int64], purpose: str) -> tuple[NDArray[np.int32], F64]:
        """Return the items and the times, as shares of the clock, of the given users."""
        from martlet.kernels.draw import draw_histories

        of = self.calibration
        stream = rng(self.seed, "synthetic", purpose).integers(2**63, dtype=np.uint64)
        begin, span = (column[users] for column in self.stay)
        return draw_histories(
            stream, int(users[0]), self.lengths[users], begin, span, self.lean[users],
            np.array(of.position), np.array(of.elapsed), _rising(of.circle_ratio),
            of.width, of.repeat_share, *self.item_map, self.slope, self.level,
        )  # fmt: skip

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of users with about ``CHUNK_EVENTS`` events each."""
        ends = np.cumsum(self.lengths)
        first = 0
        while first < len(ends):
            done = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + CHUNK_EVENTS, side="right")))
            yield first, last
            first = last

    def _with_popularity(self) -> Plan:
        """Return the plan whose draws have the calibrated popularity.

        An item that moves is turned away as often as its slope says; the map makes up for it. A
        user meets an item once, so the popular ones run out, and leaning turns draws away. Pilots
        over some of the users show by how much, in each band of ranks; the map makes up for that.
        """
        num_items = len(self.weight)
        users = np.arange(0, len(self.lengths), max(1, int(self.lengths.sum()) // PILOT_EVENTS))
        target = spread(self.calibration.popularity, num_items) / num_items
        if self.calibration.repeat_share == 0:
            target = np.minimum(target, 0.9 * len(users) / self.lengths[users].sum())
        target /= target.sum()
        ranks = np.arange(1, num_items + 1)
        edges = np.unique(np.geomspace(1, num_items + 1, 60).astype(int))
        band = np.searchsorted(edges, ranks, side="right") - 1
        wanted = np.bincount(band, target)
        fate = np.maximum(np.abs(self.slope), 1e-9)
        kept = -np.expm1(-fate) / fate  # over all ages, which are even
        plan = replace(self, weight=target / kept)
        for _ in range(PILOTS):
            items, _ = plan.histories(users, "pilot")
            found = np.bincount(band, np.bincount(items, minlength=num_items)) / len(items)
            # Squared, as what runs out gives way slowly.
            correction = np.clip((wanted / np.maximum(found, 1e-12)) ** 2, 0.25, 4.0)
            plan = replace(plan, weight=plan.weight * correction[band])
        return plan


def _rising(ratio: float) -> F64:
    share = np.cumsum(ratio ** np.arange(CIRCLES))
    return np.asarray(share / share[-1], np.float64)


def _lengths(shape: F64, total: int, longest: int) -> NDArray[np.int64]:
    """Return whole lengths from 1 to ``longest`` that follow ``shape`` and add up to ``total``."""
    low, high = 0.0, float(longest) / shape.min()
    for _ in range(100):  # the scale at which what is cut off at both ends makes up for itself
        scale = (low + high) / 2
        if np.clip(shape * scale, 1, longest).sum() < total:
            low = scale
        else:
            high = scale
    exact = np.clip(shape * high, 1, longest)
    lengths: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    short = total - int(lengths.sum())
    order = np.argsort(lengths - exact, kind="stable")  # largest remainder first
    room = order[lengths[order] < longest]
    lengths[room[:short]] += 1
    return lengths
