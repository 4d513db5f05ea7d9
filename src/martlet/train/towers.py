"""Two towers: a user from history and columns, an item from its row and columns, one product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from martlet.core import Dataset, SpecError, check_counts, check_dropout
from martlet.features import Encoded, Features
from martlet.scorers.bundle import Bundle
from martlet.scorers.side import Side, side_width
from martlet.train.plan import Plan
from martlet.train.structure import Group, chain, take_over
from martlet.train.transfer import same_features

Loss = Literal["sampled", "in-batch", "softmax"]
AGES = 2  # numbers that tell the age of an example


@dataclass(frozen=True, kw_only=True)
class TowerPlan(Plan):
    """What two towers are, and how they are trained.

    Attributes:
        dim: length of the vectors.
        max_length: events that are averaged, the last ones.
        hidden: width of the hidden layers.
        layers: number of them.
        dropout: share of the numbers before each layer that a training step leaves out.
        batch: examples a step, about.
        loss: "sampled" softmax and "in-batch" (the other targets of the batch), both corrected for
            how often an item is drawn; "softmax" over the whole catalogue.
        negatives: items drawn a step ("sampled").
        negative_power: of popularity, by which they are drawn.
        tied: whether an item has one vector as part of a history and as candidate, or two.
        age: whether the network is told the age of an example; without times it never is.
        user_columns: whether the users' columns are read; without any they never are.
        item_columns: whether the catalogue's columns are.
        column_dim: length of the vectors of the columns' values.
    """

    rate: float = 3e-3
    dim: int = 64
    max_length: int = 50
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.2
    batch: int = 1024
    loss: Loss = "sampled"
    negatives: int = 1024
    negative_power: float = 0.5
    tied: bool = False
    age: bool = True
    user_columns: bool = True
    item_columns: bool = False
    column_dim: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(
            self, "dim", "max_length", "hidden", "layers", "batch", "negatives", "column_dim"
        )
        check_dropout(self)
        if self.loss not in get_args(Loss):
            raise SpecError(f"loss is {self.loss!r}: expected {', '.join(get_args(Loss))}")

    def tower(self, width: int) -> nn.Module:
        """Return a network from (N, width) to (N, dim)."""
        parts: list[nn.Module] = []
        for _ in range(self.layers):
            parts += [nn.Dropout(self.dropout), nn.Linear(width, self.hidden), nn.ReLU()]
            width = self.hidden
        return Tower(*parts, nn.Dropout(self.dropout), nn.Linear(width, self.dim))

    def user_tower(self, beside: int = 0) -> nn.Module:
        """Return the user's network, with ``beside`` numbers of columns: (N, ...) to (N, dim)."""
        return self.tower(self.dim + beside + AGES)


class Tower(nn.Sequential):
    """Linear layers that feed each other, the last of them the vector."""

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        return {"units": chain(**dict(self.named_children()))}


class Lookup(nn.Module):
    """Encoded columns as numbers: a vector a field, then the numbers; as ``Side`` at serving."""

    def __init__(self, features: Features, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(features.num_vector_rows, dim) * 0.02)
        self.width = side_width(features, dim)

    def forward(self, rows: Tensor, numbers: Tensor, *bags: Tensor) -> Tensor:
        """Return (N, width) of rows (N, F), numbers (N, M) and (rows, offsets) of each bag."""
        parts = [F.embedding(rows, self.vectors).flatten(1)]
        for flat, offsets in zip(bags[::2], bags[1::2], strict=True):
            parts.append(F.embedding_bag(flat, self.vectors, offsets, mode="mean"))
        return torch.cat([*parts, numbers], 1)


