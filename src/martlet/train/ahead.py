"""Batches that are made ready beside the network, a few ahead of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from martlet.train.loop import Task

_BURST = 8  # batches made in one go: each waking of the thread takes from a step more than a batch


def ahead(task: Task, batches: Sequence[Any], step: int) -> Iterator[tuple[Any, Any]]:
    """Yield (batch, tensors); a thread makes the tensors ready, up to two bursts ahead."""
    ready: queue.Queue[Any] = queue.Queue(1)
    left = threading.Event()

    def put(what: Any) -> None:
        while not left.is_set():
            try:
                ready.put(what, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            burst: list[tuple[Any, Any]] = []
            for number, batch in enumerate(batches):
                if left.is_set():
                    return
                burst.append((batch, task.take(batch, step + number)))
                if len(burst) == (_BURST if number >= _BURST else 1):
                    put(burst)
                    burst = []
            put(burst)
            put(None)
        except BaseException as error:
            put(error)

    worker = threading.Thread(target=work, name="martlet-batches", daemon=True)
    worker.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield from found
    finally:
        left.set()
        worker.join()
