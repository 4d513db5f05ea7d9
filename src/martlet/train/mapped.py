"""Room for arrays in files, which may be larger than the memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from martlet.core.files import stated


def mapped(path: Path, size: int) -> mmap.mmap:
    """Return ``size`` bytes of zeros that live in the file at ``path``; what it held is lost.

    The disk's room is taken at once: a file that grew as it was written would end the process where
    the disk is full.

    Raises:
        OutputError: the disk refuses, or is too small.
    """
    with stated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb+") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            found = mmap.mmap(file.fileno(), size)
    if hasattr(mmap, "MADV_RANDOM"):
        found.madvise(mmap.MADV_RANDOM)  # rows lie anywhere: reading ahead would be in vain
    return found
