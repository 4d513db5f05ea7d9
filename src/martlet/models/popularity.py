"""Item popularity, all time or trending."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from martlet.core import DataError, Dataset, SpecError, settle
from martlet.scorers.popular import Popular
from martlet.scorers.table import Table

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Popularity:
    """Counts the events of each item; with a half-life, an event fades with its age.

    **Source**: the non-personalized baseline of the field. Trending is the exponentially decayed
    count sum of weight * 2^(-age / half-life).
    **Differs**: age is taken at the last event of train, so a fit does not depend on the clock.

    Attributes:
        half_life_days: days after which an event counts half; None counts all alike.
        weighted: whether an event counts its weight (1 otherwise).
    """

    half_life_days: float | None = None
    weighted: bool = False

    def __post_init__(self) -> None:
        settle(self)
        if self.half_life_days is not None and not self.half_life_days > 0:
            raise SpecError(
                f"half_life_days is {self.half_life_days}: expected a number of days above 0, "
                "or none to count all events alike"
            )

    def fit(self, dataset: Dataset, *, seed: int = 0) -> Popular:
        """Return the popularity of each item in train. O(events).

        Raises:
            DataError: a half-life is asked of events without times.
        """
        train = dataset.train
        weight = train.weight.astype(np.float64) if self.weighted else np.ones(len(train))
        if self.half_life_days is not None and len(train):
            if train.time_s is None:
                raise DataError(
                    "half_life_days needs the time of each event, and this dataset has none: "
                    "prepare it with a time column, or leave half_life_days out"
                )
            age_days = (train.time_s.max() - train.time_s) / _DAY_S
            weight = weight * np.exp2(-age_days / self.half_life_days)
        count = np.bincount(train.item_row, weight, minlength=dataset.num_items)
        return Popular(Table.of(count.astype(np.float32)))

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: one addition an event, and three to fade it."""
        return len(dataset.train) * (1 if self.half_life_days is None else 4)

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted table, 4 an item."""
        return 4 * num_items
