"""How the command ends when it cannot go on: one line, an exit code, nothing half-written."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from martlet.cli import PACKAGES, doctor
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


def without(module, *words):
    """Run a verb in a process that cannot import a module."""
    hide = f"import sys; sys.modules[{module!r}] = None; from martlet.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", hide, *map(str, words)], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("module", "verb", "rest"),
    [
        ("numba", "recommend b", ["--user", "u1"]),
        ("polars", "prepare log.csv", ["--out", "never"]),
        ("typer", "measure b", []),
        ("rich", "similar b", ["--item", "i1"]),
    ],
)
def test_a_missing_library_is_one_line_with_what_to_install(place, module, verb, rest):
    verb, what = verb.split()
    done = without(module, verb, place / what, *rest)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"martlet: the library '{module}' cannot be imported (")
    assert f"): python -m pip install {module}; 'martlet doctor' looks at" in done.stderr


def test_a_library_that_a_verb_does_not_need_is_not_missed(place):
    assert without("polars", "recommend", place / "b", "--user", "u1").returncode == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ModuleNotFoundError("No module named 'faiss'", name="faiss"),
            "the library 'faiss' cannot be imported (No module named 'faiss'): python -m pip "
            "install faiss-cpu; 'martlet doctor' looks at all that is needed",
        ),
        (
            ImportError("cannot import name 'x' from 'scipy.linalg'", name="scipy.linalg"),
            "(cannot import name 'x' from 'scipy.linalg'): python -m pip install --force-reinstall "
            "scipy; ",
        ),
        (
            ImportError("libgomp.so.1: no such file\nmore words"),
            "a library cannot be imported (libgomp.so.1: no such file): 'martlet doctor' looks",
        ),
        (ImportError(), "a library cannot be imported (ImportError()): "),
        (
            ModuleNotFoundError("No module named '_lzma'", name="_lzma"),
            "this Python lacks its own '_lzma' (No module named '_lzma'): use one that was built",
        ),
    ],
)
def test_a_library_that_fails_is_a_document_too(place, tmp_path, monkeypatch, error, words):
    def broken(*_):
        raise error

    monkeypatch.setattr(bundles, "write_bundle", broken)
    told = document(*fit(place, tmp_path), code=1)["error"]
    assert words in told
    assert "\n" not in told
    assert not list(tmp_path.iterdir())


def test_an_import_of_our_own_that_fails_is_a_bug_and_shown(place, tmp_path, monkeypatch):
    def broken(*_):
        raise ImportError("cannot import name 'x'", name="martlet.core")

    monkeypatch.setattr(bundles, "write_bundle", broken)
    with pytest.raises(ImportError, match="cannot import name 'x'"):
        run(*fit(place, tmp_path))


def test_what_to_install_is_what_the_doctor_says():
    needed = {module.partition(".")[0]: name for name, module in doctor.NEEDED.items()}
    offered = {module: install for module, (install, _) in doctor.OPTIONAL.items()}
    told = {module: name for module, name in (needed | offered).items() if module != name}
    assert told == PACKAGES
