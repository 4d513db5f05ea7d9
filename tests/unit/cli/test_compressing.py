"""``martlet compress`` with a limit or a sweep: exit codes, what is saved, what is told."""

import json
from importlib import import_module

import pytest

from martlet.measure.ledger import read
from martlet.scorers.bundle import Bundle
from support.command import document, run
from support.costs import quick

MODULE = import_module("martlet.compress.compress")  # the verb hides it


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    return quick(monkeypatch)


@pytest.fixture
def own(place, tmp_path):
    """A bundle of the test's own, for receipts go beside it."""
    Bundle.load(place / "b").save(tmp_path / "b")
    return tmp_path / "b"


def words(place, own, out, *more):
    base = ("compress", own, "--data", place / "data", "--out", out, "--max-loss")
    return (*base, *(more or ("ndcg@10=5%", "--with", "quantize:fp16")))


def test_what_passes_is_saved_with_both_receipts(place, own, tmp_path):
    made = document(*words(place, own, tmp_path / "a"))
    assert made["outcome"] == "passes"
    assert Bundle.load(tmp_path / "a").id == made["id"] == made["after"]["bundle_id"]
    (before,), (after,) = read(own / "receipts.jsonl"), read(tmp_path / "a" / "receipts.jsonl")
    assert before.to_json() == made["before"]
    assert after.to_json() == made["after"]
    assert (before.part, after.part) == ("valid", "valid")
    assert after.cost["compress_s"] > 0
    assert {"p50_ms", "p99_ms", "throughput_qps", "peak_mb"} <= after.cost.keys()
    assert after.quality["ndcg@10_loss_high"] <= 0.05
    assert (tmp_path / "a.config.toml").exists()


def test_the_table_says_what_it_cost(place, own, tmp_path):
    more = ("ndcg@10=20%", "--max-loss", "recall@20=0.3", "--with", "quantize:int8")
    told = run(*words(place, own, tmp_path / "a", *more)).stdout
    for words_ in ("ndcg@10", "recall@20", "tables, MB", "p50, ms", "peak memory, MB", "passes"):
        assert words_ in told
    assert told.endswith(f"saved {tmp_path / 'a'}\n")


def test_what_fails_is_not_saved(place, own, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "compress", _spoil)
    ledger = tmp_path / "receipts.jsonl"
    more = ("ndcg@10=1%", "--with", "quantize:fp16", "--ledger", ledger)
    done = run(*words(place, own, tmp_path / "a", *more, "--accept-unresolved"), code=1)
    assert "is not saved: ndcg@10 loses " in done.stderr
    assert "points beyond it or more. Allow more, or compress less" in done.stderr
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.config.toml").exists()
    assert [len(receipt.transforms) for receipt in read(ledger)] == [0, 1]
    told = document(*words(place, own, tmp_path / "a", *more), code=1)
    assert (told["bundle"], told["outcome"]) == (None, "fails")


def test_what_too_few_users_tell_is_not_saved_unless_accepted(place, own, tmp_path, monkeypatch):
    monkeypatch.setattr(MODULE, "compress", _nudge)
    more = ("ndcg@10=1%", "--with", "quantize:fp16")
    done = run(*words(place, own, tmp_path / "a", *more), code=1)
    assert "unresolved" in done.stderr
    assert " more users. Measure on more users, allow more, or give --accept-un" in done.stderr
    assert not (tmp_path / "a").exists()
    told = document(*words(place, own, tmp_path / "a", *more, "--accept-unresolved"))
    assert told["outcome"] == "unresolved"
    assert told["verdicts"][0]["more"] > 0
    assert Bundle.load(tmp_path / "a").id == told["id"]


def _spoil(bundle, steps, *_, share=1.0, **__):
    """Give the items of the first half of the catalogue other vectors than their own."""
    from martlet.scorers.table import Table

    items = bundle.scorer.tables()["items"].dense().copy()
    some = int(share * len(items))
    items[:some] = items[:some][::-1]
    tables = {**bundle.scorer.tables(), "items": Table.of(items)}
    return bundle.then(bundle.scorer.with_tables(tables), {"transform": steps[0]})


def _nudge(*given, **how):
    """Spoil so little that 50 users cannot tell."""
    from martlet.core import rng
    from martlet.scorers.table import Table

    bundle = _spoil(*given, share=0.0, **how)
    items = bundle.scorer.tables()["items"].dense()
    noise = 0.1 * items.std() * rng(0, "nudge").normal(size=items.shape)
    tables = {**bundle.scorer.tables(), "items": Table.of((items + noise).astype("f4"))}
    return bundle.then(bundle.scorer.with_tables(tables), {"transform": "nudge"})


def test_wrong_usage(place, own, tmp_path):
    base = ("compress", own, "--out", tmp_path / "a")
    assert "--data" in run(*base, "--with", "quantize:fp16", "--max-loss", "x=1", code=2).stderr
    assert "--data" in run(*base, "--sweep", code=2).stderr
    data = ("--data", place / "data")
    assert "at least one --with" in run(*base, *data, code=2).stderr
    assert "chooses" in run(*base, *data, "--sweep", "--part", "test", code=2).stderr
    assert "keeps a ledger" in run(*base, *data, "--sweep", "--accept-unresolved", code=2).stderr
    limit = ("--with", "quantize:fp16", "--max-loss", "gini@10=1%")
    assert "cannot be judged user by user" in run(*base, *data, *limit, code=1).stderr
    assert not (tmp_path / "a").exists()


def test_a_sweep_is_told_and_drawn_again(place, own, tmp_path):
    grid = ("--with", "quantize:fp16", "--with", "index:exact-int8", "--with", "index:nonsense")
    base = ("compress", own, "--data", place / "data", "--sweep", "--out", tmp_path / "s", *grid)
    limit = ("--max-loss", "ndcg@10=20%")
    made = document(*base, *limit)
    steps = [one["steps"] for one in made["candidates"]]
    assert steps == [
        [], ["quantize:fp16"], ["index:exact-int8"], ["quantize:fp16", "index:exact-int8"],
    ]  # fmt: skip
    assert made["chosen"] == "ials + quantize:fp16"
    assert "index:nonsense is unknown" in made["skipped"][0]
    assert len(read(tmp_path / "s" / "receipts.jsonl")) == 4
    page = (tmp_path / "s" / "report.html").read_text()
    assert "One bundle under 3 transforms" in page
    assert "Lost against the bundle as it was" in page
    assert f"--with quantize:fp16 --data {place / 'data'} --max-loss ndcg@10=0.2" in page
    told = run(*base, *limit).stdout  # nothing is measured again
    assert "* is beaten by nothing" in told
    assert "Chosen: quantize:fp16 has the smallest tables" in told
    assert len(read(tmp_path / "s" / "receipts.jsonl")) == 4
    run("report", tmp_path / "s", "--picture", tmp_path / "s.svg")
    assert (tmp_path / "s" / "report.html").read_text() == page
    kept = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert kept["metrics"] == ["ndcg@10"]
    other = ("--max-loss", "recall@10=1%")
    assert "holds a sweep of other metrics" in run(*base, *other, code=1).stderr
