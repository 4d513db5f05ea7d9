"""From a trained network to the bytes of an ONNX file that needs no torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_OPSET = 18


def to_onnx(network: nn.Module, dim: int, max_length: int) -> bytes:
    """Return the ONNX file of a network from x (B, L, dim) and lengths (B,) to (B, d)."""
    x, lengths = torch.zeros(2, min(3, max_length), dim), torch.ones(2, dtype=torch.int64)
    return onnx_of(network, {"x": x, "lengths": lengths}, "vector", {"x": {1: "length"}})


def onnx_of(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str,
    free: Mapping[str, Mapping[int, str]] | None = None,
) -> bytes:
    """Return the ONNX file of a network.

    Args:
        network: takes the inputs in their order.
        inputs: an example of each by name; its first axis, the batch, may have any length.
        output: name of what it returns.
        free: further axes of any length, of each input.
    """
    axes = {name: {0: "batch", **(free or {}).get(name, {})} for name in inputs}
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            written,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    return written.getvalue()
