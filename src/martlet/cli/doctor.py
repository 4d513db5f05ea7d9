"""What this machine and installation look like to Martlet, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from martlet.cli.options import Config, Json
from martlet.cli.output import print_json, print_table
from martlet.core import MartletError, num_threads

NEEDED = (
    "numpy",
    "numba",
    "scipy",
    "polars",
    "pyarrow",
    "safetensors",
    "faiss-cpu",
    "onnxruntime",
    "uvicorn",
    "msgspec",
    "matplotlib",
)
OPTIONAL = {
    "torch": "deep models; they are fitted with it, never served with it",
    "ray": "more than one machine",
    "connectorx": "logs in databases other than SQLite",
}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Check(NamedTuple):
    """One thing looked at: what was found, and what to do when it is not well."""

    name: str
    state: Literal["ok", "warn", "bad"]
    found: str
    advice: str = ""


def doctor(config: Config = None, json_: Json = False) -> None:
    """Look at this machine and installation; say what to do."""
    checks = examine()
    if json_:
        print_json([check._asdict() for check in checks])
    else:
        rows = [[c.state, c.name, c.found, c.advice] for c in checks]
        print_table("Martlet on this machine", ["state", "what", "found", "advice"], rows)
    bad = [check.name for check in checks if check.state == "bad"]
    if bad:
        raise MartletError(f"not as it must be: {', '.join(bad)}; the advice stands beside each")


def examine() -> list[Check]:
    """Return every check; nothing is changed."""
    return [_python(), *_libraries(), *_threads(), _memory(), _compiler(), _cache(), *_extras()]


def _python() -> Check:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "bad", found, "use Python 3.11, 3.12 or 3.13")


def _libraries() -> list[Check]:
    from importlib.metadata import PackageNotFoundError, version

    checks = []
    for name in NEEDED:
        try:
            checks.append(Check(name, "ok", version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, "bad", "missing", f"python -m pip install {name}"))
    return checks


def _threads() -> list[Check]:
    try:
        ours = num_threads()
    except MartletError as error:
        return [Check("threads", "bad", str(error), "unset MARTLET_THREADS, or set a number")]
    cores = os.cpu_count() or 1
    advice = f"set MARTLET_THREADS to {cores} or fewer" if ours > cores else ""
    checks = [
        Check("threads", "warn" if advice else "ok", f"{ours} of {cores} cores", advice),
    ]
    # Nested pools multiply: BLAS threads inside our own would fight for the same cores.
    for pool in _pools():
        state: Literal["ok", "warn"] = "ok" if pool["num_threads"] <= cores else "warn"
        found = f"{pool['num_threads']} threads ({pool['internal_api']} {pool['version'] or ''})"
        more = f"set {' and '.join(_THREAD_VARIABLES[:2])} to {cores}" if state == "warn" else ""
        checks.append(Check(f"pool {pool['user_api']}", state, found.strip(), more))
    return checks


def _pools() -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_info

    importlib.import_module("numpy")  # its BLAS is the pool to look at
    return list(threadpool_info())


def _memory() -> Check:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) / 1e6
    except (OSError, KeyError, ValueError):
        return Check("memory", "warn", "unknown", "this system does not tell its free memory")
    advice = "close other programs, or prepare a sample of the log first" if free < 2 else ""
    return Check("memory", "warn" if advice else "ok", f"{free:.1f} GB free", advice)


def _compiler() -> Check:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    words = Path(found).name if found else "none; nothing needs one, kernels are compiled by Numba"
    return Check("C compiler", "ok", words)


def _cache() -> Check:
    """Compiled kernels are kept beside the code; where that is read-only, each start compiles."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else Path(__file__).parent.parent / "kernels"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check("kernel cache", "ok", "writable")
    except OSError as error:
        return Check(
            "kernel cache",
            "warn",
            f"not writable ({error.strerror})",
            "set NUMBA_CACHE_DIR to a folder you may write to, or every start compiles anew",
        )


def _extras() -> list[Check]:
    from importlib.metadata import version

    checks = []
    for name, purpose in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            checks.append(Check(name, "ok", f"not installed (optional: {purpose})"))
        else:
            checks.append(Check(name, "ok", version(name)))
    return checks
