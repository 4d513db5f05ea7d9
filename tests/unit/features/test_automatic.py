import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.core import CSR, DataError, Text
from martlet.features import (
    Bag,
    Category,
    Features,
    Hashed,
    Numeric,
    Vector,
    Words,
    automatic,
    guess,
)

N = 2000
RNG = np.random.default_rng(0)
KINDS = ["flies", "worms", "seeds", "berries", "snails"]
COLUMNS = {
    "tail": [str(one) for one in RNG.choice(["long", "short", "forked"], N)],
    "eggs": RNG.integers(1, 12, N),
    "mass_g": RNG.normal(20, 5, N),
    "range_km": RNG.lognormal(3, 2, N),
    "ring": np.arange(N) + 7_000_000,
    "tag": [f"tag-{n}" for n in range(N)],
    "site_id": RNG.integers(0, 700, N),
    "days": RNG.integers(0, 700, N),
    "food": ["|".join(RNG.choice(KINDS, RNG.integers(1, 4), replace=False)) for _ in range(N)],
    "note": [" ".join(RNG.choice(KINDS, 8)) + f" {n}" for n in range(N)],
    "said": [f"{n / 4}" for n in RNG.integers(0, 900, N)],
    "country": ["CH"] * N,
    "nothing": [""] * N,
    "sings": RNG.integers(0, 2, N).astype(bool),
    "half": np.where(np.arange(N) % 2, np.nan, 1.5),
    "infinite": np.where(np.arange(N) % 2, np.inf, -np.inf),
    "seen": CSR.from_rows([[n % 3] for n in range(N)], num_cols=3),
    "tags": [[str(n % 3), "x"] for n in range(N)],
    "photo": np.zeros((N, 3)),
}


def test_each_column_is_what_it_looks_like():
    guesses = guess(COLUMNS)
    assert {name: one.spec for name, one in guesses.items()} == {
        "tail": Category("tail"),
        "eggs": Category("eggs"),
        "mass_g": Numeric("mass_g"),
        "range_km": Numeric("range_km", "log"),
        "ring": None,
        "tag": None,
        "site_id": Category("site_id", min_count=2),
        "days": Numeric("days"),
        "food": Bag("food"),
        "note": Words("note"),
        "said": Numeric("said"),
        "country": None,
        "nothing": None,
        "sings": Category("sings"),
        "half": Category("half"),
        "infinite": None,
        "seen": Bag("seen"),
        "tags": Bag("tags"),
        "photo": Vector("photo"),
    }
    assert guesses["ring"].why == "an id, 2,000 distinct values in 2,000"
    assert guesses["country"].why == "it holds one value only"
    assert guesses["nothing"].why == "it holds nothing"
    assert guesses["infinite"].why == "it holds no finite number"


def test_the_plan_is_what_can_be_fitted():
    plan = automatic(COLUMNS)
    assert len(plan) == 14
    assert len(Features.fit(plan, COLUMNS).apply(COLUMNS)) == N


def test_too_many_values_are_hashed():
    values = np.repeat(np.arange(120_000), 2)
    (spec,) = automatic({"user_id": Text.of(f"u{n}" for n in values)})
    assert spec == Hashed("user_id", buckets=1 << 17)


def test_commas_of_a_sentence_are_no_separator():
    notes = [f"seen at dawn, number {n}, by the river" for n in range(500)]
    assert automatic({"note": notes}) == (Words("note"),)
    many = [",".join(RNG.choice(KINDS, 3)) + ("," if n % 2 else "") for n in range(500)]
    assert automatic({"food": many}) == (Bag("food", separator=","),)


def test_a_table_of_nothing_is_refused():
    with pytest.raises(DataError, match=r"no column can be learnt from \(a: it holds one value"):
        automatic({"a": [1, 1]})
    with pytest.raises(DataError, match=r"no column can be learnt from \(there are none\)"):
        automatic({})


def census():
    folder = Path(os.environ.get("MARTLET_DATA", "../shared/data"))
    return folder / "kdd-census" / "test.parquet"


@pytest.mark.data
@pytest.mark.skipif(not census().exists(), reason=f"the census is not at {census()}")
def test_the_census():
    frame = pl.read_parquet(census()).drop("income_50k")
    columns = {
        name: Text.of(frame[name].fill_null("").to_list())
        if frame[name].dtype == pl.String
        else frame[name].to_numpy()
        for name in frame.columns
    }
    plan = automatic(columns)
    assert len(plan) == 41
    assert "__index_level_0__" not in {spec.field for spec in plan}
    numbers = [spec.name for spec in plan if isinstance(spec, Numeric)]
    assert {"age", "capital_gains", "stock_dividends"} <= set(numbers)
    encoded = Features.fit(plan, columns).apply(columns)
    assert encoded.rows.shape == (len(frame), 41 - len(numbers))
