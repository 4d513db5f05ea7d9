"""In how many bits a network computes: what the device does fastest, if it keeps the loss."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from martlet.train.embeddings import tables_of

if TYPE_CHECKING:
    from martlet.train.loop import Task

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_LOSS, _GRADIENT = 0.01, 0.1  # largest difference from fp32, as a share: of the loss, of the norm
_GAIN = 0.9  # of the time of fp32, at most: what saves less is not worth fewer bits
_TIMED, _ROUNDS = 3, 5  # batches, and how often each is run
_TRIED_SCALE = 2.0**10
_FIRST_SCALE, _LAST_SCALE = 2.0**16, 2.0**24
_PATIENCE = 1000  # steps without an overflow after which the scale doubles


class Choice(NamedTuple):
    """What was tried, and taken.

    Attributes:
        precision: "fp32", "bf16" or "fp16".
        ms: of a forward and backward pass, a mean over batches of the fastest, by precision.
        loss: share by which the loss differs from that of fp32.
        gradient: norm of the gradient's difference, as a share of that of fp32.
    """

    precision: str
    ms: Mapping[str, float]
    loss: Mapping[str, float]
    gradient: Mapping[str, float]


def cast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which products are taken in ``precision``, and sums in float32."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def device_of_network(network: nn.Module) -> torch.device:
    """Return where the parameters are; the CPU where there are none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def choose(task: Task) -> Choice:
    """Return the fastest precision that keeps the loss; passes are timed, and nothing is moved.

    A precision is taken if its loss is within 1% of that of fp32 and its gradient within 10%, and
    if it takes at most 90% of the time. On a CPU without units for it, none does.
    """
    network, device = task.network.train(), device_of_network(task.network)
    held = {name: b.clone() for name, b in network.named_buffers() if not _of_table(network, name)}
    batches = [task.take(batch, 0) for batch in task.batches(0)[:_TIMED]]
    found = {name: _tried(task, batches[0], name, device) for name in PRECISIONS}
    ms = _timed(task, batches, device)
    network.zero_grad(set_to_none=True)
    network.load_state_dict(held, strict=False)
    plain, best = found["fp32"], "fp32"
    loss = {name: _share(one.loss - plain.loss, plain.loss) for name, one in found.items()}
    gradient = {name: _difference(one, plain) for name, one in found.items()}
    for name in PRECISIONS:
        keeps = loss[name] <= _LOSS and gradient[name] <= _GRADIENT
        if name != "fp32" and keeps and ms[name] <= min(_GAIN * ms["fp32"], ms[best]):
            best = name
    return Choice(best, ms, loss, gradient)


class Scale:
    """The number by which a loss in fp16 is multiplied, so that its gradients do not vanish.

    It halves where they overflow, and doubles after a thousand steps without.

    Attributes:
        by: the number; 1 where the precision needs none.
        kept: steps since it changed.
    """

    def __init__(self, precision: str) -> None:
        self.by = _FIRST_SCALE if precision == "fp16" else 1.0
        self.kept = 0

    def after(self, finite: bool) -> None:
        """Learn whether a step's gradients were finite."""
        self.kept += 1
        if not finite:
            self.by, self.kept = max(1.0, self.by / 2), 0
        elif self.kept >= _PATIENCE:
            self.by, self.kept = min(_LAST_SCALE, self.by * 2), 0

    def state(self) -> list[float]:
        """Return what ``restore`` takes."""
        return [self.by, self.kept]

    def restore(self, state: Sequence[float]) -> None:
        """Go on from a state."""
        self.by, self.kept = float(state[0]), int(state[1])


class _Pass(NamedTuple):
    loss: float
    gradient: list[Tensor]


def _tried(task: Task, tensors: Any, precision: str, device: torch.device) -> _Pass:
    """Return what a batch comes to."""
    scale = _TRIED_SCALE if precision == "fp16" else 1.0
    value = _run(task, tensors, precision, device, scale)
    found = _Pass(value, _gradients(task.network, scale))
    _forget(task.network)
    return found


def _timed(task: Task, batches: Sequence[Any], device: torch.device) -> dict[str, float]:
    """Return the milliseconds of a pass, by precision.

    They take turns, and of each batch the fastest counts: what else runs on the machine slows down
    all of them, and no median of few is safe from it.
    """
    fastest = {name: [math.inf] * len(batches) for name in PRECISIONS}
    for _ in range(_ROUNDS):
        for number, tensors in enumerate(batches):
            for name, found in fastest.items():
                begin = time.perf_counter()
                _run(task, tensors, name, device, _TRIED_SCALE if name == "fp16" else 1.0)
                found[number] = min(found[number], time.perf_counter() - begin)
                _forget(task.network)
    return {name: 1e3 * statistics.fmean(found) for name, found in fastest.items()}


def _run(task: Task, tensors: Any, precision: str, device: torch.device, scale: float) -> float:
    """Take a batch forward and back, and return its loss."""
    torch.manual_seed(0)
    task.network.zero_grad(set_to_none=True)
    with cast(precision, device):
        loss, _ = task.loss(tensors)
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())  # waits for the device


def _forget(network: nn.Module) -> None:
    for table in tables_of(network).values():
        table.forget()


def _gradients(network: nn.Module, scale: float) -> list[Tensor]:
    held = [p.grad for p in network.parameters() if p.grad is not None]
    found = [gradient.detach().float().cpu() / scale for gradient in held]
    sums = [table.gradient()[1] for table in tables_of(network).values()]
    return found + [torch.from_numpy(one) / scale for one in sums]


def _difference(one: _Pass, plain: _Pass) -> float:
    apart = [a - b for a, b in zip(one.gradient, plain.gradient, strict=True)]
    norm = nn.utils.get_total_norm
    return _share(float(norm(apart)), float(norm(plain.gradient)))


def _share(part: float, whole: float) -> float:
    share = abs(part) / max(abs(whole), 1e-30)
    return share if math.isfinite(share) else 1e30


def _of_table(network: nn.Module, name: str) -> bool:
    return name.rpartition(".")[0] in tables_of(network)
