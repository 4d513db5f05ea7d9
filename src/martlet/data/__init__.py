"""From a log to a Dataset, or from a labelled table to examples; sources and synthetic logs."""

from martlet.data.prepare import prepare
from martlet.data.reading import Log, read, read_sql
from martlet.data.splits import GivenSplit, LastOut, RandomSplit, TimeSplit, parse_split
from martlet.data.tabular import prepare_examples

__all__ = [
    "GivenSplit",
    "LastOut",
    "Log",
    "RandomSplit",
    "TimeSplit",
    "parse_split",
    "prepare",
    "prepare_examples",
    "read",
    "read_sql",
]
