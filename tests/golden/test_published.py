"""Figures that others published, found again to the last digit they printed."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.core import CSR, Queries
from martlet.metrics import sampled
from martlet.scorers.popular import Popular
from martlet.scorers.table import Table

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("MARTLET_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "ncf-ml-1m").exists(), reason="needs the data folder: ncf-ml-1m")
def test_popularity_on_the_split_of_neural_collaborative_filtering():
    # Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited" (2020):
    # HR@10 .4535, NDCG@10 .2543.
    folder = DATA / "ncf-ml-1m"
    counts = np.bincount(pl.read_parquet(folder / "train.parquet")["item"].to_numpy())
    lines = (folder / "ml-1m.test.negative").read_text().splitlines()
    cells = [line.replace("(", "").replace(")", "").replace(",", "\t").split() for line in lines]
    table = np.array(cells, np.int64)
    counts = np.pad(counts, (0, table[:, 1:].max() + 1 - len(counts))).astype(np.float32)
    queries = Queries.of(CSR.empty(len(table), len(counts)), table[:, 0])
    found = sampled(Popular(Table.of(counts[:, None])), queries, table[:, 1], table[:, 2:])
    assert round(found["hit_rate@10"], 4) == 0.4535
    assert round(found["ndcg@10"], 4) == 0.2543
