"""One answer in a process of its own: cold start and memory are told by nothing else.

``python -m martlet.measure.fresh FOLDER K`` opens the bundle, answers its first user (or a row of
which nothing is known, where it predicts labels) and writes one JSON line of time stamps
(``time.monotonic``, which all processes of a machine share) and memory.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Before anything else is imported: what an answer needs is imported where it is used.
_BEGIN = time.monotonic()


def start(folder: str | Path, k: int = 10) -> dict[str, float]:
    """Return seconds from the start of a new process to its first answer, by part, and its memory.

    ``interpreter_s`` (Python itself and ``import martlet``), ``open_s`` (the bundle, verified),
    ``answer_s`` (the libraries and kernels the answer needs, and the answer), ``cold_start_s``
    (all of it); ``peak_mb``: growth of the peak resident memory from before the bundle is opened,
    libraries of the scorer included, memory-mapped pages that were touched included; ``rss_mb``:
    the peak of the whole process.

    Raises:
        MartletError: the process failed; its last words are told.
    """
    import json
    import subprocess
    import sys

    from martlet.core import MartletError

    begin = time.monotonic()
    command = [sys.executable, "-m", "martlet.measure.fresh", str(folder), str(k)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MartletError(f"a fresh process could not answer from {folder}: {last}")
    stamps: dict[str, float] = json.loads(done.stdout)
    return {
        "interpreter_s": stamps["begin"] - begin,
        "open_s": stamps["opened"] - stamps["begin"],
        "answer_s": stamps["answered"] - stamps["opened"],
        "cold_start_s": stamps["answered"] - begin,
        "peak_mb": (stamps["peak_bytes"] - stamps["before_bytes"]) / 1e6,
        "rss_mb": stamps["peak_bytes"] / 1e6,
    }


def peak_bytes() -> int:
    """Return the peak resident bytes of this process.

    Linux tells it of the present program alone; ``ru_maxrss`` would count the parent's peak too,
    for a child begins as its parent's copy.
    """
    import sys
    from pathlib import Path

    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _main(folder: str, k: str) -> None:
    import json

    from martlet.scorers.bundle import Bundle

    before = peak_bytes()
    bundle = Bundle.load(folder)
    opened = time.monotonic()
    if bundle.predicts:
        bundle.predict({name: [None] for name in bundle.columns})
    else:
        bundle.recommend([bundle.users.ids[0] if len(bundle.users) else ""], k=int(k))
    answered = time.monotonic()
    stamps = {"begin": _BEGIN, "opened": opened, "answered": answered}
    print(json.dumps(stamps | {"before_bytes": before, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    import sys

    _main(*sys.argv[1:])
