"""How far a single target is trusted: weights of events, clipped and truncated losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from martlet.core import SpecError
from martlet.train.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Noise(Plan):
    """A plan that may trust some targets less than others: not every event was meant.

    **Source**: Wang et al., "Denoising Implicit Feedback for Recommendation" (2021): what a network
    fits last is most often noise. Their truncated cross-entropy is ``drop_share`` with
    ``drop_warmup``, their reweighted one ``relax``.

    Attributes:
        weighted: a target counts by its event's weight.
        clip_loss: a target of a larger loss moves nothing; 0 clips none.
        drop_share: share of the targets, those of the largest losses of a batch, that is left out.
        drop_warmup: share of all steps over which ``drop_share`` grows from 0.
        relax: a target counts by the chance the network gives it, to this power; 0 counts all.
    """

    weighted: bool = False
    clip_loss: float = 0.0
    drop_share: float = 0.0
    drop_warmup: float = 0.3
    relax: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clip_loss", "relax"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"{name} is {getattr(self, name)}: expected 0 or more")
        for name in ("drop_share", "drop_warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}: expected a share, 0 to 1")

    @property
    def doubts(self) -> bool:
        """Whether a target's loss decides how much it counts."""
        return self.clip_loss > 0 or self.drop_share > 0 or self.relax > 0

    def trust(self, losses: Tensor | None, weight: Tensor | None, done: float) -> Tensor | None:
        """Return (T,) how much each target counts beside a mean over all; None: all alike.

        Args:
            losses: (T,) that no gradient is asked of; None where nothing ``doubts``.
            weight: (T,) of the events, 0 or more; None where they count alike.
            done: share of all steps that are taken.
        """
        found = None if weight is None else weight / weight.mean().clamp_min(1e-30)
        if losses is None:
            return found
        trust = torch.ones_like(losses)
        if self.clip_loss:
            trust *= losses <= self.clip_loss
        if self.relax:
            trust *= torch.exp(-self.relax * losses)
        if self.drop_share:
            grown = min(1.0, done / self.drop_warmup) if self.drop_warmup else 1.0
            count = int(grown * self.drop_share * len(losses))
            if count:
                trust[losses.topk(count).indices] = 0
        return trust if found is None else trust * found

    def mean(self, losses: Tensor, weight: Tensor | None, done: float) -> Tensor:
        """Return the mean of (T,) losses as far as each is trusted; see ``trust``."""
        trust = self.trust(losses.detach() if self.doubts else None, weight, done)
        return losses.mean() if trust is None else (losses * trust).mean()
