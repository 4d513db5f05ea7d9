import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import typer

from martlet.cli.app import app
from martlet.cli.options import assignments
from martlet.cli.output import number, print_json, progress
from martlet.compress import registry as transforms
from martlet.core import SpecError
from martlet.data.sources import NAMES
from martlet.metrics import LABEL_METRICS, METRICS
from martlet.models import registry as models
from support.command import document, run

VERBS = {
    ("data", "get"), ("data", "describe"), ("data", "synthesize"), ("prepare",), ("fit",),
    ("compress",), ("measure",),
    ("frontier",), ("recommend",), ("similar",), ("explain",), ("serve",), ("report",), ("doctor",),
    ("demo",), ("predict",),
}  # fmt: skip


def verbs():
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        for words in [(name, sub) for sub in getattr(command, "commands", {})] or [(name,)]:
            yield words, getattr(command, "commands", {}).get(words[-1], command)


def test_the_verbs_are_those_that_are_told():
    assert {words for words, _ in verbs()} == VERBS


@pytest.mark.parametrize(("words", "command"), list(verbs()), ids=str)
def test_each_verb_speaks_json_and_reads_a_configuration(words, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--config"} <= options
    assert command.help
    assert "..." not in command.get_short_help_str(60)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("data", "get"), NAMES),
        (("fit",), models.names()),
        (("frontier",), models.names()),
        (("compress",), transforms.names()),
        (("measure",), (*METRICS, *LABEL_METRICS)),
    ],
)
def test_help_tells_the_names_there_are(words, names):
    told = " ".join(run(*words, "--help").stdout.split())
    for name in names:
        assert f"{name}," in told or f"{name}." in told or f"{name};" in told


def test_wrong_usage_exits_2_and_a_stated_failure_1(place):
    for words in (
        ["no-such-verb"],
        ["fit"],
        ["fit", place / "data", "--out", place / "x", "--seed", "one"],
        ["recommend", place / "b"],
        ["recommend", place / "b", "--user", "u1", "--all"],
        ["recommend", place / "b", "--all"],
        ["recommend", place / "b", "--all", "--out", place / "top.csv"],
        ["recommend", place / "b", "--user", "u1", "--seen", "sometimes"],
        ["compress", place / "b", "--out", place / "x"],
        ["prepare", place / "log.csv", "--out", place / "x", "--time-unit", "years"],
        ["measure", place / "top.parquet"],
    ):
        done = run(*words, code=2)
        assert done.stdout == ""
        assert done.stderr.startswith("Usage: martlet")
    for words, reason in (
        (["measure", place / "nowhere"], "nowhere"),
        (["fit", place / "nowhere", "--out", place / "x"], "is not a readable dataset"),
        (["fit", place / "data", "--model", "als", "--out", place / "x"], "no model is called"),
        (["fit", place / "data", "--set", "dim", "--out", place / "x"], "expected key=value"),
        (["fit", place / "data", "--out", place / "b"], "exists: choose another --out"),
        (
            ["compress", place / "b", "--with", "zip", "--out", place / "x"],
            "no transform is called",
        ),
        (["similar", place / "b", "--item", "i999"], "the item 'i999' is unknown"),
    ):
        done = run(*words, code=1)
        assert done.stdout == ""
        assert done.stderr.startswith("martlet: ")
        assert reason in done.stderr
    assert not list(place.glob("x*")), "nothing is left of what failed"


def test_a_failure_is_a_document_too(place):
    assert "nowhere" in document("measure", place / "nowhere", code=1)["error"]


def test_the_version():
    assert run("--version").stdout == f"martlet {version('martlet')}\n"
    assert "--version" in run("--help").stdout
    done = run("--version", "no-such-verb")
    assert done.stdout.startswith("martlet "), "it is told before anything else is looked at"


def test_nothing_typed_shows_the_help():
    assert "Commands:" in run(code=2).stderr + run(code=2).stdout


def test_the_real_process_agrees(place):
    for words, code in ((["recommend", place / "b", "--user", "u1"], 0), (["fit"], 2),
                        (["similar", place / "b", "--item", "?"], 1)):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "martlet", *map(str, words)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr


def test_an_interrupt_ends_with_130(monkeypatch, place):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("martlet.scorers.bundle.Bundle.load", stop)
    assert "stopped" in run("similar", place / "b", "--item", "i1", code=130).stderr


def test_progress_goes_to_standard_error(capsys):
    with progress() as note:
        note("explore: fit ease", 1, 4)
        note("explore: measure ease", 2, 4)
    told = capsys.readouterr()
    assert told.out == ""
    assert "explore: measure ease" in told.err
    assert "4/4" in told.err, "what ended well is complete"
    with pytest.raises(SpecError), progress() as note:
        note("explore: fit gfcf", 1, 4)
        raise SpecError("too large")
    assert "1/4" in capsys.readouterr().err
    with progress(quiet=True) as note:
        note("measure", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_what_json_cannot_say_is_null(capsys):
    print_json({"a": float("nan"), 1: (np.float32(0.5), np.arange(2)), "雨": float("inf")})
    assert capsys.readouterr().out == '{"a": null, "1": [0.5, [0, 1]], "雨": null}\n'


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234567, "1,234,567"),
        (0.12346, "0.1235"),
        (None, "-"),
        (2e9, "2,000,000,000"),
        (float("nan"), "-"),
        (True, "True"),
    ],
)
def test_numbers_as_people_read_them(value, words):
    assert number(value) == words


def test_unknown_errors_are_not_hidden(monkeypatch, place):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("martlet.scorers.bundle.Bundle.load", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run("similar", place / "b", "--item", "i1")


@pytest.mark.parametrize("pairs", [["dim"], ["=3"], ["dim=1", "dim=2"]])
def test_assignments_that_make_no_sense(pairs):
    with pytest.raises(SpecError, match="expected key=value, each key once"):
        assignments(pairs)
