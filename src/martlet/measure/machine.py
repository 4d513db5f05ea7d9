"""What a measurement ran on: nothing here names a host, a user or a path."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from martlet.core import num_threads

LIBRARIES = ("martlet", "numpy", "numba", "scipy", "polars", "faiss-cpu", "onnxruntime", "uvicorn")


def machine() -> dict[str, Any]:
    """Return processor, cores, memory (GiB) and system, as plain JSON."""
    return {
        "cpu": _cpu(),
        "arch": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.system(),
    }


def threads() -> dict[str, Any]:
    """Return the threads that kernels use, and what the environment says of the libraries'."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {"martlet": num_threads()} | {n: os.environ[n] for n in names if n in os.environ}


def versions() -> dict[str, str]:
    """Return the version of Python and of each library that can change a figure."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
