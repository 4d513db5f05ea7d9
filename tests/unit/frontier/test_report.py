import csv
import json
import re
from html.parser import HTMLParser

import pytest

from martlet.core import DataError, SpecError
from martlet.frontier import plots
from martlet.frontier.budget import Budget
from martlet.frontier.explore import explore
from martlet.frontier.frontier import Choice, Frontier
from martlet.frontier.page import number
from martlet.frontier.report import read_report, save_picture, write_report
from martlet.frontier.story import Story
from martlet.measure.ledger import append
from martlet.models.popularity import Popularity
from support.costs import quick
from support.datasets import tasteful
from support.receipts import THREE, receipt

INTERVALS = {one.bundle_id: (one.quality["ndcg@10"] - 0.05, 0.5) for one in THREE}
LOSSES = {"small": (0.15, 0.25), "large": (0.0, 0.0), "bad": (0.2, 0.4)}
CURVES = {"items": [(1, 9), (10, 1)], "users": [(1, 20), (5, 2)]}


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def story(**more) -> Story:
    return Story(title="a log", choice=Choice(THREE[1], True, "large is best"), **more)


def full(**more) -> Story:
    return story(
        intervals=INTERVALS, losses=LOSSES, best=0.4, allowed=0.01, curves=CURVES, final=THREE[0],
        facts={"users": 12345}, commands=("martlet serve x",), **more,
    )  # fmt: skip


