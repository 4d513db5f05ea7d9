"""The exact search over int8 codes, as an index beside a table of wider values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from martlet.core import CSR, BundleError, SpecError, num_threads
from martlet.kernels.codes import Codes, half_bytes
from martlet.scorers.index.protocol import F32, FILE, I32, Bools, check_finite, read_arrays
from martlet.scorers.storage import write_tensors
from martlet.scorers.table import Table


@dataclass(frozen=True, eq=False)
class ExactInt8:
    """Scans int8 codes and scores again, from the item table, whatever may be in the answer.

    The answer is that of a search of the table itself, digit for digit.

    Attributes:
        items: (n, d) fp32 or fp16 item vectors.
        codes: the same in int8, in halves, with the errors that bound the search.
    """

    items: Table
    codes: Codes
    kind: ClassVar[str] = "exact-int8"

    @staticmethod
    def build(items: Table) -> ExactInt8:
        """Quantize the items. O(n d).

        Raises:
            SpecError: the table is int8 itself or holds a number that is not finite.
        """
        if items.storage not in ("fp32", "fp16"):
            raise SpecError(
                f"index:exact-int8 over an item table stored as {items.storage}: expected fp32 or "
                "fp16; an int8 table is scanned as it is and needs no such index"
            )
        check_finite(items.shape, lambda start, stop: items.values[start:stop])
        table = items.to("int8")
        codes = Codes.beside(table.values, table.arrays["scale"], items.values)  # type: ignore[arg-type]
        return ExactInt8(items, codes.halved())

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes

    def pays(self, share: float) -> bool:
        """Return True: what is not allowed is passed over at no cost."""
        return True

    def search(
        self, vectors: F32, k: int, hidden: CSR | None = None, allow: Bools | None = None
    ) -> tuple[I32, F32]:
        """Return the (B, k) rows and scores of an exact search. O(B n d), n (d / 2 + 4) bytes read.

        A batch of queries reads n (d + 4).
        """
        from martlet.kernels.int8 import topk_int8

        return topk_int8(vectors, self.codes, k, hidden, allow, num_threads())[:2]

    def config(self) -> dict[str, Any]:
        """Return what bounds the error of a row."""
        return {"residual": self.codes.residual, "low_norm": self.codes.low_norm}

    def save(self, folder: Path) -> None:
        """Write codes and scales."""
        codes = {"high": self.codes.values, "low": self.codes.low, "scale": self.codes.scale}
        write_tensors(folder / FILE, codes)  # type: ignore[arg-type]

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> ExactInt8:
        """Return the index that ``save`` wrote; its codes are memory-mapped.

        Raises:
            BundleError: the file does not hold codes of the item table, or an error is no number.
        """
        n, d = items.shape
        halves = (np.uint8, (n, half_bytes(d)))
        expected: dict[str, Any] = {"high": halves, "low": halves, "scale": (np.float32, (n,))}
        arrays = read_arrays(folder, items, expected)
        for name in ("residual", "low_norm"):
            if not (isinstance(config[name], float) and 0 <= config[name] < np.inf):
                raise BundleError(
                    f"{folder}: the index's {name} is {config[name]!r}, expected a number"
                )
        return ExactInt8(
            items,
            Codes(
                arrays["high"], arrays["scale"], items.values, config["residual"],
                arrays["low"], config["low_norm"],
            ),
        )  # fmt: skip
