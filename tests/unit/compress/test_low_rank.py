import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

import martlet as mt
from martlet.compress import graph
from martlet.compress.basis import columns, leading, lost_beyond
from martlet.compress.compress import compress
from martlet.compress.layers import thin
from martlet.compress.low_rank import LowRank
from martlet.core import CSR, Queries, SpecError, Text, Vocabulary, rng
from martlet.features import Category, Features
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.field_rows import Layout
from martlet.scorers.fields import Fields
from martlet.scorers.full import full_width
from martlet.scorers.item_item import ItemItem
from martlet.scorers.item_item import LowRank as Part
from martlet.scorers.network import Network
from martlet.scorers.popular import Popular
from martlet.scorers.projections import IALSFold, LinearFold, Lookup
from martlet.scorers.ranker import Ranker
from martlet.scorers.side import Side
from martlet.scorers.table import Table
from support.networks import field_network, mean_encoder, pair_ranker, side_encoder

N, USERS, D, R = 200, 60, 12, 4


def draw(name, *shape):
    return rng(0, "low rank", name).normal(size=shape).astype(np.float32)


def flat(name, n=N, d=D, rank=R):
    """An (n, d) table of that rank."""
    return Table.of(draw(name, n, rank) @ draw(f"{name} turn", rank, d))


def bundle_of(scorer, repeats=False):
    random = rng(0, "low rank", "histories")
    rows = [random.choice(N, 9, replace=repeats) for _ in range(USERS)]
    histories = CSR.from_rows(rows, N)
    weight = random.uniform(0.5, 2, histories.nnz).astype(np.float32)
    return Bundle(
        scorer,
        Vocabulary.of(f"u{i}" for i in range(USERS)),
        Vocabulary.of(f"i{i}" for i in range(N)),
        replace(histories, values=weight),
        np.bincount(histories.indices, minlength=N).astype(np.float32),
        user_table={"age": np.linspace(-1, 1, USERS).astype(np.float32)},
        lineage=({"spec": "toy"},),
    )


def scores(bundle):
    queries = bundle.queries([f"u{i}" for i in range(USERS)])
    return bundle.scorer.score(queries, np.tile(np.arange(N, dtype=np.int32), (USERS, 1)))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def ials(items):
    return Factors(items, IALSFold(Table.of(items.dense().T @ items.dense()), 0.1, 0.5, 1.0))


FLAT = {
    "linear": lambda: Factors(flat("items"), LinearFold(0.5)),
    "inputs": lambda: Factors(flat("items"), LinearFold(1.0, Table.of(draw("inputs", N, D)))),
    "lookup": lambda: Factors(flat("items"), Lookup(Table.of(draw("users", USERS, D)))),
    "ials": lambda: ials(flat("items")),
}


@pytest.mark.parametrize("kind", FLAT)
def test_vectors_of_a_lower_rank_lose_nothing(kind):
    bundle = bundle_of(FLAT[kind]())
    small = compress(bundle, [f"low-rank:{R}"])
    assert small.scorer.items.shape == (N, R)
    close(scores(small), scores(bundle))
    assert small.lineage[-1]["tables"] == {"items": {"rank": R, "of": D, "error": 0.0}}
    assert small.scoring_bytes < bundle.scoring_bytes / 2


def test_what_a_fold_holds_turns_with_the_items():
    small = compress(bundle_of(FLAT["ials"]()), [f"low-rank:{R}"]).scorer
    items = small.items.dense()
    close(small.projection.gram.dense(), items.T @ items)


@pytest.mark.parametrize("error", [0.5, 0.2, 0.05])
def test_the_fewest_directions_within_the_error_stay(error):
    spread = draw("items", N, D) * np.geomspace(1, 0.02, D).astype(np.float32)
    bundle = bundle_of(Factors(Table.of(spread), LinearFold()))
    small = compress(bundle, [f"low-rank:error={error}"])
    told = small.lineage[-1]["tables"]["items"]
    exact = scores(bundle)
    lost = np.linalg.norm(scores(small) - exact) / np.linalg.norm(exact)
    assert lost == pytest.approx(told["error"], rel=1e-3)
    assert told["error"] <= error
    fewer = compress(bundle, [f"low-rank:{told['rank'] - 1}"]).lineage[-1]["tables"]["items"]
    assert fewer["error"] > error


