"""The nouns of the project, its errors and its promises; needs NumPy alone."""

from martlet.core.columns import Array, Column, Text, flatten, unflatten
from martlet.core.csr import CSR
from martlet.core.dataset import Dataset
from martlet.core.errors import (
    BundleError,
    DataError,
    MartletError,
    OutputError,
    QueryError,
    SpecError,
)
from martlet.core.files import new_file, new_folder, sha256
from martlet.core.interactions import Interactions
from martlet.core.protocols import Executor, Progress, Reason, Scorer, Spec
from martlet.core.queries import Queries
from martlet.core.ranking import Ranking, best, tie_key
from martlet.core.seeds import rng
from martlet.core.threads import num_threads
from martlet.core.vocabulary import Vocabulary

__all__ = [
    "CSR",
    "Array",
    "BundleError",
    "Column",
    "DataError",
    "Dataset",
    "Executor",
    "Interactions",
    "MartletError",
    "OutputError",
    "Progress",
    "Queries",
    "QueryError",
    "Ranking",
    "Reason",
    "Scorer",
    "Spec",
    "SpecError",
    "Text",
    "Vocabulary",
    "best",
    "flatten",
    "new_file",
    "new_folder",
    "num_threads",
    "rng",
    "sha256",
    "tie_key",
    "unflatten",
]
