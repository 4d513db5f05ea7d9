"""Four models of fields; they differ only in how the fields' vectors meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from martlet.core import SpecError, check_counts
from martlet.train.field_model import FieldModel
from martlet.train.structure import Group, chain


@dataclass(frozen=True, kw_only=True)
class WideDeep(FieldModel):
    """A weight for each value, and for each crossed pair of them, beside a network over vectors.

    **Source**: Cheng et al., "Wide & Deep Learning for Recommender Systems" (2016).
    **Differs**: one optimizer for both sides' tables, in place of FTRL for the wide one; numbers
    enter both sides.
    """

    has_wide: ClassVar[bool] = True

    def interaction(self, num_vectors: int, num_numbers: int) -> nn.Module:
        """Return the network."""
        return Deep(self, num_vectors, num_numbers)


@dataclass(frozen=True, kw_only=True)
class DeepFM(FieldModel):
    """A factorization machine and a network over the same vectors.

    **Source**: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR
    Prediction" (2017).
    **Differs**: numbers have a weight and enter the network, and take no part in the products.
    """

    has_wide: ClassVar[bool] = True

    def interaction(self, num_vectors: int, num_numbers: int) -> nn.Module:
        """Return the network."""
        return Products(self, num_vectors, num_numbers)


@dataclass(frozen=True, kw_only=True)
class DCNv2(FieldModel):
    """Layers that multiply what they are given with the input again, beside or before a network.

    **Source**: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for
    Web-scale Learning to Rank Systems" (2021), equations 1 and 2.
    **Differs**: no mixture of experts.

    Attributes:
        crosses: layers of products; each raises the degree by one.
        rank: of their matrices; 0 leaves them full.
        structure: "parallel" joins both sides at the end, "stacked" feeds the network with the
            products.
    """

    crosses: int = 2
    rank: int = 0
    structure: Literal["parallel", "stacked"] = "parallel"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "crosses")
        if self.rank < 0:
            raise SpecError(f"rank is {self.rank}: expected 0 or more")
        if self.structure not in ("parallel", "stacked"):
            raise SpecError(f"structure is {self.structure!r}: expected parallel or stacked")

    def interaction(self, num_vectors: int, num_numbers: int) -> nn.Module:
        """Return the network."""
        return Crossed(self, num_vectors, num_numbers)


@dataclass(frozen=True, kw_only=True)
class DLRM(FieldModel):
    """Products of all pairs of vectors, one of them made of the numbers, under a network.

    **Source**: Naumov et al., "Deep Learning Recommendation Model for Personalization and
    Recommendation Systems" (2019).
    **Differs**: without numbers the layers see the products alone.
    """

    def interaction(self, num_vectors: int, num_numbers: int) -> nn.Module:
        """Return the network."""
        return Pairs(self, num_vectors, num_numbers)

    def product_flops(self, num_vectors: int, num_numbers: int) -> int:
        """Operations of the products of pairs, for an example."""
        return 2 * (num_vectors + (num_numbers > 0)) ** 2 * self.dim


def layers(spec: FieldModel, width: int) -> nn.Sequential:
    """Return the hidden layers over ``width`` numbers."""
    parts: list[nn.Module] = []
    for _ in range(spec.layers):
        parts.append(nn.Linear(width, spec.hidden))
        if spec.norm != "none":
            kind = nn.BatchNorm1d if spec.norm == "batch" else nn.LayerNorm
            parts.append(kind(spec.hidden))
        parts.append(nn.ReLU(inplace=True))
        if spec.dropout:
            parts.append(nn.Dropout(spec.dropout))
        width = spec.hidden
    return nn.Sequential(*parts)


def flat(vectors: Tensor, numbers: Tensor | None) -> Tensor:
    """Return (N, K d + M) of (N, K, d) and (N, M)."""
    return vectors.flatten(1) if numbers is None else torch.cat([vectors.flatten(1), numbers], 1)


class Deep(nn.Module):
    """Hidden layers over everything, and a weight for each number."""

    def __init__(self, spec: FieldModel, num_vectors: int, num_numbers: int) -> None:
        super().__init__()
        self.deep = layers(spec, num_vectors * spec.dim + num_numbers)
        self.out = nn.Linear(spec.hidden, 1)
        self.linear = nn.Linear(num_numbers, 1, bias=False) if num_numbers else None

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        return {"units": chain(deep=self.deep, out=self.out)}

    def forward(self, vectors: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Return (N,) logits, of (N, K, d) and (N, M)."""
        logit: Tensor = self.out(self.deep(flat(vectors, numbers)))
        if self.linear is not None:
            logit = logit + self.linear(numbers)
        return logit[:, 0]


class Products(Deep):
    """``Deep``, and the sum of the products of all pairs of vectors."""

    def forward(self, vectors: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Return (N,) logits, of (N, K, d) and (N, M)."""
        total = vectors.sum(1)
        pairs = 0.5 * ((total * total).sum(1) - (vectors * vectors).sum((1, 2)))
        return super().forward(vectors, numbers) + pairs


class Crossed(nn.Module):
    """x' = x0 * (W x + b) + x, some times, beside hidden layers or under them."""

    def __init__(self, spec: DCNv2, num_vectors: int, num_numbers: int) -> None:
        super().__init__()
        width = num_vectors * spec.dim + num_numbers
        self.crosses = nn.ModuleList(_matrix(width, spec.rank) for _ in range(spec.crosses))
        self.deep = layers(spec, width)
        self.parallel = spec.structure == "parallel"
        self.out = nn.Linear(spec.hidden + self.parallel * width, 1)

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        return {"units": chain(deep=self.deep, out=self.out)}

    def forward(self, vectors: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Return (N,) logits, of (N, K, d) and (N, M)."""
        x0 = x = flat(vectors, numbers)
        for matrix in self.crosses:
            x = torch.addcmul(x, x0, matrix(x))
        found = torch.cat([x, self.deep(x0)], 1) if self.parallel else self.deep(x)
        return self.out(found)[:, 0]  # type: ignore[no-any-return]


def _matrix(width: int, rank: int) -> nn.Module:
    if rank == 0:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))


class Pairs(nn.Module):
    """Products of all pairs of vectors, that of the numbers among them, under hidden layers.

    Without numbers the layers see the products alone.
    """

    pair: Tensor

    def __init__(self, spec: DLRM, num_vectors: int, num_numbers: int) -> None:
        super().__init__()
        self.bottom = None
        if num_numbers:
            self.bottom = nn.Sequential(
                nn.Linear(num_numbers, spec.hidden),
                nn.ReLU(inplace=True),
                nn.Linear(spec.hidden, spec.dim),
                nn.ReLU(inplace=True),
            )
        count = num_vectors + (num_numbers > 0)
        row, column = torch.tril_indices(count, count, -1)
        self.register_buffer("pair", row * count + column, persistent=False)
        self.top = layers(spec, len(row) + spec.dim * (num_numbers > 0))
        self.out = nn.Linear(spec.hidden, 1)

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        bottom = [] if self.bottom is None else chain(bottom=self.bottom)
        return {"units": [*bottom, *chain(top=self.top, out=self.out)]}

    def forward(self, vectors: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Return (N,) logits, of (N, K, d) and (N, M)."""
        own = None if self.bottom is None else self.bottom(numbers)
        if own is not None:
            vectors = torch.cat([own[:, None], vectors], 1)
        # index_select: plain indexing takes five times as long, and its gradient three times.
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1).index_select(1, self.pair)
        known = products if own is None else torch.cat([own, products], 1)
        return self.out(self.top(known))[:, 0]  # type: ignore[no-any-return]
