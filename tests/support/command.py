"""The command line, run in this process: exit code, standard output and standard error."""

import contextlib
import io
import json
import sys
from typing import NamedTuple

from martlet.cli import main


class Done(NamedTuple):
    """What a verb left behind."""

    code: int
    stdout: str
    stderr: str


def run(*words, code=0) -> Done:
    """Run ``martlet WORDS``; its exit code must be ``code``."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["martlet", *map(str, words)]
    found = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as exit:
        found = int(exit.code or 0)
    finally:
        sys.argv = before
    done = Done(found, out.getvalue(), err.getvalue())
    assert found == code, f"{words}: {found}\n{done.stdout}\n{done.stderr}"
    return done


def document(*words, code=0):
    """Run a verb with ``--json``: one document, and nothing else on either side if it went well."""
    done = run(*words, "--json", code=code)
    assert done.stdout.count("\n") == 1, done.stdout
    assert bool(done.stderr) == bool(code), done.stderr
    return json.loads(done.stdout)
