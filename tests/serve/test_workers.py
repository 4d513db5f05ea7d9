"""Workers that never get as far as to start."""

import sys
from subprocess import run

FAILING = """
from martlet.core import BundleError
from martlet.serve.workers import keep
def work(number, started):
    raise {error}
keep(work, 2, ready=lambda: print("never"), stopping=lambda: print("over"), drain_s=1.0)
"""


def test_workers_that_fail_to_start_end_the_parent():
    done = run(
        [sys.executable, "-c", FAILING.format(error='BundleError("torn")')],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "worker 0: torn" in done.stderr
    assert "MartletError: the workers fail while they start" in done.stderr
    assert done.stdout == "over\n"


def test_an_unforeseen_failure_of_a_worker_shows_where():
    done = run(
        [sys.executable, "-c", FAILING.format(error="ZeroDivisionError")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "in work" in done.stderr
