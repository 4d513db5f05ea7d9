import json
import signal
import subprocess
import sys
import urllib.request
from importlib import import_module

import polars as pl
import pytest

from martlet.core import MartletError
from support.command import document, run


def test_one_user(place):
    answer = document("recommend", place / "b", "--user", "u1", "-k", 3)
    assert answer.keys() == {"user_id", "items", "fallback"}
    assert (answer["user_id"], answer["fallback"]) == ("u1", False)
    assert len(answer["items"]) == 3
    assert answer["items"][0].keys() == {"item_id", "score"}
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    told = run("recommend", place / "b", "--user", "u1", "-k", 3).stdout
    assert "User u1: for them" in told
    first = answer["items"][0]["item_id"]
    assert f"Title {first[1:]}" in told


def test_an_id_of_other_bytes_than_text_is_refused(place):
    for words in (("recommend", "--user"), ("similar", "--item")):
        done = run(words[0], place / "b", words[1], "u\udcff", code=1)
        assert done.stderr == "martlet: the id 'u\\udcff' is no UTF-8 text, as every id must be\n"


def test_without_titles_there_is_no_column_of_them(place, tmp_path):
    run("prepare", place / "log.csv", "--out", tmp_path / "d")
    run("fit", tmp_path / "d", "--model", "popularity", "--out", tmp_path / "b")
    told = run("recommend", tmp_path / "b", "--user", "u1").stdout
    assert "score" in told
    assert "title" not in told


def test_nobody_gets_what_is_popular(place):
    assert document("recommend", place / "b", "--user", "nobody")["fallback"] is True
    assert "popular with everyone" in run("recommend", place / "b", "--user", "nobody").stdout


def test_what_is_excluded_or_seen(place):
    def ids(*words):
        words = ("recommend", place / "b", "--user", "u1", "-k", 50, *words)
        return [item["item_id"] for item in document(*words)["items"]]

    everything, hidden = ids("--seen", "keep"), ids()
    assert set(hidden) < set(everything)
    assert len(everything) == 50, "the catalogue is no longer than that"
    assert ids("--exclude", hidden[0], "--exclude", "not-there") == hidden[1:]


@pytest.fixture(scope="module")
def top(place, tmp_path_factory):
    path = tmp_path_factory.mktemp("top") / "top.parquet"
    told = document("recommend", place / "b", "--all", "-k", 3, "--out", path)
    assert told == {"out": str(path), "num_users": 50, "k": 3}
    return path


def test_all_users_get_what_each_would_alone(place, top):
    table = pl.read_parquet(top)
    assert table.schema == {
        "user_id": pl.String, "item_id": pl.String, "rank": pl.Int32, "score": pl.Float32,
        "fallback": pl.Boolean,
    }  # fmt: skip
    assert table["user_id"].n_unique() == 50
    for user in ("u1", "u2"):
        alone = document("recommend", place / "b", "--user", user, "-k", 3)["items"]
        mine = table.filter(pl.col("user_id") == user)
        assert mine["item_id"].to_list() == [item["item_id"] for item in alone]
        assert mine["score"].to_list() == pytest.approx([item["score"] for item in alone])
        assert mine["rank"].to_list() == [1, 2, 3]


def test_all_users_honour_what_is_excluded(place, top, tmp_path):
    best = pl.read_parquet(top)["item_id"][0]
    path = tmp_path / "t.parquet"
    done = run("recommend", place / "b", "--all", "--exclude", best, "-k", 50, "--out", path)
    assert done.stdout == f"wrote the top 50 of 50 users to {path}\n"
    assert "recommend" in done.stderr
    assert best not in pl.read_parquet(path)["item_id"].to_list()


def test_an_output_that_exists_is_left_alone(place, top):
    before = top.read_bytes()
    words = ("recommend", place / "b", "--all", "-k", 1, "--out", top)
    assert "exists: choose another --out" in run(*words, code=1).stderr
    assert top.read_bytes() == before


def test_similar(place):
    found = document("similar", place / "b", "--item", "i1", "-k", 4)
    assert found["item_id"] == "i1"
    assert len(found["items"]) == 4
    assert "i1" not in [item["item_id"] for item in found["items"]]
    assert "Near Title 1" in run("similar", place / "b", "--item", "i1").stdout


def test_explain(place):
    first = document("recommend", place / "b", "--user", "u1", "-k", 1)["items"][0]["item_id"]
    words = ("explain", place / "b", "--user", "u1", "--item", first)
    reasons = document(*words)["reasons"]
    assert reasons[0].keys() == {"item_id", "share", "words"}
    assert "in the history" in reasons[0]["words"]
    told = run(*words).stdout
    assert told.startswith(f"Title {first[1:]} for user u1:\n  with 'Title ")
    reasons = document("explain", place / "b", "--user", "nobody", "--item", first)["reasons"]
    assert reasons[0]["item_id"] is None


def test_serve_tells_its_address_as_a_document(place):
    words = ["serve", place / "b", "--port", 0, "--json"]
    server = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "martlet", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = json.loads(server.stdout.readline())["url"]
        with urllib.request.urlopen(f"{url}/api/health/live", timeout=20) as answer:
            assert answer.status == 200
    finally:
        server.send_signal(signal.SIGTERM)
        rest, errors = server.communicate(timeout=30)
    assert server.returncode == 0
    assert rest == ""
    assert errors.endswith("stopped\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bundle_that_cannot_be_served_is_one_document(tmp_path, workers):
    words = ["serve", tmp_path / "nowhere", "--port", 0, "--workers", workers, "--json"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "martlet", *map(str, words)],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere" in json.loads(done.stdout)["error"]
    assert done.stderr.startswith("martlet: ")
    assert done.stderr.count("\n") == 1


def test_a_failure_after_the_address_is_no_second_document(monkeypatch):
    def fail(*_, say, **__):
        say("listening on http://127.0.0.1:1")
        raise MartletError("the workers fail")

    # By its module: the name "martlet.serve" is the function's own.
    monkeypatch.setattr(import_module("martlet.serve.server"), "serve", fail)
    done = run("serve", "b", "--json", code=1)
    assert json.loads(done.stdout) == {"url": "http://127.0.0.1:1"}
    assert done.stderr == "martlet: the workers fail\n"