def test_a_basis_minds_both_sides_of_a_product():
    gram, moment = np.diag([1.0, 4.0, 2.0]), np.diag([9.0, 0.0, 1.0])
    assert np.abs(leading(gram, moment, 1, None).vectors[:, 0]).argmax() == 0
    assert columns(gram, moment, 2 / 3).vectors.argmax() == 0
    assert columns(gram, None, 2 / 3).vectors.argmax() == 1
    np.testing.assert_allclose(lost_beyond(gram, moment), np.sqrt([1, 2 / 11, 2 / 11, 0]))
    assert leading(np.zeros((2, 2)), None, None, 0.1).rank == 1


def network(tied, side=False):
    """An encoder of a lower rank; with ``side`` one that reads the age."""
    items = flat("items")
    inputs = None if tied else flat("inputs", d=9)
    weight = draw("weight", D if tied else 9, D)
    parameters = {"weight": Table.of(weight.T)}
    if not side:
        return Network(items, mean_encoder(weight), inputs, 5, parameters)
    features = Features.fit((Category("age"),), {"age": np.linspace(-1, 1, USERS)})
    beside = Side(features, Table.of(draw("side", features.num_vector_rows, 3)))
    encoder = side_encoder(weight, draw("beside", beside.width, D))
    return Network(items, encoder, inputs, 5, parameters, side=beside)


