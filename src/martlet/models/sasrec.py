"""Self-attention over a history."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from martlet.core import SpecError, check_counts
from martlet.train.next_item import NextItem


@dataclass(frozen=True, kw_only=True)
class SASRec(NextItem):
    """A Transformer that reads a history from left to right.

    **Source**: Kang and McAuley, "Self-Attentive Sequential Recommendation" (2018).
    **Differs**: layers are normalized before attention and network, not after; GELU in place of
    ReLU, and a wider inner layer; the softmax over the whole catalogue in place of one negative an
    event, which alone explains most of the quality reported since (Klenitskiy and Vasilev, 2023).

    Attributes:
        blocks: layers of attention and network.
        heads: of the attention; they divide ``dim``.
        inner: width of the network's inner layer over ``dim``.
    """

    blocks: int = 2
    heads: int = 2
    inner: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "blocks", "heads", "inner")
        if self.dim % self.heads:
            raise SpecError(f"{self.heads} heads do not divide dim {self.dim}: expected a divisor")

    def encoder(self) -> nn.Module:
        """Return the network."""
        return Encoder(self)


class Encoder(nn.Module):
    """Adds places, and runs the blocks."""

    def __init__(self, spec: SASRec) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(spec.max_length, spec.dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(spec) for _ in range(spec.blocks)))
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, d) of (B, L, d)."""
        return self.norm(self.blocks(x + self.place[: x.shape[1]]))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Causal attention and a network, each behind a norm and beside a residual."""

    def __init__(self, spec: SASRec) -> None:
        super().__init__()
        d = spec.dim
        self.heads, self.dropout = spec.heads, spec.dropout
        self.norm, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.parts, self.joined = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.network = nn.Sequential(
            nn.Linear(d, spec.inner * d), nn.GELU(), nn.Linear(spec.inner * d, d)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, d) of (B, L, d)."""
        batch, length, d = x.shape
        parts = self.parts(self.norm(x)).view(batch, length, 3, self.heads, d // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        # Padding stands behind the events, so the causal mask already hides it from them.
        share = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
        seen = self.joined(seen.transpose(1, 2).reshape(batch, length, d))
        x = x + F.dropout(seen, share)
        return x + F.dropout(self.network(self.norm2(x)), share)
