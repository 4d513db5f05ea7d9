"""A table of vectors as a part of a network: looked up by the fused kernel, and moved by it.

The vectors are no parameters of torch. A gradient of the table's size is never made: the backward
pass leaves the gradients of the rows that were looked up, and ``Embedding.step`` merges those of
equal rows and moves each row once. The table stays on the CPU, wherever the rest computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from martlet.core import SpecError, check_counts, num_threads, rng
from martlet.kernels import embedding as kernel
from martlet.kernels import row_steps
from martlet.kernels.embedding import Batch, EmbeddingTable, Storage
from martlet.kernels.parallel import spread
from martlet.scorers.table import Table, blocks
from martlet.train.mapped import mapped

TableOptimizer = Literal["sgd", "adagrad", "adam"]
Rows = Tensor | NDArray[np.integer[Any]]

_DTYPES = {
    "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8,
}  # fmt: skip


@dataclass
class _Gradient:
    """What the backward pass of one lookup left.

    Attributes:
        turn: number of the lookup; the order of sums follows it, not that of the backward pass.
        rows: (n,) that were looked up.
        batch: the same, sorted.
        values: (n, d) float32.
    """

    turn: int
    rows: NDArray[Any]
    batch: Batch
    values: NDArray[np.float32]


class Embedding(nn.Module):
    """An (N, d) table of float32 meaning, trained row by row in its storage.

    It has buffers and no parameters: ``train.loop`` finds it in a network, and calls ``step`` after
    the dense optimizer has moved. ``.to(device)`` leaves it where it is.

    Attributes:
        num_rows: N.
        dim: d.
        storage: "fp32", "fp16", "bf16", or "int8" with a scale a row; rounded by chance.
        optimizer: "sgd", or row-wise "adagrad" or "adam": one second moment a row.
        rate: step length at its largest.
        seed: of the first values and of the rounding. Tables of one network need seeds that differ.
        file: a folder that values and moments are memory-mapped files of, which may be larger than
            the memory. What it holds is overwritten. None keeps all in memory.
        init_scale: standard deviation of the first values.
        steps: that were taken.
        frozen: whether its rows stay as they are.
        table: what kernels take; it shares the memory of the buffers.
    """

    values: Tensor
    scale: Tensor
    first: Tensor
    second: Tensor

    def __init__(
        self,
        num_rows: int,
        dim: int,
        *,
        rate: float,
        storage: Storage = "fp32",
        optimizer: TableOptimizer = "adagrad",
        seed: int = 0,
        file: str | Path | None = None,
        init_scale: float = 0.01,
    ) -> None:
        """Make a table of random values. O(N d).

        Raises:
            SpecError: an option that makes no sense.
            OutputError: ``file`` cannot be written, or there is no room for it.
        """
        super().__init__()
        self.num_rows, self.dim, self.rate, self.seed = num_rows, dim, rate, seed
        self.storage, self.optimizer = storage, optimizer
        check_counts(self, "num_rows", "dim")
        _check_choice("storage", storage, get_args(Storage))
        _check_choice("optimizer", optimizer, get_args(TableOptimizer))
        if not rate > 0:
            raise SpecError(f"rate is {rate}: expected a number above 0")
        self.file = None if file is None else Path(file)
        self.steps, self.frozen = 0, False
        adam, state = optimizer == "adam", optimizer != "sgd"
        sizes = {
            "values": ((num_rows, dim), _DTYPES[storage]),
            "scale": ((num_rows if storage == "int8" else 0,), torch.float32),
            "first": ((num_rows, dim) if adam else (0, 0), torch.float32),
            "second": ((num_rows if state else 0,), torch.float32),
        }
        for name, (shape, dtype) in sizes.items():
            kept = name == "values" or (name == "scale" and storage == "int8")
            self.register_buffer(name, self._room(name, shape, dtype), persistent=kept)
        self.table = self._viewed()
        self._gradients: list[_Gradient] = []
        self._turn = 0
        # Autograd calls a backward pass only where something asks for a gradient.
        self._anchor = torch.zeros(0, requires_grad=True)
        self._fill(init_scale)

    def forward(self, rows: Rows) -> Tensor:
        """Return (..., d) float32 on the CPU, of (...) rows below N of any integer dtype.

        Raises:
            DataError: a row lies outside the table.
        """
        found: Tensor
        array = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows
        flat = np.ascontiguousarray(array).reshape(-1)
        flat = flat if flat.dtype in (np.int32, np.int64) else flat.astype(np.int64)
        if self.training and not self.frozen and torch.is_grad_enabled():
            found = _Lookup.apply(self._anchor, self, flat)  # type: ignore[no-untyped-call]
        else:
            found = torch.from_numpy(kernel.lookup(self.table, flat, num_threads=num_threads()))
        return found.reshape(*array.shape, self.dim)

    @property
    def nbytes(self) -> int:
        """Bytes of values, scales and moments."""
        return sum(b.numel() * b.element_size() for b in self.buffers())

    def step(self, share: float = 1.0) -> None:
        """Move the rows whose gradients are at hand, by ``share`` of the rate; forget those.

        O(n d) for n rows looked up.
        """
        if not self._gradients:
            return
        self.steps += 1
        batch, gradients = self._merged()
        first, second = self.first.numpy(), self.second.numpy()
        rules: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
            "sgd": (row_steps.sgd, ()),
            "adagrad": (row_steps.adagrad, (second,)),
            "adam": (row_steps.adam, (first, second)),
        }
        take, moments = rules[self.optimizer]
        rate, threads = self.rate * share, num_threads()
        own = self.table, *moments, batch, gradients
        take(*own, step=self.steps, rate=rate, num_threads=threads)
        self.forget()

    def forget(self) -> None:
        """Drop the gradients at hand."""
        self._gradients = []

    def scale_gradients(self, by: float) -> None:
        """Multiply the gradients at hand."""
        for one in self._gradients:  # the memory may be shared with others' gradients
            one.values = one.values * np.float32(by)

    def gradient(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the m distinct rows looked up, rising, and the (m, d) sums of their gradients."""
        if not self._gradients:
            return np.zeros(0, np.int64), np.zeros((0, self.dim), np.float32)
        return kernel.merge(*self._merged())

    def square_norm(self) -> float:
        """Return the squared norm of the gradient at hand: that of the sums over equal rows."""
        sums = self.gradient()[1].ravel()
        return float(np.dot(sums, sums))

    def moments(self) -> dict[str, Tensor]:
        """Return what a run needs besides the values to go on; it shares the memory."""
        held = {name: getattr(self, name) for name in ("first", "second")}
        full = {name: tensor for name, tensor in held.items() if tensor.numel()}
        return full | {"steps": torch.tensor(self.steps)}

    def restore(self, moments: dict[str, Tensor]) -> None:
        """Take over what ``moments`` returned."""
        self.steps = int(moments["steps"])
        for name in moments.keys() - {"steps"}:
            getattr(self, name).copy_(moments[name])

    def take(self, vectors: NDArray[np.float32], rows: Any = slice(None)) -> None:
        """Set rows, all of them unless told, to (n, d) vectors, rounded to the nearest. O(n d).

        Moments stay.
        """
        made = EmbeddingTable.of(vectors, self.storage)
        self.table.values[rows] = made.values
        if self.storage == "int8":
            self.table.scale[rows] = made.scale

    def export(self) -> Table:
        """Return the values in their storage, bf16 as fp32; it shares the memory but for bf16."""
        if self.storage == "bf16":
            rows = np.arange(self.num_rows)
            return Table.of(kernel.lookup(self.table, rows, num_threads=num_threads()))
        arrays: dict[str, Any] = {"values": self.values.numpy()}
        if self.storage == "int8":
            arrays["scale"] = self.scale.numpy()
        return Table(self.storage, (self.num_rows, self.dim), arrays)

    def extra_repr(self) -> str:
        """Return what torch prints between the brackets."""
        return f"{self.num_rows}, {self.dim}, {self.storage}, {self.optimizer}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.table = self._viewed()  # a copy's own

    def _viewed(self) -> EmbeddingTable:
        values = self.values.view(torch.uint16) if self.storage == "bf16" else self.values
        return EmbeddingTable(self.storage, values.numpy(), self.scale.numpy(), self.seed)

    def _apply(self, fn: Any, recurse: bool = True) -> Embedding:
        return self  # neither a device nor a dtype is changed from outside

    def _room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.file is None or 0 in shape:
            return torch.zeros(shape, dtype=dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return torch.frombuffer(mapped(self.file / name, size), dtype=dtype).reshape(shape)

    def _fill(self, std: float) -> None:
        """Set random values; each block has a stream of its own, so threads change nothing."""
        table, parts = self.table, blocks(self.num_rows, self.dim, 1 << 20)

        def some(first: int, last: int) -> None:
            for start, stop in parts[first:last]:
                stream = rng(self.seed, "embedding", start)
                drawn = stream.standard_normal((stop - start, self.dim), np.float32)
                made = EmbeddingTable.of(drawn * np.float32(std), self.storage)
                table.values[start:stop] = made.values
                table.scale[start:stop] = made.scale

        spread(some, len(parts), num_threads())

    def _merged(self) -> tuple[Batch, NDArray[np.float32]]:
        """Return the gradients of all lookups as those of one."""
        if len(self._gradients) > 1:
            in_turn = sorted(self._gradients, key=lambda one: one.turn)
            rows = np.concatenate([one.rows for one in in_turn])
            values = np.concatenate([one.values for one in in_turn])
            self._gradients = [_Gradient(0, rows, Batch.of(rows, self.num_rows), values)]
        return self._gradients[0].batch, self._gradients[0].values


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, table: Embedding, rows: NDArray[Any]) -> Tensor:
        wide, batch = kernel.begin(table.table, rows, num_threads=num_threads())
        table._turn += 1
        ctx.left = table, table._turn, rows, batch
        return torch.from_numpy(wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        table, turn, rows, batch = ctx.left
        values = gradient.float().contiguous().numpy()
        table._gradients.append(_Gradient(turn, rows, batch, values))
        return None, None, None


def tables_of(network: nn.Module) -> dict[str, Embedding]:
    """Return the tables in a network by name."""
    return {name: part for name, part in network.named_modules() if isinstance(part, Embedding)}


def size_of(network: nn.Module) -> int:
    """Return the numbers that a network learns: its parameters and the values of its tables."""
    own = sum(p.numel() for p in network.parameters())
    return own + sum(table.values.numel() for table in tables_of(network).values())


def _check_choice(name: str, given: object, expected: tuple[Any, ...]) -> None:
    if given not in expected:
        said = ", ".join(map(str, cast(tuple[str, ...], expected)))
        raise SpecError(f"{name} is {given!r}: expected one of {said}")