@pytest.mark.parametrize("side", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_a_network_takes_and_gives_vectors_of_fewer_numbers(tied, side, tmp_path):
    bundle = bundle_of(network(tied, side))
    small = compress(bundle, [f"low-rank:{R}"])
    assert small.scorer.items.shape == (N, R)
    assert tied or small.scorer.inputs.shape == (N, R)
    close(scores(small), scores(bundle))
    full, before = full_width(small.scorer.tables()), bundle.scorer.tables()
    assert full.keys() == before.keys()
    for name, table in before.items():
        close(full[name].dense(), table.dense())
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(scores(Bundle.load(tmp_path / "small")), scores(small))


def test_a_network_that_is_cut_twice_still_knows_the_way_back():
    bundle = bundle_of(network(tied=True))
    once, twice = (
        compress(bundle, steps) for steps in (["low-rank:2"], [f"low-rank:{R + 2}", "low-rank:2"])
    )
    close(scores(twice), scores(once))
    close(full_width(twice.scorer.tables())["items"].dense(),
          full_width(once.scorer.tables())["items"].dense())  # fmt: skip


def ranker(history, projection):
    features = flat("features", d=8, rank=3)
    width = D if history is not None else 8
    hidden, out = draw("hidden", width + 1 + 8, 16), draw("out", 16, 1)
    return Ranker(features, projection, pair_ranker(hidden, out), history, ("age",))


@pytest.mark.parametrize(
    ("history", "projection"),
    [
        (None, LinearFold()),
        (flat("seen"), LinearFold()),
        (flat("seen"), Lookup(flat("users", USERS))),
    ],
)
def test_a_ranker_takes_features_of_fewer_numbers(history, projection):
    bundle = bundle_of(ranker(history, projection))
    small = compress(bundle, [f"low-rank:{R}"])
    assert small.scorer.items.shape == (N, R)
    if history is not None:
        assert small.scorer.history.shape == (N, R)
    close(scores(small), scores(bundle))
    full = full_width(small.scorer.tables())
    for name, table in bundle.scorer.tables().items():
        if name != "history" or not isinstance(projection, Lookup):
            close(full[name].dense(), table.dense())


def fields():
    plan = (Category("city"), Category("hour"))
    seen = {"city": Text.of(f"c{i}" for i in range(150)), "hour": np.arange(150) % 7}
    layout = Layout.of({"row": Features.fit(plan, seen)})
    vectors = flat("vectors", layout.num_vector_rows, 6, 2)
    out = draw("out", 6 * layout.num_vectors + 1)
    model = onnx.load_model_from_string(field_network(out))
    del model.graph.input[1], model.graph.node[1]
    model.graph.node[1].input[0] = "flat"
    weight = onnx.numpy_helper.from_array(out[:-1], "weight")
    model.graph.initializer[0].CopyFrom(weight)
    return Fields(vectors, None, model.SerializeToString(), layout), seen


def test_a_network_of_fields_looks_vectors_of_fewer_numbers_up():
    scorer, seen = fields()
    bundle = replace(bundle_of(scorer), popularity=np.zeros(N, np.float32))
    small = compress(bundle, ["low-rank:2"])
    assert small.scorer.vectors.shape[1] == 2
    np.testing.assert_allclose(small.scorer.predict(seen), scorer.predict(seen), atol=1e-5)
    full = full_width(small.scorer.tables())["vectors"]
    close(full.dense(), scorer.vectors.dense())


def test_of_a_cascade_what_retrieves_is_cut():
    rank = ranker(flat("seen"), LinearFold())
    small = compress(bundle_of(Cascade(FLAT["linear"](), rank, 50)), ["low-rank:3"]).scorer
    assert small.retrieve.items.shape == (N, 3)
    assert small.rank is rank
    whole = bundle_of(Cascade(item_item(False), rank, 50))
    assert compress(whole, ["low-rank:6"]).scorer.retrieve.items.shape == (N, 6)


def item_item(weighted):
    """A matrix of rank 6: a sparse part of rank 4 beside a part of rank 2."""
    dense = draw("left", N, 4) @ draw("right", 4, N)
    parts = (Table.of(draw(name, N, r)) for name, r in (("u", 2), ("l", 1), ("r", 1)))
    return ItemItem(Table.of_csr(Table.of(dense).csr()), Part(*parts), weighted)


@pytest.mark.parametrize("weighted", [False, True])
def test_items_by_items_of_a_low_rank_become_vectors(weighted, tmp_path):
    bundle = bundle_of(item_item(weighted), repeats=True)
    small = compress(bundle, ["low-rank:error=0.01"])
    assert isinstance(small.scorer, Factors)
    assert small.lineage[-1]["tables"]["items"]["rank"] == 6
    close(scores(small), scores(bundle))
    small.save(tmp_path / "small")
    loaded = Bundle.load(tmp_path / "small")
    np.testing.assert_array_equal(scores(loaded), scores(small))
    assert compress(small, ["index:ivf"]).lineage[-1]["recall@10"] >= 0.99


def test_the_part_of_a_low_rank_is_cut_alone(tmp_path):
    whole = item_item(False)
    part = replace(whole.low_rank, factors=flat("wide u", N, 10, rank=3))
    bundle = bundle_of(replace(whole, low_rank=part))
    small = compress(bundle, ["low-rank:error=0.001,of=factors"])
    assert small.scorer.weights is whole.weights
    assert small.scorer.low_rank.factors.shape == (N, 3)
    assert small.lineage[-1]["tables"] == {"factors": {"rank": 3, "of": 10, "error": 0.0}}
    close(scores(small), scores(bundle))
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(scores(Bundle.load(tmp_path / "small")), scores(small))


def test_without_histories_single_items_tell_which_vectors():
    bundle = bundle_of(item_item(False))
    unknown = replace(bundle, histories=CSR.empty(USERS, N))
    small = compress(unknown, ["low-rank:6"])
    asked = replace(small, histories=bundle.histories)
    close(scores(asked), scores(bundle))


def test_an_item_counts_once_and_its_reasons_say_so():
    fold = LinearFold(0.0, Table.of(draw("inputs", 5, 2)), distinct=True)
    items = Table.of(draw("items", 5, 2))
    history = CSR.from_rows([[3, 1, 3], [], [1, 3]], 5, [[9.0, 2.0, 4.0], [], [1.0, 1.0]])
    queries = Queries.of(history)
    vectors = fold.project(queries, items)
    np.testing.assert_allclose(vectors[0], vectors[2])
    assert not vectors[1].any()
    parts = fold.parts(queries, items, np.zeros(3, np.int32))
    assert parts[2] == 0
    assert parts[:3].sum() == pytest.approx(float(vectors[0] @ items.dense()[0]))


def perceptron(rank=None):
    """relu([user, item] @ hidden) @ out as a ranker, whose hidden layer has that rank."""
    hidden = draw("hidden", D + 8, 30)
    if rank is not None:
        hidden = draw("one", D + 8, rank) @ draw("two", rank, 30)
    out = draw("out", 30, 1)
    parameters = {"hidden": Table.of(hidden.T), "out": Table.of(out.T)}
    model = pair_ranker(hidden, out)
    return Ranker(flat("features", d=8), LinearFold(), model, flat("seen"), (), parameters)


def test_a_layer_becomes_a_product_of_two():
    bundle = bundle_of(perceptron(rank=3))
    small = compress(bundle, ["low-rank:error=.001,of=network"])
    assert small.lineage[-1]["tables"] == {"network.hidden": {"rank": 3, "of": 20, "error": 0.0}}
    assert set(small.scorer.parameters) == {"hidden.first", "hidden.second", "out"}
    close(scores(small), scores(bundle))
    full = full_width(small.scorer.tables())
    close(full["network.hidden"].dense(), bundle.scorer.parameters["hidden"].dense())
    assert len(small.scorer.network) < len(bundle.scorer.network)


def test_a_layer_that_no_parameter_holds_stays():
    scorer = perceptron(rank=3)
    other = replace(scorer, parameters={"hidden": Table.of(draw("other", 30, 20))})
    with pytest.raises(SpecError, match=r"^low-rank:3,of=network makes no layer .* smaller"):
        compress(bundle_of(other), ["low-rank:3,of=network"])
    elsewhere = replace(scorer, parameters={})  # trained elsewhere: there is nothing to agree with
    small = compress(bundle_of(elsewhere), ["low-rank:3,of=network"])
    assert list(small.lineage[-1]["tables"]) == ["network.hidden"]


def test_a_thin_layer_is_the_nearest_of_its_rank():
    weights = draw("layer", 9, 7)
    values = np.linalg.svd(weights, compute_uv=False)
    first, second, lost = thin(weights, 3, None)
    assert lost == pytest.approx(np.linalg.norm(values[3:]) / np.linalg.norm(values), rel=1e-5)
    assert lost == pytest.approx(
        np.linalg.norm(weights - first @ second) / np.linalg.norm(weights), rel=1e-4
    )
    assert thin(weights, None, lost + 1e-6)[0].shape == (9, 3)
    assert thin(weights, 99, None)[0].shape == (9, 7)


def run(model, **inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def gemm(weight, bias):
    """x @ weight + bias by a Gemm over the transposed weights, as torch exports a layer."""
    make = onnx.helper
    node = make.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    f32 = onnx.TensorProto.FLOAT
    made = make.make_graph(
        [node],
        "toy",
        [make.make_tensor_value_info("x", f32, ["N", len(weight)])],
        [make.make_tensor_value_info("y", f32, ["N", len(bias)])],
        [onnx.numpy_helper.from_array(a, n) for n, a in (("w", weight.T.copy()), ("b", bias))],
    )
    opset = [make.make_opsetid("", 17)]
    return make.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()


def test_the_edits_of_a_layer_as_torch_exports_it():
    weight, bias, x = draw("w", 6, 5), draw("b", 5), draw("x", 3, 6)
    model = gemm(weight, bias)
    np.testing.assert_array_equal(graph.layers(model)["w"], weight)
    up, down = draw("up", 2, 6), draw("down", 5, 4)
    expected = (x @ weight + bias) @ down
    close(run(graph.product_behind(model, down), x=x), expected)
    close(run(graph.product_before(model, "x", up), x=x[:, :2]), x[:, :2] @ up @ weight + bias)
    first, second, _ = thin(weight, 5, None)
    parted = graph.split_layers(model, {"w": (first, second)})
    close(run(parted, x=x), x @ weight + bias)
    again = graph.product_before(graph.product_before(model, "x", up), "x", draw("more", 7, 2))
    assert len(onnx.load_model_from_string(again).graph.node) == 2  # the second is merged
    close(run(again, x=draw("z", 3, 7)), draw("z", 3, 7) @ draw("more", 7, 2) @ up @ weight + bias)
    twice = graph.product_behind(graph.product_behind(model, down), draw("less", 4, 1))
    close(run(twice, x=x), expected @ draw("less", 4, 1))
    assert len(onnx.load_model_from_string(twice).graph.node) == 2


def test_a_vector_that_is_read_elsewhere_is_turned_at_its_end_alone():
    model = onnx.load_model_from_string(mean_encoder(draw("weight", 4, 4)))
    model.graph.node.append(onnx.helper.make_node("Relu", ["vector"], ["other"]))
    down = draw("down", 4, 2)
    x, lengths = draw("x", 2, 3, 4), np.array([3, 1])
    plain = run(model.SerializeToString(), x=x, lengths=lengths)
    turned = run(graph.product_behind(model.SerializeToString(), down), x=x, lengths=lengths)
    close(turned, plain @ down)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LowRank(), "takes a rank or an error: expected such as low-rank:16"),
        (lambda: LowRank(4, 0.1), "takes a rank or an error"),
        (lambda: LowRank(0), "rank is 0: expected at least 1"),
        (lambda: LowRank(error=1.0), "error is 1.0: expected a share between 0 and 1"),
        (lambda: LowRank(4, of="all"), "low-rank of 'all': expected vectors, factors or"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make, words):
    with pytest.raises(SpecError, match=words):
        make()


def popular():
    return Popular(Table.of(np.arange(N, dtype=np.float32)))


@pytest.mark.parametrize(
    ("scorer", "steps", "words"),
    [
        (popular, ["low-rank:3"], "^low-rank:3 over a popular scorer: it has no vectors"),
        (popular, ["low-rank:3,of=network"], "^low-rank:3,of=network over a popular .* no network"),
        (FLAT["linear"], [f"low-rank:{D}"], r"^low-rank:12 leaves every direction .*items has 12"),
        (FLAT["linear"], ["quantize:int8", "low-rank:3"], "^low-rank:3 over items stored as int8"),
        (lambda: item_item(False), ["low-rank:2,of=factors"], r"leaves every .*factors has 2"),
        (
            lambda: item_item(False),
            ["quantize:int8", "low-rank:1,of=factors"],
            "stored as int8: put",
        ),
        (
            FLAT["linear"],
            ["low-rank:3,of=factors"],
            "over a factors scorer: it has no part of a low",
        ),
        (lambda: item_item(False), ["low-rank:230"], "take fewer up to rank 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name(scorer, steps, words):
    with pytest.raises(SpecError, match=words):
        compress(bundle_of(scorer()), steps)


def test_an_index_is_not_left_over_old_vectors():
    indexed = compress(bundle_of(FLAT["linear"]()), ["index:exact-int8"])
    with pytest.raises(SpecError, match=r"^low-rank:3 after exact-int8: .* put low-rank:3 first"):
        LowRank(3).of_tables(indexed)


def test_scores_of_no_low_rank_are_refused():
    dense = draw("full", N, N) * (np.abs(draw("which", N, N)) > 1)
    full = ItemItem(Table.of_csr(Table.of(dense).csr()))
    with pytest.raises(SpecError, match=r"the most that takes fewer bytes, loses 0\.\d+ of the sc"):
        compress(bundle_of(full), ["low-rank:error=0.01"])
    with pytest.raises(SpecError, match=r"two tables of vectors take fewer up to rank \d+;"):
        compress(bundle_of(full), ["low-rank:190"])


def test_more_bytes_than_before_are_refused():
    items = Table.of(draw("items", 20, D))
    small = mt.from_vectors(items.dense())
    encoder = mean_encoder(draw("weight", D, D))
    bundle = small.then(Network(items, encoder), {"spec": "toy"})
    with pytest.raises(SpecError, match=r"^low-rank:11 would take [\d,]+ bytes to answer with"):
        compress(bundle, ["low-rank:11"])


def test_a_network_needs_the_package_onnx(monkeypatch):
    bundle = bundle_of(network(tied=True))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SpecError, match=r"needs the package onnx: pip install .*compress"):
        compress(bundle, ["low-rank:3"])


def test_what_is_no_network_or_has_no_such_input_is_told():
    with pytest.raises(SpecError, match="the network is no ONNX file"):
        graph.layers(b"none")
    model = mean_encoder(draw("weight", 4, 4))
    with pytest.raises(SpecError, match="has no input 'y': it takes x, lengths"):
        graph.product_before(model, "y", draw("up", 2, 4))
