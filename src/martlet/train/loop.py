"""The one loop: batches in, steps taken, figures watched, the best parameters kept."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from martlet.core import DataError, MartletError, num_threads
from martlet.train import checkpoint
from martlet.train.ahead import ahead
from martlet.train.device import set_seed
from martlet.train.embeddings import size_of
from martlet.train.estimate import estimate
from martlet.train.moving import Movers
from martlet.train.plan import Plan
from martlet.train.precision import Scale, cast, choose, device_of_network
from martlet.train.run import Clock, Epoch, Report, Run, Stopped, stop_on_signal
from martlet.train.watch import Audience, memory_in_use, watching


class Diverged(MartletError):
    """The loss is no finite number."""


class Task(Protocol):
    """What is trained, as the loop sees it."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def figure(self) -> str:
        """Name of the validation figure."""

    def batches(self, epoch: int) -> Sequence[Any]:
        """Return what stands for each batch of an epoch: a function of the seed and ``epoch``."""

    def take(self, batch: Any, step: int) -> Any:
        """Return the tensors of a batch; runs in a thread beside the network."""

    def loss(self, tensors: Any) -> tuple[Tensor, int]:
        """Return the mean loss of a batch, and the number of its targets."""

    def validate(self) -> float | None:
        """Return the validation figure, larger is better; None where there is nothing to ask."""

    def describe(self, batch: Any) -> str:
        """Return which rows of the data a batch holds, for an error message."""


def train(task: Task, plan: Plan, *, seed: int, key: str, run: Run | None = None) -> Report:
    """Train ``task.network`` in place, and leave the best parameters in it.

    Batches, negatives and dropout are functions of the seed and the step, so a run that is killed
    and resumed ends with the same digits as one that was not.

    Args:
        task: network, batches, loss and validation.
        plan: hyper-parameters.
        seed: drives all that is random.
        key: tells runs apart; a checkpoint of another key is refused.
        run: where it is kept and who watches.

    Raises:
        Diverged: the loss is no finite number.
        Stopped: a signal came; the checkpoint is written.
        DataError: a checkpoint that is damaged, or of another run or version.
        OutputError: the run's folder cannot be written to, or another training is under way there.
        SpecError: more memory is needed than there is, or who is to watch is not installed.
    """
    torch.set_num_threads(num_threads())
    run = run or Run()
    with run.alone():
        state = _State(task, plan, seed, key, run)
        with watching(run.watch, run.folder, key, state.step) as audience, stop_on_signal() as stop:
            if not state.step:
                state.prepare()
            while not state.ended:
                state.epoch(audience, stop)
        return state.finish()


