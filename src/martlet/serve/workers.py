"""A parent that keeps several forked workers running until it is told to stop."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

from martlet.core import MartletError

Work = Callable[[int, Callable[[], None]], None]

_MAX_FAILURES = 3
_POLL_S = 0.1


def keep(
    work: Work,
    workers: int,
    *,
    ready: Callable[[], object],
    stopping: Callable[[], object],
    drain_s: float,
) -> None:
    """Run ``work(number, started)`` in forked processes until SIGTERM or SIGINT.

    A worker that dies is replaced under its number. A worker whose parent dies is told to stop.

    Args:
        work: run in each process; calls ``started`` once it answers, and returns after SIGTERM.
        workers: processes to keep, at most 256.
        ready: called once, when all workers have started.
        stopping: called once, before the workers are told to stop.
        drain_s: seconds that workers may take to stop before they are killed.

    Raises:
        MartletError: workers died again and again before they had started.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    news, tell = os.pipe()  # a worker that has started writes its number
    life, alive = os.pipe()  # the parent alone holds the far end: its death closes it
    number_of: dict[int, int] = {}  # by process id
    waiting, told, failures = set(range(workers)), False, 0
    try:
        while not stopped and failures < _MAX_FAILURES:
            for number in set(range(workers)) - set(number_of.values()):
                number_of[_fork(work, number, tell, life, alive)] = number
            if select.select([news], [], [], _POLL_S)[0]:
                waiting -= set(os.read(news, 512))
                failures = 0
            if not waiting and not told:
                ready()
                told = True
            for process in [p for p in number_of if os.waitpid(p, os.WNOHANG)[0]]:
                number = number_of.pop(process)
                failures += number in waiting
                waiting.add(number)
    finally:
        stopping()
        _end(list(number_of), drain_s)
        for handle in (news, tell, life, alive):
            os.close(handle)
        for number, handler in before.items():
            signal.signal(number, handler)
    if failures >= _MAX_FAILURES:
        raise MartletError("the workers fail while they start: their words are above")


def _fork(work: Work, number: int, tell: int, life: int, alive: int) -> int:
    """Return the id of a new process that runs ``work`` and nothing else of this program."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(alive)
        threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
        work(number, lambda: _write(tell, number))
        code = 0
    except MartletError as error:
        print(f"worker {number}: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _write(tell: int, number: int) -> None:
    os.write(tell, bytes([number]))


def _end_with_parent(life: int) -> None:
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _end(processes: list[int], drain_s: float) -> None:
    """Tell the processes to stop, and kill those that have not after ``drain_s`` seconds."""
    for process in processes:
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + drain_s + 1
    while processes and time.monotonic() < deadline:
        processes = [p for p in processes if not os.waitpid(p, os.WNOHANG)[0]]
        time.sleep(0.02)
    for process in processes:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
