"""A dataset's folder, read as if somebody had put a hand to it: what comes out is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from martlet.core.columns import Array, Column, Text, unflatten
from martlet.core.errors import DataError
from martlet.core.interactions import Interactions
from martlet.core.vocabulary import Vocabulary

HEAD = "dataset.json"
FORMAT = 1
_BLOCK = 1 << 18  # events checked at a time: what is made of them stays in the cache
_SAMPLE = 64  # ids that must find themselves
_IDS = {"ids.blob": np.uint8, "ids.offsets": np.int64}
_LOOKUP = {"sorted_hash": np.uint64, "sorted_row": np.int32}
_EVENTS = {"user_row": np.int32, "item_row": np.int32, "weight": np.float32}


class Folder:
    """What ``dataset.json`` says, and memory-mapped arrays by group and name.

    Each noun is checked when it is asked for, and a DataError names the file that is refused.

    Attributes:
        path: the folder.
        head: what ``dataset.json`` holds: "users", "items" (counts) and "about".
        groups: arrays, such as ``groups["train"]["user_row"]``.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder.

        Raises:
            DataError: it is no dataset, of another format, or a file is no array.
        """
        self.path = path
        self.head = self._read_head()
        self.groups: dict[str, dict[str, Array]] = {}
        for file in sorted(path.glob("*.npy")):
            group, _, name = file.name.removesuffix(".npy").partition(".")
            self.groups.setdefault(group, {})[name] = self._read_array(file)

    def vocabulary(self, group: str) -> Vocabulary:
        """Return the users or the items. O(bytes of the ids).

        Raises:
            DataError: an array is missing, of another type or length, or does not fit the others.
        """
        n = int(self.head[group])
        for name, kind in _IDS.items():
            self._column(group, name, None if name == "ids.blob" else n + 1, kind)
        for name, kind in _LOOKUP.items():
            self._column(group, name, n, kind)
        arrays: Any = self.groups[group]
        found = Vocabulary.from_arrays(arrays)
        self._check_text(f"{group}.ids", found.ids)
        if not _rising(arrays["sorted_hash"]):
            self._refuse(f"{group}.sorted_hash", "hashes that do not rise")
        rows = arrays["sorted_row"]
        if n and not (_within(rows, n) and (np.bincount(rows, minlength=n) == 1).all()):
            self._refuse(f"{group}.sorted_row", f"not each row of 0 to {n - 1} once")
        some = np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int32)
        if not np.array_equal(found.rows(found.names(some)), some):
            self._refuse(f"{group}.sorted_hash", "not the hashes of the ids")
        return found

    def events(self, part: str, num_users: int, num_items: int) -> Interactions:
        """Return the events of one part. One pass over the columns.

        Raises:
            DataError: a column is missing, of another type or length, rows are out of range or out
                of order, or a weight is negative or no finite number.
        """
        arrays: Any = self.groups.get(part, {})
        n = len(self._column(part, "user_row", None, np.int32))
        for name, kind in _EVENTS.items():
            self._column(part, name, n, kind)
        extra = {
            name.removeprefix("extra."): self._column(part, name, n)
            for name in arrays
            if name.startswith("extra.")
        }
        times: Any = self._column(part, "time_s", n, np.int64) if "time_s" in arrays else None
        for start in range(0, n, _BLOCK):
            # One event more than a block, so that order is checked across blocks too.
            at = slice(start, start + _BLOCK + 1)
            users, items, weights = (arrays[name][at] for name in _EVENTS)
            if not _rising(users):
                self._refuse(f"{part}.user_row", "users that do not rise")
            for name, rows, size in (
                ("user_row", users, num_users),
                ("item_row", items, num_items),
            ):
                if not _within(rows, size):
                    self._refuse(
                        f"{part}.{name}",
                        f"rows {rows.min()} to {rows.max()}, not within 0 to {size - 1}",
                    )
            if not 0 <= weights.min() <= weights.max() < np.inf:
                self._refuse(f"{part}.weight", "weights that are negative or no finite number")
            if times is not None:
                later = (times[at][1:] >= times[at][:-1]) | (users[1:] != users[:-1])
                if not later.all():
                    self._refuse(f"{part}.time_s", "times that do not rise for a user")
        users, items, weights = (arrays[name] for name in _EVENTS)
        return Interactions(users, items, weights, times, num_users, num_items, extra)

    def columns(self, group: str, length: int | None) -> dict[str, Column]:
        """Return columns of numbers and text, ``length`` values each; None for any number.

        Raises:
            DataError: a column is of another length, or is no text and no numbers.
        """
        arrays: Any = self.groups.get(group, {})
        for name in arrays:
            stem, _, end = name.rpartition(".")
            if end == "offsets":
                continue
            if end != "blob":
                self._column(group, name, length)
                continue
            offsets = f"{stem}.offsets"
            self._column(group, name, None, np.uint8)
            self._column(group, offsets, None if length is None else length + 1, np.int64)
            self._check_text(f"{group}.{stem}", Text(arrays[name], arrays[offsets]))
        return unflatten(arrays)

    def labels(self, *parts: str) -> dict[str, Text]:
        """Return the texts that the codes of extra columns stand for, in any of the ``parts``.

        Raises:
            DataError: as in ``columns``, or a code that stands for none of them and is not -1.
        """
        found: dict[str, Any] = self.columns("labels", None)
        for name, texts in found.items():
            if not isinstance(texts, Text):
                self._refuse(f"labels.{name}", "numbers, expected text")
            for part in parts:
                codes: Any = self.groups[part].get(f"extra.{name}", np.empty(0, np.int32))
                if codes.dtype.kind not in "iu" or (
                    len(codes) and not -1 <= codes.min() <= codes.max() < len(texts)
                ):
                    self._refuse(f"{part}.extra.{name}", f"no codes of its {len(texts):,} labels")
        return found

    def _read_head(self) -> dict[str, Any]:
        try:
            head: Any = json.loads((self.path / HEAD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            self._refuse(HEAD, str(error))
        if not isinstance(head, dict) or "format" not in head:
            self._refuse(HEAD, "it does not say its format")
        if head["format"] != FORMAT:
            raise DataError(
                f"{self.path} has dataset format {head['format']}, this version reads {FORMAT}: "
                "prepare it again from the log"
            )
        for name in ("users", "items"):
            if type(head.get(name)) is not int or head[name] < 0:
                self._refuse(HEAD, f"{name} is {head.get(name)!r}, expected how many there are")
        if not isinstance(head.get("about"), dict):
            self._refuse(HEAD, f"about is {head.get('about')!r}, expected an account of the log")
        return head

    def _read_array(self, file: Path) -> Array:
        try:
            if not file.is_file():
                raise ValueError("not a file")
            array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError("an archive, not an array")
        except Exception as error:  # whatever Python's own parser makes of a header
            self._refuse(file.name, str(error))
        return array

    def _column(self, group: str, name: str, length: int | None, kind: Any = None) -> Array:
        """Return an array of one dimension; ``kind`` None takes any numbers."""
        array = self.groups.get(group, {}).get(name)
        file = f"{group}.{name}"
        if array is None:
            self._refuse(file, "it is missing")
        right = array.dtype.kind in "biuf" if kind is None else array.dtype == kind
        if not right or array.ndim != 1 or (length is not None and len(array) != length):
            wanted = "numbers" if kind is None else np.dtype(kind).name
            many = "" if length is None else f", {length:,} of them"
            self._refuse(file, f"{array.dtype}{array.shape}, expected a column of {wanted}{many}")
        return array

    def _check_text(self, name: str, text: Text) -> None:
        if not text.is_sound():
            self._refuse(name, "offsets or bytes that are not those of a text")

    def _refuse(self, name: str, what: str) -> NoReturn:
        raise DataError(
            f"{self.path} is not a readable dataset ({name}: {what}): expected a folder that "
            "'martlet prepare' wrote; prepare it again from the log"
        )


def _rising(values: Any) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def _within(rows: Any, size: int) -> bool:
    return bool(0 <= rows.min() <= rows.max() < size)
