from pathlib import Path

import numpy as np
import polars as pl
import pytest

from support.command import document


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with a log of two tastes, its items, a dataset ``data`` and a bundle ``b`` of it."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    users = rng.integers(0, 50, 2500)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{item}" for item in (rng.zipf(1.5, 2500) % 25) + 25 * (users % 2)],
            "timestamp": rng.integers(1_600_000_000, 1_700_000_000, 2500),
        }
    )
    frame.write_csv(folder / "log.csv")
    items = {"item_id": [f"i{i}" for i in range(50)], "price": np.arange(50.0)}
    titles = [f"Title {i}" for i in range(50)]
    pl.DataFrame(items | {"title": titles}).write_parquet(folder / "items.parquet")
    words = ("--items", folder / "items.parquet", "--out", folder / "data")
    document("prepare", folder / "log.csv", *words)
    document("fit", folder / "data", "--model", "ials", "--set", "dim=8", "--out", folder / "b")
    return folder
