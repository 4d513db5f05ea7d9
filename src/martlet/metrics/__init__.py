"""Quality of rankings, of (user, item, rank) tables and of probabilities; intervals and tests."""

from martlet.metrics.intervals import (
    Interval,
    benjamini_hochberg,
    bootstrap,
    holm,
    paired_bootstrap,
    sign_flip,
)
from martlet.metrics.labels import (
    LABEL_METRICS,
    NUMBER_METRICS,
    label_difference,
    label_quality,
)
from martlet.metrics.quality import METRICS, Metric, Tally, per_user
from martlet.metrics.sampled import sampled, sampled_quality, sampled_values
from martlet.metrics.tables import quality_of_table

__all__ = [
    "LABEL_METRICS",
    "METRICS",
    "NUMBER_METRICS",
    "Interval",
    "Metric",
    "Tally",
    "benjamini_hochberg",
    "bootstrap",
    "holm",
    "label_difference",
    "label_quality",
    "paired_bootstrap",
    "per_user",
    "quality_of_table",
    "sampled",
    "sampled_quality",
    "sampled_values",
    "sign_flip",
]
