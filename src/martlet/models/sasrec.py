"""Self-attention over a history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from martlet.core import SpecError, check_counts
from martlet.train.next_item import NextItem
from martlet.train.structure import Cut, Group, chain


@dataclass(frozen=True, kw_only=True)
class SASRec(NextItem):
    """A Transformer that reads a history from left to right.

    **Source**: Kang and McAuley, "Self-Attentive Sequential Recommendation" (2018).
    **Differs**: layers are normalized before attention and network, not after; GELU in place of
    ReLU, and a wider inner layer; the softmax over the whole catalogue in place of one negative an
    event, which alone explains most of the quality reported since (Klenitskiy and Vasilev, 2023).

    With ``masked``, it reads in both directions and is taught to tell hidden events from those
    around them; at serving a hidden one stands after the last event. **Source**: Sun et al.,
    "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
    Transformer" (2019). **Differs**: the layers and the losses are the same as without.

    Attributes:
        blocks: layers of attention and network.
        heads: of the attention; they divide ``dim``.
        inner: width of the network's inner layer over ``dim``.
        masked: share of the events that a step hides; 0 reads from left to right.
    """

    blocks: int = 2
    heads: int = 2
    inner: int = 4
    masked: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "blocks", "heads", "inner")
        if self.dim % self.heads:
            raise SpecError(f"{self.heads} heads do not divide dim {self.dim}: expected a divisor")
        if not 0 <= self.masked < 1:
            raise SpecError(f"masked is {self.masked}: expected a share of the events, 0 to 1")

    @property
    def hidden_share(self) -> float:
        """Share of the events that a training step hides."""
        return self.masked

    def encoder(self) -> nn.Module:
        """Return the network."""
        return Encoder(self)


class Encoder(nn.Module):
    """Adds places, and runs the blocks."""

    def __init__(self, spec: SASRec) -> None:
        super().__init__()
        places = spec.max_length + (spec.masked > 0)
        self.place = nn.Parameter(torch.randn(places, spec.dim) * 0.02)
        self.hole = nn.Parameter(torch.randn(spec.dim) * 0.02) if spec.masked else None
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return (B, L, d) of (B, L, d); with ``inside`` (B, L) bool, a place sees all of these."""
        x = x + self.place[: x.shape[1]]
        for block in self.blocks:
            x = block(x, inside)
        return self.norm(x)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a network, each behind a norm and beside a residual."""

    residual: ClassVar[bool] = True

    def __init__(self, spec: SASRec) -> None:
        super().__init__()
        d = spec.dim
        self.width, self.dropout = d // spec.heads, spec.dropout
        self.norm, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.parts, self.joined = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.network = nn.Sequential(
            nn.Linear(d, spec.inner * d), nn.GELU(), nn.Linear(spec.inner * d, d)
        )

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it."""
        heads, width = self.joined.in_features // self.width, self.width
        own = (
            Cut.of("parts.weight", heads, parts=3, width=width),
            Cut.of("parts.bias", heads, parts=3, width=width),
            Cut.of("joined.weight", heads, axis=1, width=width),
        )
        return {"units": chain(network=self.network), "heads": [own]}

    def forward(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """Return (B, L, d) of (B, L, d)."""
        batch, length, _ = x.shape
        parts = self.parts(self.norm(x)).view(batch, length, 3, -1, self.width)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        # Padding stands behind the events, so the causal mask already hides it from them.
        share = self.dropout if self.training else 0.0
        mask = None if inside is None else inside[:, None, None]
        seen = F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=share, is_causal=inside is None
        )
        seen = self.joined(seen.transpose(1, 2).reshape(batch, length, self.joined.in_features))
        x = x + F.dropout(seen, share)
        return x + F.dropout(self.network(self.norm2(x)), share)
