"""A tower for the user, a tower for the item, their product the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from martlet.core import Dataset
from martlet.scorers.bundle import Bundle
from martlet.scorers.network import Network
from martlet.train.loop import Task
from martlet.train.run import Run
from martlet.train.tower_task import (
    export_towers,
    fit_towers,
    restore_towers,
    task_of_towers,
)
from martlet.train.towers import TowerPlan, Towers


@dataclass(frozen=True, kw_only=True)
class TwoTower(TowerPlan):
    """YouTube's candidate network: who the user is and did, as one vector among the items'.

    The mean of the vectors of the last events, the user's columns and the age of the example go
    through a network; its output and an item's vector are multiplied. Every event is an example,
    told from what stood strictly before it. The age (of the example, not of the item) lets the
    network learn what was in fashion when; an answer is asked for with age 0.

    **Source**: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations"
    (2016); in-batch negatives and their correction: Yi et al., "Sampling-Bias-Corrected Neural
    Modeling for Large Corpus Item Recommendations" (2019).
    **Differs**: users weigh as their events, not all alike; there are no search tokens; the last
    layer is linear, so that a vector may point anywhere; ``item_columns`` adds a tower over the
    catalogue's columns to an item's own vector, as in Yi et al.
    """

    accepts: ClassVar[tuple[str, ...]] = ("init", "run")

    def flops(self, dataset: Dataset) -> int:
        """Operations of all epochs: 6 a parameter of the tower, and 6 d an item, for an example.

        The columns' part of the towers is left out.
        """
        targets = int(np.maximum(dataset.train.histories.lengths - 1, 0).sum())
        inner = sum(p.numel() for p in self.user_tower().parameters() if p.ndim > 1)
        ranked = {"softmax": dataset.num_items, "sampled": self.negatives, "in-batch": self.batch}
        return 6 * self.epochs * targets * (inner + self.dim * (ranked[self.loss] + 1))

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables: vectors of the items, once or twice, and the user's tower.

        What the users' columns add comes on top.
        """
        inner = sum(p.numel() for p in self.user_tower().parameters())
        return 4 * (num_items * self.dim * (1 if self.tied else 2) + inner)

    def fit(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        init: Bundle | None = None,
        run: Run | None = None,
    ) -> Network:
        """Return the trained towers: an ONNX encoder of the user over the vectors of the items.

        Raises:
            DataError: there is no event with something to go by before it.
            SpecError: an ``init`` of other widths or columns.
        """
        return fit_towers(self, dataset, seed, init, run)

    def restore(self, bundle: Bundle) -> Towers:
        """Return the towers of a bundle that was fitted with this spec, to train or to prune on.

        What a tower made of the items' columns stands in their vectors.

        Raises:
            SpecError: a bundle of other widths.
        """
        return restore_towers(self, bundle)

    def export(self, network: Towers, bundle: Bundle) -> Network:
        """Return the scorer of what was restored from ``bundle``."""
        return export_towers(network, bundle)

    def task(self, network: Towers, dataset: Dataset, seed: int) -> Task:
        """Return the training of restored towers, as the loop sees it."""
        return task_of_towers(self, network, dataset, seed)
