"""Kernels release the interpreter lock; this spreads their calls over threads."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def spread(call: Callable[[int, int], None], size: int, num_threads: int, grain: int = 1) -> None:
    """Call ``call(start, stop)`` over pieces of ``range(size)`` on up to ``num_threads`` threads.

    The caller is one of the threads: where no other comes in time it does all of the work. Four
    pieces a thread even out rows of unequal cost. Any number of callers may do so at once, which
    Numba's own default threads do not allow.

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
    turns = itertools.count()

    def work() -> None:
        while (turn := next(turns)) < len(ranges):
            call(*ranges[turn])

    helpers = _helpers(num_threads - 1, os.getpid())
    helpers.leave_this_processor()
    others = [helpers.pool.submit(work) for _ in range(num_threads - 1)]
    try:
        work()
    finally:
        # One that has not begun is not waited for: it may be queued behind the caller itself.
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()


class _Helpers:
    """Threads that are woken on other processors than the caller's.

    Left to itself Linux often wakes a helper where the caller runs. There it waits for some
    milliseconds until it is moved, which is longer than a search takes.
    """

    def __init__(self, num_threads: int) -> None:
        self._threads: list[int] = []
        self._placed: tuple[int, int] | None = None
        self.pool = ThreadPoolExecutor(
            num_threads,
            thread_name_prefix="martlet",
            initializer=lambda: self._threads.append(threading.get_native_id()),
        )

    def leave_this_processor(self) -> None:
        """Keep the helpers off the caller's processor, if the system can and has another."""
        processor = _processor()
        if processor is None or self._placed == (processor, len(self._threads)):
            return
        elsewhere = os.sched_getaffinity(os.getpid()) - {processor}
        if elsewhere:
            with suppress(OSError):  # a system may forbid it, and works without
                for thread in self._threads:
                    os.sched_setaffinity(thread, elsewhere)
        self._placed = processor, len(self._threads)


@lru_cache(maxsize=4)
def _helpers(num_threads: int, process: int) -> _Helpers:
    """Return the helpers of this process; a forked child makes its own."""
    return _Helpers(num_threads)


def _processor() -> int | None:
    """Return the number of the processor that runs the caller, where the system tells."""
    call = _processor_call()
    return None if call is None else call()


@lru_cache(maxsize=1)
def _processor_call() -> Callable[[], int] | None:
    import ctypes

    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None
