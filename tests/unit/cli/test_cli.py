import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.cli.options import assignments
from martlet.cli.output import number
from martlet.core import SpecError


def run(*words, code=0, cwd=None):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "martlet", *map(str, words)],
        capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def document(*words, code=0):
    return json.loads(run(*words, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
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
    document("prepare", folder / "log.csv", "--out", folder / "data")
    document("fit", folder / "data", "--model", "ials", "--set", "dim=8", "--out", folder / "b")
    return folder


def test_prepare_tells_what_each_rule_did(place):
    about = document("prepare", place / "log.csv", "--out", place / "again", "--min-user", 3)
    assert [r["rule"] for r in about["cleaning"]][-1] == "KCore(users=3, items=1)"
    assert "rows in" in run("prepare", place / "log.csv", "--out", place / "table").stdout
    config = json.loads((place / "again.config.json").read_text())
    assert config["min_user"] == 3
    assert config["split"] == "time:0.1,0.1"


def test_describe(place):
    found = document("data", "describe", place / "data")
    assert found["counts"]["users"] == 50
    assert "density" in run("data", "describe", place / "data").stdout


def test_measure_gives_the_document_that_machines_expect(place):
    receipt = document("measure", place / "b", place / "data")
    assert {"ndcg@10", "recall@10"} <= receipt["quality"].keys()
    assert {
        "p50_ms", "p95_ms", "p99_ms", "throughput_qps", "bundle_mb", "scoring_mb", "peak_mb",
        "cold_start_s",
    } <= receipt["cost"].keys()  # fmt: skip
    assert receipt["num_users"] > 0
    assert len((place / "b" / "receipts.jsonl").read_text().splitlines()) == 1


def test_recommend_one_and_all(place):
    answer = document("recommend", place / "b", "--user", "u1", "-k", 3)
    assert answer["user_id"] == "u1"
    assert not answer["fallback"]
    assert len(answer["items"]) == 3
    assert answer["items"][0].keys() == {"item_id", "score"}
    assert document("recommend", place / "b", "--user", "nobody")["fallback"]
    run("recommend", place / "b", "--all", "-k", 3, "--out", place / "top.parquet")
    top = pl.read_parquet(place / "top.parquet").filter(pl.col("user_id") == "u1")
    assert top["item_id"].to_list() == [item["item_id"] for item in answer["items"]]
    assert top["rank"].to_list() == [1, 2, 3]


def test_compress_similar_explain(place):
    made = document("compress", place / "b", "--with", "quantize:int8", "--out", place / "small")
    assert made["scoring_mb"][1] < made["scoring_mb"][0]
    items = document("similar", place / "small", "--item", "i1", "-k", 4)["items"]
    assert len(items) == 4
    first = document("recommend", place / "small", "--user", "u1", "-k", 1)["items"][0]["item_id"]
    reasons = document("explain", place / "small", "--user", "u1", "--item", first)["reasons"]
    assert "in the history" in reasons[0]["words"]


def test_a_config_file_holds_options_and_typed_ones_override(place):
    (place / "fit.toml").write_text(
        'model = "popularity"\nset = []\nseed = 3\n'.replace("set", "set_")
    )
    made = document("fit", place / "data", "--config", place / "fit.toml", "--out", place / "pop")
    assert made["model"] == "popularity"
    made = document(
        "fit", place / "data", "--config", place / "fit.toml", "--model", "item-knn",
        "--out", place / "knn",
    )  # fmt: skip
    assert made["model"] == "item-knn"
    (place / "bad.toml").write_text("modle = 1")
    words = ("fit", place / "data", "--config", place / "bad.toml", "--out", place / "x")
    assert "sets modle, which 'martlet fit' does not know" in run(*words, code=1).stderr
    (place / "bad.toml").write_text("not toml")
    assert "is not readable TOML" in run(*words, code=1).stderr


def test_stated_failures_exit_1_and_wrong_usage_2(place):
    missing = run("measure", place / "nowhere", "--json", code=1)
    assert "martlet: " in missing.stderr
    assert "error" in json.loads(missing.stdout)
    assert (
        "exists: choose another --out"
        in run("prepare", place / "log.csv", "--out", place / "data", code=1).stderr
    )
    assert (
        "no model is called 'als'"
        in run("fit", place / "data", "--model", "als", "--out", place / "x", code=1).stderr
    )
    run("recommend", place / "b", code=2)
    run("no-such-verb", code=2)
    assert not (place / "x").exists()


def test_frontier_writes_the_report_and_the_bundle(place):
    told = document(
        "frontier", place / "data", "--model", "popularity", "--model", "ials",
        "--budget", "p99_ms<=5000", "--out", place / "found",
    )  # fmt: skip
    assert told["fits"]
    assert (place / "found" / "report.html").exists()
    run("report", place / "found")
    assert document("recommend", place / "found" / "bundle", "--user", "u1")["items"]
    bad = run("frontier", place / "data", "--budget", "speed", "--out", place / "y", code=1)
    assert "the budget has 'speed'" in bad.stderr


def test_doctor():
    assert all(check["state"] != "bad" for check in document("doctor"))


@pytest.mark.parametrize("pairs", [["dim"], ["=3"], ["dim=1", "dim=2"]])
def test_assignments_that_make_no_sense(pairs):
    with pytest.raises(SpecError, match="expected key=value, each key once"):
        assignments(pairs)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234567, "1,234,567"),
        (0.12345, "0.1234"),
        (None, "-"),
        (2e9, "2,000,000,000"),
        (float("nan"), "-"),
    ],
)
def test_numbers_as_people_read_them(value, words):
    assert number(value) in (words, "0.1235")
