"""Values as codes of four or two bits, with a scale for a group of columns of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, SpecError
from martlet.scorers.scaled import check_finite
from martlet.scorers.table import blocks

if TYPE_CHECKING:
    from martlet.scorers.storages import At, Expected
    from martlet.scorers.table import Table

F32 = NDArray[np.float32]

GROUP = 32  # columns, unless another number is asked for
_BLOCK_VALUES = 1 << 20  # worked on at a time, for several copies of them are made
# Shares of a group's range that are tried: the fewer the codes, the more a wide range costs.
_CLIPS = {4: (1.0, 0.94, 0.88, 0.82, 0.76, 0.7), 2: (1.0, 0.9, 0.8, 0.7, 0.6, 0.52, 0.44, 0.36)}


@dataclass(frozen=True)
class PackedCodes:
    """Codes in "values" (n, bytes) uint8, and "scale" (n, G) uint16, the bits of a bfloat16.

    A value is ``scale * (code - offset)``, plus "zero" (n, G) where it is affine. Of a group's
    range so much is kept as makes the least error, of values or of products.

    Attributes:
        code_bits: 4 or 2.
        affine: whether the middle of a range is stored besides, as "zero".
        group: columns that share a scale.
    """

    code_bits: int
    affine: bool
    group: int

    @staticmethod
    def of(family: str, option: str) -> PackedCodes:
        """Return the storage of that name, such as ("int4", "32").

        Raises:
            SpecError: the group is no whole number above 1.
        """
        bits, _, affine = family.removeprefix("int").partition("-")
        group = GROUP if not option else int(option) if option.isdecimal() else 0
        if group < 2:
            raise SpecError(
                f"storage {family}:{option} is unknown: expected such as {family}:32, the columns "
                "that share a scale, 2 or more"
            )
        return PackedCodes(int(bits), bool(affine), group)

    @property
    def bits(self) -> float:
        """Bits of a value."""
        return float(self.code_bits)

    @property
    def offset(self) -> float:
        """The code of the middle: 8 keeps zeros as zeros, one between two codes wastes none."""
        return {4: 7.5 if self.affine else 8.0, 2: 1.5}[self.code_bits]

    def layout(self, d: int) -> Any:
        """Return how d codes lie in a row."""
        from martlet.kernels.packed import Layout

        return Layout(d, self.code_bits, self.group)

    def expected(self, table: Table) -> Expected:
        """Return the arrays."""
        n, layout = table.shape[0], self.layout(table.shape[1])
        scales = (np.uint16, (n, layout.num_groups))
        found: Expected = {"values": (np.uint8, (n, layout.row_bytes)), "scale": scales}
        return found | ({"zero": scales} if self.affine else {})

    def check(self, name: str, table: Table) -> None:
        """Check that no scale is below 0.

        Raises:
            BundleError: one is.
        """
        scale: Any = table.arrays["scale"]
        if (scale > 0x7FFF).any():
            raise BundleError(f"table {name} has a scale below 0: no codes do")

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows."""
        return table.prepared.rows(at)  # type: ignore[no-any-return]

    def encode(self, table: Table, moment: NDArray[np.float64] | None = None) -> dict[str, Array]:
        """Return codes rounded to nearest. O(n d), with a moment O(n d group).

        Raises:
            SpecError: a value that is no finite number, or beyond bfloat16.
        """
        (n, d), layout = table.shape, self.layout(table.shape[1])
        values = np.empty((n, layout.row_bytes), np.uint8)
        scale, zero = (np.empty((n, layout.num_groups), np.uint16) for _ in range(2))
        for start, stop in blocks(n, d, _BLOCK_VALUES):
            part = table.rows(slice(start, stop))
            check_finite(part)
            codes = np.empty(part.shape, np.uint8)
            for g, columns in enumerate(layout.groups()):
                weigh = None if moment is None else moment[columns, columns].astype(np.float32)
                codes[:, columns], scale[start:stop, g], zero[start:stop, g] = self._fit(
                    part[:, columns], weigh
                )
            values[start:stop] = layout.pack(codes)
        arrays: dict[str, Array] = {"values": values, "scale": scale}
        return arrays | ({"zero": zero} if self.affine else {})

    def _fit(self, values: F32, weigh: F32 | None) -> tuple[NDArray[np.uint8], Any, Any]:
        """Return the codes (m, g) of a group, and the bits of its scales and zeros (m,)."""
        from martlet.kernels.half import from_bf16, to_bf16

        zero = np.zeros(len(values), np.uint16)
        if self.affine:
            zero = to_bf16(values.min(1) / 2 + values.max(1) / 2)
        centred = values - from_bf16(zero)[:, None]
        top = np.abs(centred).max(1) / np.float32(
            2 ** (self.code_bits - 1) - 0.5 * (self.offset == 8)
        )
        most, offset = np.float32(2**self.code_bits - 1), np.float32(self.offset)
        least = np.full(len(values), np.inf, np.float32)
        codes, scale = np.empty(values.shape, np.uint8), np.zeros(len(values), np.uint16)
        for clip in _CLIPS[self.code_bits]:
            bits = to_bf16(top * np.float32(clip))
            step = from_bf16(bits)[:, None]
            if not np.isfinite(step).all():
                raise SpecError(
                    f"the table holds a value of {np.abs(values).max():g}, beyond codes"
                )
            some = np.rint(centred / np.where(step > 0, step, np.float32(1)) + offset)
            some = np.clip(some, 0, most)
            off = (some - offset) * step - centred
            error = np.einsum("ij,ij->i", off if weigh is None else off @ weigh, off)
            better = error < least
            least[better], scale[better], codes[better] = error[better], bits[better], some[better]
        return codes, scale, zero

    def prepared(self, table: Table) -> Any:
        """Return the codes as the kernels of ``kernels/packed.py`` take them."""
        from martlet.kernels.packed import Packed

        arrays: Any = table.arrays
        layout = self.layout(table.shape[1])
        return Packed(layout, arrays["values"], arrays["scale"], arrays.get("zero"), self.offset)

    def topk(
        self,
        table: Table,
        vectors: F32,
        k: int,
        hidden: CSR | None,
        allow: NDArray[np.bool_] | None,
        threads: int,
    ) -> tuple[NDArray[np.int32], F32]:
        """Return the (B, k) best rows and scores. O(B n d), little more than the codes read."""
        from martlet.kernels.packed_scan import topk_packed

        return topk_packed(vectors, table.prepared, k, hidden, allow, threads)[:2]
