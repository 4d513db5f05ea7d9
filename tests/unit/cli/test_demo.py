import shutil
import tomllib

import polars as pl
import pytest

from martlet.cli import demo
from martlet.measure import ledger
from support.command import document, run
from support.costs import quick


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, nothing cached, and a log small enough for a test."""
    quick(monkeypatch)
    monkeypatch.setenv("MARTLET_OFFLINE", "1")
    monkeypatch.setenv("MARTLET_CACHE", str(tmp_path / "cache"))
    for name, size in (("_USERS", 80), ("_ITEMS", 200), ("_EVENTS", 3000)):
        monkeypatch.setattr(demo, name, size)


def test_without_a_network_the_log_is_synthetic_and_says_so(offline, tmp_path):
    out = tmp_path / "demo"
    told = document("demo", "--out", out)
    assert told["synthetic"] is True
    assert told["fits"]
    page = (out / "report.html").read_text()
    assert "This log is SYNTHETIC" in page
    assert "MARTLET_OFFLINE=1 forbids fetching it" in page
    models = {one.spec["spec"] for one in ledger.read(out / "receipts.jsonl")}
    assert models == {"popularity", "item-knn", "ease", "gfcf", "ials"}
    storages = {line["transform"] for one in ledger.read(out / "receipts.jsonl")
                for line in one.transforms}  # fmt: skip
    assert storages >= {"quantize:fp16", "quantize:int8"}
    answer = document("recommend", out / "bundle", "--user", "1")
    assert answer["items"]
    assert "Synthetic item" in run("recommend", out / "bundle", "--user", "1").stdout
    assert tomllib.loads((out / "config.toml").read_text()) == {"out": str(out), "seed": 0}
    assert not (tmp_path / "cache").exists()


def test_the_real_log_is_taken_where_it_can_be_had(offline, tmp_path, monkeypatch):
    """A small log in the form of MovieLens stands in for the one that is fetched."""
    dataset, notes = demo.load()
    assert len(notes) == 1
    folder = tmp_path / "ml"
    folder.mkdir()
    train = dataset.train
    names = {"user_id:token": train.user_row, "item_id:token": train.item_row,
             "rating:float": train.weight, "timestamp:float": train.time_s}  # fmt: skip
    items = {"item_id:token": range(200)}
    items |= {"movie_title:token_seq": [f"Film {i}" for i in range(200)]}
    users = {"user_id:token": range(80), "age:token": [30] * 80}
    for ending, columns in (("inter", names), ("item", items), ("user", users)):
        pl.DataFrame(columns).write_csv(folder / f"ml-100k.{ending}", separator="\t")
    monkeypatch.setattr("martlet.data.sources.get", lambda name: folder)
    monkeypatch.setattr("martlet.frontier.explore.MODELS", ("popularity", "ials"))
    monkeypatch.setattr("martlet.frontier.explore.explore.__defaults__", (("ials",), ((),)))
    shutil.rmtree(tmp_path / "demo", ignore_errors=True)
    done = run("demo", "--out", tmp_path / "demo")
    assert "MovieLens 100K, split by time: validation part" in done.stdout
    assert "SYNTHETIC" not in done.stdout
    assert "Left out" not in done.stdout
    shown = done.stdout[done.stdout.index("On the test part, once:") :].splitlines()
    users = [line for line in shown if line.startswith("User ")]
    assert len(users) == 3
    assert all("Film " in line for line in users)
    assert any("in the history" in line for line in shown)
    commands = [line.split()[1] for line in shown if line.startswith("  martlet ")]
    assert commands == ["serve", "recommend", "prepare"]
    assert "explore: " in done.stderr
    assert "SYNTHETIC" not in (tmp_path / "demo" / "report.html").read_text()
