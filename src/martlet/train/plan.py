"""How a network is trained, apart from what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from martlet.core import SpecError, check_counts


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The hyper-parameters that every model trained by gradient shares.

    Attributes:
        epochs: passes over the training part, at most.
        patience: epochs without a better validation figure after which training ends; the best
            epoch's parameters are kept. 0 never ends early, and keeps the last.
        rate: step length at its largest.
        optimizer: of the dense part.
        weight_decay: of AdamW.
        schedule: how the rate moves: "constant"; "exponential", by a tenth over all epochs;
            "cosine", down to 0; "plateau", halved after two epochs without a better figure.
        warmup: share of all steps over which the rate rises from 0.
        clip: largest norm of a step's gradient; 0 leaves it as it is.
        device: "auto" takes a GPU where there is one.
    """

    epochs: int = 50
    patience: int = 5
    rate: float = 1e-3
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "exponential", "cosine", "plateau"] = "constant"
    warmup: float = 0.0
    clip: float = 0.0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_counts(self, "epochs")
        if not self.rate > 0:
            raise SpecError(f"rate is {self.rate}: expected a number above 0")
        for name in ("patience", "weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"{name} is {getattr(self, name)}: expected 0 or more")
        if not 0 <= self.warmup < 1:
            raise SpecError(f"warmup is {self.warmup}: expected a share of the steps, 0 to 1")
