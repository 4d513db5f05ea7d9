"""A recurrent network over a history."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from martlet.core import check_counts
from martlet.train.next_item import NextItem
from martlet.train.structure import Cut, Group


@dataclass(frozen=True, kw_only=True)
class GRU4Rec(NextItem):
    """Gated recurrent units that carry what was read so far.

    **Source**: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks"
    (2016).
    **Differs**: the loss is the softmax over the whole catalogue, unless another is asked for;
    whole histories are read in place of sessions in parallel.

    Attributes:
        hidden: width of the recurrent state.
        layers: recurrent layers.
    """

    hidden: int = 128
    layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "hidden", "layers")

    def encoder(self) -> nn.Module:
        """Return the network."""
        return Encoder(self)


class Encoder(nn.Module):
    """Recurrent layers, and a linear one back to the space of the items."""

    def __init__(self, spec: GRU4Rec) -> None:
        super().__init__()
        self.recurrent = nn.GRU(spec.dim, spec.hidden, spec.layers, batch_first=True)
        self.back = nn.Linear(spec.hidden, spec.dim)

    def prunable(self) -> dict[str, list[Group]]:
        """Return what can be left out of it: as many units of each layer, for all are as wide."""
        size, found = self.recurrent.hidden_size, []
        for layer in range(self.recurrent.num_layers):
            gates = [f"recurrent.{kind}_l{layer}" for kind in ("weight_hh", "bias_hh")]
            gates += [f"recurrent.{kind}_l{layer}" for kind in ("weight_ih", "bias_ih")]
            last = layer + 1 == self.recurrent.num_layers
            after = "back.weight" if last else f"recurrent.weight_ih_l{layer + 1}"
            cuts = [Cut.of(name, size, parts=3) for name in gates]
            cuts += [Cut.of(name, size, axis=1) for name in (gates[0], after)]
            found.append(tuple(cuts))
        return {"units": found}

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, d) of (B, L, d)."""
        return self.back(self.recurrent(x)[0])  # type: ignore[no-any-return]
