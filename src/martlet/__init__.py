"""Martlet: recommenders that are cheap to train and to serve.

Every public name lives here and is imported when it is first asked for, so that ``import martlet``
costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Three verbs share their name with the package they live in. The packages are loaded first (they
# are empty), for Python binds a package to its parent only then; the verbs below keep the names.
import martlet.compress
import martlet.measure
import martlet.serve  # noqa: F401

if TYPE_CHECKING:
    from martlet.compress.compress import compress as compress
    from martlet.compress.index import Index as Index
    from martlet.compress.low_rank import LowRank as LowRank
    from martlet.compress.prune import Prune as Prune
    from martlet.compress.quantize import Quantize as Quantize
    from martlet.core import MartletError as MartletError
    from martlet.core.dataset import Dataset as Dataset
    from martlet.core.examples import Examples as Examples
    from martlet.core.examples import Tabular as Tabular
    from martlet.core.interactions import Interactions as Interactions
    from martlet.data import GivenSplit as GivenSplit
    from martlet.data import LastOut as LastOut
    from martlet.data import RandomSplit as RandomSplit
    from martlet.data import TimeSplit as TimeSplit
    from martlet.data import prepare as prepare
    from martlet.data import prepare_examples as prepare_examples
    from martlet.data import read as read
    from martlet.frontier.budget import Budget as Budget
    from martlet.frontier.explore import explore as explore
    from martlet.frontier.frontier import Frontier as Frontier
    from martlet.frontier.report import write_report as write_report
    from martlet.measure.gate import gate as gate
    from martlet.measure.measure import measure as measure
    from martlet.measure.quality import evaluate as evaluate
    from martlet.models.bpr import BPR as BPR
    from martlet.models.cascade import Cascade as Cascade
    from martlet.models.cascade import cascade as cascade
    from martlet.models.content import Content as Content
    from martlet.models.ease import EASE as EASE
    from martlet.models.fit import fit as fit
    from martlet.models.gfcf import GFCF as GFCF
    from martlet.models.gru4rec import GRU4Rec as GRU4Rec
    from martlet.models.hstu import HSTU as HSTU
    from martlet.models.ials import IALS as IALS
    from martlet.models.item_knn import ItemKNN as ItemKNN
    from martlet.models.matrix_factorization import MatrixFactorization as MatrixFactorization
    from martlet.models.ncf import NCF as NCF
    from martlet.models.nextitnet import NextItNet as NextItNet
    from martlet.models.popularity import Popularity as Popularity
    from martlet.models.sasrec import SASRec as SASRec
    from martlet.models.two_tower import TwoTower as TwoTower
    from martlet.models.watch_time import WatchTime as WatchTime
    from martlet.scorers.bundle import Bundle as Bundle
    from martlet.scorers.imports import from_onnx as from_onnx
    from martlet.scorers.imports import from_vectors as from_vectors
    from martlet.serve.server import serve as serve
    from martlet.train.run import Run as Run

__version__ = "0.1.0"

_HOME = {
    "BPR": "martlet.models.bpr",
    "Budget": "martlet.frontier.budget",
    "Bundle": "martlet.scorers.bundle",
    "Cascade": "martlet.models.cascade",
    "Content": "martlet.models.content",
    "Dataset": "martlet.core",
    "EASE": "martlet.models.ease",
    "Examples": "martlet.core",
    "Frontier": "martlet.frontier.frontier",
    "GFCF": "martlet.models.gfcf",
    "GRU4Rec": "martlet.models.gru4rec",
    "GivenSplit": "martlet.data",
    "HSTU": "martlet.models.hstu",
    "IALS": "martlet.models.ials",
    "Index": "martlet.compress.index",
    "Interactions": "martlet.core",
    "ItemKNN": "martlet.models.item_knn",
    "LastOut": "martlet.data",
    "LowRank": "martlet.compress.low_rank",
    "MartletError": "martlet.core",
    "MatrixFactorization": "martlet.models.matrix_factorization",
    "NCF": "martlet.models.ncf",
    "NextItNet": "martlet.models.nextitnet",
    "Popularity": "martlet.models.popularity",
    "Prune": "martlet.compress.prune",
    "Quantize": "martlet.compress.quantize",
    "RandomSplit": "martlet.data",
    "Run": "martlet.train.run",
    "SASRec": "martlet.models.sasrec",
    "Tabular": "martlet.core",
    "TimeSplit": "martlet.data",
    "TwoTower": "martlet.models.two_tower",
    "WatchTime": "martlet.models.watch_time",
    "cascade": "martlet.models.cascade",
    "compress": "martlet.compress.compress",
    "evaluate": "martlet.measure.quality",
    "explore": "martlet.frontier.explore",
    "fit": "martlet.models.fit",
    "from_onnx": "martlet.scorers.imports",
    "from_vectors": "martlet.scorers.imports",
    "gate": "martlet.measure.gate",
    "measure": "martlet.measure.measure",
    "prepare": "martlet.data",
    "prepare_examples": "martlet.data",
    "read": "martlet.data",
    "serve": "martlet.serve.server",
    "write_report": "martlet.frontier.report",
}

__all__ = sorted([*_HOME, "load"])

for _verb in ("compress", "measure", "serve"):
    del globals()[_verb]


def load(folder: str) -> Bundle:
    """Return the bundle saved in ``folder``, verified; its arrays are memory-mapped."""
    return import_module("martlet.scorers.bundle").Bundle.load(folder)  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'martlet' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
