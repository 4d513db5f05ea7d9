"""How long from the start of a process to an import, to help, to an answer, to a ready server?

Each start is a process of its own. Bundles are fitted on a log drawn to the size of ml-1m (6,040 x
3,706, a million draws): iALS in float32, in int8 and behind lists (ivf), and EASE. An answer is ten
items for one user: in Python to the moment that the list is there, by ``martlet recommend`` to the
end of the command. A server is ready when ``/api/health/ready`` says 200. All must name the same.

First runs find an empty Numba cache and so compile (files are in the system's cache even then);
"compiled" tells which kernels took how long. Later runs find it filled; their variants are
interleaved. "parts" are the seconds of an answer that imports take, by library, as Python's own
``-X importtime`` tells them (which costs a tenth by itself), and the rest: the bundle, the kernels
from the cache, the answer. Plain imports of the libraries, one a process, stand beside.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import martlet as mt
from _common import interleave, options, record, say, scratch, summary
from martlet.core import Dataset, Interactions, Vocabulary, rng

K = 10
GOALS_S = {"import martlet": 0.1, "help": 0.3, "python": 1.0, "command": 1.0, "server": 1.5}
FIRST_GOAL_S = 10.0
LIBRARIES = ("numpy", "numba", "llvmlite.binding", "faiss", "onnxruntime", "uvicorn")
PARTS = {"numpy", "numba", "llvmlite", "faiss", "scipy", "martlet", "coverage", "yaml"}
POLL_S = 0.01

STAMP = "import time; print(time.monotonic())"
ANSWER = """
import json, sys, time
import martlet
answer = martlet.load(sys.argv[1]).recommend([sys.argv[2]], k=int(sys.argv[3]))[0]
print(json.dumps({"at": time.monotonic(), "items": answer.item_ids}))
"""
# The same, listening to Numba: what each kernel that was called from Python took, inner ones too.
COMPILED = """
import json, sys, time
from numba.core import event
found, depth, count, begin = {}, 0, 0, 0.0
class Listener(event.Listener):
    def on_start(self, one):
        global depth, begin
        begin, depth = begin if depth else time.process_time(), depth + 1
    def on_end(self, one):
        global depth, count
        depth, count = depth - 1, count + 1
        if not depth:
            name = one.data["dispatcher"].py_func.__name__
            found[name] = found.get(name, 0.0) + time.process_time() - begin
event.register("numba:compile", Listener())
import martlet
martlet.load(sys.argv[1]).recommend([sys.argv[2]], k=int(sys.argv[3]))
print(json.dumps({"cpu_s": found, "functions": count}))
"""


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=11)
    with scratch() as folder:
        user, bundles = saved(folder, chosen)
        cache = {"NUMBA_CACHE_DIR": str(folder / "cache")}
        answers = {name: Asked(path, user) for name, path in bundles.items()}
        say("first runs")
        first = first_runs(answers, folder, chosen)
        variants = simple(cache)
        for name, asked in answers.items():
            for way in ("python", "command", "server"):
                variants[f"{way} {name}"] = lambda asked=asked, way=way: asked.run(way, cache)
        for variant in variants.values():  # fills the cache of kernels, and the system's of files
            variant()
        say("later runs")
        seconds = interleave(variants, 1 if chosen.tiny else chosen.rounds)
        parts = {name: asked.parts(cache) for name, asked in answers.items()}
    told(first, seconds)
    record(
        "cold_start",
        {
            "k": K,
            "file_caches": "warm",
            # Numba imports these two where they are installed; a server's image has neither.
            "extras": [name for name in ("coverage", "yaml") if find_spec(name)],
            "first": first,
            "seconds": seconds,
            "summary": {name: summary(values) for name, values in seconds.items()},
            "goals_s": GOALS_S,
            "first_goal_s": FIRST_GOAL_S,
            "parts": parts,
        },
        chosen,
    )


class Asked:
    """A saved bundle that one user asks, in three ways, each in a process of its own."""

    def __init__(self, bundle: Path, user: str) -> None:
        self._arguments = (str(bundle), user, str(K))
        (answer,) = mt.load(str(bundle)).recommend([user], k=K)
        self._items = answer.item_ids

    def run(self, way: str, cache: Mapping[str, str]) -> float:
        """Return the seconds from the start of a process to the answer, or the ready server."""
        ways = {"python": self._python, "command": self._command, "server": self._server}
        seconds, items = ways[way](cache)
        assert items == self._items, f"{way} names other items: {items}, not {self._items}"
        return seconds

    def compiled(self, cache: Mapping[str, str]) -> dict[str, Any]:
        """Return CPU seconds of compilation by kernel, and how many functions that were."""
        told: dict[str, Any] = json.loads(run_python(COMPILED, *self._arguments, cache=cache))
        return told

    def parts(self, cache: Mapping[str, str]) -> dict[str, float]:
        """Return the seconds of an answer by the library that was imported, and the rest."""
        begin = time.monotonic()
        done = started("-X", "importtime", "-c", ANSWER, *self._arguments, cache=cache)
        out, errors = done.communicate()
        found = {"rest": json.loads(out)["at"] - begin}
        for microseconds, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", errors):
            top = name.split(".")[0].lstrip("_")
            part = top if top in PARTS else "python"
            found[part] = found.get(part, 0.0) + int(microseconds) / 1e6
            found["rest"] -= int(microseconds) / 1e6
        return found

    def _python(self, cache: Mapping[str, str]) -> tuple[float, list[str]]:
        begin = time.monotonic()
        answer = json.loads(run_python(ANSWER, *self._arguments, cache=cache))
        return answer["at"] - begin, answer["items"]

    def _command(self, cache: Mapping[str, str]) -> tuple[float, list[str]]:
        bundle, user, k = self._arguments
        begin = time.monotonic()
        out = finished(
            "-m", "martlet", "recommend", bundle, "--user", user, "--k", k, "--json", cache=cache
        )
        seconds = time.monotonic() - begin
        return seconds, [item["item_id"] for item in json.loads(out)["items"]]

    def _server(self, cache: Mapping[str, str]) -> tuple[float, list[str]]:
        bundle, user, k = self._arguments
        begin = time.monotonic()
        process = started("-m", "martlet", "serve", bundle, "--port", "0", cache=cache)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            while ask(port, "/api/health/ready")[0] != 200:
                time.sleep(POLL_S)
            seconds = time.monotonic() - begin
            answer = json.loads(ask(port, f"/api/recommend/{user}?n={k}")[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
        return seconds, [item["item_id"] for item in answer["items"]]


def simple(cache: Mapping[str, str]) -> dict[str, Callable[[], float]]:
    """Return the starts that need no bundle; an import ends with a stamp, help with its process."""

    def imported(line: str) -> float:
        begin = time.monotonic()
        return float(run_python(f"{line}\n{STAMP}", cache=cache)) - begin

    def helped() -> float:
        begin = time.monotonic()
        finished("-m", "martlet", "--help", cache=cache)
        return time.monotonic() - begin

    lines = {"nothing": "", "import martlet": "import martlet"}
    lines |= {f"import {name}": f"import {name}" for name in LIBRARIES}
    starts: dict[str, Callable[[], float]] = {
        name: lambda line=line: imported(line) for name, line in lines.items()
    }
    return starts | {"help": helped}


def first_runs(
    answers: Mapping[str, Asked], folder: Path, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Return seconds to an answer and to a ready server with no kernel compiled, and the kernels.

    Three of each; one answer alone where it has to be tiny.
    """
    made = 0

    def empty() -> dict[str, str]:
        nonlocal made
        made += 1
        (folder / f"empty{made}").mkdir()
        return {"NUMBA_CACHE_DIR": str(folder / f"empty{made}")}

    variants = {
        f"{way} {name}": lambda name=name, way=way: answers[name].run(way, empty())
        for name in answers
        for way in (("python",) if chosen.tiny else ("python", "server"))
    }
    seconds = interleave(variants, 1 if chosen.tiny else 3)
    return {
        "seconds": seconds,
        "summary": {name: summary(values) for name, values in seconds.items()},
        "compiled": {name: asked.compiled(empty()) for name, asked in answers.items()},
    }


