"""Where a training run stands on disk and who watches it: folder, log, progress, clean stop."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from martlet.core import MartletError, OutputError, Progress, SpecError, new_file
from martlet.core.files import stated
from martlet.train.watch import WATCHERS

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]


class Stopped(MartletError):
    """A signal ended the run; what it had reached is saved."""


class Epoch(NamedTuple):
    """What one pass came to.

    Attributes:
        loss: mean over the pass.
        figure: of the validation part, larger is better; None without one.
        seconds: of the pass, validation left out.
        rows_per_s: targets a second.
    """

    loss: float
    figure: float | None
    seconds: float
    rows_per_s: float


@dataclass(frozen=True)
class Run:
    """How one training is kept and watched; no digit of the result depends on it.

    Attributes:
        folder: gets ``log.jsonl``, ``report.json`` and ``checkpoint.safetensors``; None keeps none.
        resume: go on from the folder's checkpoint, where there is one.
        every_steps: a checkpoint after so many steps; 0 counts none.
        every_s: a checkpoint after so many seconds; 0 counts none.
        progress: told how far it is.
        watch: who else is told, beside the folder's log: "tensorboard", "mlflow".
    """

    folder: Path | None = None
    resume: bool = False
    every_steps: int = 0
    every_s: float = 300.0
    progress: Progress | None = None
    watch: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_s"):
            value: Any = getattr(self, name)
            if not (isinstance(value, int | float) and value >= 0):
                raise SpecError(f"{name} is {value!r}: expected a number, 0 or more")
        watch = (self.watch,) if isinstance(self.watch, str) else self.watch
        for name in watch:
            if name not in WATCHERS:
                raise SpecError(f"watch is {name!r}: expected {' or '.join(WATCHERS)}")
        object.__setattr__(self, "watch", tuple(watch))

    @property
    def checkpoint(self) -> Path | None:
        """Path of the checkpoint."""
        return None if self.folder is None else Path(self.folder) / "checkpoint.safetensors"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other trainings out of the folder: each would replace the other's checkpoint.

        The lock is the system's, and ends with the process, however that ends.

        Raises:
            OutputError: another training is under way in it, or it cannot be written to.
        """
        if self.folder is None or fcntl is None:
            yield
            return
        path = Path(self.folder) / "lock"
        with stated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a")  # noqa: SIM115 (the training itself is none of ``stated``)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"another training is under way in {self.folder}: wait for its end, or choose "
                    "another run folder"
                ) from error
            except OSError:  # a file system without locks
                pass
            yield

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        if self.folder is not None:
            path = Path(self.folder) / "log.jsonl"
            with stated(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "ab", buffering=0) as file:
                    start, data = file.tell(), json.dumps(dict(line)).encode() + b"\n"
                    if file.write(data) < len(data):
                        file.truncate(start)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def keep(self, report: Report) -> None:
        """Write the report beside the log."""
        if self.folder is not None:
            with new_file(Path(self.folder) / "report.json") as target:
                target.write_text(json.dumps(report.to_json(), indent=1))


@dataclass
class Clock:
    """Says when the next checkpoint is due."""

    run: Run
    _last: float = field(default_factory=time.monotonic)

    def due(self, step: int) -> bool:
        """Whether one is due after ``step`` steps."""
        run = self.run
        if run.checkpoint is None:
            return False
        by_step = run.every_steps > 0 and step % run.every_steps == 0
        by_time = run.every_s > 0 and time.monotonic() - self._last >= run.every_s
        if by_step or by_time:
            self._last = time.monotonic()
        return by_step or by_time


@dataclass(frozen=True)
class Report:
    """What a training came to.

    Attributes:
        epochs: every pass.
        best: number of the epoch that was kept, from 0.
        figure: name of the validation figure.
        parameters: numbers in the network.
        ended: "early", "epochs".
        precision: in which products were taken.
    """

    epochs: tuple[Epoch, ...]
    best: int
    figure: str
    parameters: int
    ended: str
    precision: str = "fp32"

    @property
    def verdict(self) -> str:
        """Whether it over- or under-fits, in words, from the two curves."""
        figures = [epoch.figure for epoch in self.epochs if epoch.figure is not None]
        if len(figures) < max(2, len(self.epochs)):
            return "there is no validation curve to judge by"
        best, last = figures.index(max(figures)), len(figures) - 1
        after = last - best
        if best == last:
            return (
                f"under-fitted: {self.figure} was still rising in the last epoch; give more "
                "epochs, or a larger rate"
            )
        if self.epochs[last].loss < self.epochs[best].loss:
            return (
                f"over-fitted from epoch {best + 1} on: the loss went on falling for {after} "
                f"epochs and {self.figure} did not rise; the parameters of epoch {self.best + 1} "
                "are kept. More dropout or weight decay may help"
            )
        return f"settled at epoch {best + 1}: neither the loss nor {self.figure} got better"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "epochs": [e._asdict() for e in self.epochs],
                "verdict": self.verdict}  # fmt: skip


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; the step under way ends first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in kinds}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
