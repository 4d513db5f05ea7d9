import math
import sqlite3
from contextlib import closing
from typing import get_args

import polars as pl
import pytest

from martlet.core import Dataset, Text
from martlet.data.reading import TimeUnit
from support.command import document, run


def test_prepare_tells_what_each_rule_did(place, tmp_path):
    words = ("prepare", place / "log.csv", "--items", place / "items.parquet", "--min-user", 3)
    about = document(*words, "--out", tmp_path / "a")
    assert [rule["rule"] for rule in about["cleaning"]][-1] == "KCore(users=3, items=1)"
    told = run(*words, "--out", tmp_path / "b").stdout
    assert "rows in" in told
    assert "KCore(users=3, items=1)" in told
    assert "items joined: matched" in told
    assert f"saved {tmp_path / 'b'}" in told


def test_an_output_that_exists_is_left_alone(place, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    words = ("prepare", place / "log.csv", "--out", tmp_path / "a")
    assert "exists: choose another --out" in run(*words, code=1).stderr
    assert "so it is none that may be replaced" in run(*words, "--force", code=1).stderr
    assert (tmp_path / "a" / "mine").exists()
    (tmp_path / "a" / "mine").unlink()
    run(*words, "--force")
    run(*words, "--force")
    assert len(Dataset.load(tmp_path / "a").train)


def test_every_rule_has_its_option(place, tmp_path):
    about = document(
        "prepare", place / "log.csv", "--out", tmp_path / "a", "--min-rating", 0.5,
        "--max-user", 70, "--min-user", 2, "--min-item", 2, "--half-life-days", 90,
        "--duplicates", "sum", "--rejects", tmp_path / "r.parquet",
    )  # fmt: skip
    names = [rule["rule"].partition("(")[0] for rule in about["cleaning"]]
    assert names == [
        "parsed", "ValidTime", "MinRating", "RecencyDecay", "Duplicates", "MaxUserEvents", "KCore",
    ]  # fmt: skip
    assert len(pl.read_parquet(tmp_path / "r.parquet"))


@pytest.fixture
def shop(tmp_path):
    frame = {
        "who": [f"u{i % 7}" for i in range(70)],
        "what": [f"i{i % 11}" for i in range(70)],
        "when": [1_600_000_000_000 + 1000 * i for i in range(70)],
        "event": ["view", "buy"] * 35,
    }
    pl.DataFrame(frame).write_csv(tmp_path / "shop.csv")
    return tmp_path / "shop.csv"


def test_columns_weights_of_events_and_the_unit_of_time_are_given(shop, tmp_path):
    words = ("--user-col", "who", "--item-col", "what", "--time-col", "when", "--duplicates", "all")
    given = ("--event-weight", "view=2", "--event-weight", "buy=7", "--time-unit", "ms")
    document("prepare", shop, *words, *given, "--out", tmp_path / "a")
    train = Dataset.load(tmp_path / "a").train
    assert set(train.weight.tolist()) == {2.0, 7.0}
    assert 1_600_000_000 <= train.time_s.min() < 1_600_000_100
    bad = run(
        "prepare", shop, *words, "--event-weight", "view=much", "--out", tmp_path / "x", code=1
    )
    assert "--event-weight view=much: expected a number" in bad.stderr


def test_every_unit_of_time_that_reading_knows_can_be_typed():
    told = " ".join(run("prepare", "--help").stdout.split())
    assert f"--time-unit <{'|'.join(get_args(TimeUnit))}>" in told


def test_a_ready_split_is_kept(place, tmp_path):
    log = pl.read_csv(place / "log.csv")
    for name, rows in (("train", log[:2000]), ("valid", log[2000:2200]), ("test", log[2200:])):
        rows.write_csv(tmp_path / f"{name}.csv")
    words = (
        "prepare",
        tmp_path / "train.csv",
        "--test",
        tmp_path / "test.csv",
        "--duplicates",
        "all",
    )
    about = document(*words, "--valid", tmp_path / "valid.csv", "--out", tmp_path / "a")
    assert [about["counts"][part] for part in ("train", "valid", "test")] == [2000, 200, 300]
    about = document(*words, "--valid", "0.2", "--out", tmp_path / "b")
    assert about["counts"]["train"] + about["counts"]["valid"] == 2000
    assert about["counts"]["valid"] == pytest.approx(400, abs=40)


def test_the_effect_of_the_rules_is_told_where_it_is_asked_for(place, tmp_path):
    words = ("prepare", place / "log.csv", "--min-user", 3, "--seed", 5, "--effect")
    about = document(*words, "--out", tmp_path / "a")
    trials = about["effect"]["trials"]
    assert [trial["without"].partition("(")[0] for trial in trials] == [
        "all rules", "ValidTime", "Duplicates", "KCore", "no rule",
    ]  # fmt: skip
    assert {rule["rule"] for rule in about["cleaning"]} > {one["without"] for one in trials[1:-1]}
    told = run(*words, "--out", tmp_path / "b")
    assert "left out" in told.stdout
    assert "no rule" in told.stdout
    assert "effect" in told.stderr
    assert "effect" not in document("prepare", place / "log.csv", "--out", tmp_path / "c")


def test_an_effect_that_cannot_be_told_loses_no_dataset(place, tmp_path):
    words = ("prepare", place / "log.csv", "--split", "time:0,0.2", "--effect")
    assert "no pair of user and item" in run(*words, "--out", tmp_path / "a", code=1).stderr
    assert len(Dataset.load(tmp_path / "a").test)


def test_a_database_is_asked(tmp_path):
    path = tmp_path / "a shop?.db"
    with closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("create table events (user_id text, item_id text, timestamp int)")
        rows = [(f"u{i % 5}", f"i{i % 7}", 1_600_000_000 + i) for i in range(35)]
        shop.executemany("insert into events values (?, ?, ?)", rows)
    words = ("prepare", path, "--out", tmp_path / "a", "--sql")
    about = document(*words, "select * from events where user_id <> 'u0'")
    assert about["counts"]["num_users"] == 4
    assert about["cleaning"][0]["rows_in"] == 28
    (tmp_path / "no.db").write_text("no database, but long enough to look like the head of one")
    for log, query, reason in (
        (path, "select * from orders", "no such table: orders"),
        (path, "drop table events", "the query 'drop table events' gave nothing"),
        (tmp_path / "no.db", "select * from t", "file is not a database"),
        ("postgresql://nowhere/x", "select 1", "expected a SQLite file, an address such as"),
    ):
        refused = run("prepare", log, "--sql", query, "--out", tmp_path / "x", code=1)
        assert reason in refused.stderr
    assert not (tmp_path / "x").exists()


def test_numbers_of_a_text_table_are_numbers(place, tmp_path):
    lines = ["item_id,price,code,note,title", "i1, 2.5 ,007,,1984", "i2,,12,,2001", "i3,-1e2,3,,x"]
    (tmp_path / "items.csv").write_text("\n".join(lines))
    words = ("--items", tmp_path / "items.csv", "--out", tmp_path / "a")
    document("prepare", place / "log.csv", *words)
    data = Dataset.load(tmp_path / "a")
    price = dict(zip(data.items.ids, data.catalogue["price"].tolist(), strict=True))
    assert (price["i1"], price["i3"]) == (2.5, -100)
    assert math.isnan(price["i2"])
    assert isinstance(data.catalogue["code"], Text)
    assert isinstance(data.catalogue["note"], Text)
    assert data.catalogue["title"][data.items.row("i1")] == "1984"


def test_describe(place):
    found = document("data", "describe", place / "data")
    assert found["counts"]["users"] == 50
    assert "density" in run("data", "describe", place / "data").stdout


def test_a_raw_log_is_described_as_it_is(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\na,x,10\na,x,20\na,y,30\n,z,40\nb,x,99999999999\nc,x,5\n")
    found = document("data", "describe", log)
    assert found["counts"] == {"users": 3, "items": 2, "train": 5, "valid": 0, "test": 0}
    told = "\n".join(found["warnings"])
    assert "1 of 6 rows have: missing id; such as" in told
    assert "1 of 5 training events repeat a pair" in told
    assert "1 of 5 train events lie in the future" in told
    assert "2 of 3 users met one item" in told
    assert "part valid is empty" not in told


def test_weights_decay_before_events_are_summed(tmp_path):
    log = tmp_path / "log.csv"
    day = 86_400
    log.write_text(f"user,item,weight,time\na,x,8,0\na,x,1,{90 * day}\nb,y,1,{90 * day}\n")
    run("prepare", log, "--out", tmp_path / "d", "--duplicates", "sum", "--half-life-days", 30,
        "--split", "random:0.0001,0.0001")  # fmt: skip
    data = Dataset.load(tmp_path / "d")
    assert sorted(data.train.weight.tolist()) == [1.0, 2.0]


def test_a_synthetic_log_is_written_and_read(place, tmp_path):
    words = ("--users", 50, "--items", 40, "--events", 900)
    told = document("data", "synthesize", "--out", tmp_path / "a.parquet", *words)
    assert told["events"] == 900
    assert len(pl.read_parquet(tmp_path / "a.parquet")) == 900
    assert "exists" in run("data", "synthesize", "--out", tmp_path / "a.parquet", code=1).stderr


def test_get(tmp_path, monkeypatch):
    monkeypatch.setattr("martlet.data.sources.get", lambda name: tmp_path / name)
    assert document("data", "get", "ml-100k") == {
        "name": "ml-100k",
        "folder": str(tmp_path / "ml-100k"),
    }
    assert run("data", "get", "ml-100k").stdout == f"{tmp_path / 'ml-100k'}\n"
    monkeypatch.undo()
    assert "no public log is called 'ml-1b'" in run("data", "get", "ml-1b", code=1).stderr


def test_a_log_without_a_heading(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("alice,apple\nbob,pear\nalice,pear\nbob,fig\n")
    about = document("prepare", log, "--no-header", "--out", tmp_path / "d", "--split", "last-out")
    assert about["counts"]["num_users"] == 2
    assert about["cleaning"][0]["rows_in"] == 4
