"""How fast are feature columns fitted and applied, beside scikit-learn on pandas?

The census: 34 categories and 7 numbers, of text and of whole numbers. Fitted on its training part,
applied to all 199,523 rows and to one row at a time, as a query brings it. Each column of codes
must part the rows as scikit-learn's does, what training never held apart, and the numbers must be
the same. Both begin with their columns in memory: arrays of UTF-8 with offsets here, a frame there.
"""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from _common import Peer, data, interleave, options, peer_python, record, say, scratch, summary
from martlet.core import Text, rng
from martlet.features import Category, Features, Numeric, automatic, mutual_information

NUMBERS = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends", "unknown",
    "weeks_worked",
)  # fmt: skip
LABEL, INDEX = "income_50k", "__index_level_0__"
ONES = 200


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=5)
    columns, label, train = tiny(chosen) if chosen.tiny else census(chosen)
    learnt = {name: part(column, 0, train) for name, column in columns.items()}
    plan = [Numeric(name) if name in NUMBERS else Category(name) for name in columns]
    ours: dict[str, Any] = {}

    def fit() -> None:
        ours["features"] = Features.fit(plan, learnt)

    def apply() -> None:
        ours["encoded"] = ours["features"].apply(columns)

    rows = [{name: value_of(column, row) for name, column in columns.items()} for row in range(20)]

    def one() -> None:
        for turn in range(ONES):
            ours["features"].apply(rows[turn % 20])

    variants: dict[str, Any] = {"fit": fit, "apply": apply, "one": one}
    python = None if chosen.tiny else peer_python("deepctr")
    about: dict[str, Any] = {"rows": len(label), "train": train, "columns": len(columns)}
    if python is None:
        seconds = interleave(variants, 1)  # in this order: what follows needs what is fitted
        seconds = {n: seconds[n] + more for n, more in interleave(variants, chosen.rounds).items()}
    else:
        with scratch() as folder:
            seconds = beside(python, columns, train, variants, ours, folder, chosen)
    seconds["one"] = [each / ONES for each in seconds["one"]]
    seconds |= interleave(
        {
            "guess": lambda: automatic(learnt),
            "information": lambda: mutual_information(learnt, label[:train]),
        },
        chosen.rounds,
    )
    about["nbytes"] = sum(array.nbytes for array in ours["features"].arrays().values())
    about["table_rows"] = ours["features"].num_rows
    for name, each in seconds.items():
        spread = summary(each)
        say(f"{name:14} {spread['median'] * 1e3:10.3f} ms [{spread['min'] * 1e3:.3f}, "
            f"{spread['max'] * 1e3:.3f}]")  # fmt: skip
    record("feature_columns", {**about, "seconds": seconds}, chosen)


def beside(
    python: Path,
    columns: dict[str, Any],
    train: int,
    variants: dict[str, Any],
    ours: dict[str, Any],
    folder: Path,
    chosen: Namespace,
) -> dict[str, list[float]]:
    """Return the seconds of both libraries in turn, once their answers agree."""
    table, out = folder / "table.csv", folder / "peer.npz"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(list(column) for column in columns.values()), strict=True))
    numbers = ",".join(name for name in columns if name in NUMBERS)
    with Peer(python, "features_sklearn.py", table, str(train), numbers, out) as peer:
        for work in ("fit", "apply", "save"):
            peer.ask(work=work)
            if work in variants:
                variants[work]()
        agree(ours, np.load(out), train)
        both = dict(variants)
        for work in ("fit", "apply"):
            both[f"sklearn_{work}"] = lambda work=work: peer.ask(work=work)["seconds"]
        both["sklearn_one"] = lambda: peer.ask(work="one")["seconds"] / 20
        return interleave(both, chosen.rounds, rest_s=0.05)


def agree(ours: dict[str, Any], theirs: Any, train: int) -> None:
    """Check that both part the rows alike and scale the numbers alike."""
    features, encoded = ours["features"], ours["encoded"]
    offsets = features.offsets
    for at, name in enumerate(theirs["names"].tolist()):
        field = features.fields.index(name)
        mine = encoded.rows[:, field].astype(np.int64) - offsets[field]
        codes = theirs["codes"][:, at].astype(np.int64)
        pairs = np.unique(mine * (codes.max() + 2) + codes + 1)
        # A missing text is a value of its own there, and row 0 here; so are unknown ones.
        known = mine > 0
        assert len(np.unique(pairs // (codes.max() + 2))) >= len(np.unique(mine)), name
        assert len(np.unique(pairs[pairs // (codes.max() + 2) > 0])) == len(np.unique(mine[known]))
        assert len(np.unique(codes[known])) == len(np.unique(mine[known])), name
    for mine, scaled in zip(encoded.numbers.T, theirs["numbers"].T, strict=True):
        low, high = scaled[:train].min(), scaled[:train].max()
        inside = (scaled >= low) & (scaled <= high)  # beyond the training range ours are clipped
        np.testing.assert_allclose(mine[inside], scaled[inside], rtol=1e-4, atol=1e-5)


def census(chosen: Namespace) -> tuple[dict[str, Any], Any, int]:
    """Return the columns of both parts, the label, and how many rows training has."""
    import polars as pl

    parts = [
        pl.read_parquet(data(chosen.data, "kdd-census", f"{name}.parquet"))
        for name in ("train", "test")
    ]
    frame = pl.concat(parts)
    label = (frame[LABEL] == parts[0][LABEL].unique().sort()[-1]).to_numpy().astype(np.float32)
    columns = {
        name: Text.of(frame[name].fill_null("").to_list())
        if frame[name].dtype == pl.String
        else frame[name].to_numpy()
        for name in frame.columns
        if name not in (LABEL, INDEX)
    }
    return columns, label, len(parts[0])


def tiny(chosen: Namespace) -> tuple[dict[str, Any], Any, int]:
    """Return a small table of the same kind."""
    random = rng(chosen.seed, "feature_columns")
    columns: dict[str, Any] = {
        f"text{n}": Text.of(f"value {k}" for k in random.integers(0, 5 + 10 * n, 2000))
        for n in range(4)
    }
    columns["age"] = random.normal(40, 12, 2000)
    return columns, random.integers(0, 2, 2000).astype(np.float32), 1600


def part(column: Any, begin: int, end: int) -> Any:
    """Return some rows of a column."""
    return column.take(np.arange(begin, end)) if isinstance(column, Text) else column[begin:end]


def value_of(column: Any, row: int) -> list[Any]:
    """Return one value as a query brings it."""
    return [column[row] if isinstance(column, Text) else column[row].item()]


if __name__ == "__main__":
    main()
