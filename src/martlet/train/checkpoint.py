"""The state of a run in one file: safetensors with JSON in its header, written whole or not."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from martlet.core import DataError, new_file

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

_FORMAT = "2"
_UNKNOWN = "00000000"  # in the place of the checksum while it is taken
_PIECE = 1 << 20


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write named tensors and plain JSON.

    Tensors go to the disk from where they lie: the library's own writer copies all of them first,
    and a table may fill the memory. The header has the CRC-32 of all else.

    Raises:
        OutputError: the disk refused the write; the checkpoint before is still there.
    """
    about = {"crc32": _UNKNOWN, "format": _FORMAT, "state": json.dumps(dict(state))}
    header: dict[str, Any] = {"__metadata__": about}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with new_file(path) as target, open(target, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        crc = zlib.crc32(head)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            data = flat.view(torch.uint8).numpy().data
            file.write(data)
            crc = zlib.crc32(data, crc)
        file.seek(8 + head.index(_UNKNOWN.encode()))
        file.write(f"{crc:08x}".encode())


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what ``save`` wrote.

    Raises:
        DataError: the file is damaged, or of another version.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") == _FORMAT:
                _check(path, about["crc32"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, json.loads(about["state"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is no readable checkpoint ({error}): expected one that a run wrote; "
            "remove it to train from the start"
        ) from error
    raise DataError(
        f"{path} is a checkpoint of format {about.get('format', 'unknown')}: expected {_FORMAT}, "
        "that of this version; resume with the version that wrote it, or remove it to train from "
        "the start"
    )


def _check(path: Path, told: str) -> None:
    """Refuse a file whose bytes are not those that were written."""
    with open(path, "rb") as file:
        head = file.read(int.from_bytes(file.read(8), "little"))
        crc = zlib.crc32(head.replace(told.encode(), _UNKNOWN.encode(), 1))
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    if f"{crc:08x}" != told:
        raise ValueError(f"its checksum is {crc:08x}, not the {told} that it was written with")


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the moments of an optimizer by name."""
    return {
        f"{number}.{key}": torch.as_tensor(value)
        for number, held in optimizer.state_dict()["state"].items()
        for key, value in held.items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer over the same parameters its moments back."""
    held: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        held.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
