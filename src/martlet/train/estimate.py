"""What a training will take, from a few timed steps before it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from martlet.core import check_memory
from martlet.train.embeddings import size_of, tables_of
from martlet.train.precision import cast, device_of_network

if TYPE_CHECKING:
    from martlet.train.loop import Task
    from martlet.train.plan import Plan

_WARM, _TIMED = 1, 3
_COPIES = {"sgd": 2, "adam": 4, "adamw": 4}  # parameters, the best ones, and moments


class Estimate(NamedTuple):
    """What all epochs take, should none be saved by patience.

    Attributes:
        parameters: numbers in the network.
        gflops: operations of all steps, in 10^9, as far as torch counts them.
        seconds: of all steps; validation comes on top.
        peak_mb: memory above what is in use now: parameters, moments, and a step's numbers.
    """

    parameters: int
    gflops: float
    seconds: float
    peak_mb: float

    def __str__(self) -> str:
        minutes = f"{self.seconds / 60:.1f} min" if self.seconds > 90 else f"{self.seconds:.0f} s"
        return (
            f"{self.parameters:,} parameters, {self.gflops:,.0f} GFLOP, {minutes} at most, "
            f"{self.peak_mb:,.0f} MB"
        )


def estimate(task: Task, plan: Plan, precision: str = "fp32") -> Estimate:
    """Return what training takes: forward and backward passes are timed, and nothing is moved.

    The steps of optimizers and tables come on top.

    Raises:
        SpecError: it needs more memory than the machine has.
    """
    from torch.utils.flop_counter import FlopCounterMode

    batches = task.batches(0)
    network = task.network.train()
    tables = tables_of(network)
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    fixed = size * _COPIES[plan.optimizer]
    for table in tables.values():
        best = table.values.nbytes if plan.patience else 0
        fixed += best + (table.nbytes if table.file is None else 0)
    _refuse(fixed)
    held = {name: buffer.clone() for name, buffer in network.named_buffers()
            if name.rpartition(".")[0] not in tables}  # fmt: skip
    chosen = batches[:_TIMED]  # their order is random already
    counter = FlopCounterMode(display=False)
    before, spent = _reset_peak(), 0.0
    with counter:
        for batch in chosen[:_WARM]:
            _pass(task, batch, precision)
    flops = counter.get_total_flops()
    for batch in chosen:
        begin = time.perf_counter()
        _pass(task, batch, precision)
        spent += time.perf_counter() - begin
    working = max(0, _peak() - before)
    network.zero_grad(set_to_none=True)
    network.load_state_dict(held, strict=False)
    _refuse(fixed + working)
    steps = plan.epochs * len(batches)
    seconds, gflops = spent / len(chosen) * steps, flops / _WARM * steps / 1e9
    return Estimate(size_of(network), gflops, seconds, (fixed + working) / 1e6)


def _pass(task: Task, batch: Any, precision: str) -> None:
    torch.manual_seed(0)
    with cast(precision, device_of_network(task.network)):
        loss, _ = task.loss(task.take(batch, 0))
    loss.backward()  # type: ignore[no-untyped-call]
    for table in tables_of(task.network).values():
        table.forget()


def _refuse(needed: float) -> None:
    advice = (
        "lower dim, max_length or the batch, take optimizer=sgd, store tables as int8 or in files, "
        "or set patience=0, which keeps no second copy"
    )
    check_memory("training", needed, advice)


def _reset_peak() -> int:
    """Start the system's count of peak memory anew, where it can; return what is in use."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(text.split(f"{name}:")[1].split()[0]) * 1024
