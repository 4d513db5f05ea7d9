"""Batches that are made ready beside the network, a few ahead of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from martlet.train.loop import Task

_AHEAD = 4  # batches


def ahead(task: Task, batches: Sequence[Any], step: int) -> Iterator[tuple[Any, Any]]:
    """Yield (batch, tensors); a thread makes the tensors ready, a few batches ahead."""
    ready: queue.Queue[Any] = queue.Queue(_AHEAD)
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
            for number, batch in enumerate(batches):
                if left.is_set():
                    return
                put((batch, task.take(batch, step + number)))
            put(None)
        except BaseException as error:
            put(error)

    worker = threading.Thread(target=work, name="martlet-batches", daemon=True)
    worker.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        left.set()
        worker.join()
