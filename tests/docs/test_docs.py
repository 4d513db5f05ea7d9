"""What the documentation says is run; what exists is documented."""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer

import martlet
from martlet.cli.app import app
from martlet.compress import registry as transforms
from martlet.models import registry as models

ROOT = Path(__file__).parent.parent.parent
READMES = ("README.md", "README.zh-CN.md")
MODULES = [m.name for m in pkgutil.walk_packages(martlet.__path__, "martlet.")]
SLOW_OR_ENDLESS = ("martlet serve",)


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.fixture
def log(tmp_path):
    rng = np.random.default_rng(0)
    users, taste = rng.integers(0, 60, 3000), rng.integers(0, 3, 60)
    items = (rng.zipf(1.6, 3000) % 20) + 20 * taste[users]
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{item}" for item in items],
            "timestamp": rng.integers(1_600_000_000, 1_700_000_000, 3000),
        }
    )
    frame.write_csv(tmp_path / "events.csv")
    titles = {"item_id": [f"i{item}" for item in range(60)], "title": ["A title"] * 60}
    pl.DataFrame(titles).write_csv(tmp_path / "items.csv")
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    if name.endswith("__main__"):
        pytest.skip("runs when imported")
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert not failed


@pytest.mark.parametrize("name", READMES)
def test_the_python_of_the_readme_runs(name, log):
    for code in blocks(name, "python"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=log, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "ndcg@10" in done.stdout
        assert "history" in done.stdout


@pytest.mark.parametrize("name", READMES)
def test_the_commands_of_the_readme_run(name, log):
    commands = [line for block in blocks(name, "sh") for line in block.splitlines()]
    own = [line for line in commands if line.startswith("martlet")]
    assert len(own) == 10
    for line in own:
        if line.startswith(SLOW_OR_ENDLESS):
            continue
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=log, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("name", READMES)
def test_the_make_targets_of_the_readme_exist(name):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(blocks(name, "sh") + re.findall(r"`([^`\n]+)`", (ROOT / name).read_text()))
    named = set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_verb_is_documented():
    done = subprocess.run(
        [sys.executable, "-m", "martlet", "--help"], capture_output=True, text=True, check=True,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
    )  # fmt: skip
    text = (ROOT / "CHANGELOG.md").read_text() + (ROOT / "README.md").read_text()
    verbs = typer.main.get_command(app).commands
    assert len(verbs) > 12
    for verb in verbs:
        assert verb in done.stdout
        assert f"`{verb}" in text or f"martlet {verb}" in text or f"martlet\n{verb}" in text


def test_every_option_says_what_it_is():
    for name, verb in typer.main.get_command(app).commands.items():
        for command in getattr(verb, "commands", {name: verb}).values():
            for parameter in command.params:
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_every_model_and_transform_says_what_it_is():
    for name in models.names():
        assert "**Source**" in (models.spec_class(name).__doc__ or "") or name == "popularity"
    for name in transforms.names():
        assert transforms.transform_class(name).__doc__


def test_the_architecture_names_every_package():
    text = (ROOT / "docs/architecture.md").read_text()
    packages = [m.name for m in pkgutil.iter_modules(martlet.__path__) if m.ispkg]
    assert [name for name in packages if f"`{name}`" not in text] == []


def test_both_readmes_tell_the_same():
    """Headings, code, links and the numbers of each row of each table are the same in both."""
    english, chinese = ((ROOT / name).read_text() for name in READMES)
    for pattern in (r"^#+ ", r"^```(\w*)", r"\]\((?!README)([^)]+)\)", r"`(make [^`]+)`"):
        assert re.findall(pattern, english, re.M) == re.findall(pattern, chinese, re.M), pattern
    rows = [
        [line for line in text.splitlines() if line.startswith("|")] for text in (english, chinese)
    ]
    assert len(rows[0]) == len(rows[1]) > 20
    for ours, theirs in zip(*rows, strict=True):
        numbers = [sorted(re.findall(r"[\d.,]*\d", line)) for line in (ours, theirs)]
        assert numbers[0] == numbers[1], ours


def test_links_lead_somewhere():
    for name in READMES:
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text()):
            assert (ROOT / link).exists(), link


def test_importing_martlet_loads_nothing_heavy():
    code = (
        "import sys, martlet; "
        "print([m for m in ('numba', 'scipy', 'polars', 'matplotlib', 'faiss', 'onnxruntime', "
        "'torch', 'rich', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_had():
    for name in martlet.__all__:
        assert getattr(martlet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        martlet.nonsense  # noqa: B018


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_are_short_and_run(path):
    assert len(path.read_text().splitlines()) < 60
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
