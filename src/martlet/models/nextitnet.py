"""Dilated convolutions over a history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from martlet.core import check_counts
from martlet.train.next_item import NextItem
from martlet.train.structure import Cut, Group


@dataclass(frozen=True, kw_only=True)
class NextItNet(NextItem):
    """Causal convolutions whose reach doubles, in residual blocks.

    **Source**: Yuan et al., "A Simple Convolutional Generative Network for Next Item
    Recommendation" (2019); the residual block is that of its figure 3b.
    **Differs**: dropout stands before the first block only, as for the other sequence models.

    Attributes:
        blocks: residual blocks; each holds a convolution of its dilation and one of twice that.
        kernel: events that a convolution joins.
        cycle: blocks after which the dilation is 1 again; from one to the next it grows fourfold.
    """

    blocks: int = 5
    kernel: int = 3
    cycle: int = 2
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "blocks", "kernel", "cycle")

    def encoder(self) -> nn.Module:
        """Return the network."""
        dilations = (4 ** (number % self.cycle) for number in range(self.blocks))
        blocks = (Block(self.dim, self.kernel, dilation) for dilation in dilations)
        return nn.Sequential(*blocks, nn.Linear(self.dim, self.dim))


class Block(nn.Module):
    """Two causal convolutions, each normalized and rectified, beside a residual."""

    residual: ClassVar[bool] = True

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = [dilation * (kernel - 1), 2 * dilation * (kernel - 1)]
        self.first = nn.Conv1d(dim, dim, kernel, dilation=dilation)
        self.second = nn.Conv1d(dim, dim, kernel, dilation=2 * dilation)
        self.norm, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it: what the first convolution tells the second."""
        size = self.first.out_channels
        names = ("first.weight", "first.bias", "norm.weight", "norm.bias")
        cuts = [Cut.of(name, size) for name in names]
        return {"units": [(*cuts, Cut.of("second.weight", size, axis=1))]}

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, d) of (B, L, d)."""
        found = F.relu(self.norm(self._causal(self.first, x, self.reach[0])))
        return x + F.relu(self.norm2(self._causal(self.second, found, self.reach[1])))

    @staticmethod
    def _causal(convolution: nn.Module, x: Tensor, reach: int) -> Tensor:
        # Padded in front alone: no place sees what comes after it.
        return convolution(F.pad(x.transpose(1, 2), (reach, 0))).transpose(1, 2)  # type: ignore[no-any-return]
