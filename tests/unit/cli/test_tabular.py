"""Labelled rows from the command line: prepare, describe, fit, measure, predict."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import polars as pl
import pytest

from martlet.core import Tabular
from martlet.measure.ledger import read
from martlet.scorers.bundle import Bundle
from support.command import document, run

SETTINGS = ("--set", "dim=4", "--set", "hidden=8", "--set", "epochs=4", "--set", "batch=128")
SETTINGS += ("--set", "rate=0.01", "--set", "table_rate=0.1")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def rows():
    """1500 rows in which age and city tell of the label, with an id."""
    rng = np.random.default_rng(0)
    age, city = rng.integers(18, 80, 1500), rng.integers(0, 3, 1500)
    chance = 1 / (1 + np.exp(-(age - 50) / 8 - np.array([2, -2, 0])[city]))
    bought = rng.random(1500) < chance
    return pl.DataFrame(
        {
            "row": [f"r{i}" for i in range(1500)],
            "age": [None if i % 17 == 0 else a for i, a in enumerate(age.tolist())],
            "city": [["Oslo", "Łódź", ""][c] for c in city],
            "bought": ["yes" if b else "no" for b in bought],
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory, rows):
    """``rows.csv``, its tabular folder ``data``, bundles ``b`` and ``c`` of it."""
    folder = tmp_path_factory.mktemp("tabular")
    rows.write_csv(folder / "rows.csv")
    words = ("--label", "bought", "--drop", "row", "--out", folder / "data")
    document("prepare", folder / "rows.csv", *words)
    for name, more in (("b", ()), ("c", ("--set", "dim=2"))):
        words = ("--model", "deepfm", *SETTINGS[2:], *(more or SETTINGS[:2]), "--out")
        document("fit", folder / "data", *words, folder / name)
    return folder


def test_prepare_tells_what_it_found(place, tmp_path):
    data = Tabular.load(place / "data")
    assert data.kinds == {"age": "number", "city": "text"}
    assert [len(data.part(p)) for p in ("train", "valid", "test")] == [1200, 150, 150]
    words = ("prepare", place / "rows.csv", "--label", "bought", "--positive", "no")
    words += ("--column", "age", "--split", "random:0,0.5", "--out", tmp_path / "d")
    told = run(*words).stdout
    assert "numbers: age" in told
    assert "train: 750 rows, " in told
    assert "of label 1" in told
    again = document("prepare", "--config", tmp_path / "d.config.toml", "--out", tmp_path / "e")
    assert again["label"] == {"column": "bought", "positive": "no"}
    assert Tabular.load(tmp_path / "e").test.hash == Tabular.load(tmp_path / "d").test.hash


def test_a_test_table_weights_times_and_bad_rows(tmp_path, rows):
    frame = rows.with_columns(
        w=pl.Series(np.arange(1500) % 3), at=pl.Series(np.arange(1500) + 1_600_000_000)
    )
    frame.head(1000).write_csv(tmp_path / "train.csv")
    frame.tail(500).with_columns(
        bought=pl.when(pl.col("w") == 0).then(None).otherwise("bought")
    ).write_csv(tmp_path / "test.csv")
    words = ("prepare", tmp_path / "train.csv", "--label", "bought", "--out")
    made = document(
        *words, tmp_path / "a", "--test", tmp_path / "test.csv", "--valid", "0.2",
        "--weight-col", "w", "--time-col", "at", "--rejects", tmp_path / "bad.parquet",
    )  # fmt: skip
    assert made["counts"] == {"train": 800, "valid": 200, "test": 334}
    assert len(pl.read_parquet(tmp_path / "bad.parquet")) == 166
    made = document(*words, tmp_path / "b", "--time-col", "at")
    assert made["split"] == "TimeSplit(valid=0.1, test=0.1)"
    assert Tabular.load(tmp_path / "a").train.weight is not None
    told = run(*words, tmp_path / "c", "--strict", "--positive", "", code=1).stderr
    assert "labels of part 'train'" in told


def test_rows_come_from_a_database_too(tmp_path, rows):
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("create table visits (age integer, city text, bought text)")
        table = rows.select("age", "city", "bought").head(200).rows()
        shop.executemany("insert into visits values (?, ?, ?)", table)
        shop.commit()
    words = ("prepare", tmp_path / "shop.db", "--sql", "select * from visits where age > 30")
    made = document(*words, "--label", "bought", "--out", tmp_path / "d")
    assert made["columns"] == {"age": "number", "city": "text"}
    assert Tabular.load(tmp_path / "d").train.columns["age"].min() > 30


def test_a_table_without_users_is_told_of_labels(place, tmp_path):
    told = run("prepare", place / "rows.csv", "--out", tmp_path / "d", code=1).stderr
    assert "a table of labelled rows has none: name its label with --label" in told


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--label", "bought", "--items", "x.csv"), 2, "--items is of events of users and items"),
        (("--label", "bought", "--min-user", "2"), 2, "--min-user is of events"),
        (("--positive", "yes"), 2, "--positive is of labelled rows"),
        (("--label", "none"), 1, "has no column 'none'"),
        (("--label", "city"), 1, "say which text makes a label 1 with --positive VALUE"),
        (("--label", "bought", "--split", "last-out"), 1, "is by users"),
    ],
)
def test_options_that_do_not_go_together_are_told(place, tmp_path, words, code, told):
    done = run("prepare", place / "rows.csv", *words, "--out", tmp_path / "d", code=code)
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_kind_is_not_replaced(place):
    words = ("fit", place / "data", "--model", "deepfm", "--out", place / "data", "--force")
    assert "so it is none that may be replaced" in run(*words, code=1).stderr


def test_describe(place, tmp_path, rows):
    columns = {
        one["column"]: one for one in document("data", "describe", place / "data")["columns"]
    }
    assert columns["city"]["distinct"] == 2
    assert columns["age"]["missing"] > 50
    told = run("data", "describe", place / "data").stdout
    assert "test: 150 rows" in told
    words = ("prepare", place / "rows.csv", "--label", "bought", "--out", tmp_path / "d")
    document(*words)
    assert "warning: row differs in every row" in run("data", "describe", tmp_path / "d").stdout


def test_only_models_of_fields_take_it(place, tmp_path):
    refused = run("fit", place / "data", "--out", tmp_path / "x", code=1).stderr
    assert "ials learns from events of users and items" in refused
    refused = run("frontier", place / "data", "--out", tmp_path / "x", code=1).stderr
    assert "holds labelled rows, not events" in refused
    made = document("fit", place / "data", "--model", "deepfm", *SETTINGS, "--with-valid",
                    "--out", tmp_path / "x")  # fmt: skip
    assert Bundle.load(tmp_path / "x").id == made["id"]
    refused = run("measure", tmp_path / "x", place / "data", "--part", "valid", code=1).stderr
    assert "part 'valid' was trained on: its rows stand in" in refused


def test_measure(place):
    receipt = document("measure", place / "b", place / "data", "--no-cost")
    assert receipt["quality"]["auc_low"] > 0.75
    assert receipt["quality"]["num_rows"] == 150
    assert read(place / "b" / "receipts.jsonl")[-1].to_json() == receipt
    told = run("measure", place / "b", place / "data", "--no-cost", "--metric", "log_loss").stdout
    assert told.splitlines()[0] == "deepfm (part test)"
    assert told.splitlines()[1].startswith("log_loss 0.")
    assert "cold_start_s" in document("measure", place / "b")["cost"]


def test_two_bundles_are_compared(place):
    words = ("measure", place / "b", place / "data", "--no-cost", "--against", place / "c")
    found = document(*words)["difference"]["auc"]
    assert found["low"] <= found["mean"] <= found["high"]
    assert "auc: " in run(*words, "--metric", "auc").stdout
    run("measure", place / "b", "--no-cost", "--against", place / "c", code=2)
    run("measure", place / "b", place / "data", "--negatives", "9", code=2)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_predictions_stand_beside_the_rows(place, tmp_path, rows, ending, monkeypatch):
    from martlet.cli import predicting

    monkeypatch.setattr(predicting, "_BATCH", 400)
    out = tmp_path / f"p{ending}"
    made = document("predict", place / "b", place / "rows.csv", "--out", out)
    readers = {
        ".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson,
        ".tsv": lambda p: pl.read_csv(p, separator="\t"),
    }  # fmt: skip
    found = readers[ending](out)
    assert found.columns == ["row", "age", "city", "bought", "probability"]
    assert found["row"].to_list() == rows["row"].to_list()
    columns = {"age": rows["age"].cast(float).to_numpy(), "city": rows["city"].to_list()}
    expected = Bundle.load(place / "b").predict(columns)
    np.testing.assert_allclose(found["probability"].to_numpy(), expected, rtol=1e-6)
    assert made["num_rows"] == 1500
    assert made["mean"] == pytest.approx(expected.mean())
    assert (tmp_path / f"p{ending}.config.toml").exists()


def test_rows_may_come_in_any_format_with_any_columns(place, tmp_path, rows):
    rows.write_parquet(tmp_path / "rows.parquet")
    rows.write_ndjson(tmp_path / "rows.jsonl")
    for name in ("rows.parquet", "rows.jsonl"):
        words = ("--keep", "row", "--name", "p", "--out", tmp_path / f"{name}.csv")
        document("predict", place / "b", tmp_path / name, *words)
    first, second = (pl.read_csv(tmp_path / f"rows.{n}.csv") for n in ("parquet", "jsonl"))
    assert first.columns == ["row", "p"]
    assert first.equals(second)
    rows.select("row", "city").write_csv(tmp_path / "less.csv")
    words = ("predict", place / "b", tmp_path / "less.csv", "--out", tmp_path / "less.parquet")
    assert "has no column 'age', which the model was fitted on" in run(*words, code=1).stderr
    assert document(*words, "--allow-missing")["missing"] == ["age"]
    told = run(*words, "--allow-missing", "--force").stdout
    assert "warning: missing in every row: age" in told


def test_a_row_that_cannot_be_read_has_no_prediction(place, tmp_path):
    (tmp_path / "a.csv").write_text('age,city\n30,Oslo\n40,Oslo,x,y\n50,"Oslo\n60,Oslo\n')
    words = ("predict", place / "b", tmp_path / "a.csv", "--out", tmp_path / "p.jsonl")
    assert document(*words)["num_bad"] == 2
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["probability"] is None for line in lines] == [False, True, True, False]
    told = run(*words, "--force").stdout
    assert "warning: 2 rows could not be read" in told
    (tmp_path / "a.csv").write_text("age,city\n")
    assert document(*words, "--force")["num_rows"] == 0


def test_what_cannot_be_predicted_is_told(place, tmp_path, rows):
    rows.select("age", "city", probability="age").write_csv(tmp_path / "a.csv")
    for words, told in (
        ((tmp_path / "a.csv", "--out", tmp_path / "p.csv"), "has a column 'probability' of its"),
        ((tmp_path / "a.csv", "--out", tmp_path / "p.xls"), "no ending that is known"),
        ((tmp_path / "a.csv", "--keep", "x", "--out", tmp_path / "p.csv"), "no column 'x'"),
        ((tmp_path / "none.csv", "--out", tmp_path / "p.csv"), "does not exist"),
    ):
        assert told in run("predict", place / "b", *words, code=1).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]
    refused = run("recommend", place / "b", "--user", "u", code=1).stderr
    assert "no users or items to rank" in refused


def test_a_regression_from_prepare_to_predict(tmp_path, rows):
    paid = 1000.0 * rows["age"].fill_null(40) + 30000 * (rows["city"] == "Oslo").cast(pl.Int32)
    rows.with_columns(paid=paid).drop("bought").write_csv(tmp_path / "rows.csv")
    data, bundle = tmp_path / "data", tmp_path / "b"
    words = ("--label", "paid", "--regression", "--drop", "row", "--out", data)
    assert document("prepare", tmp_path / "rows.csv", *words)["mean label"]["train"] > 40000
    refused = run("fit", data, "--model", "deepfm", "--out", bundle, code=1).stderr
    assert "the logistic loss learns chances from 0 to 1: set loss=squared" in refused
    settings = ("epochs=30", "loss=squared", "hidden=8", "batch=128", "rate=0.01")
    many = [word for one in settings for word in ("--set", one)]
    document("fit", data, "--model", "deepfm", *many, "--out", bundle)
    found = document("measure", bundle, data, "--no-cost", "--ledger", tmp_path / "l")["quality"]
    assert found["rmse_low"] < found["rmse"] < found["rmse_high"] < 6000
    assert 0 < found["mae"] < found["rmse"]
    assert not {"auc", "num_positive"} & found.keys()
    told = run("measure", bundle, data, "--metric", "auc", "--no-cost", code=1).stderr
    assert "auc is a figure of probabilities, and this model predicts numbers" in told
    document("predict", bundle, tmp_path / "rows.csv", "--out", tmp_path / "p.parquet")
    found = pl.read_parquet(tmp_path / "p.parquet")
    assert (found["number"] - found["paid"].cast(pl.Float64)).abs().mean() < 6000
