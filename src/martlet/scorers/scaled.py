"""Values as int8 codes, with a scale a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array
from martlet.scorers.dense import without_option
from martlet.scorers.table import blocks

if TYPE_CHECKING:
    from martlet.scorers.storages import At, Expected
    from martlet.scorers.table import Table

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Scaled:
    """Codes, "values" (n, d) int8, and "scale" (n,) float32: a value is code times scale.

    Attributes:
        family: "int8".
    """

    family: str

    @staticmethod
    def of(family: str, option: str) -> Scaled:
        """Return the storage of that name.

        Raises:
            SpecError: it has no option.
        """
        return Scaled(without_option(family, option))

    @property
    def bits(self) -> float:
        """Bits of a value."""
        return 8.0

    def expected(self, table: Table) -> Expected:
        """Return the two arrays."""
        return {"values": (np.int8, table.shape), "scale": (np.float32, table.shape[:1])}

    def check(self, name: str, table: Table) -> None:
        """Check nothing: every number is a value."""

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows."""
        scale: Any = table.scale
        return table.values[at].astype(np.float32) * scale[at][:, None]  # type: ignore[no-any-return]

    def encode(self, table: Table, moment: Any = None) -> dict[str, Array]:
        """Return codes in steps of a row's largest magnitude over 127. O(n d)."""
        values, scale = np.empty(table.shape, np.int8), np.zeros(table.shape[0], np.float32)
        for start, stop in blocks(*table.shape):
            part = table.rows(slice(start, stop))
            scale[start:stop] = np.abs(part).max(1, initial=0.0) / np.float32(127)
            to_codes(part, scale[start:stop, None], values[start:stop])
        return {"values": values, "scale": scale}

    def prepared(self, table: Table) -> Any:
        """Return the codes as the kernel of ``kernels/int8.py`` takes them."""
        from martlet.kernels.codes import Codes

        return Codes(table.values, table.scale)  # type: ignore[arg-type]

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
