"""From a trained network to the bytes of an ONNX file that needs no torch."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

_OPSET = 18


def to_onnx(network: nn.Module, dim: int, max_length: int) -> bytes:
    """Return the ONNX file of a network from x (B, L, dim) and lengths (B,) to (B, d)."""
    x, lengths = torch.zeros(2, min(3, max_length), dim), torch.ones(2, dtype=torch.int64)
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (x, lengths),
            written,  # type: ignore[arg-type]
            input_names=["x", "lengths"],
            output_names=["vector"],
            dynamic_axes={"x": {0: "batch", 1: "length"}, "lengths": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    return written.getvalue()
