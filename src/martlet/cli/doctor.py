"""What this machine and installation look like to Martlet, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import typer

from martlet.cli.options import Config, Json
from martlet.cli.output import print_json, print_table
from martlet.core import MartletError, num_threads

NEEDED = {
    "numpy": "numpy",
    "numba": "numba",
    "scipy": "scipy.linalg",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "threadpoolctl": "threadpoolctl",
    "safetensors": "safetensors",
    "msgspec": "msgspec",
    "faiss-cpu": "faiss",
    "onnxruntime": "onnxruntime",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "httptools": "httptools",
    "typer": "typer",
    "rich": "rich.table",
    "matplotlib": "matplotlib",
}
"""What Martlet cannot do without: the module to import by the name to install it by."""
OPTIONAL = {
    "torch": ("'martlet[deep]'", "deep models; they are fitted with it, never served with it"),
    "connectorx": ("connectorx", "logs in databases other than SQLite"),
}
"""What to install, and what for, by module."""


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
        _print(checks)
    bad = [check.name for check in checks if check.state == "bad"]
    if bad:
        # Not raised: with --json the checks are the one document.
        names = ", ".join(bad)
        print(
            f"martlet: not as it must be: {names}; the advice stands beside each", file=sys.stderr
        )
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    rows: list[list[str]] = [[c.state, c.name, c.found, c.advice] for c in checks]
    try:
        print_table("Martlet on this machine", ["state", "what", "found", "advice"], rows)
    except ImportError:  # of what draws tables: told by one of the rows
        for row in rows:
            print("; ".join(filter(None, row)))


def examine() -> list[Check]:
    """Return every check; nothing is changed."""
    return [_python(), *_libraries(), *_threads(), _memory(), _compiler(), _cache(), *_extras()]


def _python() -> Check:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "bad", found, "use Python 3.11, 3.12 or 3.13")


def _libraries() -> list[Check]:
    checks = []
    for name, module in NEEDED.items():
        if name == "uvloop" and sys.platform == "win32":
            continue
        check = _library(name, module)
        if check is None:
            check = Check(name, "bad", "missing", f"python -m pip install {name}")
        checks.append(check)
    return checks


def _extras() -> list[Check]:
    checks = []
    for name, (install, purpose) in OPTIONAL.items():
        check = _library(name, name)
        if check is None:
            advice = f"for {purpose}: python -m pip install {install}"
            check = Check(name, "ok", "not installed, optional", advice)
        elif check.state == "bad":
            check = check._replace(state="warn")
        checks.append(check)
    return checks


def _library(name: str, module: str) -> Check | None:
    """Return what importing a library shows, which its metadata cannot; None if there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    try:
        import_module(module)
    except Exception as error:  # a library may fail in any way of its own
        if not found and isinstance(error, ModuleNotFoundError):
            return None
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        what = " ".join(filter(None, [found, "cannot be imported"]))
        cure = f"python -m pip install --force-reinstall {name}"
        return Check(name, "bad", f"{what}: {reason}", cure)
    return Check(name, "ok", found or "of unknown version")


def _threads() -> list[Check]:
    try:
        ours = num_threads()
    except MartletError as error:
        return [Check("threads", "bad", str(error), "unset MARTLET_THREADS, or set a number")]
    cores = _cores()
    advice = f"set MARTLET_THREADS to {cores} or fewer" if ours > cores else ""
    checks = [Check("threads", "warn" if advice else "ok", f"{ours} of {cores} cores", advice)]
    pools = _pools()
    for kind in sorted({pool["user_api"] for pool in pools}):
        largest = max((p for p in pools if p["user_api"] == kind), key=lambda p: p["num_threads"])
        checks.append(_pool(largest, ours if kind == "blas" else 1, cores))
    return checks


def _pool(pool: dict[str, Any], callers: int, cores: int) -> Check:
    """Nested pools multiply: each of our threads that calls BLAS may wake all threads of BLAS."""
    name, each = f"pool {pool['user_api']}", pool["num_threads"]
    found = f"{each} threads ({' '.join(filter(None, [pool['internal_api'], pool['version']]))})"
    if callers * each <= cores:
        return Check(name, "ok", found)
    times = f" for each of our {callers}: up to {callers * each}" if callers > 1 else ""
    advice = f"set OMP_NUM_THREADS and OPENBLAS_NUM_THREADS to {max(1, cores // callers)}"
    but = ", but not to fit EASE, which is BLAS alone" if callers > 1 else ""
    return Check(name, "warn", f"{found}{times} on {cores} cores", advice + but)


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pools() -> list[dict[str, Any]]:
    """Return the thread pools of the libraries loaded; none where they cannot be loaded."""
    try:
        import_module("numpy")  # its BLAS is one to look at
        return list(import_module("threadpoolctl").threadpool_info())
    except ImportError:
        return []


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
