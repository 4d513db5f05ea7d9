"""From a log to a Dataset: reading, joining, cleaning, splitting; sources and synthetic logs."""

from martlet.data.prepare import prepare
from martlet.data.reading import Log, read, read_sql
from martlet.data.splits import GivenSplit, LastOut, RandomSplit, TimeSplit, parse_split

__all__ = [
    "GivenSplit",
    "LastOut",
    "Log",
    "RandomSplit",
    "TimeSplit",
    "parse_split",
    "prepare",
    "read",
    "read_sql",
]
