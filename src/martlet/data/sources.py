"""Public logs by name: fetched once, checked, kept in a cache."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from martlet.core import DataError, OutputError, new_folder

_TIMEOUT_S = 10  # of an answer; a package has pip's own
_PACKAGE_TIMEOUT_S = 120
_UNFIT = (OSError, ValueError, KeyError, HTTPException, subprocess.SubprocessError,
          zipfile.BadZipFile, zlib.error)  # fmt: skip


class SourceUnavailable(DataError):
    """Neither the cache nor the network has the log."""


@dataclass(frozen=True)
class Archive:
    """A zip file with a log in it.

    Attributes:
        where: its address; or the requirement of a package of the Python index, whose wheel it is.
        members: files in it, each with its SHA-256; None where that of the archive vouches for it.
        unpack: from the bytes of the members to those of the log's files.
        sha256: of the archive itself, where it is known.
    """

    where: str
    members: Mapping[str, str | None]
    unpack: Callable[[dict[str, bytes]], dict[str, bytes]]
    sha256: str | None = None

    def fetch(self) -> dict[str, bytes]:
        """Return the log's files.

        Raises:
            ValueError: what came is not what was published. And whatever reading it raises.
        """
        data = _read(self.where) if "://" in self.where else _read_wheel(self.where)
        _check(self.where, data, self.sha256)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in self.members}
        for name, content in members.items():
            _check(name, content, self.members[name])
        return self.unpack(members)


@dataclass(frozen=True)
class Source:
    """A public log: the files that the cache holds of it, and its archives, the best first."""

    files: tuple[str, ...]
    archives: tuple[Archive, ...]


def cache_folder() -> Path:
    """Return ``$MARTLET_CACHE``, else ``martlet`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("MARTLET_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "martlet"


def get(name: str) -> Path:
    """Return the folder of a public log (one of ``SOURCES``), fetched unless it is cached.

    The publisher's address is tried first, then the copy inside a package of the Python index,
    which pip finds as it is configured. ``MARTLET_OFFLINE=1`` forbids both. Of processes that ask
    at once, one fetches and the others wait for it.

    Raises:
        SourceUnavailable: not cached, and no way to fetch it; nothing was left in the cache.
        DataError: an unknown name.
        OutputError: the cache cannot be written to.
    """
    if name not in SOURCES:
        raise DataError(f"no public log is called {name!r}: expected one of {', '.join(SOURCES)}")
    source, folder = SOURCES[name], cache_folder() / name
    if _is_whole(folder, source):
        return folder
    if os.environ.get("MARTLET_OFFLINE") == "1":
        raise SourceUnavailable(
            f"{name} is not cached and MARTLET_OFFLINE=1 forbids fetching it: unset it, or copy "
            f"{folder} from a machine that has it"
        )
    with _alone(folder.parent):
        if not _is_whole(folder, source):
            files = _fetch(name, source)
            with new_folder(folder) as target:
                for file, data in files.items():
                    (target / file).write_bytes(data)
    return folder


def _is_whole(folder: Path, source: Source) -> bool:
    return all((folder / file).is_file() for file in source.files)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time into the cache; the system frees it should that process die."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"the cache {folder} cannot be used ({error.strerror}): set MARTLET_CACHE to a folder "
            "that you may write to"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(name: str, source: Source) -> dict[str, bytes]:
    problems = []
    for archive in source.archives:
        try:
            return archive.fetch()
        except _UNFIT as error:
            problems.append(f"{archive.where}: {str(error).strip() or type(error).__name__}")
    raise SourceUnavailable(
        f"{name} is not cached and could not be fetched ({'; '.join(problems)}): try again on a "
        f"network, or copy {cache_folder() / name} from a machine that has it"
    )


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
        data: bytes = answer.read()
    return data


def _read_wheel(requirement: str) -> bytes:
    """Return the wheel of a package, by pip; never a source archive, which would run its code."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1",
                   "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder,
                   requirement]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PACKAGE_TIMEOUT_S, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = done.stderr.strip().splitlines() or ["pip said nothing"]
            raise ValueError(said[-1])
        return wheels[0].read_bytes()


def _check(what: str, data: bytes, sha256: str | None) -> None:
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(f"{what} has sha256 {found}, expected {sha256}")


def _base_names(members: dict[str, bytes]) -> dict[str, bytes]:
    return {name.rsplit("/", 1)[-1]: data for name, data in members.items()}


def _atomic(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return GroupLens's MovieLens 100K as atomic files."""
    text = {name.rsplit(".", 1)[-1]: data.decode("latin-1") for name, data in members.items()}
    genres = [line.split("|")[0] for line in text["genre"].split("\n") if "|" in line]
    inter = [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        *text["data"].split("\n"),
    ]
    item = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    for line in filter(None, text["item"].split("\n")):
        number, title, released, _, _, *flags = line.split("|")
        classes = " ".join(g for g, flag in zip(genres, flags, strict=True) if flag.strip() == "1")
        item.append(f"{number}\t{title}\t{released[-4:]}\t{classes}")
    user = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    user += [line.replace("|", "\t") for line in filter(None, text["user"].split("\n"))]
    files = {"inter": inter, "item": item, "user": user}
    return {
        f"ml-100k.{ending}": ("\n".join(filter(None, lines)) + "\n").encode()
        for ending, lines in files.items()
    }


def _bandit(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return Open Bandit Data without the number of the row and the affinities to each item."""
    return {
        ("items.csv" if "item" in name else f"{name.split('/')[-3]}.csv"): _without(
            data, lambda column: column == "" or column.startswith("user-item_affinity")
        )
        for name, data in members.items()
    }


def _without(data: bytes, dropped: Callable[[str], bool]) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    kept = [at for at, column in enumerate(rows[0]) if not dropped(column)]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([row[at] for at in kept] for row in rows)
    return text.getvalue().encode()


_RECBOLE, _OBP = "recbole/dataset_example/ml-100k", "obp/dataset/obd"
SOURCES: dict[str, Source] = {
    "ml-100k": Source(
        ("ml-100k.inter", "ml-100k.item", "ml-100k.user"),
        (
            Archive(
                "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                {f"ml-100k/u.{ending}": None for ending in ("data", "item", "user", "genre")},
                _atomic,
                "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            ),
            Archive(
                "recbole==1.2.1",
                {
                    f"{_RECBOLE}/ml-100k.inter": (
                        "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
                    ),
                    f"{_RECBOLE}/ml-100k.item": (
                        "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
                    ),
                    f"{_RECBOLE}/ml-100k.user": (
                        "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972"
                    ),
                },
                _base_names,
            ),
        ),
    ),
    # Impressions of a fashion shop, shown at random and by Bernoulli Thompson sampling. The item
    # table of the latter says the same under other hashes.
    "obd": Source(
        ("random.csv", "bts.csv", "items.csv"),
        (
            Archive(
                "obp==0.4.1",
                {
                    f"{_OBP}/random/all/all.csv": (
                        "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1"
                    ),
                    f"{_OBP}/bts/all/all.csv": (
                        "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106"
                    ),
                    f"{_OBP}/random/all/item_context.csv": (
                        "eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358"
                    ),
                },
                _bandit,
            ),
        ),
    ),
}
NAMES = tuple(SOURCES)
