"""Outputs appear whole or not at all: write beside the target, then rename."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from martlet.core.errors import OutputError

_MARK = "martlet-"  # a file of somebody else's is never taken for a leftover of ours


@contextmanager
def new_folder(target: str | Path, *, proof: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends without an error.

    A folder that is there is replaced, if it is one that may be: see ``check_replaceable``. A link
    to a folder stays a link. What processes that died left of the same target is removed.

    Raises:
        OutputError: something else is there, or the disk refused the write.
    """
    target = _place(target)
    with stated(target):
        check_replaceable(target, proof)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _folder_beside(target)
        try:
            yield temporary
            _open_to_all(temporary)
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sweep(target)


def check_replaceable(target: Path, proof: Sequence[str]) -> None:
    """Refuse to put a folder where something else is that nobody asked to lose.

    Args:
        target: nothing, an empty folder, or one of the kind that is to be written.
        proof: files that a folder of that kind holds; none where the place is the program's own,
            as a cache is.

    Raises:
        OutputError: ``target`` is a file, a folder of another kind, or holds the current one.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"{target} exists and is no folder: choose another output")
    if _holds_us(target):
        raise OutputError(
            f"{target} holds the folder that you are in, which would be gone once it is replaced: "
            "choose another output, or go elsewhere first"
        )
    if any(target.iterdir()) and not all((target / name).is_file() for name in proof):
        raise OutputError(
            f"{target} holds files but not {' and '.join(proof)}, so it is none that may be "
            "replaced: choose another output, or remove it yourself"
        )


@contextmanager
def new_file(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path that becomes the file ``target`` when the block ends without an error.

    Raises:
        OutputError: the disk refused the write.
    """
    target = _place(target)
    with stated(target):
        if target.is_dir():
            raise OutputError(f"{target} is a folder: expected the name of a file to write")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{_MARK}{os.getpid()}-file")
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sweep(target)


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of the file at ``path``."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(temporary: Path, target: Path) -> None:
    """Put ``temporary`` in the place of ``target``, or leave that as it was.

    A reader never sees half of either.
    """
    if not target.exists():
        os.replace(temporary, target)
        return
    old = _folder_beside(target)
    try:
        os.replace(target, old)
        os.replace(temporary, target)
    finally:
        if not target.exists():
            os.replace(old, target)
        shutil.rmtree(old, ignore_errors=True)


def _holds_us(folder: Path) -> bool:
    with suppress(OSError):  # the current folder may be gone already
        return Path.cwd().is_relative_to(folder.resolve())
    return False


def _folder_beside(target: Path) -> Path:
    """Make a folder that tells whose it is: of which target, by which process."""
    prefix = f".{target.name}.{_MARK}{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))


def _open_to_all(folder: Path) -> None:
    """Let everybody read: who serves is often not who wrote."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _sweep(target: Path) -> None:
    """Remove what processes that live no more left beside ``target`` while they wrote it."""
    name = re.compile(rf"\.{re.escape(target.name)}\.{_MARK}(\d+)-\w+")
    with suppress(OSError):  # the target is written, whatever becomes of these
        for path in target.parent.iterdir():
            found = name.fullmatch(path.name)
            if not found or _lives(int(found[1])):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _place(target: str | Path) -> Path:
    """Return where ``target`` is once links are followed: a rename would put an end to them."""
    try:
        return Path(os.path.realpath(target))
    except (TypeError, ValueError) as error:
        raise OutputError(f"{str(target)!r} is no path ({error}): choose another output") from error


@contextmanager
def stated(target: str | Path) -> Iterator[None]:
    """State what the system refuses while ``target`` is written.

    Raises:
        OutputError: in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"could not write {target}: {reason}; nothing was left there. "
            "Free some space or choose a folder that you may write to"
        ) from error
