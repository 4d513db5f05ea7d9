"""The folder of a labelled table: columns by number, their names in the head, a hash of each file.

Names of columns are the log's own and may hold anything, so no file is called by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.core.columns import Array, Column, Text, check_numbers
from martlet.core.errors import DataError
from martlet.core.files import sha256
from martlet.core.stored import EXAMPLES_HEAD as HEAD
from martlet.core.stored import Shelf

if TYPE_CHECKING:
    from martlet.core.examples import Examples

FORMAT = 1
PROOF = (HEAD, "train.label.npy")  # a folder with these is a labelled table
_KINDS = ("number", "text")
_ROWS = {"weight": np.float32, "time_s": np.int64}  # what a part may have beside its labels


def write_parts(folder: Path, parts: Mapping[str, Examples], about: Mapping[str, Any]) -> None:
    """Write every part and the head.

    Raises:
        DataError: parts that do not have the same columns, or a column of neither text nor numbers.
    """
    kinds = kinds_of(parts["train"])
    for name, part in parts.items():
        if kinds_of(part) != kinds:
            raise DataError(
                f"part {name!r} has the columns {kinds_of(part)}, and train has {kinds}: "
                "expected the same names and kinds in every part"
            )
        arrays: dict[str, Array] = {"label": part.label.astype(np.float32, copy=False)}
        for row, kind in _ROWS.items():
            given = getattr(part, row)
            if given is not None:
                arrays[row] = given.astype(kind, copy=False)
        for number, column in enumerate(part.columns.values()):
            if isinstance(column, Text):
                arrays[f"{number}.blob"], arrays[f"{number}.offsets"] = column.blob, column.offsets
            else:
                arrays[str(number)] = column
        for key, array in arrays.items():
            np.save(folder / f"{name}.{key}.npy", array, allow_pickle=False)
    files = {file.name: sha256(file) for file in sorted(folder.glob("*.npy"))}
    head = {
        "format": FORMAT,
        "columns": [{"name": name, "kind": kind} for name, kind in kinds.items()],
        "files": files,
        "about": dict(about),
    }
    (folder / HEAD).write_text(json.dumps(head, indent=1), encoding="utf-8")


def kinds_of(part: Examples) -> dict[str, str]:
    """Return "text" or "number" by column, in order.

    Raises:
        DataError: a column of neither.
    """
    for name, column in part.columns.items():
        if not isinstance(column, Text):
            check_numbers(f"column {name!r}", column)
    return {name: _KINDS[isinstance(column, Text)] for name, column in part.columns.items()}


class ExamplesFolder(Shelf):
    """Parts of labelled rows; each is checked when it is asked for.

    Attributes:
        kinds: "number" or "text" by column name, in order.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder and compare every file with its hash. O(bytes).

        Raises:
            DataError: it is no labelled table, of another format, or a file is missing or changed.
        """
        super().__init__(path, HEAD, "labelled table", FORMAT)
        if "about" not in self.head:
            self.refuse(HEAD, "about is None, expected an account of the log")
        self.kinds = self._read_kinds()
        files = self.head.get("files")
        if not isinstance(files, dict):
            self.refuse(HEAD, f"files is {files!r}, expected a hash of each")
        found = {file.name for file in path.glob("*.npy")}
        for name in sorted(found.symmetric_difference(files)):
            self.refuse(name, "it is missing" if name in files else "no file that was written")
        for name in sorted(found):
            if sha256(path / name) != files[name]:
                self.refuse(name, "its bytes are not those that were written")

    def parts(self, *names: str) -> list[dict[str, Any]]:
        """Return what ``Examples`` takes, of each part. One pass over the columns.

        Raises:
            DataError: a column is missing, of another type or length, a label is no number, a
                weight is negative or no finite number, or only some parts have weights or times.
        """
        found = [self._part(name) for name in names]
        for row in _ROWS:
            having = [name for name, part in zip(names, found, strict=True) if row in part]
            if len(having) not in (0, len(names)):
                other = next(name for name in names if name not in having)
                self.refuse(f"{other}.{row}", f"it is missing, and {having[0]} has one")
        return found

    def _part(self, name: str) -> dict[str, Any]:
        label: Any = self.column(name, "label", None, np.float32)
        if not np.isfinite(label).all():
            self.refuse(f"{name}.label", "labels that are no finite number")
        columns: dict[str, Column] = {
            column: self.text(name, str(number), len(label))
            if kind == "text"
            else self.column(name, str(number), len(label))
            for number, (column, kind) in enumerate(self.kinds.items())
        }
        part: dict[str, Any] = {"columns": columns, "label": label}
        for row, kind in _ROWS.items():
            if row in self.groups[name]:
                part[row] = self.column(name, row, len(label), kind)
        weight = part.get("weight")
        if weight is not None and len(weight) and not 0 <= weight.min() <= weight.max() < np.inf:
            self.refuse(f"{name}.weight", "weights that are negative or no finite number")
        return part

    def _read_kinds(self) -> dict[str, str]:
        listed: Any = self.head.get("columns")
        kinds: dict[str, str] = {}
        for one in listed if isinstance(listed, list) else [listed]:
            name: Any = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or one.get("kind") not in _KINDS or name in kinds:
                self.refuse(HEAD, f"columns has {one!r}, expected a name, once, and its kind")
            kinds[name] = one["kind"]
        return kinds