def page(tmp_path, told: Story) -> Page:
    return Page(write_report(tmp_path, THREE, told).read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Page:
    """The page with everything that there may be to tell."""
    told = full(notes=("This log is synthetic.",), skipped=("x: too large",))
    return page(tmp_path_factory.mktemp("report"), told)


def test_every_figure_of_every_receipt_is_on_the_page(whole):
    cells = [attrs.get("data-value") for tag, attrs in whole.tags if tag == "td"]
    for one in THREE:
        assert f"{one.quality['ndcg@10']:.6g}" in cells
        assert f"{one.cost['p99_ms']:.6g}" in cells


def test_the_intervals_of_losses_are_told_to_be_corrected(whole):
    assert len(LOSSES) == 3
    assert any("paired difference, corrected for 2 comparisons: " in word for word in whole.words)


def test_the_page_loads_nothing(whole):
    for tag, attrs in whole.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert "src" not in attrs
        assert attrs.get("href", "#").startswith("#")
    # Names of XML dialects alone; no browser asks for them.
    assert set(re.findall(r"https?://[^\"' <]+", whole.text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in whole.text
    assert sum(tag == "svg" for tag, _ in whole.tags) == 7
    assert all(attrs.get("aria-label") for tag, attrs in whole.tags if tag == "svg")


def test_ids_are_unique_and_references_lead_somewhere(whole):
    ids = [attrs["id"] for _, attrs in whole.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    asked = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', whole.text)
    assert asked
    assert {first or second for first, second in asked} <= set(ids)


def test_hostile_words_stay_words(tmp_path):
    evil = '<script>alert(1)</script>"><b onclick=x>'
    bad = receipt(evil, 0.1, 1, 1)
    told = Story(
        title=evil,
        choice=Choice(bad, True, evil),
        final=bad,
        losses={evil: (0, 0.1)},
        intervals={evil: (0, 0.1)},
        best=0.1,
        curves={evil: [(1, 2), (2, 1)]},
        facts={evil: evil},
        notes=(evil,),
        skipped=(evil,),
        commands=(evil,),
    )
    found = Page(write_report(tmp_path, [bad], told).read_text())
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert not any(tag == "b" and attrs for tag, attrs in found.tags)


def test_the_choice_is_explained(whole):
    words = " ".join("".join(whole.words).split())
    assert "Chosen: large" in words
    assert "Why this one. large is best." in words
    assert "measured once on the test part (10 users): ndcg@10 0.2000" in words
    assert "0.150 to 0.500, 95%; 10 users of the test part" in words
    assert "This log is synthetic." in words
    assert "x: too large" in words
    assert "12,345" in words
    assert "62.50" in words, "the bound of what 'small' loses, in % of the best"


def test_a_budget_that_nothing_keeps_is_said(tmp_path):
    told = Story("a log", Choice(THREE[0], False, "nothing keeps it"), Budget.parse("p99_ms<=0.1"))
    words = "".join(page(tmp_path, told).words)
    assert "Nothing keeps the budget; the nearest: small" in words
    assert "Budget: p99_ms<=0.1." in words


def test_the_table_is_sorted_and_marks_the_choice(whole):
    body = whole.text[whole.text.index("<tbody>") : whole.text.index("</tbody>")]
    rows = re.findall(r"<tr[^>]*><td>([^<]+)</td>", body)
    assert rows == ["large (chosen)", "small", "bad"]
    assert sum(attrs.get("class") == "chosen" for tag, attrs in whole.tags if tag == "tr") == 1


def test_the_table_for_machines(tmp_path):
    page(tmp_path, story())
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["small", "large", "bad"]
    assert float(rows[1]["scoring_mb"]) == 50


def test_a_report_can_be_drawn_again_from_its_folder(tmp_path, monkeypatch):
    quick(monkeypatch)
    data = tasteful()
    path = tmp_path / "receipts.jsonl"
    one = explore(data, [Popularity()], [(), ("quantize:fp16",)], ledger_path=path)
    told = Story.of(one, data, title="a log", commands=("go",), notes=("mind",))
    first = write_report(tmp_path, one.receipts, told).read_text()
    # Another run may add to the ledger; the story knows which receipts are its own.
    append(path, receipt("other", 0.9, 1, 1))
    (tmp_path / "report.html").unlink()
    assert write_report(tmp_path, *read_report(tmp_path)).read_text() == first
    assert "1,500" in first
    assert "2020-09-13" in first


def test_a_ledger_without_a_story_is_told_by_its_best(tmp_path):
    for one in (*THREE, receipt("large", 0.3, 9, 50)):
        append(tmp_path / "receipts.jsonl", one)
    receipts, told = read_report(tmp_path)
    assert [one.quality["ndcg@10"] for one in receipts] == [0.2, 0.3, 0.1]
    assert told.choice.receipt.name == "large"
    assert write_report(tmp_path, receipts, told).exists()


def test_a_story_that_does_not_fit_its_ledger_is_refused(tmp_path):
    append(tmp_path / "receipts.jsonl", THREE[0])
    page(tmp_path, story())
    with pytest.raises(DataError, match=r"does not fit the ledger beside it.*large"):
        read_report(tmp_path)
    (tmp_path / "story.json").write_text("{")
    with pytest.raises(DataError, match=r"story.json cannot be read .*: remove it"):
        read_report(tmp_path)
    (tmp_path / "story.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="does not fit the ledger"):
        read_report(tmp_path)


def test_a_ledger_without_a_validation_part(tmp_path):
    (tmp_path / "receipts.jsonl").touch()
    with pytest.raises(DataError, match="has no receipt of a validation part: run 'martlet front"):
        read_report(tmp_path)


def test_pictures_are_the_same_each_time_and_can_be_saved(tmp_path):
    frontier = Frontier(THREE)
    first, second = (
        plots.svg(plots.frontier_figure(frontier, ["p99_ms"], THREE[0]), "a") for _ in range(2)
    )
    assert first == second
    assert "<title>small: ndcg@10 0.2000, p99_ms 1</title>" in first
    save_picture(tmp_path / "f.png", THREE, story())
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    save_picture(tmp_path / "f.svg", THREE, story())
    drawn = (tmp_path / "f.svg").read_text()
    save_picture(tmp_path / "f.svg", THREE, story())
    assert (tmp_path / "f.svg").read_text() == drawn
    assert "matplotlib.org" not in drawn
    assert "<title>small: ndcg@10 0.2000, p50_ms 0.5</title>" in drawn
    assert "median latency of one query, ms" in drawn
    assert "memory of the tables that answer, MB" in drawn
    with pytest.raises(SpecError, match=r"expected .svg or .png"):
        save_picture(tmp_path / "f.gif", THREE, story())


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.000123456, "0.000123"), (0.25, "0.250"), (12.0, "12.0"), (123.4, "123"), (1234.5, "1,234")],
)
def test_three_digits_count(value, words):
    assert number(value) == words
