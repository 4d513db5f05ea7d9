"""Kernels release the interpreter lock; this spreads their calls over threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def spread(call: Callable[[int, int], None], size: int, num_threads: int, grain: int = 1) -> None:
    """Call ``call(start, stop)`` over pieces of ``range(size)`` on up to ``num_threads`` threads.

    Four pieces a thread even out rows of unequal cost. Any number of callers may do so at once,
    which Numba's own default threads do not allow.

    Args:
        call: a function that releases the lock for most of its time.
        size: units of work.
        num_threads: threads to use at most.
        grain: units that are worth a piece of their own.
    """
    pieces = min(-(-size // max(1, grain)), 4 * num_threads) if num_threads > 1 else 1
    if pieces <= 1:
        call(0, size)
        return
    bounds = [size * piece // pieces for piece in range(pieces + 1)]
    _all(call, list(itertools.pairwise(bounds)), num_threads)


def in_order(call: Callable[[S], T], tasks: Sequence[S], num_threads: int) -> Iterator[T]:
    """Yield ``call(task)`` for each task in order, up to ``num_threads`` of them at work at a time.

    The tasks may spread their own work: these threads are not those of ``spread``.
    """
    if num_threads <= 1 or len(tasks) <= 1:
        yield from map(call, tasks)
        return
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="martlet-task")
    try:
        yield from pool.map(call, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _all(
    call: Callable[[int, int], None], ranges: Sequence[tuple[int, int]], num_threads: int
) -> None:
    pool = _pool(num_threads, os.getpid())
    for done in [pool.submit(call, *bounds) for bounds in ranges]:
        done.result()


@lru_cache(maxsize=4)
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Return the pool of this process; a forked child makes its own."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="martlet")
