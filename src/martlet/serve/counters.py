"""What a server counts, in memory that all its workers share, as Prometheus text."""

from __future__ import annotations

import mmap
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUTES = (
    "/",
    "/api/recommend/{user_id}",
    "/api/recommend",
    "/api/similar/{item_id}",
    "/api/health/live",
    "/api/health/ready",
    "/metrics",
    "/api/predict",
    "other",
)
OTHER = ROUTES.index("other")
STATUSES = (200, 400, 404, 405, 408, 413, 431, 500, 503)
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BOUNDS_NS = [round(bound * 1e9) for bound in BOUNDS_S]

_WIDTH = len(STATUSES) + len(BOUNDS_S) + 2  # statuses, buckets and the one above, total time
_CELLS = len(ROUTES) * _WIDTH + 1  # and the fallbacks


@dataclass(frozen=True, eq=False)
class Counters:
    """Rising counts, one row of cells a worker: each writes its own, whoever is asked adds all.

    Attributes:
        cells: (workers, cells) int64 in an anonymous shared map that forked workers inherit, so
            a worker that is replaced goes on where the one before it stopped.
        worker: the row that this process writes.
    """

    cells: NDArray[np.int64]
    worker: int = 0

    @staticmethod
    def shared(workers: int) -> Counters:
        """Return zeros for ``workers`` processes still to be forked."""
        memory = mmap.mmap(-1, workers * _CELLS * 8)
        return Counters(np.frombuffer(memory, np.int64).reshape(workers, _CELLS))

    def count(self, route: int, status: int, taken_ns: int) -> None:
        """Count one answered request of ``ROUTES[route]``."""
        mine, at = self.cells[self.worker], route * _WIDTH
        mine[at + STATUSES.index(status)] += 1
        mine[at + len(STATUSES) + bisect_left(_BOUNDS_NS, taken_ns)] += 1
        mine[at + _WIDTH - 1] += taken_ns

    def count_fallback(self) -> None:
        """Count one answer by popularity."""
        self.cells[self.worker, -1] += 1

    def text(self, bundle_id: str) -> str:
        """Return all workers' counts in the Prometheus text format 0.0.4."""
        total = self.cells.sum(axis=0)
        table = total[:-1].reshape(len(ROUTES), _WIDTH)
        status, bucket, taken = np.split(table, [len(STATUSES), _WIDTH - 1], axis=1)
        lines = [
            "# HELP martlet_requests_total Requests answered.",
            "# TYPE martlet_requests_total counter",
        ]
        for r, s in np.argwhere(status).tolist():
            labels = f'route="{ROUTES[r]}",status="{STATUSES[s]}"'
            lines.append(f"martlet_requests_total{{{labels}}} {status[r, s]}")
        lines += [
            "# HELP martlet_request_seconds From a request's head to its answer.",
            "# TYPE martlet_request_seconds histogram",
        ]
        for r in np.flatnonzero(status.any(axis=1)).tolist():
            route, rising = f'route="{ROUTES[r]}"', np.cumsum(bucket[r]).tolist()
            for bound, number in zip((*BOUNDS_S, "+Inf"), rising, strict=True):
                lines.append(f'martlet_request_seconds_bucket{{{route},le="{bound}"}} {number}')
            lines.append(f"martlet_request_seconds_sum{{{route}}} {taken[r, 0] / 1e9:.9f}")
            lines.append(f"martlet_request_seconds_count{{{route}}} {rising[-1]}")
        lines += [
            "# HELP martlet_fallbacks_total Answers by popularity, for want of a history.",
            "# TYPE martlet_fallbacks_total counter",
            f"martlet_fallbacks_total {total[-1]}",
            "# HELP martlet_bundle_info The bundle that answers.",
            "# TYPE martlet_bundle_info gauge",
            f'martlet_bundle_info{{id="{bundle_id}"}} 1',
            "# HELP martlet_workers Processes that answer.",
            "# TYPE martlet_workers gauge",
            f"martlet_workers {len(self.cells)}",
        ]
        return "\n".join(lines) + "\n"
