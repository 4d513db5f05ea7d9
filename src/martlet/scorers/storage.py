"""Arrays and manifests on disk, read as if an enemy had written them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from martlet.core import Array, BundleError, sha256

FORMAT = 1
MANIFEST = "manifest.json"
UNCOVERED = frozenset({MANIFEST, "receipts.jsonl"})
_MAX_MANIFEST_BYTES = 16 << 20
_MAX_HEADER_BYTES = 16 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_DTYPES = {
    "BOOL": "?",
    "U8": "<u1",
    "I8": "<i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}


def write_tensors(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name as one safetensors file; the same arrays give the same bytes.

    Raises:
        OSError: the disk refused the write.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except SafetensorError as error:  # a full disk too, and it is no OSError
        raise OSError(f"{path.name}: {error}") from error


def read_tensors(path: Path) -> dict[str, Array]:
    """Return the arrays of a safetensors file, memory-mapped; only the header is read.

    The mapping is private: what a process writes there never reaches the file or its neighbours.

    Raises:
        BundleError: the header does not describe exactly the bytes that follow it.
    """
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        layout = sorted(
            (*_extent(name, entry), name)
            for name, entry in header.items()
            if name != "__metadata__"
        )
        end = 0
        for start, stop, *_, name in layout:
            if start != end:
                raise ValueError(f"{name!r} starts at byte {start}, not {end}")
            end = stop
        if end != size - 8 - length:
            raise ValueError(f"{end} bytes are described, {size - 8 - length} are there")
        # Copy-on-write rather than read-only, which Numba would compile every kernel anew for.
        raw = np.asarray(np.memmap(path, np.uint8, mode="c", offset=0))[8 + length :]
        return {
            name: raw[start:stop].view(dtype).reshape(shape)
            for start, stop, dtype, shape, name in layout
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged ({error}): expected a safetensors file as a bundle holds; "
            "copy the bundle again from where it was made"
        ) from error


def _extent(name: str, entry: Mapping[str, Any]) -> tuple[int, int, str, tuple[int, ...]]:
    """Return (start, stop, dtype, shape) of one header entry, checked against each other."""
    dtype = _DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    whole = (*shape, start, stop)
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in whole):
        raise ValueError(f"{name!r} has shape {shape} at {start}:{stop}")
    width = np.dtype(dtype).itemsize
    if stop - start != math.prod(shape) * width or len(shape) > 8:
        raise ValueError(f"{name!r} of shape {shape} does not fill bytes {start} to {stop}")
    return start, stop, dtype, shape


def write_manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``manifest.json`` over every file of ``folder`` and return its content.

    The content is ``about`` with the format, each file's size and SHA-256, and the bundle's id:
    the SHA-256 of all that.

    Raises:
        BundleError: ``about`` is not plain JSON.
    """
    names = sorted(_names(folder) - UNCOVERED)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
    }
    try:
        plain = json.loads(_canonical(about))
    except (TypeError, ValueError) as error:
        raise BundleError(f"the lineage or configuration is not plain JSON: {error}") from error
    manifest = {**plain, "format": FORMAT, "files": files}
    manifest["id"] = hashlib.sha256(_canonical(manifest)).hexdigest()
    (folder / MANIFEST).write_bytes(_canonical(manifest))
    return manifest


def read_manifest(folder: Path, *, verify: bool) -> dict[str, Any]:
    """Return the checked content of ``folder``'s manifest; with ``verify`` every file is hashed.

    Raises:
        BundleError: no bundle is there, it is of another format, or a file is damaged, missing, a
            link, of another size or not of the bundle; the file is named.
    """
    path = folder / MANIFEST
    _refuse_link(path)
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError(f"it is larger than {_MAX_MANIFEST_BYTES} bytes")
        raw = path.read_bytes()
        manifest: dict[str, Any] = json.loads(raw)
        given = manifest.pop("id")
        if manifest["format"] != FORMAT:
            raise BundleError(
                f"{path} has format {manifest['format']!r}, this version reads {FORMAT}: "
                "load the bundle with the version that wrote it"
            )
        if hashlib.sha256(_canonical(manifest)).hexdigest() != given:
            raise ValueError("its content does not match its id")
        manifest["id"] = given
        if _canonical(manifest) != raw:
            raise ValueError("it is not written as a bundle writes it")
        files = {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder} holds no {MANIFEST}: expected a folder that a bundle was saved in"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged ({error}): copy the bundle again from where it was made"
        ) from error
    _check_files(folder, files, verify)
    return manifest


def _check_files(folder: Path, files: Mapping[str, tuple[int, str]], verify: bool) -> None:
    for name, (size, digest) in files.items():
        path = folder / name
        if not _NAME.fullmatch(name) or name in UNCOVERED:
            raise BundleError(f"{folder / MANIFEST} names the file {name!r}: no bundle does")
        _refuse_link(path)
        if not path.is_file():
            raise BundleError(f"{path} is missing: copy the bundle again from where it was made")
        if path.stat().st_size != size or (verify and sha256(path) != digest):
            raise BundleError(
                f"{path} is damaged (its size or SHA-256 is not the manifest's): "
                "copy the bundle again from where it was made"
            )
    for name in sorted(_names(folder) - UNCOVERED - files.keys()):
        raise BundleError(f"{folder / name} does not belong to the bundle: remove it")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise BundleError(
            f"{path} is a link, which no file of a bundle may be: put the file itself there"
        )


def _names(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