class Towers(nn.Module):
    """The parameters: vectors, lookups, and a network a side."""

    def __init__(
        self, spec: TowerPlan, num_items: int, user: Features | None, item: Features | None
    ) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(num_items, spec.dim) * 0.02)
        self.inputs = None
        if not spec.tied:
            self.inputs = nn.Parameter(torch.randn(num_items, spec.dim) * 0.02)
        self.user_columns = None if user is None else Lookup(user, spec.column_dim)
        self.item_columns = None if item is None else Lookup(item, spec.column_dim)
        beside = 0 if user is None else side_width(user, spec.column_dim)
        self.user = spec.user_tower(beside)
        self.item = None if item is None else spec.tower(side_width(item, spec.column_dim))

    @property
    def core(self) -> nn.Module:
        """What a bundle keeps the parameters of beside the vectors."""
        return self.user

    def item_vectors(self, rows: Tensor | None, columns: list[Tensor]) -> Tensor:
        """Return (N, d) vectors of item rows with their encoded columns; None for all items."""
        own = self.items if rows is None else F.embedding(rows, self.items)
        if self.item_columns is None or self.item is None:
            return own
        return own + self.item(self.item_columns(*columns))  # type: ignore[no-any-return]

    def user_vectors(
        self, means: Tensor, columns: list[Tensor], at: Tensor | None, age: Tensor | None
    ) -> Tensor:
        """Return (N, d) of the means of histories, columns and ages; an age that is not told is 0.

        The columns are those of some users; ``at`` tells which of them each row is of.
        """
        parts = [means]
        if self.user_columns is not None:
            found = self.user_columns(*columns)
            parts.append(found if at is None else found[at])
        parts.append(means.new_zeros(len(means), AGES) if age is None else age)
        return self.user(torch.cat(parts, 1))  # type: ignore[no-any-return]

    def start_from(
        self, bundle: Bundle, dataset: Dataset, columns: Mapping[str, Features | None]
    ) -> None:
        """Take over a bundle's user tower, and its vectors of the items that both know by id.

        With columns of the items the tower over them starts anew, and what stands beside it makes
        up for that. Vectors of users' columns are taken where they are read in the same way.
        """
        vectors, inputs = (bundle.scorer.tables().get(name) for name in ("items", "inputs"))
        self.take_tower(bundle)
        side: Side | None = getattr(bundle.scorer, "side", None)
        if (
            self.user_columns is not None
            and side is not None
            and same_features(side.features, columns["user"])
        ):
            self.user_columns.load_state_dict({"vectors": torch.tensor(side.vectors.dense())})
        rows = bundle.items.rows(dataset.items.names(np.arange(dataset.num_items)))
        known, at = torch.from_numpy(np.flatnonzero(rows >= 0)), rows[rows >= 0]
        with torch.no_grad():
            assert vectors is not None
            self.items[known] = torch.tensor(vectors.rows(at))
            if self.inputs is not None and inputs is not None:
                self.inputs[known] = torch.tensor(inputs.rows(at))
            if self.item is not None and columns["item"] is not None:
                encoded = tensors_of(columns["item"].apply(dataset.catalogue))
                self.items[known] -= self.item_vectors(None, encoded)[known] - self.items[known]

    def take_tower(self, bundle: Bundle) -> None:
        """Take over a bundle's user tower, or what pruning left of it.

        Raises:
            SpecError: it is of other widths or columns.
        """
        scorer = bundle.scorer
        vectors, inputs = (scorer.tables().get(name) for name in ("items", "inputs"))
        try:
            alike = vectors is not None and vectors.shape[1] == self.items.shape[1]
            if not alike or (inputs is None) != (self.inputs is None):
                raise SpecError("it has other vectors")
            take_over(self.user, getattr(scorer, "parameters", {}))
        except SpecError as error:
            raise SpecError(
                f"the bundle to start from is {type(scorer).__name__} of other parameters: "
                f"expected two towers of the same widths over the same columns of users ({error})"
            ) from error


class Served(nn.Module):
    """The user's tower as it is served: the mean of a history, columns, and an age of 0."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor, lengths: Tensor, side: Tensor | None = None) -> Tensor:
        """Return (B, d), of x (B, L, d), lengths (B,) and side (B, width)."""
        there = torch.arange(x.shape[1], device=x.device)[None] < lengths[:, None]
        sums = (x * there[:, :, None]).sum(1)
        parts = [sums / lengths.clamp(min=1)[:, None]]
        parts += [] if side is None else [side]
        return self.tower(F.pad(torch.cat(parts, 1), (0, AGES)))  # type: ignore[no-any-return]


def arrays_of(encoded: Encoded) -> list[NDArray[Any]]:
    """Return what ``Lookup`` takes."""
    bags = [part.astype(np.int64) for bag in encoded.bags for part in (bag.rows, bag.indptr[:-1])]
    return [encoded.rows.astype(np.int64), encoded.numbers, *bags]


def tensors_of(encoded: Encoded) -> list[Tensor]:
    """Return what ``Lookup`` takes, as tensors."""
    return [torch.from_numpy(array) for array in arrays_of(encoded)]
