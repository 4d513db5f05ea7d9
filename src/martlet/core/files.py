"""Outputs appear whole or not at all: write beside the target, then rename."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from martlet.core.errors import OutputError


@contextmanager
def new_folder(target: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends without an error.

    Raises:
        OutputError: the target exists and may not be replaced, or the disk refused the write.
    """
    target = Path(target)
    if target.exists() and not (replace and target.is_dir()):
        raise OutputError(f"{target} exists: choose another output, or remove it first")
    with _stated(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield temporary
            os.chmod(temporary, 0o755)
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path that becomes the file ``target`` when the block ends without an error.

    Raises:
        OutputError: the disk refused the write.
    """
    target = Path(target)
    if target.is_dir():
        raise OutputError(f"{target} is a folder: expected the name of a file to write")
    with _stated(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of the file at ``path``."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(temporary: Path, target: Path) -> None:
    """Put ``temporary`` in the place of ``target``; a reader never sees half of either."""
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        os.replace(target, old)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, target)


@contextmanager
def _stated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"could not write {target}: {reason}; nothing was left there. "
            "Free some space or choose a folder that you may write to"
        ) from error
