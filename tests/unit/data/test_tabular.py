"""From a labelled table in any format to examples."""

import json

import numpy as np
import polars as pl
import pytest

from martlet.core import DataError, SpecError, Text
from martlet.data import GivenSplit, LastOut, RandomSplit, TimeSplit, labelled, prepare_examples
from martlet.data.splits import TEST, VALID

ALL = RandomSplit(0.0, 0.001)  # of few rows: all train


def table(**more):
    return {
        "age": ["31", " 44 ", "", "N/A", "1e2", "7"],
        "zip": ["0150", "3012", "", "0150", "3012", "1"],
        "city": ["Bern", "", "Łódź", "a, b", 'say "hi"', "Bern"],
        "paid": ["1", "0", "1", "0", "0", "1"],
    } | more


def write(path, columns=None, **kind):
    frame = pl.DataFrame(table() if columns is None else columns)
    writers = {
        ".csv": frame.write_csv,
        ".tsv": lambda p: frame.write_csv(p, separator="\t"),
        ".jsonl": frame.write_ndjson,
        ".parquet": frame.write_parquet,
    }
    writers[path.suffix](path)
    return path


def values(column):
    return list(column) if isinstance(column, Text) else column.tolist()


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", None])
def test_every_format_gives_the_same_rows(tmp_path, ending):
    rows = pl.DataFrame(table()) if ending is None else write(tmp_path / f"rows{ending}")
    data = prepare_examples(rows, label="paid", split=ALL)
    assert data.kinds == {"age": "number", "zip": "text", "city": "text"}
    train = data.train
    assert train.label.tolist() == [1, 0, 1, 0, 0, 1]
    assert train.label.dtype == np.float32
    np.testing.assert_array_equal(train.columns["age"], [31, 44, np.nan, np.nan, 100, 7])
    assert values(train.columns["zip"]) == table()["zip"]
    assert values(train.columns["city"]) == table()["city"]
    assert data.about["counts"] == {"train": 6, "valid": 0, "test": 0}
    assert data.about["share of label 1"] == {"train": 0.5, "valid": None, "test": None}
    assert json.loads(json.dumps(data.about)) == data.about


def test_types_that_a_table_has_are_kept_or_become_text():
    rows = pl.DataFrame(
        {
            "n": pl.Series([1, None, 3], dtype=pl.Int64),
            "x": [0.5, float("inf"), float("nan")],
            "b": [True, False, None],
            "c": pl.Series(["p", None, "q"], dtype=pl.Categorical),
            "tags": [["a", "b"], [], None],
            "nothing": [None, None, None],
            "y": [True, False, True],
        }
    )
    train = prepare_examples(rows, label="y", split=ALL).train
    np.testing.assert_array_equal(train.columns["n"], [1, np.nan, 3])
    np.testing.assert_array_equal(train.columns["x"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(train.columns["b"], [1, 0, np.nan])
    assert values(train.columns["c"]) == ["p", "", "q"]
    assert values(train.columns["tags"]) == ["a|b", "", ""]
    assert values(train.columns["nothing"]) == ["", "", ""]
    assert train.label.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("words", "positive"),
    [
        (["yes", "no"], None),
        (["Y", " n "], None),
        (["True", "false"], None),
        (["1.0", "0"], None),
        ([1, 0], None),
        ([1.0, 0.0], None),
        ([" 50000+.", "- 50000."], "50000+."),
        ([5, 1], "5"),
        ([5.0, 1.0], "5"),
        (["5", "1"], "5"),
        ([True, False], "true"),
    ],
)
def test_labels_are_read_as_people_write_them(words, positive):
    rows = {"x": [1, 2], "label": words}
    train = prepare_examples(rows, label="label", positive=positive, split=ALL).train
    assert train.label.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("words", "positive", "message"),
    [
        (["big", "small"], None, "holds 'big', 'small': expected 0 and 1, yes and no.*--positive"),
        ([-1, 1], None, r"all 1 labels of part 'train' of a table in memory are 1"),
        (["a", "b"], "c", "all 2 labels of part 'train' .* are 0: .*--positive"),
        ([None, None], None, "holds nothing: expected 0 and 1"),
    ],
)
def test_labels_that_say_nothing_are_refused(words, positive, message):
    with pytest.raises(DataError, match=message):
        prepare_examples({"x": [1, 2], "y": words}, label="y", positive=positive, split=ALL)


