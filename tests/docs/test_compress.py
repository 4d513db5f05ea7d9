"""The page on compression is run: its commands, its Python; it names every transform."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.compress.grid import GRID
from martlet.compress.registry import names
from martlet.scorers.bundle import Bundle
from support.command import run

PAGE = (Path(__file__).parents[2] / "docs" / "compress.md").read_text()
ONE_THREAD = os.environ | {"MARTLET_THREADS": "1"}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``events.csv`` of two tastes, after the page's commands; what they said."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    users = rng.integers(0, 400, 12_000)
    items = rng.zipf(1.5, 12_000) % 25 + 25 * (users % 2)
    events = {"user_id": users, "item_id": items, "timestamp": rng.integers(1.6e9, 1.7e9, 12_000)}
    pl.DataFrame(events).write_csv(folder / "events.csv")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        lines = "".join(blocks("sh")).splitlines()
        return folder, [run(*shlex.split(line)[1:]).stdout for line in lines]


def test_the_commands_give_what_the_page_says(place):
    folder, told = place
    assert len(told) == 6
    assert "ndcg@10 loses" in told[2]
    assert "passes" in told[2]
    assert "recall@20 loses" in told[3]
    steps = [line["transform"] for line in Bundle.load(folder / "both").lineage[1:]]
    assert steps == ["quantize:fp16", "index:exact-int8"]
    assert "Chosen: " in told[4]
    assert (folder / "sweep" / "report.html").exists()


def test_the_python_runs(place):
    words = [sys.executable, "-W", "error", "-c", blocks("python")[0]]
    done = subprocess.run(words, cwd=place[0], capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ndcg@10 loses ")
    assert (place[0] / "small-too").exists()


def test_the_page_names_every_transform():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for name in names():
        assert any(f"`{name}:" in row for row in rows), name


def test_the_grid_is_of_the_page():
    """Each text of the grid is one of the page's kinds: a name with its first word."""
    for text in [text for stage in GRID for text in stage]:
        first = re.split(r"[=,]|:\d", text.partition(":")[2])[0]
        assert first in PAGE, text
