"""Attention without a softmax, gated by the place that asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from martlet.core import SpecError, check_counts
from martlet.train.next_item import NextItem
from martlet.train.structure import Cut, Group


@dataclass(frozen=True, kw_only=True)
class HSTU(NextItem):
    """Hierarchical sequential transduction units.

    A place adds up what it finds, so how often something was met still counts: a softmax would
    divide that out.

    **Source**: Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential
    Transducers for Generative Recommendations" (2024), section 3.1.
    **Differs**: the relative bias knows places, not times; events only, no actions in between.

    Attributes:
        blocks: layers.
        heads: of the attention; they divide ``dim``.
    """

    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "blocks", "heads")
        if self.dim % self.heads:
            raise SpecError(f"{self.heads} heads do not divide dim {self.dim}: expected a divisor")

    def encoder(self) -> nn.Module:
        """Return the network."""
        blocks = (Block(self) for _ in range(self.blocks))
        return nn.Sequential(*blocks, nn.LayerNorm(self.dim))


class Block(nn.Module):
    """One unit: four projections, attention by SiLU, a gate, a residual."""

    residual: ClassVar[bool] = True

    def __init__(self, spec: HSTU) -> None:
        super().__init__()
        self.length, self.dropout = spec.max_length, spec.dropout
        self.width = spec.dim // spec.heads
        self.norm, self.norm2 = nn.LayerNorm(spec.dim), nn.LayerNorm(spec.dim)
        self.parts, self.joined = nn.Linear(spec.dim, 4 * spec.dim), nn.Linear(spec.dim, spec.dim)
        self.apart = nn.Parameter(torch.randn(spec.heads, spec.max_length) * 0.02)

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        heads, width = len(self.apart), self.width
        own = (
            Cut.of("parts.weight", heads, parts=4, width=width),
            Cut.of("parts.bias", heads, parts=4, width=width),
            Cut.of("apart", heads),
            Cut.of("norm2.weight", heads, width=width),
            Cut.of("norm2.bias", heads, width=width),
            Cut.of("joined.weight", heads, axis=1, width=width),
        )
        return {"heads": [own]}

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, d) of (B, L, d)."""
        (batch, length, _), inner = x.shape, self.joined.in_features
        parts = F.silu(self.parts(self.norm(x)))
        gate, value, query, key = parts.view(batch, length, 4, -1, self.width).permute(
            2, 0, 3, 1, 4
        )
        step = torch.arange(length, device=x.device)
        back = step[:, None] - step
        bias = self.apart[:, back.clamp(min=0)]
        found = F.silu(query @ key.transpose(2, 3) + bias) * (back >= 0) / self.length
        joined = (found @ value).transpose(1, 2).reshape(batch, length, inner)
        gated = self.norm2(joined) * gate.transpose(1, 2).reshape(batch, length, inner)
        return x + F.dropout(self.joined(gated), self.dropout if self.training else 0.0)