def saved(folder: Path, chosen: argparse.Namespace) -> tuple[str, dict[str, Path]]:
    """Return a user of a drawn log, and the folders of the bundles fitted on it."""
    users, items, events = (300, 200, 6_000) if chosen.tiny else (6_040, 3_706, 1_000_000)
    random = rng(chosen.seed, "cold_start")
    share = np.arange(1, items + 1) ** -0.8
    user = random.integers(users, size=events)
    item = random.choice(items, events, p=share / share.sum())
    pair = np.unique(user * items + item)
    none = np.zeros(0, np.int64)

    def part(rows: np.ndarray) -> Interactions:
        return Interactions.sort(rows // items, rows % items, num_users=users, num_items=items)

    data = Dataset(
        Vocabulary.of(f"u{i}" for i in range(users)),
        Vocabulary.of(f"i{i}" for i in range(items)),
        part(pair), part(none), part(none),
    )  # fmt: skip
    say("fitting")
    bundles = {"ease": mt.fit(mt.EASE(), data, seed=chosen.seed)}
    if not chosen.tiny:
        bundles["ials fp32"] = mt.fit(mt.IALS(dim=64), data, seed=chosen.seed)
        bundles["ials int8"] = mt.compress(bundles["ials fp32"], [mt.Quantize("int8")])
        bundles["ials ivf"] = mt.compress(bundles["ials fp32"], [mt.Index("ivf")], data)
    for name, bundle in bundles.items():
        bundle.save(folder / name)
    return data.users.ids[17], {name: folder / name for name in bundles}


def started(*arguments: str, cache: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | cache,
    )


def finished(*arguments: str, cache: Mapping[str, str]) -> str:
    """Return what a process said; end the benchmark with its last words if it failed."""
    process = started(*arguments, cache=cache)
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{errors[-3000:]}")
    return out


def run_python(program: str, *arguments: str, cache: Mapping[str, str]) -> str:
    return finished("-c", program, *arguments, cache=cache)


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def told(first: Mapping[str, Any], seconds: Mapping[str, list[float]]) -> None:
    for name, values in first["seconds"].items():
        say(line(f"first {name}", values, FIRST_GOAL_S))
    for name, one in first["compiled"].items():
        kernels = ", ".join(f"{kernel} {s:.2f}" for kernel, s in one["cpu_s"].items())
        say(f"  {name}: {one['functions']} functions compiled; CPU s: {kernels}")
    for name, values in seconds.items():
        goal = GOALS_S.get(name, GOALS_S.get(name.split()[0]))
        say(line(name, values, goal))


def line(name: str, values: list[float], goal: float | None) -> str:
    spread = summary(values)
    text = f"{name:24} {spread['median']:7.3f} s [{spread['min']:.3f}, {spread['max']:.3f}]"
    return text if goal is None else f"{text}  goal {goal:g}"


if __name__ == "__main__":
    main()
