"""The products of a network in int8: fewer bytes, and less to compute."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.compress.layers import NETWORKS
from martlet.core import SpecError
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_MIDDLE = 128  # of the codes, where 0 stands in a row that is quantized as it comes
_SMALLEST = np.float32(1e-30)  # of a row's largest number, so that nothing is divided by 0


class _Weights(NamedTuple):
    """A stored matrix as the network multiplies by it: ``scale * (codes - zero)``, (in, out)."""

    codes: NDArray[np.uint8]
    scale: F32
    zero: int

    def dense(self) -> F32:
        return (self.codes.astype(np.float32) - self.zero) * self.scale

    def table(self, turned: bool) -> Table:
        """Return the same numbers as a table, which keeps signed codes and what is added."""
        codes = self.codes.T if turned else self.codes
        signed = np.ascontiguousarray(codes.astype(np.int16) - _MIDDLE, np.int8)
        zero = np.full(1, self.scale * np.float32(_MIDDLE - self.zero), np.float32)
        arrays: dict[str, Any] = {"values": signed, "scale": self.scale.reshape(1), "zero": zero}
        return Table("int8-table-affine", (signed.shape[0], signed.shape[1]), arrays)


def quantize_network(label: str, bundle: Bundle) -> Bundle:
    """Return the bundle over a network whose products with stored weights are taken in int8.

    Weights have unsigned codes, a scale a matrix: signed ones overflow where 16 bits hold the sum
    of two products. What they are multiplied by is quantized as it comes: for an encoder, which
    sees one query at a time, with a scale for all of it; else a scale a row, so that examples of a
    tile do not touch each other's digits. The parameters become the same codes.

    Raises:
        SpecError: there is no network, it is in int8 already, it would take more bytes, or the
            package ``onnx`` is missing.
    """
    scorer: Any = bundle.scorer
    parts = {"": scorer}
    if isinstance(scorer, Cascade):
        parts = {"retrieve": scorer.retrieve, "rank": scorer.rank}
    found: dict[str, Any] = {}
    told: dict[str, str] = {}
    for name, part in parts.items():
        held = next((one for one in NETWORKS if hasattr(part, one)), None)
        if held is not None:
            found[name], layers = _quantized(label, part, held)
            told |= {f"{name}.{layer}".lstrip("."): "int8" for layer in layers}
    if not found:
        raise SpecError(f"{label} over a {scorer.kind} scorer: it has no network")
    made = found[""] if "" in found else replace(scorer, **found)
    return bundle.then(made, {"transform": label, "tables": told})


def _quantized(label: str, scorer: Any, held: str) -> tuple[Any, list[str]]:
    """Return the scorer over a network in int8, and the names of its parameters that are."""
    model: bytes = getattr(scorer, held)
    if b"MatMulInteger" in model:
        raise SpecError(f"{label} over a {scorer.kind} scorer: its network is in int8 already")
    small = _in_int8(label, model, by_row=held == "network")
    parameters, changed = dict(scorer.parameters), []
    for weights in _stored(small):
        for name, table in scorer.parameters.items():
            turned = _turned(table, weights)
            if turned is not None:
                parameters[name] = weights.table(turned)
                changed.append(name)
    if len(small) >= len(model):
        raise SpecError(
            f"{label} would take {len(small):,} bytes for the network of a {scorer.kind} scorer in "
            f"place of {len(model):,}: leave it out"
        )
    return replace(scorer, **{held: small, "parameters": parameters}), changed


def _turned(table: Table, weights: _Weights) -> bool | None:
    """Whether a parameter is the weights as torch keeps them, (out, in); None: it is another.

    Rounding leaves a number off by half a step, and a step where the range was stretched to 0.
    """
    near = weights.dense()
    for turned in (True, False):
        other = near.T if turned else near
        if table.shape == other.shape and np.abs(table.dense() - other).max() <= weights.scale:
            return turned
    return None


def _in_int8(label: str, model: bytes, by_row: bool) -> bytes:
    """Return the network with its products by stored matrices in int8."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise SpecError(
            f"{label} rewrites the network with the package onnx, which is not installed: "
            "pip install martlet[compress]"
        ) from error
    with tempfile.TemporaryDirectory(prefix="martlet-") as folder, _silence():
        written = Path(folder) / "int8.onnx"
        quantize_dynamic(
            onnx.load_model_from_string(model), written,
            weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"],
        )  # fmt: skip
        small = written.read_bytes()
    return _by_row(small) if by_row else small


def _by_row(model: bytes) -> bytes:
    """Return the network with a scale a row where all rows had one."""
    import onnx

    net = onnx.load_model_from_string(model)
    graph = net.graph
    opset = next(one.version for one in net.opset_import if one.domain in ("", "ai.onnx"))
    nodes = list[Any]()
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            made, held = _codes_by_row(node, opset)
            nodes += made
            graph.initializer.extend(held)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return net.SerializeToString()  # type: ignore[no-any-return]


def _codes_by_row(node: Any, opset: int) -> tuple[list[Any], list[Any]]:
    """Return the nodes, and what they read, that give a node's outputs with a scale a row.

    A row's code is ``round(x / scale) + 128``, its scale the largest magnitude over 127.
    """
    from onnx import TensorProto, helper, numpy_helper

    (given,), (codes, scale, zero) = node.input, node.output

    def at(name: str) -> str:
        return f"{codes}_{name}"

    held: dict[str, Any] = {
        at("least"): np.array(_SMALLEST),
        at("steps"): np.array(_MIDDLE - 1, np.float32),
        at("middle"): np.array(_MIDDLE, np.float32),
        zero: np.array(_MIDDLE, np.uint8),
    }
    axes: dict[str, Any] = {"axes": [-1]}
    reduced = [at("size")]
    if opset >= 18:  # which takes the axis as an input
        held[at("axis")], axes = np.array([-1], np.int64), {}
        reduced.append(at("axis"))
    make = helper.make_node
    nodes = [
        make("Abs", [given], [at("size")]),
        make("ReduceMax", reduced, [at("most")], **axes),
        make("Max", [at("most"), at("least")], [at("above")]),
        make("Div", [at("above"), at("steps")], [scale]),
        make("Div", [given, scale], [at("wide")]),
        make("Round", [at("wide")], [at("whole")]),
        make("Add", [at("whole"), at("middle")], [at("moved")]),
        make("Cast", [at("moved")], [codes], to=TensorProto.UINT8),
    ]
    return nodes, [numpy_helper.from_array(array, name) for name, array in held.items()]


def _stored(model: bytes) -> Iterator[_Weights]:
    """Yield the matrices that a network in int8 multiplies by."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load_model_from_string(model).graph
    held: Mapping[str, Any] = {one.name: to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            scale = np.asarray(held[f"{name}_scale"], np.float32).reshape(())
            zero = int(np.asarray(held[f"{name}_zero_point"]).reshape(()))
            yield _Weights(held[node.input[1]], scale, zero)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep advice on other ways of quantizing from the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
