"""Quality over rankings and over (user, item, rank) tables; intervals and tests."""

from martlet.metrics.intervals import (
    Interval,
    benjamini_hochberg,
    bootstrap,
    holm,
    paired_bootstrap,
    sign_flip,
)
from martlet.metrics.quality import METRICS, Metric, Tally, per_user
from martlet.metrics.sampled import sampled, sampled_quality, sampled_values
from martlet.metrics.tables import quality_of_table

__all__ = [
    "METRICS",
    "Interval",
    "Metric",
    "Tally",
    "benjamini_hochberg",
    "bootstrap",
    "holm",
    "paired_bootstrap",
    "per_user",
    "quality_of_table",
    "sampled",
    "sampled_quality",
    "sampled_values",
    "sign_flip",
]
