"""Public logs by name: fetched once, checked, kept in a cache."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from martlet.core import DataError, new_folder

ML_100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
# The publisher states this one beside the archive; the files' own are of the wheel's copies.
ML_100K_MD5 = "0e33842e24a9c977be4e0107933c0723"
ML_100K_WHEEL = ("recbole==1.2.1", "recbole/dataset_example/ml-100k")
ML_100K_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
NAMES = ("ml-100k",)
_TIMEOUT_S = 10


class SourceUnavailable(DataError):
    """Neither the cache nor the network has the log."""


def cache_folder() -> Path:
    """Return ``$MARTLET_CACHE``, else ``martlet`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("MARTLET_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "martlet"


def get(name: str, *, url: str = ML_100K_URL) -> Path:
    """Return the folder of a public log as RecBole atomic files, fetched unless it is cached.

    The official address is tried first, then the copy inside a package of the Python index, fetched
    by pip. ``MARTLET_OFFLINE=1`` forbids both.

    Raises:
        SourceUnavailable: not cached, and no way to fetch it.
        DataError: an unknown name.
    """
    if name not in NAMES:
        raise DataError(f"no public log is called {name!r}: expected one of {', '.join(NAMES)}")
    folder = cache_folder() / name
    if all((folder / file).is_file() for file in ML_100K_SHA256):
        return folder
    if os.environ.get("MARTLET_OFFLINE") == "1":
        raise SourceUnavailable(f"{name} is not cached and MARTLET_OFFLINE=1 forbids fetching it")
    problems = []
    for official in (True, False):
        try:
            files = _official(url) if official else _from_wheel()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            problems.append(str(error).strip().splitlines()[-1:] or [type(error).__name__])
            continue
        with new_folder(folder) as target:
            for file, data in files.items():
                (target / file).write_bytes(data)
        return folder
    reasons = "; ".join(problem[0] for problem in problems)
    raise SourceUnavailable(f"{name} is not cached and could not be fetched: {reasons}")


def _official(url: str) -> dict[str, bytes]:
    """Return the publisher's archive as atomic files."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        data = answer.read()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != ML_100K_MD5:
        raise ValueError(f"{url} has md5 {found}: expected {ML_100K_MD5}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        text = {name: archive.read(f"ml-100k/u.{name}").decode("latin-1") for name in
                ("data", "item", "user", "genre")}  # fmt: skip
    return _atomic(text)


def _atomic(text: dict[str, str]) -> dict[str, bytes]:
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


def _from_wheel() -> dict[str, bytes]:
    """Return the atomic files inside a package, each checked."""
    requirement, inside = ML_100K_WHEEL
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--disable-pip-version-check", "--dest", folder, requirement]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise ValueError(f"pip could not fetch {requirement}")
        with zipfile.ZipFile(wheels[0]) as archive:
            files = {name: archive.read(f"{inside}/{name}") for name in ML_100K_SHA256}
    for name, data in files.items():
        found = hashlib.sha256(data).hexdigest()
        if found != ML_100K_SHA256[name]:
            raise ValueError(f"{name} has sha256 {found}: expected {ML_100K_SHA256[name]}")
    return files
