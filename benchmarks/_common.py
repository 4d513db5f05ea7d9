"""What every benchmark shares: options, the machine's line, interleaved rounds, peers, raw lines.

A benchmark is one script whose first docstring line is the question it answers. It appends one raw
JSON line a run to ``results/<its name>.jsonl``; figures and pictures are derived from those lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from martlet.measure.machine import machine, versions

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
THREADS = "2"
# Set before NumPy is loaded by a peer; in this process they hold for what is started from it.
PINNED = {
    name: THREADS
    for name in (
        "MARTLET_THREADS",
        "NUMBA_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
    )
}


def options(
    question: str, *, rounds: int = 5, add: Sequence[str] = (), flags: Sequence[str] = ()
) -> argparse.Namespace:
    """Return the options of a benchmark; ``add`` names further ones that take text."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--tiny", action="store_true", help="seconds, no peers, no data folder")
    parser.add_argument("--data", type=Path, help="data folder (default: $MARTLET_DATA)")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds of each variant")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="raw lines go here")
    parser.add_argument("--seed", type=int, default=0)
    for name in add:
        parser.add_argument(f"--{name}")
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def data(given: Path | None, *parts: str) -> Path:
    """Return a path in the data folder, or end the benchmark with a clear line."""
    folder = given or Path(os.environ.get("MARTLET_DATA", ROOT.parent / "shared" / "data"))
    path = folder.joinpath(*parts)
    if not path.exists():
        skip(f"there is no {'/'.join(parts)} in the data folder: give --data or set MARTLET_DATA")
    return path


def skip(why: str) -> None:
    """End the benchmark without a failure, saying why."""
    print(f"skipped: {why}", file=sys.stderr)
    raise SystemExit(0)


def say(*words: object) -> None:
    """Tell the one who watches."""
    print(*words, file=sys.stderr, flush=True)


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    clock: Callable[[], float] | None = None,
    rest_s: float = 0.0,
) -> dict[str, list[float]]:
    """Return the seconds of each variant in each round; every round runs every variant once.

    A variant that returns a number has timed itself (a peer in a process of its own); the others
    are timed from outside. The order turns by one each round. ``rest_s`` is waited before each:
    threads of BLAS and OpenMP spin for some time after their work, and would take from the next.
    """
    clock = clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            time.sleep(rest_s)
            begin = clock()
            own = variants[name]()
            elapsed = clock() - begin
            seconds[name].append(own if isinstance(own, float) else elapsed)
    return seconds


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1 : middle + 1]) / 2
    return {"median": median, "min": ordered[0], "max": ordered[-1]}


def record(name: str, values: Mapping[str, Any], chosen: argparse.Namespace) -> None:
    """Append one raw line to ``results/<name>.jsonl``, and print it; a tiny run only prints."""
    line = {
        "benchmark": name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "threads": int(os.environ.get("MARTLET_THREADS", THREADS)),
        "seed": chosen.seed,
        "tiny": chosen.tiny,
        **values,
    }
    text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    print(text)
    if not chosen.tiny:
        chosen.results.mkdir(parents=True, exist_ok=True)
        with open(chosen.results / f"{name}.jsonl", "a") as file:
            file.write(text + "\n")


def peer_python(name: str) -> Path | None:
    """Return the interpreter of ``.venv-peers/<name>``, or None where it is not installed.

    ``benchmarks/peers/<name>.txt`` says what belongs into it.
    """
    path = ROOT / ".venv-peers" / name / "bin" / "python"
    return path if path.exists() else None


class Peer:
    """A script of ``benchmarks/peers`` in a process of its own, asked one JSON line at a time.

    The script calls ``_answer.answer(prepare)``. Whatever it prints goes to a file that is shown
    when it fails.
    """

    def __init__(self, python: str | Path, script: str, *arguments: str | Path) -> None:
        self._name = script
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            [str(python), str(HERE / "peers" / script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | PINNED,
        )
        self.ready = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to one request: what the script measured, with its ``seconds``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise SystemExit(f"{self._name} failed:\n{self._log.read()[-3000:]}")
        return json.loads(line)  # type: ignore[no-any-return]

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="martlet-bench-") as folder:
        yield Path(folder)


os.environ.update({name: os.environ.get(name, value) for name, value in PINNED.items()})
