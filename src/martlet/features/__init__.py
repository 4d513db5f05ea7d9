"""Columns to arrays: fitted on the training part, applied with NumPy alone, at serving too."""

from martlet.features.automatic import Guess, automatic, guess
from martlet.features.bag import Bag, Sequence, Words
from martlet.features.bucket import Bucket
from martlet.features.category import Category, Hashed
from martlet.features.cross import Cross
from martlet.features.features import Encoded, Features
from martlet.features.fitted import Ragged, Spec
from martlet.features.history import history_before, spans_before
from martlet.features.numeric import Numeric
from martlet.features.select import Importance, mutual_information, permutation, select
from martlet.features.vector import Vector

__all__ = [
    "Bag",
    "Bucket",
    "Category",
    "Cross",
    "Encoded",
    "Features",
    "Guess",
    "Hashed",
    "Importance",
    "Numeric",
    "Ragged",
    "Sequence",
    "Spec",
    "Vector",
    "Words",
    "automatic",
    "guess",
    "history_before",
    "mutual_information",
    "permutation",
    "select",
    "spans_before",
]
