"""Who else is told how a training goes: TensorBoard and MLflow, where they are installed."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from martlet.core import SpecError

_EVERY_S = 10.0  # between two tellings within an epoch


class Watcher(Protocol):
    """Takes figures of a run as they come."""

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures at a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Writes to ``tensorboard`` in the run's folder: ``tensorboard --logdir FOLDER`` shows it."""

    def __init__(self, folder: Path, key: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a killed run told beyond its checkpoint is told again.
        purge = step if step else None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures at a step."""
        for name, value in figures.items():
            self._writer.add_scalar(name.replace("@", "_at_"), value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class MLflow:
    """Logs to the server of ``MLFLOW_TRACKING_URI``, else to ``mlflow.db`` in the run's folder.

    Each start is an MLflow run of its own, with the key of the training as a tag.
    """

    def __init__(self, folder: Path, key: str, step: int) -> None:
        mlflow = importlib.import_module("mlflow")
        folder.mkdir(parents=True, exist_ok=True)
        own = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        where = os.environ.get("MLFLOW_TRACKING_URI", own)
        self._client = mlflow.MlflowClient(tracking_uri=where)
        found = self._client.get_experiment_by_name("martlet")
        experiment = found.experiment_id if found else self._client.create_experiment("martlet")
        tags = {"martlet.key": key, "martlet.from_step": str(step)}
        run = self._client.create_run(experiment, tags=tags, run_name=folder.name)
        self._run: str = run.info.run_id

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures at a step."""
        for name, value in figures.items():
            self._client.log_metric(self._run, name.replace("@", "_at_"), value, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._client.set_terminated(self._run)


WATCHERS: dict[str, type[TensorBoard] | type[MLflow]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}


class Audience:
    """All who watch a run, told together."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers, self._last = watchers, time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether it was told nothing for ten seconds."""
        return bool(self._watchers) and time.monotonic() - self._last >= _EVERY_S

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell everyone the figures at a step."""
        self._last = time.monotonic()
        for watcher in self._watchers:
            watcher.tell(step, figures)


@contextmanager
def watching(names: Sequence[str], folder: Path | None, key: str, step: int) -> Iterator[Audience]:
    """Yield those who watch, and close them at the end.

    Args:
        names: of ``WATCHERS``.
        folder: of the run.
        key: tells trainings apart.
        step: that the run starts from.

    Raises:
        SpecError: one is not installed, or there is no folder to write to.
    """
    if names and folder is None:
        raise SpecError(f"{names[0]} writes beside the run's log, and there is no run folder")
    opened: list[Watcher] = []
    try:
        for name in names:
            assert folder is not None
            try:
                opened.append(WATCHERS[name](folder, key, step))
            except Exception as error:  # each has errors of its own
                cure = "see its own words"
                if isinstance(error, ImportError):
                    cure = f"python -m pip install {name}"
                raise SpecError(
                    f"{name} cannot watch ({error}): {cure}, or leave it out; the log of the run "
                    "holds the same figures"
                ) from error
        yield Audience(opened)
    finally:
        for watcher in opened:
            watcher.close()


def memory_in_use() -> int:
    """Return the bytes of memory that the process holds now; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