def test_bad_rows_are_counted_shown_and_put_aside(tmp_path):
    lines = ["age,city,paid", "31,Bern,1", "age,city,paid", "44,Oslo,", "7,Oslo,0,extra,more"]
    lines += ["9,Oslo,0", '8,"Oslo,1', "6,Bern,maybe", "5,Bern,0"]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    how = {"label": "paid", "split": ALL}
    data = prepare_examples(tmp_path / "rows.csv", rejects=tmp_path / "bad.parquet", **how)
    assert data.kinds["age"] == "number"  # the heading met again did not make it text
    assert data.train.columns["age"].tolist() == [31, 9, 5]
    counts = {rule["rule"]: rule["rows_in"] - rule["rows_out"] for rule in data.about["cleaning"]}
    assert counts == {
        "unknown label": 2, "no label": 1, "too many fields": 1, "broken line": 1,
    }  # fmt: skip
    assert any("maybe" in text for rule in data.about["cleaning"] for text in rule["examples"])
    aside = pl.read_parquet(tmp_path / "bad.parquet")
    assert aside["row"].to_list() == ["2", "3", "4", "6", "7"]
    with pytest.raises(DataError, match=r"rows.csv, row 2: unknown label in"):
        prepare_examples(tmp_path / "rows.csv", strict=True, **how)


def test_weights_and_times(tmp_path):
    rows = table(w=["1", "0.5", "-1", "0", "x", "2"], at=[f"2024-01-0{d}" for d in range(1, 7)])
    how = {"label": "paid", "weight": "w", "time": "at", "split": ALL}
    data = prepare_examples(write(tmp_path / "a.csv", rows), **how)
    assert data.train.weight.tolist() == [1, 0.5, 0, 2]
    assert list(data.kinds) == ["age", "zip", "city"]
    assert np.diff(data.train.time_s).tolist() == [86400, 2 * 86400, 2 * 86400]
    assert {rule["rule"] for rule in data.about["cleaning"]} == {"bad weight"}
    rows["at"][1] = "soon"
    rules = prepare_examples(rows, **how).about["cleaning"]
    assert {rule["rule"] for rule in rules} == {"bad weight", "unparsable time"}


def test_a_text_far_below_makes_the_column_text(tmp_path, monkeypatch):
    monkeypatch.setattr(labelled, "_BATCH", 3)
    code = [str(i) for i in range(20)]
    rows = {"code": [*code[:-1], "x19"], "n": code, "y": [i % 2 for i in range(20)]}
    data = prepare_examples(write(tmp_path / "a.csv", rows), label="y", split=ALL)
    assert data.kinds == {"code": "text", "n": "number"}
    assert values(data.train.columns["code"])[:3] == ["0", "1", "2"]
    assert data.train.columns["n"].tolist() == list(range(20))


def test_a_random_split_has_the_same_share_of_each_label_and_a_seed():
    rng = np.random.default_rng(0)
    rows = {"x": np.arange(1000), "y": (rng.random(1000) < 0.1).astype(int)}
    data = prepare_examples(rows, label="y", split=RandomSplit(0.2, 0.1), seed=3)
    assert [len(data.part(p)) for p in ("train", "valid", "test")] == [700, 200, 100]
    shares = [data.part(p).label.mean() for p in ("train", "valid", "test")]
    assert max(shares) - min(shares) < 0.01
    together = np.concatenate([data.part(p).columns["x"] for p in ("train", "valid", "test")])
    assert sorted(together.tolist()) == list(range(1000))
    assert (np.diff(data.train.columns["x"]) > 0).all()
    again = prepare_examples(rows, label="y", split=RandomSplit(0.2, 0.1), seed=3)
    assert again.test.hash == data.test.hash
    other = prepare_examples(rows, label="y", split=RandomSplit(0.2, 0.1), seed=4)
    assert other.test.hash != data.test.hash


def test_by_time_nothing_of_the_future_is_trained_on():
    rng = np.random.default_rng(0)
    at = rng.integers(1_600_000_000, 1_700_000_000, 500)
    rows = {"x": np.arange(500), "at": at, "y": np.arange(500) % 2}
    data = prepare_examples(rows, label="y", time="at")  # by itself, where there is a time
    assert data.about["split"] == "TimeSplit(valid=0.1, test=0.1)"
    assert data.train.time_s.max() < data.valid.time_s.min()
    assert data.valid.time_s.max() < data.test.time_s.min()
    assert len(data.test) == 50
    with pytest.raises(DataError, match="a split by time needs a column of times"):
        prepare_examples(rows, label="y", split=TimeSplit())
    with pytest.raises(SpecError, match="is by users, and labelled rows have none"):
        prepare_examples(rows, label="y", split=LastOut())


