"""A bundle as a folder: which array goes to which file, and the checks on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.core import CSR, Array, BundleError, SpecError, Text, Vocabulary, flatten, unflatten
from martlet.scorers.registry import save_files, scorer_from
from martlet.scorers.storage import MANIFEST, read_manifest, read_tensors, write_manifest
from martlet.scorers.storage import write_tensors as write
from martlet.scorers.table import Table, check_csr

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

_USER_TABLE = "user_table.safetensors"  # only where there are columns of users
PROOF = (MANIFEST, "tables.safetensors")  # a folder with these is a bundle


def write_bundle(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """Write every file of ``bundle`` into ``folder`` and return the manifest."""
    scorer, tables, histories = bundle.scorer, bundle.scorer.tables(), bundle.histories
    write(
        folder / "tables.safetensors",
        {f"{name}/{key}": a for name, table in tables.items() for key, a in table.arrays.items()},
    )
    write(folder / "users.safetensors", bundle.users.arrays())
    write(folder / "items.safetensors", {**bundle.items.arrays(), "popularity": bundle.popularity})
    events: dict[str, Array] = {"indptr": histories.indptr, "indices": histories.indices}
    if histories.values is not None:
        events["values"] = histories.values
    if bundle.history_time_s is not None:
        events["time_s"] = bundle.history_time_s
    write(folder / "histories.safetensors", events)
    write(folder / "catalogue.safetensors", flatten(bundle.catalogue))
    if bundle.user_table:
        write(folder / _USER_TABLE, flatten(bundle.user_table))
    save_files(scorer, folder)
    about = {
        "scorer": {"kind": scorer.kind, "config": scorer.config()},
        "tables": {name: [table.storage, *table.shape] for name, table in tables.items()},
        "lineage": list(bundle.lineage),
    }
    return write_manifest(folder, about)


def read_bundle(folder: Path, *, verify: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the fields of the bundle saved in ``folder``.

    Raises:
        BundleError: as in ``Bundle.load``.
    """
    manifest = read_manifest(folder, verify=verify)
    groups = {
        name: read_tensors(folder / f"{name}.safetensors")
        for name in ("tables", "users", "items", "histories", "catalogue")
    }
    known = _USER_TABLE in manifest["files"]
    groups["user_table"] = read_tensors(folder / _USER_TABLE) if known else {}
    try:
        users, items = (_vocabulary(folder, name, groups[name]) for name in ("users", "items"))
        events: dict[str, Any] = groups["histories"]
        histories = CSR(events["indptr"], events["indices"], events.get("values"), len(items))
        parts = {
            "users": users,
            "items": items,
            "histories": histories,
            "popularity": groups["items"]["popularity"],
            "history_time_s": events.get("time_s"),
            "catalogue": unflatten(groups["catalogue"]),
            "user_table": unflatten(groups["user_table"]),
            "lineage": tuple(manifest["lineage"]),
        }
        tables = _tables(manifest["tables"], groups["tables"], verify)
        scorer = manifest["scorer"]
        parts["scorer"] = scorer_from(scorer["kind"], scorer["config"], tables, folder)
        _check_shapes(folder, parts)
        if verify:
            _check_rows(folder, parts)
    except (LookupError, TypeError, ValueError, AttributeError, OSError, SpecError) as error:
        raise BundleError(
            f"{folder / MANIFEST} and the files beside it do not agree ({error!r}): "
            "copy the bundle again from where it was made"
        ) from error
    return manifest, parts


def _tables(about: Mapping[str, Any], arrays: Mapping[str, Array], verify: bool) -> Any:
    tables = {}
    for key in arrays:
        if key.rpartition("/")[0] not in about:
            raise BundleError(
                f"tables.safetensors holds the array {key!r} of no table: no bundle does"
            )
    for name, (storage, n, d) in about.items():
        own = {k.rpartition("/")[2]: a for k, a in arrays.items() if k.rpartition("/")[0] == name}
        tables[name] = Table(storage, (n, d), own)
        tables[name].check(name, entries=verify)
    return tables


def _vocabulary(folder: Path, name: str, arrays: Mapping[str, Array]) -> Vocabulary:
    vocabulary = Vocabulary.from_arrays(arrays)
    n = len(vocabulary)
    for array, dtype in ((vocabulary.sorted_hash, np.uint64), (vocabulary.sorted_row, np.int32)):
        if array.dtype != dtype or array.shape != (n,):
            raise BundleError(
                f"{folder / name}.safetensors has a lookup of {array.dtype}{array.shape}, "
                f"expected {np.dtype(dtype)}({n},)"
            )
    return vocabulary


def _columns(parts: Mapping[str, Any]) -> list[tuple[str, Any, int]]:
    """Return (what it is called, column, values expected) of every column of items and users."""
    owners = {"catalogue": parts["items"], "user_table": parts["users"]}
    return [
        (f"{group} column {name!r}", column, len(of))
        for group, of in owners.items()
        for name, column in parts[group].items()
    ]


def _check_shapes(folder: Path, parts: Mapping[str, Any]) -> None:
    """Check dtypes and lengths: what costs nothing whatever the size."""
    num_users, num_items = len(parts["users"]), len(parts["items"])
    events, scorer = parts["histories"], parts["scorer"]
    expected = {
        "popularity": (parts["popularity"], np.float32, num_items),
        "history offsets": (events.indptr, np.int64, num_users + 1),
        "history items": (events.indices, np.int32, events.nnz),
        "history weights": (events.values, np.float32, events.nnz),
        "history times": (parts["history_time_s"], np.int64, events.nnz),
    }
    for name, values, size in _columns(parts):
        text = isinstance(values, Text)
        array = values.offsets if text else values
        kind = np.int64 if text else array.dtype
        expected[name] = (array, kind, size + text)
    for name, (array, dtype, length) in expected.items():
        if array is not None and (array.dtype != dtype or array.shape != (length,)):
            raise BundleError(
                f"{folder}: {name} are {array.dtype}{array.shape}, expected "
                f"{np.dtype(dtype)}({length},)"
            )
    if scorer.num_items != num_items:
        raise BundleError(
            f"{folder}: the scorer ranks {scorer.num_items} items, the vocabulary has {num_items}"
        )


def _check_rows(folder: Path, parts: Mapping[str, Any]) -> None:
    """Check every offset and row number."""
    events = parts["histories"]
    check_csr(f"{folder / 'histories.safetensors'}", events.indptr, events.indices, events.num_cols)
    texts = {name: column for name, column, _ in _columns(parts)}
    for name in ("users", "items"):
        vocabulary = parts[name]
        texts[name] = vocabulary.ids
        rows = vocabulary.sorted_row
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(rows):
            raise BundleError(f"{folder / name}.safetensors has rows out of range")
    for name, column in texts.items():
        if isinstance(column, Text) and not column.is_sound():
            raise BundleError(f"{folder}: the text of {name} has offsets or bytes that do not fit")
