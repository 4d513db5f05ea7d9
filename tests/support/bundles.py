"""A small bundle of every kind of file, for tests of what carries bundles."""

from dataclasses import replace

import numpy as np

from martlet.core import CSR, Text, Vocabulary, rng
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.network import Network
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table
from support.networks import mean_encoder

NUM_ITEMS, NUM_USERS, DIM = 30, 8, 4


def draw(name, *shape):
    """Normal float32 numbers, the same for the same name."""
    return rng(0, "bundles", name).normal(size=shape).astype(np.float32)


def items():
    """Vectors of the items, with a few of them alike."""
    return Table.of(draw("items", NUM_ITEMS, DIM))


def bundle(scorer=None):
    """Users u0 ... u7 of whom u7 did nothing, items i0 ... i29 with titles and prices, times."""
    random = rng(0, "bundles", "histories")
    rows = [random.choice(NUM_ITEMS, 5, replace=False) for _ in range(NUM_USERS - 1)]
    histories = CSR.from_rows([*rows, []], NUM_ITEMS)
    histories = replace(histories, values=random.uniform(1, 2, histories.nnz).astype(np.float32))
    return Bundle(
        scorer or Factors(items(), LinearFold()),
        Vocabulary.of(f"u{i}" for i in range(NUM_USERS)),
        Vocabulary.of(f"i{i}" for i in range(NUM_ITEMS)),
        histories,
        np.bincount(histories.indices, minlength=NUM_ITEMS).astype(np.float32),
        history_time_s=np.arange(histories.nnz, dtype=np.int64),
        catalogue={
            "title": Text.of(f"Vögel {i}" if i else "" for i in range(NUM_ITEMS)),
            "price": np.arange(NUM_ITEMS, dtype=np.float32),
        },
        lineage=({"spec": "toy", "params": {"sizes": (1, 2)}},),
    )


def cascade():
    """A scorer with files of its own: a network behind vectors."""
    network = Network(items(), mean_encoder(draw("weight", DIM, DIM)))
    return Cascade(Factors(items(), LinearFold()), network, depth=12)