class _State:
    """Everything that a checkpoint holds."""

    def __init__(self, task: Task, plan: Plan, seed: int, key: str, run: Run) -> None:
        self.task, self.plan, self.seed, self.key, self.run = task, plan, seed, key, run
        self.movers, self.device = Movers(task.network, plan), device_of_network(task.network)
        self.precision = ""
        self.per_epoch = len(task.batches(0))
        self.step, self.loss_sum, self.targets, self.seconds = 0, 0.0, 0, 0.0
        self.epochs: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.clock = Clock(run)
        if run.resume and run.checkpoint is not None and run.checkpoint.exists():
            self._load()

    @property
    def best_epoch(self) -> int:
        """Number of the best epoch so far; the last where there is no figure."""
        figures = [-math.inf if e.figure is None else e.figure for e in self.epochs]
        top = max(figures)
        return figures.index(top) if top > -math.inf else len(figures) - 1

    @property
    def ended(self) -> str:
        """Why there is nothing left to do; "" while there is."""
        patience = self.plan.patience
        if self.epochs and patience and len(self.epochs) - 1 - self.best_epoch >= patience:
            return "early"
        return "epochs" if len(self.epochs) >= self.plan.epochs else ""

    def prepare(self) -> None:
        """Choose the precision, and say what the run will take."""
        plan, run = self.plan, self.run
        self.precision = plan.precision
        if plan.precision == "auto":
            choice = choose(self.task)
            self.precision = choice.precision
            run.log({"precision": choice._asdict()})
        self.movers.scale = Scale(self.precision)
        before = estimate(self.task, plan, self.precision)
        run.log({"estimate": before._asdict()})
        if run.progress is not None:
            run.progress(f"train: {before}", 0, plan.epochs * self.per_epoch)

    def epoch(self, audience: Audience, stop: threading.Event) -> None:
        """Take the steps that are left of the current epoch, then validate."""
        task, number = self.task, len(self.epochs)
        batches = task.batches(number)
        task.network.train()
        left = batches[self.step - number * self.per_epoch :]
        begin = time.perf_counter()
        for batch, tensors in ahead(task, left, self.step):
            set_seed(_mixed(self.seed, self.step), self.device)
            with cast(self.precision, self.device):
                loss, count = task.loss(tensors)
            value = self._finite(loss, batch, f"at step {self.step + 1}")
            self.movers.move(loss, self._share)
            self.step += 1
            self.loss_sum, self.targets = self.loss_sum + value * count, self.targets + count
            if stop.is_set() or self.clock.due(self.step):
                now = time.perf_counter()
                self.seconds, begin = self.seconds + now - begin, now
                self._save()
                if stop.is_set():
                    self._stopped()
            self._tell(audience, self.seconds + time.perf_counter() - begin)
        self.seconds += time.perf_counter() - begin
        if left:
            self._look(batch, tensors)
        self._close(audience)

    def finish(self) -> Report:
        """Put the best parameters into the network, and write the report."""
        network = self.task.network.eval()
        if self.best:
            network.load_state_dict(self.best)
        best = self.best_epoch if self.plan.patience else len(self.epochs) - 1
        epochs, count = tuple(self.epochs), size_of(network)
        figure = self.task.figure
        report = Report(epochs, best, figure, count, self.ended, self.precision)
        self.run.keep(report)
        return report

    @property
    def _share(self) -> float:
        """Share of the rate that the schedule leaves at this step."""
        stale = len(self.epochs) - 1 - self.best_epoch if self.epochs else 0
        return self.plan.share(self.step, self.plan.epochs * self.per_epoch, stale)

    def _look(self, batch: Any, tensors: Any) -> None:
        """Take the loss of an epoch's last batch once more: its own step may have ruined all."""
        self.task.network.eval()
        with torch.no_grad(), cast(self.precision, self.device):
            loss, _ = self.task.loss(tensors)
        for table in self.movers.tables.values():
            table.forget()
        self._finite(loss, batch, f"after step {self.step}")

    def _finite(self, loss: Tensor, batch: Any, when: str) -> float:
        """Return the loss as a number.

        Raises:
            Diverged: it is none; names the step, the rows of the batch, and what to do.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(
                f"the loss became {value} {when} (epoch {len(self.epochs) + 1}), on "
                f"{self.task.describe(batch)}: lower the rate (now {self.plan.rate:g}), set clip "
                "to 1, or look for extreme values in these rows"
            )
        return value

    def _close(self, audience: Audience) -> None:
        """End an epoch: validate, keep the best, log."""
        self.task.network.eval()
        with torch.inference_mode():
            figure = self.task.validate()
        loss, speed = self.loss_sum / max(1, self.targets), self.targets / max(self.seconds, 1e-9)
        self.epochs.append(Epoch(loss, figure, self.seconds, speed))
        self.loss_sum, self.targets, self.seconds = 0.0, 0, 0.0
        if self.plan.patience and self.best_epoch == len(self.epochs) - 1:
            self.best = {k: v.clone() for k, v in self.task.network.state_dict().items()}
        line = {"epoch": len(self.epochs), "step": self.step, **self.epochs[-1]._asdict()}
        self.run.log(line)
        found = {"loss": loss, "rows_per_s": speed, "memory_mb": memory_in_use() / 1e6}
        audience.tell(self.step, found if figure is None else found | {self.task.figure: figure})
        if self.run.checkpoint is not None:
            self._save()

    def _tell(self, audience: Audience, seconds: float) -> None:
        """Say how far the epoch is, ``seconds`` after its first step."""
        loss, speed = self.loss_sum / self.targets, self.targets / max(seconds, 1e-9)
        if audience.waits:
            found = {"loss": loss, "rows_per_s": speed, "memory_mb": memory_in_use() / 1e6}
            audience.tell(self.step, found)
        if self.run.progress is None:
            return
        words = f"loss {loss:.4f}"
        if self.epochs and self.epochs[-1].figure is not None:
            words += f", {self.task.figure} {self.epochs[-1].figure:.4f}"
        words += f", {speed:,.0f} rows/s, {memory_in_use() / 1e6:,.0f} MB"
        step = f"train: epoch {len(self.epochs) + 1}, {words}"
        self.run.progress(step, self.step, self.plan.epochs * self.per_epoch)

    def _stopped(self) -> None:
        where = self.run.checkpoint
        after = "nothing is kept: no run folder was given"
        if where is not None:
            after = f"{where} is saved: go on with resume"
        raise Stopped(f"stopped after step {self.step}; {after}")

    def _save(self) -> None:
        if self.run.checkpoint is None:
            return
        tensors = {f"network.{k}": v for k, v in self.task.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.movers.tensors().items()}
        state = {
            "key": self.key,
            "step": self.step,
            "sums": [self.loss_sum, self.targets, self.seconds],
            "epochs": [epoch._asdict() for epoch in self.epochs],
            "precision": self.precision,
            "scale": self.movers.scale.state(),
        }
        checkpoint.save(self.run.checkpoint, tensors, state)

    def _load(self) -> None:
        assert self.run.checkpoint is not None
        tensors, state = checkpoint.load(self.run.checkpoint)
        if state.get("key") != self.key:
            raise DataError(
                f"{self.run.checkpoint} belongs to a run of other settings, data or seed: resume "
                "with the same ones, or choose another folder"
            )
        try:
            self._restore(tensors, state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.run.checkpoint} does not fit the model ({reason}): resume with the version "
                "that wrote it, or remove it to train from the start"
            ) from error

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take over what ``_save`` wrote."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, own = name.split(".", 1)
            parts[part][own] = tensor
        self.task.network.load_state_dict(parts["network"])
        self.best = parts["best"]
        self.movers.restore(parts["optimizer"])
        self.step, self.precision = state["step"], state["precision"]
        self.movers.scale.restore(state["scale"])
        self.loss_sum, self.targets, self.seconds = state["sums"]
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]


def fingerprint(*parts: object) -> str:
    """Return a short hash of what makes a run the same run."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]


def _mixed(seed: int, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/dropout/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
