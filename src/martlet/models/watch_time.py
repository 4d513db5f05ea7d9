"""The ranker behind two towers: how long would it be watched?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from martlet.core import SpecError
from martlet.models.fields import Deep
from martlet.train.field_model import FieldModel


@dataclass(frozen=True, kw_only=True)
class WatchTime(FieldModel):
    """Weighted logistic regression over hidden layers: what was watched weighs its seconds.

    Of N showings, k were watched for T_1 ... T_k seconds; those weigh T_i, the others 1. The odds
    learnt are sum T_i / (N - k): near the seconds that a showing is expected to bring,
    sum T_i / N, where few are watched. The answer is e^logit.

    On labelled rows, label 1 and a weight in seconds stand for a watch, label 0 and weight 1 for a
    showing without. On events, whose weights are the seconds, items drawn evenly stand for what was
    shown and not watched, ``negatives`` of them an event: answers then order items for a user as
    expected seconds do, in a unit of their own.

    **Source**: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations"
    (2016), section 4.2.
    **Differs**: a number enters once, not beside its square and its root; there is no example age.
    """

    watched: Literal["auc", "log-loss"] = "log-loss"
    odds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss != "logistic":
            raise SpecError(f"loss is {self.loss!r}: watch-time has odds to learn, by 'logistic'")

    def interaction(self, num_vectors: int, num_numbers: int) -> nn.Module:
        """Return the network."""
        return Deep(self, num_vectors, num_numbers)