def test_a_test_table_may_be_given(tmp_path):
    train, test = write(tmp_path / "a.csv"), tmp_path / "b.csv"
    write(test, table(age=["1", "2", "3", "4", "5", "old"], paid=["1", "", "1", "0", "0", "1"]))
    data = prepare_examples(train, label="paid", split=GivenSplit(test, 0.34))
    assert [len(data.part(p)) for p in ("train", "valid", "test")] == [4, 2, 5]
    assert data.kinds["age"] == "text"  # for it is, in one of the tables
    assert data.about["cleaning"][-1]["rule"] == "test table: no label"
    three = prepare_examples(train, label="paid", split=GivenSplit(test, test))
    assert (len(three.train), three.valid.hash) == (6, three.test.hash)
    write(test, {"age": ["1"], "paid": ["1"]})
    with pytest.raises(DataError, match=r"b\.csv has no column 'zip': it has age, paid"):
        prepare_examples(train, label="paid", split=GivenSplit(test))


def test_columns_are_chosen_or_dropped():
    how = {"label": "paid", "split": ALL}
    assert list(prepare_examples(table(), drop=["zip"], **how).kinds) == ["age", "city"]
    assert list(prepare_examples(table(), columns=["city"], **how).kinds) == ["city"]
    for given, words in (
        ({"columns": ["paid"]}, "column 'paid' has two parts to play"),
        ({"columns": ["aeg"]}, "has no column 'aeg': it has age, zip, city, paid"),
        ({"drop": ["age", "zip", "city"]}, "no column beside the label"),
        ({"weight": "paid"}, "column 'paid' has two parts to play"),
        ({"label": "payed"}, "has no column 'payed'"),
    ):
        with pytest.raises(DataError, match=words):
            prepare_examples(table(), **how | given)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda p: p / "none.csv", "does not exist"),
        (lambda p: {"x": [], "y": []}, "holds no row"),
        (lambda p: 7, "cannot be read as a log"),
        (lambda p: {"x": [{"a": 1}], "y": [1]}, "column 'x' .* is Struct.*--drop x"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        prepare_examples(rows(tmp_path), label="y", split=ALL)


def test_shares_that_leave_nothing_and_unknown_units_are_refused():
    with pytest.raises(DataError, match="leaves nothing to train on"):
        prepare_examples({"x": [1, 2], "y": [0, 1]}, label="y", split=RandomSplit(0, 0.99))
    with pytest.raises(SpecError, match="the time unit 'h' is unknown"):
        prepare_examples(table(), label="paid", time_unit="h")
    assert (VALID, TEST) == (1, 2)


def test_labels_of_a_regression_are_numbers():
    rows = {"x": list(range(8)), "y": ["1.5", "-2e3", "", "much", "inf", "0", "7", "1"]}
    data = prepare_examples(rows, label="y", regression=True, split=ALL)
    assert data.train.label.tolist() == [1.5, -2000, 0, 7, 1]
    counts = {rule["rule"]: rule["rows_in"] - rule["rows_out"] for rule in data.about["cleaning"]}
    assert {name: count for name, count in counts.items() if count} == {
        "no label": 1, "unknown label": 2,
    }  # fmt: skip
    assert data.about["mean label"]["train"] == pytest.approx(np.mean([1.5, -2000, 0, 7, 1]))
    assert data.about["label"]["regression"]
    assert "share of label 1" not in data.about
    wide = {"x": list(range(100)), "y": np.arange(100) / 7}
    cut = prepare_examples(wide, label="y", regression=True, split=RandomSplit(0.1, 0.2))
    assert [len(cut.part(name)) for name in ("train", "valid", "test")] == [70, 10, 20]


def test_a_regression_without_numbers_is_refused():
    rows = {"x": [1, 2], "y": ["big", "small"]}
    with pytest.raises(DataError, match="holds 'big', 'small': expected numbers for a regression"):
        prepare_examples(rows, label="y", regression=True, split=ALL)
    with pytest.raises(SpecError, match="positive is '1', and the labels of a regression are"):
        prepare_examples(rows, label="y", positive="1", regression=True)
    with pytest.raises(DataError, match=r"all 2 labels .* are 3: expected both 0 and 1, or"):
        prepare_examples({"x": [1, 2], "y": [3, 3]}, label="y", regression=True, split=ALL)
