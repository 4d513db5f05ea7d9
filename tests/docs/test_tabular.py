"""The page on labelled rows is run: its commands, its Python; its request is sent to a server."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from martlet.metrics import LABEL_METRICS
from support.servers import Server

PAGE = (Path(__file__).parents[2] / "docs" / "tabular.md").read_text()
ONE_THREAD = os.environ | {"MARTLET_THREADS": "1"}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the ``rows.csv`` of the page, after its commands."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    age, city, device = (rng.integers(*ends, 2000) for ends in ((18, 80), (0, 3), (0, 2)))
    chance = 1 / (1 + np.exp(-(age - 50) / 8 - np.array([1, -1, 0])[city]))
    heading = next(block for block in blocks("text")).split("\n")[0].split(",")
    table = pl.DataFrame(
        {
            "row": [f"r{i}" for i in range(2000)],
            "at": [f"2024-03-{1 + i // 100:02d}" for i in range(2000)],
            "age": [None if i % 23 == 0 else a for i, a in enumerate(age.tolist())],
            "city": [["Oslo", "Łódź", "Bern"][c] for c in city],
            "device": [["phone", "desktop"][d] for d in device],
            "bought": np.where(rng.random(2000) < chance, "yes", "no"),
        }
    )
    assert table.columns == heading
    table.write_csv(folder / "rows.csv")
    told = {}
    for line in blocks("sh")[0].splitlines():
        if line.startswith("martlet serve"):
            continue
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=ONE_THREAD)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        told[line.split()[1]] = done.stdout
    return folder, told


def test_the_commands_give_what_the_page_says(place):
    folder, told = place
    rows = [re.match(r"\| `(\w+)`", line) for line in PAGE.splitlines()]
    assert [row[1] for row in rows if row] == list(LABEL_METRICS)
    for name in LABEL_METRICS:
        assert f"{name} " in told["measure"]
    found = pl.read_parquet(folder / "predictions.parquet")
    assert found.columns == ["row", "probability"]
    assert len(found) == 2000
    assert "numbers: age" in told["prepare"]


def test_the_python_runs(place):
    words = [sys.executable, "-W", "error", "-c", blocks("python")[0]]
    done = subprocess.run(words, cwd=place[0], capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dcnv2 (part test)")


def test_the_request_is_answered(place):
    method, target, body, status, answer = re.fullmatch(
        r"(\w+) (\S+)\n(.*)\n(\d+) (.*)\n", blocks("http")[0]
    ).groups()
    with Server(place[0] / "model") as server:
        found, _, got = server.ask(method, target, body.encode())
    assert found == int(status)
    assert got.keys() == json.loads(answer).keys()
    assert len(got["predictions"]) == len(json.loads(answer)["predictions"])
