"""Small ONNX networks, built node by node."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def _model(nodes, inputs, outputs, weights):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, **kwargs) for op, ins, outs, kwargs in nodes],
        "toy",
        [value(*one) for one in inputs],
        [value(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def mean_encoder(weight):
    """Mean of the first ``lengths`` vectors of x, times (d_in, d) ``weight``."""
    nodes = [
        ("Shape", ["x"], ["steps"], {"start": 1, "end": 2}),
        ("Squeeze", ["steps"], ["num_steps"], {}),
        ("Range", ["zero", "num_steps", "one"], ["step"], {}),
        ("Unsqueeze", ["lengths", "last"], ["length"], {}),
        ("Less", ["step", "length"], ["inside"], {}),
        ("Cast", ["inside"], ["mask"], {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["mask", "last"], ["wide"], {}),
        ("Mul", ["x", "wide"], ["kept"], {}),
        ("ReduceSum", ["kept", "axis"], ["sum"], {"keepdims": 0}),
        ("Cast", ["length"], ["count"], {"to": TensorProto.FLOAT}),
        ("Div", ["sum", "count"], ["mean"], {}),
        ("MatMul", ["mean", "weight"], ["vector"], {}),
    ]
    whole = {"zero": 0, "one": 1, "last": [-1], "axis": [1]}
    weights = {name: np.array(value, np.int64) for name, value in whole.items()}
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    return _model(
        nodes,
        [("x", f32, ["B", "L", weight.shape[0]]), ("lengths", i64, ["B"])],
        [("vector", f32, ["B", weight.shape[1]])],
        weights | {"weight": weight},
    )


def side_encoder(weight, beside):
    """Sum of the vectors of x, times (d_in, d) ``weight``, and side times (width, d) ``beside``.

    ``lengths`` is taken and of no effect: vectors beyond a history are zeros.
    """
    nodes = [
        ("ReduceSum", ["x", "axis"], ["sum"], {"keepdims": 0}),
        ("Cast", ["lengths"], ["count"], {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["count", "axis"], ["counts"], {}),
        ("Mul", ["counts", "nought"], ["nothing"], {}),
        ("MatMul", ["sum", "weight"], ["of_x"], {}),
        ("MatMul", ["side", "beside"], ["of_side"], {}),
        ("Add", ["of_x", "of_side"], ["both"], {}),
        ("Add", ["both", "nothing"], ["vector"], {}),
    ]
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    whole = {"axis": np.array([1], np.int64), "nought": np.zeros(1, np.float32)}
    return _model(
        nodes,
        [
            ("x", f32, ["B", "L", weight.shape[0]]),
            ("lengths", i64, ["B"]),
            ("side", f32, ["B", beside.shape[0]]),
        ],
        [("vector", f32, ["B", weight.shape[1]])],
        whole | {"weight": weight, "beside": beside},
    )


def pair_ranker(hidden, out):
    """relu([user, item] @ hidden) @ out: logits (N, 1)."""
    nodes = [
        ("Concat", ["user", "item"], ["pair"], {"axis": 1}),
        ("MatMul", ["pair", "hidden"], ["inner"], {}),
        ("Relu", ["inner"], ["active"], {}),
        ("MatMul", ["active", "out"], ["logit"], {}),
    ]
    f32 = TensorProto.FLOAT
    return _model(
        nodes,
        [("user", f32, ["N", "U"]), ("item", f32, ["N", "I"])],
        [("logit", f32, ["N", 1])],
        {"hidden": hidden, "out": out},
    )


def field_network(weight):
    """Vectors (N, K, d), flattened, and numbers (N, M), times (K d + M,) weights: logits (N,)."""
    nodes = [
        ("Flatten", ["vectors"], ["flat"], {"axis": 1}),
        ("Concat", ["flat", "numbers"], ["all"], {"axis": 1}),
        ("MatMul", ["all", "weight"], ["logit"], {}),
    ]
    f32 = TensorProto.FLOAT
    return _model(
        nodes,
        [("vectors", f32, ["N", "K", "D"]), ("numbers", f32, ["N", "M"])],
        [("logit", f32, ["N"])],
        {"weight": weight},
    )
