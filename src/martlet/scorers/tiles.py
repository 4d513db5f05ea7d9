"""A network over examples, run in tiles of sizes that touch no digit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Array, rng
from martlet.scorers.runtime import Runtime

F32 = NDArray[np.float32]
LARGE, SMALL = 256, 16  # rows of a tile


@dataclass(frozen=True, eq=False)
class Tiles:
    """A network from rows to a logit each, whose digits do not depend on what is asked beside.

    A product of matrices may be summed in another order where there are fewer rows (of a single one
    it is). So rows are run in tiles of 256, the last one filled up with zeros. A few rows take
    tiles of 16, if a trial shows that random rows get the same digits in both.

    Attributes:
        model: the ONNX file's content; it gives (N,) or (N, 1).
        inputs: rank of each input by name; the network must take these and no others.
    """

    model: bytes
    inputs: Mapping[str, int]
    _small: dict[str, int] = field(default_factory=dict, init=False)

    def run(self, **arrays: Array) -> F32:
        """Return the (N,) logits of N rows of each input, float32.

        Raises:
            BundleError: the network cannot be run.
        """
        size = len(next(iter(arrays.values())))
        found, start = np.empty(size, np.float32), 0
        while start < size:
            tile = LARGE if size - start > LARGE // 2 else self._few(arrays)
            stop = min(start + tile, size)
            found[start:stop] = self._tile(arrays, start, tile)[: stop - start]
            start = stop
        return found

    def _tile(self, arrays: Mapping[str, Array], start: int, tile: int) -> F32:
        """Return the (tile,) logits of the rows from ``start`` on, and of zeros behind the last."""
        given: dict[str, Any] = {}
        for name, array in arrays.items():
            rows = given[name] = array[start : start + tile]
            if len(rows) < tile:
                given[name] = np.zeros((tile, *rows.shape[1:]), np.float32)
                given[name][: len(rows)] = rows
        return self._runtime.run(**given).reshape(-1)

    def _few(self, arrays: Mapping[str, Array]) -> int:
        """Return how many rows a tile for a few has; the trial is made at the first question."""
        if "rows" not in self._small:
            stream = rng(0, "tiles")
            trial = {
                name: stream.standard_normal((LARGE, *array.shape[1:]), np.float32)
                for name, array in arrays.items()
            }
            parts = [self._tile(trial, start, SMALL) for start in range(0, LARGE, SMALL)]
            whole = self._tile(trial, 0, LARGE)
            same = np.array_equal(np.concatenate(parts), whole, equal_nan=True)
            self._small["rows"] = SMALL if same else LARGE
        return self._small["rows"]

    @cached_property
    def _runtime(self) -> Runtime:
        return Runtime(self.model, self.inputs)
