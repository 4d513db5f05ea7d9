"""Items drawn in bulk, to stand for all that a user did not take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError, rng

_MOST = 10  # beyond, the chances of items soon fit into no number


@dataclass(frozen=True, eq=False)
class Negatives:
    """Draws items in proportion to (events + 1) ** power: 0 evenly, 1 as they are met.

    Attributes:
        item_count: (n,) events of each item.
        power: of the popularity.
        seed: with the step, gives the draw.

    Raises:
        SpecError: a power beyond 10.
    """

    item_count: NDArray[np.int64]
    power: float
    seed: int

    def __post_init__(self) -> None:
        if not abs(self.power) <= _MOST:
            raise SpecError(
                f"negative_power is {self.power}: expected a number from -{_MOST} to {_MOST}, as "
                "0.5"
            )

    def draw(self, shape: tuple[int, ...], step: int) -> NDArray[np.int64]:
        """Return int64 item rows: a function of the seed and the step. O(draws log n)."""
        stream = rng(self.seed, "negatives", step)
        if self.power == 0:
            return stream.integers(len(self.item_count), size=shape)
        return np.searchsorted(self._reach, stream.random(shape), side="right")

    @cached_property
    def log_q(self) -> NDArray[np.float32]:
        """(n,) float32 logarithm of the chance of each item in one draw."""
        return np.log(self._share).astype(np.float32)

    @cached_property
    def _share(self) -> NDArray[np.float64]:
        mass = (self.item_count + 1.0) ** self.power
        return np.asarray(mass / mass.sum())

    @cached_property
    def _reach(self) -> NDArray[np.float64]:
        reach = np.cumsum(self._share)
        reach[-1] = 1.0  # rounding must not leave a draw without an item
        return reach
