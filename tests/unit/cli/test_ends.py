"""How the command ends when it cannot go on: one line, an exit code, nothing half-written."""

import errno
import os
import signal
import sys

import pytest

from martlet.scorers import bundle as bundles
from support.command import document, run


def fit(place, out):
    return ("fit", place / "data", "--model", "popularity", "--out", out / "b")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_bundle_is_saved_leaves_nothing(
    place, tmp_path, monkeypatch, number, code
):
    write = bundles.write_bundle

    def stopped(*args):
        write(*args)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(bundles, "write_bundle", stopped)
    done = run(*fit(place, tmp_path), code=code)
    assert done == (code, "", "martlet: stopped; nothing was left half-written\n")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_interrupt_while_the_verbs_are_imported_is_no_traceback(monkeypatch):
    class Verbs:
        @property
        def app(self):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "martlet.cli.app", Verbs())
    assert run("--help", code=130).stderr == "martlet: stopped; nothing was left half-written\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 37.3 GiB"), "does not suffice (Unable to allocate 37.3"),
        (MemoryError(), "does not suffice (no more was to be had): ask for less"),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "no"),
            r"'a\udcff' is no UTF-8 text, as names",
        ),
        (OSError(errno.EIO, "Input/output error", "a.csv"), "Input/output error: 'a.csv'): see to"),
    ],
)
def test_what_the_machine_refuses_is_said_in_one_line(place, tmp_path, monkeypatch, error, words):
    def broken(*_):
        raise error

    monkeypatch.setattr(bundles.Bundle, "save", broken)
    done = run(*fit(place, tmp_path), code=1)
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert words in document(*fit(place, tmp_path), code=1)["error"]
    assert not list(tmp_path.iterdir())
