"""How a network is trained, apart from what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from martlet.core import SpecError, check_counts, settle

_DEEPEST = 1000  # layers are built one after another before their memory can be estimated


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
        precision: of the products: "fp32", "bf16", "fp16", or "auto", which times all three on the
            device before the first step, and takes the fastest that keeps the loss.
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
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "epochs")
        if not self.rate > 0:
            raise SpecError(f"rate is {self.rate}: expected a number above 0")
        for name in ("patience", "weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"{name} is {getattr(self, name)}: expected 0 or more")
        for name in ("blocks", "layers"):
            if getattr(self, name, 1) > _DEEPEST:
                raise SpecError(
                    f"{name} is {getattr(self, name)}: expected at most {_DEEPEST:,}, which no "
                    "network here profits from"
                )
        if not 0 <= self.warmup < 1:
            raise SpecError(f"warmup is {self.warmup}: expected a share of the steps, 0 to 1")

    def share(self, step: int, total: int, stale: int) -> float:
        """Return the share of the rate that the schedule leaves.

        Args:
            step: number of the step, from 0.
            total: steps of all epochs.
            stale: epochs since the best figure.
        """
        warm = self.warmup * total
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1.0, total - warm)
        match self.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "exponential":
                return float(0.1**done)
            case "plateau":
                return float(0.5 ** (stale // 2))
        return 1.0
