import functools
import tomllib

import polars as pl
import pytest

from martlet.measure import cost as costs
from martlet.measure import fresh, ledger
from support.command import document, run
from support.costs import quick

COSTS = {
    "p50_ms", "p95_ms", "p99_ms", "throughput_qps", "bundle_mb", "scoring_mb", "peak_mb",
    "cold_start_s",
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    return quick(monkeypatch)


def test_measure_gives_the_document_that_machines_expect(place, tmp_path, monkeypatch):
    # The real costs here: the names that a program reads must be those that are measured. One
    # fresh process is enough of three.
    real = fresh.start
    once = functools.cache(lambda _: real(place / "b"))
    monkeypatch.setattr(fresh, "start", lambda folder, k: once(k))
    receipt = document("measure", place / "b", place / "data", "--ledger", tmp_path / "l.jsonl")
    assert list(receipt)[:3] == ["quality", "num_users", "cost"]
    assert {"ndcg@10", "recall@10"} <= receipt["quality"].keys()
    assert receipt["cost"].keys() >= COSTS
    assert all(receipt["cost"][name] > 0 for name in COSTS)
    assert 0 < receipt["num_users"] <= 50
    assert [one.to_json() for one in ledger.read(tmp_path / "l.jsonl")] == [receipt]


def test_the_receipt_lies_beside_the_bundle(place, measured):
    document("measure", place / "b", place / "data", "--no-cost")
    told = run("measure", place / "b", place / "data", "--part", "valid")
    receipts = ledger.read(place / "b" / "receipts.jsonl")
    assert [one.part for one in receipts[-2:]] == ["test", "valid"]
    assert receipts[-2].cost == {}
    assert told.stdout == f"{receipts[-1]}\n"
    assert "measure" in told.stderr


def test_cost_alone(place, measured, tmp_path):
    receipt = document("measure", place / "b", "--ledger", tmp_path / "l")
    assert (receipt["quality"], receipt["num_users"], receipt["part"]) == ({}, 0, None)
    assert receipt["cost"].keys() >= COSTS


def figures(place, *words):
    words = ("measure", place / "b", place / "data", "--no-cost", "--ledger", place / "l", *words)
    return document(*words)["quality"]


def test_metrics_lengths_and_values(place):
    found = figures(place, "-k", 3, "-k", 5, "--metric", "precision", "--metric", "auc")
    assert found.keys() == {"precision@3", "precision@5", "auc"}
    found = figures(place, "--value", "price")
    assert found.keys() >= {"value_recall@10", "ndcg@10"}
    assert found["value_recall@10"] != found["recall@10"]
    assert figures(place, "--memory-mb", 0.01) == figures(place)
    assert figures(place, "--seen", "keep") != figures(place)
    for words, reason in (
        (["--metric", "value_recall"], "value_recall needs the value of every item"),
        (["--value", "title"], "no numeric column 'title': it has price"),
        (["--metric", "auk"], "no metric is called 'auk'"),
        (["--part", "tests"], "no part is called 'tests'"),
        (["-k", "0"], "expected whole numbers of 1 or more"),
    ):
        words = ("measure", place / "b", place / "data", "--no-cost", *words)
        assert reason in run(*words, code=1).stderr


def test_each_user_on_request(place, tmp_path):
    found = figures(place, "--per-user", tmp_path / "users.parquet")
    users = pl.read_parquet(tmp_path / "users.parquet")
    assert users["user_id"].n_unique() == len(users)
    assert users["ndcg@10"].mean() == pytest.approx(found["ndcg@10"])
    assert "coverage@10" not in users.columns


def test_sampled_negatives_of_published_tables(place, tmp_path):
    found = figures(place, "--negatives", 20)
    assert found["sampled20_hit_rate@10"] > found["sampled20_ndcg@10"] > 0
    assert found == figures(place, "--negatives", 20, "--memory-mb", 0.01)
    assert found != figures(place, "--negatives", 20, "--seed", 1)
    out = tmp_path / "users.parquet"
    figures(place, "--negatives", 20, "--per-user", out)
    users = pl.read_parquet(out)["sampled20_hit_rate@10"]
    assert 0 < users.mean() < 1
    assert users.max() == 1


@pytest.mark.parametrize("bound", ["0", "-1", "nan", "inf"])
def test_a_bound_on_memory_that_bounds_nothing(place, bound):
    told = run("measure", place / "b", "--memory-mb", bound, code=2)
    assert "bounds nothing: expected a number of MB above" in told.stderr


def test_the_cost_at_several_lengths_is_that_of_the_longest(place, monkeypatch):
    asked = []
    monkeypatch.setattr(costs, "cost", lambda bundle, k, **_: asked.append(k) or {"p50_ms": 1.0})
    words = ("-k", 1, "-k", 10, "-k", 5, "--ledger", place / "l")
    receipt = document("measure", place / "b", place / "data", *words)
    assert asked == [10]
    assert receipt["k"] == 10
    assert {"ndcg@1", "ndcg@5", "ndcg@10"} <= receipt["quality"].keys()


def test_a_table_of_lists_is_measured_as_the_bundle_that_made_it(place, tmp_path):
    top = tmp_path / "top.parquet"
    run("recommend", place / "b", "--all", "-k", 10, "--out", top)
    # The bundle knows the training part, so the validation part asks both the same.
    words = ("--part", "valid", "-k", 5, "-k", 10, "--no-cost")
    lists = document("measure", top, place / "data", *words, "--per-user", tmp_path / "u.parquet")
    ours = figures(place, *words)
    assert lists["quality"].keys() >= {"ndcg@5", "ndcg@10", "recall@10", "coverage@10"}
    for name, value in lists["quality"].items():
        assert value == pytest.approx(ours[name], rel=1e-12)
    assert lists["cost"] == {}
    assert lists["spec"] == {"spec": "table", "params": {"file": "top.parquet"}}
    assert len(pl.read_parquet(tmp_path / "u.parquet")) == lists["num_users"]
    assert document("measure", top, place / "data", "--value", "price")["quality"][
        "value_recall@10"
    ]
    top.write_text("no table")
    assert "is no readable .parquet table" in run("measure", top, place / "data", code=1).stderr


def test_a_table_of_scores_as_text(place, tmp_path):
    top = tmp_path / "top.parquet"
    run("recommend", place / "b", "--all", "-k", 10, "--out", top)
    frame = pl.read_parquet(top)
    scored = frame.select(user="user_id", item="item_id", score=-pl.col("rank"))
    scored.write_csv(tmp_path / "top.csv")
    words = ("--ledger", tmp_path / "l.jsonl")
    told = [document("measure", one, place / "data", *words) for one in (top, tmp_path / "top.csv")]
    assert told[0]["quality"] == told[1]["quality"]
    assert [one.to_json() for one in ledger.read(tmp_path / "l.jsonl")] == told


def test_what_a_table_cannot_tell(place, tmp_path):
    top = tmp_path / "top.csv"
    top.write_text("user,item,rank\nu1,i1,1\n")
    auc = run("measure", top, place / "data", "--metric", "auc", code=1)
    assert "auc needs the score of every item" in auc.stderr
    drawn = run("measure", top, place / "data", "--negatives", 9, code=2)
    assert "it has no scores of the items" in drawn.stderr
    assert "top.csv is a table: give the" in run("measure", top, code=2).stderr
    told = run("measure", tmp_path / "no.csv", place / "data", code=1).stderr
    assert "no.csv is no readable .csv table" in told
    (tmp_path / "top").write_text("user,item,rank\n")
    assert (
        "is no table that can be" in run("measure", tmp_path / "top", place / "data", code=1).stderr
    )
    for words in (("--negatives", 9), ("--per-user", tmp_path / "u.parquet")):
        assert "measure quality: give the" in run("measure", place / "b", *words, code=2).stderr


def test_frontier_writes_the_report_and_the_bundle(place, measured, tmp_path):
    out = tmp_path / "found"
    words = (
        "frontier", place / "data", "--model", "popularity", "--model", "ials",
        "--with", "quantize:fp16", "--with", "quantize:int8+index:ivf", "--out", out,
    )  # fmt: skip
    told = document(*words, "--budget", "p99_ms<=5000")
    assert told["fits"]
    assert not told["synthetic"]
    assert told["why"].startswith(told["chosen"])
    assert told["final"]["part"] == "test"
    assert told["report"] == str(out / "report.html")
    names = [one.name for one in ledger.read(out / "receipts.jsonl") if one.part == "valid"]
    assert {"popularity", "ials", "ials + quantize:fp16"} <= set(names)
    assert any(
        reason.startswith("popularity + quantize:int8 + index:ivf: ") for reason in told["skipped"]
    )
    assert document("recommend", told["bundle"], "--user", "u1")["items"]
    ruled = tomllib.loads((out / "config.toml").read_text())
    assert ruled["budget"] == "p99_ms<=5000"
    assert ruled["with"] == ["quantize:fp16", "quantize:int8+index:ivf"]
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert document("report", out, "--picture", out / "f.svg") == {
        "report": str(out / "report.html"),
        "picture": str(out / "f.svg"),
    }
    assert (out / "report.html").read_text() == page
    assert (out / "f.svg").read_text().lstrip().startswith("<?xml")


def test_a_budget_that_nothing_keeps_is_a_failure_and_what_came_nearest_is_kept(place, tmp_path):
    words = ("frontier", place / "data", "--model", "popularity", "--with", "quantize:fp16")
    done = run(*words, "--budget", "bundle_mb<=0.000001", "--out", tmp_path / "f", code=1)
    assert "martlet: nothing keeps bundle_mb<=0.000001; what came nearest is saved" in done.stderr
    assert (tmp_path / "f" / "report.html").exists()
    assert (tmp_path / "f" / "config.toml").exists()


def test_frontier_speaks_to_people(place, measured, tmp_path):
    out = tmp_path / "found"
    words = ("--model", "popularity", "--with", "index:ivf", "--out", out)
    shown = run("frontier", place / "data", *words)
    assert "Chosen: popularity has the best ndcg@10" in shown.stdout
    assert "Left out: popularity + index:ivf: " in shown.stdout
    assert "On the test part, once: ndcg@10 " in shown.stdout
    assert f"Report: {out / 'report.html'}" in shown.stdout
    assert "explore: " in shown.stderr
    assert "explore: " not in shown.stdout
    assert run("report", out).stdout == f"{out / 'report.html'}\n"


def test_frontier_refuses_what_makes_no_sense(place, measured, tmp_path):
    words = ("frontier", place / "data", "--out", tmp_path / "y")
    assert "the budget has 'speed'" in run(*words, "--budget", "speed", code=1).stderr
    assert "no model is called 'x'" in run(*words, "--model", "x", code=1).stderr
    (tmp_path / "file").touch()
    words = ("frontier", place / "data", "--out", tmp_path / "file")
    assert "could not make the folder" in run(*words, code=1).stderr
    assert measured == []


def test_nothing_to_report(tmp_path):
    assert "could not read the ledger" in run("report", tmp_path, code=1).stderr
