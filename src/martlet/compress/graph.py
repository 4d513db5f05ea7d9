"""Edits of an ONNX network: a product before an input or behind the output, layers cut in two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError

F32 = NDArray[np.float32]


def product_before(model: bytes, name: str, matrix: F32) -> bytes:
    """Return the network whose input ``name`` (..., r) is multiplied by (r, d) ``matrix`` first.

    Raises:
        SpecError: the package ``onnx`` is missing, or there is no such input.
    """
    net = _opened(model)
    graph = net.graph
    given = next((one for one in graph.input if one.name == name), None)
    if given is None:
        found = ", ".join(one.name for one in graph.input)
        raise SpecError(f"the network has no input {name!r}: it takes {found}")
    given.type.tensor_type.shape.dim[-1].dim_value = len(matrix)
    readers = [node for node in _nodes(graph) if name in node.input]
    weight = _alone(graph, readers[0]) if len(readers) == 1 else None
    if weight is not None and readers[0].input[0] == name:
        _store(graph, weight, matrix @ _array(graph, weight))
    else:
        inner, factor = _fresh(graph, f"{name}_wide"), _fresh(graph, f"{name}_up")
        _rename(graph, name, inner)
        _store(graph, factor, matrix)
        graph.node.insert(0, _onnx().helper.make_node("MatMul", [name, factor], [inner]))
    return net.SerializeToString()  # type: ignore[no-any-return]


def product_behind(model: bytes, matrix: F32) -> bytes:
    """Return the network whose first output (B, d) is multiplied by (d, r) ``matrix`` last.

    Raises:
        SpecError: the package ``onnx`` is missing.
    """
    net = _opened(model)
    graph = net.graph
    given = graph.output[0]
    dims = given.type.tensor_type.shape.dim
    if dims:
        dims[-1].dim_value = matrix.shape[1]
    maker = next(node for node in graph.node if given.name in node.output)
    read = any(given.name in node.input for node in _nodes(graph))
    weight = None if read else _alone(graph, maker)
    if weight is not None:
        _store(graph, weight, _array(graph, weight) @ matrix)
    else:
        inner, factor = _fresh(graph, "vector_wide"), _fresh(graph, "vector_down")
        _rename(graph, given.name, inner)
        _store(graph, factor, matrix)
        graph.node.append(_onnx().helper.make_node("MatMul", [inner, factor], [given.name]))
    return net.SerializeToString()  # type: ignore[no-any-return]


def layers(model: bytes) -> dict[str, F32]:
    """Return the (in, out) weights of the products with a stored matrix, by its name in the file.

    Raises:
        SpecError: the package ``onnx`` is missing.
    """
    graph = _opened(model).graph
    return {name: _array(graph, name, node) for name, node in _products(graph)}


def split_layers(model: bytes, parts: Mapping[str, tuple[F32, F32]]) -> bytes:
    """Return the network with the weights of some layers as a product of two.

    Args:
        model: the ONNX file's content.
        parts: (in, r) and (r, out) by the names that ``layers`` gives.

    Raises:
        SpecError: the package ``onnx`` is missing.
    """
    net = _opened(model)
    graph = net.graph
    for name, node in _products(graph):
        if name not in parts:
            continue
        one, other = parts[name]
        inner, first = _fresh(graph, f"{name}_inner"), _fresh(graph, f"{name}_first")
        at = next(i for i, found in enumerate(graph.node) if found is node or found == node)
        graph.node.insert(at, _onnx().helper.make_node("MatMul", [node.input[0], first], [inner]))
        graph.node[at + 1].input[0] = inner
        _store(graph, first, one)
        turned = _transposed(graph.node[at + 1])
        _store(graph, name, other.T if turned else other)
    return net.SerializeToString()  # type: ignore[no-any-return]


def _onnx() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise SpecError(
            "editing a network needs the package onnx: pip install martlet[compress]"
        ) from error
    return onnx


def _opened(model: bytes) -> Any:
    onnx = _onnx()
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:  # of protobuf, which has several parents
        raise SpecError(f"the network is no ONNX file: {error}") from error


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield every node, those inside branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + [*attribute.graphs]:
                yield from _nodes(inner)


def _products(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield (weight's name, node) of each product with a stored matrix that nothing else reads."""
    for node in list(graph.node):
        if node.op_type in ("MatMul", "Gemm") and _is_plain(node):
            name = node.input[1]
            stored = next((one for one in graph.initializer if one.name == name), None)
            if stored is not None and len(stored.dims) == 2 and _readers(graph, name) == 1:
                yield name, node


def _is_plain(node: Any) -> bool:
    """Whether a node multiplies by its weights, perhaps transposed, and by nothing besides."""
    said = {one.name: one.i if one.name.startswith("trans") else one.f for one in node.attribute}
    return said.get("alpha", 1) == 1 and not said.get("transA", 0)


def _transposed(node: Any) -> bool:
    return any(one.name == "transB" and one.i for one in node.attribute)


def _alone(graph: Any, node: Any) -> str | None:
    """Return the name of the weights of a product that another product can be merged into."""
    if node.op_type != "MatMul":
        return None
    return next((name for name, found in _products(graph) if found == node), None)


def _readers(graph: Any, name: str) -> int:
    return sum(list(node.input).count(name) for node in _nodes(graph))


def _array(graph: Any, name: str, node: Any = None) -> F32:
    stored = next(one for one in graph.initializer if one.name == name)
    array = np.asarray(_onnx().numpy_helper.to_array(stored), np.float32)
    return array.T if node is not None and _transposed(node) else array


def _store(graph: Any, name: str, array: Any) -> None:
    """Put an array under ``name`` in the file, in the place of one that has it."""
    dense = np.ascontiguousarray(array, np.float32)
    made = _onnx().numpy_helper.from_array(dense, name)
    for one in graph.initializer:
        if one.name == name:
            one.CopyFrom(made)
            return
    graph.initializer.append(made)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in _nodes(graph):
        for side in (node.input, node.output):
            for at, name in enumerate(side):
                if name == old:
                    side[at] = new


def _fresh(graph: Any, name: str) -> str:
    """Return ``name``, with a number where the file uses it already."""
    used = {one.name for part in (graph.input, graph.output, graph.initializer) for one in part}
    used |= {other for node in _nodes(graph) for other in (*node.input, *node.output)}
    if name not in used:
        return name
    return next(
        f"{name}{number}" for number in range(2, len(used) + 3) if f"{name}{number}" not in used
    )
