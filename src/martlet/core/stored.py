"""A folder of ours, read as if somebody had put a hand to it: what comes out is checked."""

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
EXAMPLES_HEAD = "examples.json"
FORMAT = 1
_BLOCK = 1 << 18  # events checked at a time: what is made of them stays in the cache
_SAMPLE = 64  # ids that must find themselves
_IDS = {"ids.blob": np.uint8, "ids.offsets": np.int64}
_LOOKUP = {"sorted_hash": np.uint64, "sorted_row": np.int32}
_EVENTS = {"user_row": np.int32, "item_row": np.int32, "weight": np.float32}


def is_tabular(path: str | Path) -> bool:
    """Whether the folder holds a labelled table and no dataset."""
    place = Path(path)
    return (place / EXAMPLES_HEAD).is_file() and not (place / HEAD).exists()


class Shelf:
    """A JSON head, and memory-mapped arrays by group and name; a DataError names what is refused.

    Attributes:
        path: the folder.
        head: what the file ``head_name`` holds.
        groups: arrays, such as ``groups["train"]["user_row"]``.
    """

    def __init__(self, path: Path, head_name: str, what: str, formats: int) -> None:
        """Open the folder.

        Args:
            path: the folder.
            head_name: the file that says what the folder holds.
            what: the folder is of, in words.
            formats: the format that this version reads.

        Raises:
            DataError: it is no such folder, of another format, or a file is no array.
        """
        self.path, self._head_name, self._what = path, head_name, what
        self.head = self._read_head(formats)
        self.groups: dict[str, dict[str, Array]] = {}
        for file in sorted(path.glob("*.npy")):
            group, _, name = file.name.removesuffix(".npy").partition(".")
            self.groups.setdefault(group, {})[name] = self._read_array(file)

    def column(self, group: str, name: str, length: int | None, kind: Any = None) -> Array:
        """Return an array of one dimension; ``kind`` None takes any numbers.

        Raises:
            DataError: it is missing, or of another type or length.
        """
        array = self.groups.get(group, {}).get(name)
        file = f"{group}.{name}"
        if array is None:
            self.refuse(file, "it is missing")
        right = array.dtype.kind in "biuf" if kind is None else array.dtype == kind
        if not right or array.ndim != 1 or (length is not None and len(array) != length):
            wanted = "numbers" if kind is None else np.dtype(kind).name
            many = "" if length is None else f", {length:,} of them"
            self.refuse(file, f"{array.dtype}{array.shape}, expected a column of {wanted}{many}")
        return array

    def text(self, group: str, stem: str, length: int | None) -> Text:
        """Return a column of text, whose offsets and bytes fit each other.

        Raises:
            DataError: an array of it is missing, of another type or length, or they do not fit.
        """
        blob: Any = self.column(group, f"{stem}.blob", None, np.uint8)
        size = None if length is None else length + 1
        offsets: Any = self.column(group, f"{stem}.offsets", size, np.int64)
        found = Text(blob, offsets)
        if not found.is_sound():
            self.refuse(f"{group}.{stem}", "offsets or bytes that are not those of a text")
        return found

    def refuse(self, name: str, what: str) -> NoReturn:
        """Say what is wrong with the file ``name``.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"{self.path} is not a readable {self._what} ({name}: {what}): expected a folder that "
            "'martlet prepare' wrote; prepare it again from the log"
        )

    def _read_head(self, formats: int) -> dict[str, Any]:
        try:
            head: Any = json.loads((self.path / self._head_name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            self.refuse(self._head_name, str(error))
        if not isinstance(head, dict) or "format" not in head:
            self.refuse(self._head_name, "it does not say its format")
        if head["format"] != formats:
            raise DataError(
                f"{self.path} has {self._what} format {head['format']}, this version reads "
                f"{formats}: prepare it again from the log"
            )
        if "about" in head and not isinstance(head["about"], dict):
            self.refuse(
                self._head_name, f"about is {head['about']!r}, expected an account of the log"
            )
        return head

    def _read_array(self, file: Path) -> Array:
        try:
            if not file.is_file():
                raise ValueError("not a file")
            array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError("an archive, not an array")
        except Exception as error:  # whatever Python's own parser makes of a header
            self.refuse(file.name, str(error))
        return array


class Folder(Shelf):
    """What ``dataset.json`` says ("users", "items", which are counts, and "about"), and arrays.

    Each noun is checked when it is asked for.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder.

        Raises:
            DataError: it is no dataset, of another format, or a file is no array.
        """
        if is_tabular(path):
            raise DataError(
                f"{path} holds labelled rows, not events of users and items: 'martlet fit' with a "
                "model of fields, such as deepfm, and 'martlet measure' take it; for all else "
                "prepare a log of users and items"
            )
        super().__init__(path, HEAD, "dataset", FORMAT)
        for name in ("users", "items"):
            if type(self.head.get(name)) is not int or self.head[name] < 0:
                wrong = f"{name} is {self.head.get(name)!r}, expected how many there are"
                self.refuse(HEAD, wrong)
        if "about" not in self.head:
            self.refuse(HEAD, "about is None, expected an account of the log")

    def vocabulary(self, group: str) -> Vocabulary:
        """Return the users or the items. O(bytes of the ids).

        Raises:
            DataError: an array is missing, of another type or length, or does not fit the others.
        """
        n = int(self.head[group])
        for name, kind in _IDS.items():
            self.column(group, name, None if name == "ids.blob" else n + 1, kind)
        for name, kind in _LOOKUP.items():
            self.column(group, name, n, kind)
        arrays: Any = self.groups[group]
        found = Vocabulary.from_arrays(arrays)
        self.text(group, "ids", n)
        if not _rising(arrays["sorted_hash"]):
            self.refuse(f"{group}.sorted_hash", "hashes that do not rise")
        rows = arrays["sorted_row"]
        if n and not (_within(rows, n) and (np.bincount(rows, minlength=n) == 1).all()):
            self.refuse(f"{group}.sorted_row", f"not each row of 0 to {n - 1} once")
        some = np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int32)
        if not np.array_equal(found.rows(found.names(some)), some):
            self.refuse(f"{group}.sorted_hash", "not the hashes of the ids")
        return found

    def events(self, part: str, num_users: int, num_items: int) -> Interactions:
        """Return the events of one part. One pass over the columns.

        Raises:
            DataError: a column is missing, of another type or length, rows are out of range or out
                of order, or a weight is negative or no finite number.
        """
        arrays: Any = self.groups.get(part, {})
        n = len(self.column(part, "user_row", None, np.int32))
        for name, kind in _EVENTS.items():
            self.column(part, name, n, kind)
        extra = {
            name.removeprefix("extra."): self.column(part, name, n)
            for name in arrays
            if name.startswith("extra.")
        }
        times: Any = self.column(part, "time_s", n, np.int64) if "time_s" in arrays else None
        for start in range(0, n, _BLOCK):
            # One event more than a block, so that order is checked across blocks too.
            at = slice(start, start + _BLOCK + 1)
            users, items, weights = (arrays[name][at] for name in _EVENTS)
            if not _rising(users):
                self.refuse(f"{part}.user_row", "users that do not rise")
            for name, rows, size in (
                ("user_row", users, num_users),
                ("item_row", items, num_items),
            ):
                if not _within(rows, size):
                    self.refuse(
                        f"{part}.{name}",
                        f"rows {rows.min()} to {rows.max()}, not within 0 to {size - 1}",
                    )
            if not 0 <= weights.min() <= weights.max() < np.inf:
                self.refuse(f"{part}.weight", "weights that are negative or no finite number")
            if times is not None:
                later = (times[at][1:] >= times[at][:-1]) | (users[1:] != users[:-1])
                if not later.all():
                    self.refuse(f"{part}.time_s", "times that do not rise for a user")
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
                self.column(group, name, length)
                continue
            self.text(group, stem, length)
        return unflatten(arrays)

    def labels(self, *parts: str) -> dict[str, Text]:
        """Return the texts that the codes of extra columns stand for, in any of the ``parts``.

        Raises:
            DataError: as in ``columns``, or a code that stands for none of them and is not -1.
        """
        found: dict[str, Any] = self.columns("labels", None)
        for name, texts in found.items():
            if not isinstance(texts, Text):
                self.refuse(f"labels.{name}", "numbers, expected text")
            for part in parts:
                codes: Any = self.groups[part].get(f"extra.{name}", np.empty(0, np.int32))
                if codes.dtype.kind not in "iu" or (
                    len(codes) and not -1 <= codes.min() <= codes.max() < len(texts)
                ):
                    self.refuse(f"{part}.extra.{name}", f"no codes of its {len(texts):,} labels")
        return found


def _rising(values: Any) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def _within(rows: Any, size: int) -> bool:
    return bool(0 <= rows.min() <= rows.max() < size)
