"""The ledger: receipts, one JSON line each, added and never changed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

from martlet.core import DataError, OutputError
from martlet.measure.receipt import Receipt


def append(path: str | Path, receipt: Receipt) -> None:
    """Add one line to the ledger at ``path``, whole or not at all; it is on the disk on return.

    Writers take turns by a lock on the file. A line that an earlier crash left unfinished stays
    as it is, and the new one starts below it.

    Raises:
        OutputError: the disk refused the write.
    """
    line = json.dumps(receipt.to_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            try:
                if os.write(handle, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise OutputError(
            f"could not add a receipt to {path}: {error.strerror}; nothing was added. "
            "Free some space or choose a ledger that you may write to"
        ) from error


def read(path: str | Path) -> list[Receipt]:
    """Return the receipts of a ledger, oldest first.

    Raises:
        DataError: the file cannot be read, or a line is no receipt; the line is named.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"could not read the ledger {path}: {error.strerror}") from error
    receipts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            receipts.append(Receipt.from_json(json.loads(line)))
        except (ValueError, TypeError, DataError) as error:
            raise DataError(
                f"{path}, line {number}: {error}. Expected a receipt that 'martlet measure' "
                "wrote; move the line elsewhere and read again"
            ) from error
    return receipts
