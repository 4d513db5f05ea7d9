"""Values as int8 codes, with a scale for each row, for each column, or for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, SpecError
from martlet.scorers.dense import without_option
from martlet.scorers.table import blocks

if TYPE_CHECKING:
    from martlet.scorers.storages import At, Expected
    from martlet.scorers.table import Table

F32 = NDArray[np.float32]

_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)  # of the range, that calibration tries


@dataclass(frozen=True)
class Scaled:
    """Codes, "values" (n, d) int8, and "scale" float32: a value is code times scale, plus "zero".

    Symmetric codes have no zero. There are as many scales, and zeros, as rows, or as columns, or
    one of each.

    Attributes:
        per: what has a scale: "row", "column" or "table".
        affine: whether the middle of a range is stored besides, as "zero".
    """

    per: Literal["row", "column", "table"]
    affine: bool

    @staticmethod
    def of(family: str, option: str) -> Scaled:
        """Return the storage of that name.

        Raises:
            SpecError: it has no option.
        """
        parts = without_option(family, option).split("-")
        per: Any = {"column": "column", "table": "table"}
        return Scaled(next((per[part] for part in parts if part in per), "row"), "affine" in parts)

    @property
    def bits(self) -> float:
        """Bits of a value."""
        return 8.0

    def expected(self, table: Table) -> Expected:
        """Return the arrays."""
        n, d = table.shape
        found: Expected = {"values": (np.int8, (n, d))}
        for name in ("scale", "zero") if self.affine else ("scale",):
            found[name] = (np.float32, {"row": (n,), "column": (d,), "table": (1,)}[self.per])
        return found

    def check(self, name: str, table: Table) -> None:
        """Check nothing: every number is a value."""

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows."""
        wide: F32 = table.values[at].astype(np.float32)
        wide *= self._beside(table.arrays["scale"], at)
        if self.affine:
            wide += self._beside(table.arrays["zero"], at)
        return wide

    def encode(self, table: Table, moment: NDArray[np.float64] | None = None) -> dict[str, Array]:
        """Return codes rounded to nearest; the range is that of the values, or calibrated. O(n d).

        With a moment O(n d^2).

        Raises:
            SpecError: a value that is no finite number.
        """
        low, high = self._ranges(table)
        half = np.float32(0.5 if self.affine else 0)
        zero: Any = half * low + half * high
        scale: Any = np.maximum(high - zero, zero - low) / np.float32(127)
        if moment is not None:
            scale *= self._clips(table, scale, zero, moment)
        values = np.empty(table.shape, np.int8)
        for start, stop in blocks(*table.shape):
            part = slice(start, stop)
            centred = table.rows(part) - self._beside(zero, part)
            to_codes(centred, self._beside(scale, part), values[part])
        arrays: dict[str, Array] = {"values": values, "scale": scale}
        return arrays | ({"zero": zero} if self.affine else {})

    def _ranges(self, table: Table) -> tuple[F32, F32]:
        """Return the least and the largest value that each scale is for."""
        n, d = table.shape
        size = {"row": n, "column": d, "table": 1}[self.per]
        low, high = np.full(size, np.inf, np.float32), np.full(size, -np.inf, np.float32)
        for start, stop in blocks(n, d):
            part = table.rows(slice(start, stop))
            check_finite(part)
            if self.per == "row":
                low[start:stop], high[start:stop] = part.min(1), part.max(1)
            else:
                axis = 0 if self.per == "column" else None
                low, high = np.minimum(low, part.min(axis)), np.maximum(high, part.max(axis))
        return (low, high) if n and d else (np.zeros(size, np.float32),) * 2

    def _clips(self, table: Table, scale: F32, zero: F32, moment: NDArray[np.float64]) -> F32:
        """Return the share of each range that makes the least error of products."""
        weigh, best = moment.astype(np.float32), np.ones_like(scale)
        errors = np.zeros((len(_CLIPS), len(scale)))
        for start, stop in blocks(*table.shape):
            part, exact = slice(start, stop), table.rows(slice(start, stop))
            centred = exact - self._beside(zero, part)
            codes = np.empty(exact.shape, np.int8)
            for number, clip in enumerate(_CLIPS):
                step = self._beside(scale * np.float32(clip), part)
                to_codes(centred, step, codes)
                off = codes * step - centred
                if self.per == "column":
                    errors[number] += np.square(off).sum(0)
                    continue
                error = np.einsum("ij,ij->i", off @ weigh, off)
                errors[number, part if self.per == "row" else slice(None)] += (
                    error if self.per == "row" else error.sum()
                )
        best[:] = np.array(_CLIPS, np.float32)[errors.argmin(0)]
        return best

    def _beside(self, numbers: Any, at: At) -> Any:
        """Return scales or zeros in the shape that goes with rows ``at``."""
        return numbers[at][:, None] if self.per == "row" else numbers

    def prepared(self, table: Table) -> Any:
        """Return the codes as the kernel of ``kernels/int8.py`` takes them."""
        from martlet.kernels.codes import Codes

        scale: Any = table.arrays["scale"]
        zero: Any = table.arrays.get("zero")
        if self.per == "row":
            return Codes(table.values, scale, zero=zero)
        d, none = table.shape[1], np.empty(0, np.float32)
        scale, zero = (None if x is None else np.broadcast_to(x, (d,)) for x in (scale, zero))
        return Codes(table.values, none, columns=scale, zero=zero)

    def topk(
        self,
        table: Table,
        vectors: F32,
        k: int,
        hidden: CSR | None,
        allow: NDArray[np.bool_] | None,
        threads: int,
    ) -> tuple[NDArray[np.int32], F32]:
        """Return the (B, k) best rows and scores. O(B n d), n (d + 4) bytes read."""
        from martlet.kernels.int8 import topk_int8

        return topk_int8(vectors, table.prepared, k, hidden, allow, threads)[:2]


def to_codes(values: F32, scale: F32, out: Any) -> None:
    """Write ``values`` over ``scale`` into int8 ``out``, rounded to nearest; 0 where scale is 0."""
    step = np.where(scale > 0, scale, np.float32(1))
    np.rint(np.clip(values / step, -127, 127), out=out, casting="unsafe")


def check_finite(values: F32) -> None:
    """Refuse what no scale can hold.

    Raises:
        SpecError: a number that is not finite.
    """
    if not np.isfinite(values).all():
        raise SpecError(
            "the table holds a number that is not finite: no codes stand for it; fit the model "
            "again with a stronger regularization or a smaller learning rate"
        )
