"""The nouns of the project, its errors and its promises; needs NumPy alone.

Every name is imported when it is first asked for: errors, files and threads need not even NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from martlet.core.checks import check_counts as check_counts
    from martlet.core.checks import check_dropout as check_dropout
    from martlet.core.checks import settle as settle
    from martlet.core.checks import spelled as spelled
    from martlet.core.columns import Array as Array
    from martlet.core.columns import Column as Column
    from martlet.core.columns import Text as Text
    from martlet.core.columns import flatten as flatten
    from martlet.core.columns import unflatten as unflatten
    from martlet.core.csr import CSR as CSR
    from martlet.core.dataset import Dataset as Dataset
    from martlet.core.errors import BundleError as BundleError
    from martlet.core.errors import DataError as DataError
    from martlet.core.errors import MartletError as MartletError
    from martlet.core.errors import OutputError as OutputError
    from martlet.core.errors import QueryError as QueryError
    from martlet.core.errors import SpecError as SpecError
    from martlet.core.examples import Examples as Examples
    from martlet.core.examples import Tabular as Tabular
    from martlet.core.files import check_replaceable as check_replaceable
    from martlet.core.files import new_file as new_file
    from martlet.core.files import new_folder as new_folder
    from martlet.core.files import sha256 as sha256
    from martlet.core.interactions import Interactions as Interactions
    from martlet.core.memory import check_memory as check_memory
    from martlet.core.memory import memory_bytes as memory_bytes
    from martlet.core.protocols import Executor as Executor
    from martlet.core.protocols import Progress as Progress
    from martlet.core.protocols import Reason as Reason
    from martlet.core.protocols import Scorer as Scorer
    from martlet.core.protocols import Spec as Spec
    from martlet.core.queries import Queries as Queries
    from martlet.core.ranking import Ranking as Ranking
    from martlet.core.ranking import best as best
    from martlet.core.ranking import tie_key as tie_key
    from martlet.core.seeds import rng as rng
    from martlet.core.threads import num_threads as num_threads
    from martlet.core.vocabulary import Vocabulary as Vocabulary

_HOME = {
    "checks": ("check_counts", "check_dropout", "settle", "spelled"),
    "columns": ("Array", "Column", "Text", "flatten", "unflatten"),
    "csr": ("CSR",),
    "dataset": ("Dataset",),
    "errors": (
        "BundleError", "DataError", "MartletError", "OutputError", "QueryError", "SpecError",
    ),
    "examples": ("Examples", "Tabular"),
    "files": ("check_replaceable", "new_file", "new_folder", "sha256"),
    "interactions": ("Interactions",),
    "memory": ("check_memory", "memory_bytes"),
    "protocols": ("Executor", "Progress", "Reason", "Scorer", "Spec"),
    "queries": ("Queries",),
    "ranking": ("Ranking", "best", "tie_key"),
    "seeds": ("rng",),
    "threads": ("num_threads",),
    "vocabulary": ("Vocabulary",),
}  # fmt: skip
_MODULE = {name: f"martlet.core.{module}" for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'martlet.core' has no attribute {name!r}")
    value = getattr(import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
