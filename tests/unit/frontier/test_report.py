import csv
from html.parser import HTMLParser

import numpy as np

from martlet.core import Interactions
from martlet.frontier import plots
from martlet.frontier.frontier import Choice, Frontier
from martlet.frontier.report import Story, write_report
from support.receipts import THREE, receipt

EVENTS = Interactions.sort(np.array([0, 0, 1]), np.array([0, 1, 1]), num_users=2, num_items=3)


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def page(tmp_path, **more) -> Page:
    story = Story(title="a log", choice=Choice(THREE[1], True, "large is best"), **more)
    return Page(write_report(tmp_path, THREE, story).read_text())


def test_every_figure_of_every_receipt_is_on_the_page(tmp_path):
    cells = [attrs.get("data-value") for tag, attrs in page(tmp_path).tags if tag == "td"]
    for one in THREE:
        assert f"{one.quality['ndcg@10']:.6g}" in cells
        assert f"{one.cost['p99_ms']:.6g}" in cells


def test_the_page_loads_nothing(tmp_path):
    found = page(tmp_path, events=EVENTS)
    for tag, attrs in found.tags:
        assert tag not in ("link", "img", "iframe")
        assert "src" not in attrs
        assert attrs.get("href", "#").startswith("#")
    assert sum(tag == "svg" for tag, _ in found.tags) == 6
    assert all(attrs.get("aria-label") for tag, attrs in found.tags if tag == "svg")


def test_hostile_words_stay_words(tmp_path):
    evil = "<script>alert(1)</script>"
    story = Story(
        title=evil,
        choice=Choice(receipt(evil, 0.1, 1, 1), True, evil),
        notes=(evil,),
        description=evil,
        commands=(evil,),
    )
    found = Page(write_report(tmp_path, [receipt(evil, 0.1, 1, 1)], story).read_text())
    assert sum(tag == "script" for tag, _ in found.tags) == 1


def test_the_final_measurement_and_notes_are_told(tmp_path):
    found = page(tmp_path, final=THREE[0], notes=("This log is synthetic.",))
    words = "".join(found.words)
    assert "measured once on the test part (10 users): ndcg@10 0.2000" in words
    assert "This log is synthetic." in words


def test_the_table_for_machines(tmp_path):
    page(tmp_path)
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["small", "large", "bad"]
    assert float(rows[1]["scoring_mb"]) == 50


def test_pictures_are_the_same_each_time_and_can_be_saved(tmp_path):
    frontier = Frontier(THREE)
    first, second = (
        plots.svg(plots.frontier_figure(frontier, "p99_ms", THREE[0])) for _ in range(2)
    )
    assert first == second
    plots.save(plots.frontier_figure(frontier, "p99_ms"), tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
