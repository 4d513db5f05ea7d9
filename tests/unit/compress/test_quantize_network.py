import builtins

import numpy as np
import pytest

from martlet.compress.compress import compress
from martlet.compress.quantize_network import quantize_network
from martlet.compress.registry import parse
from martlet.core import CSR, SpecError, Vocabulary, rng
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.network import Network
from martlet.scorers.popular import Popular
from martlet.scorers.projections import LinearFold
from martlet.scorers.ranker import Ranker
from martlet.scorers.table import Table
from support.networks import mean_encoder, pair_ranker

TEXT = "quantize:int8,of=network"
N, D, USERS = 60, 16, 12


def draw(name, *shape):
    return rng(0, "quantize network", name).normal(size=shape).astype(np.float32)


ITEMS = Table.of(draw("items", N, D))


def network(width=256):
    weight = draw("weight", width, D)
    inputs = Table.of(draw("inputs", N, width))
    return Network(ITEMS, mean_encoder(weight), inputs, 4, {"weight": Table.of(weight)})


def ranker(width=256):
    hidden, out = draw("hidden", D + 8, width), draw("out", width, 1)
    parameters = {"hidden": Table.of(hidden.T), "out": Table.of(out)}
    features = Table.of(draw("features", N, 8))
    model = pair_ranker(hidden, out)
    return Ranker(features, LinearFold(), model, history=ITEMS, parameters=parameters)


SCORERS = {
    "network": network,
    "ranker": ranker,
    "cascade": lambda: Cascade(Factors(ITEMS, LinearFold()), ranker(), depth=30),
}


def bundle_of(scorer):
    random = rng(0, "quantize network", "histories")
    histories = CSR.from_rows([random.choice(N, 5, replace=False) for _ in range(USERS)], N)
    names = [Vocabulary.of(f"{kind}{i}" for i in range(n)) for kind, n in (("u", USERS), ("i", N))]
    return Bundle(scorer, *names, histories, np.ones(N, np.float32), lineage=({"spec": "toy"},))


def scores(bundle, users=range(USERS), items=range(N)):
    users = [f"u{i}" for i in users]
    every = np.broadcast_to(np.array(items, np.int32), (len(users), len(items)))
    return bundle.scorer.score(bundle.queries(users), every)


@pytest.fixture(params=SCORERS)
def before(request):
    return bundle_of(SCORERS[request.param]())


@pytest.fixture
def after(before):
    return compress(before, [TEXT])


def test_it_is_smaller_and_answers_nearly_the_same(before, after):
    exact = scores(before)
    assert np.abs(scores(after) - exact).max() < 0.1 * exact.std()
    assert not np.array_equal(scores(after), exact)
    assert after.scoring_bytes < 0.8 * before.scoring_bytes
    assert after.bundle_bytes < before.bundle_bytes
    assert after.lineage[-1]["transform"] == TEXT


def test_neither_a_batch_nor_other_candidates_touch_a_digit(after):
    whole = scores(after)
    for user in range(USERS):
        np.testing.assert_array_equal(scores(after, [user]), whole[user : user + 1])
    np.testing.assert_array_equal(scores(after, items=[7]), whole[:, 7:8])


def test_parameters_are_what_the_network_multiplies_by(before, after):
    own = [table for name, table in after.scorer.tables().items() if "network" in name.split(".")]
    assert {table.storage for table in own} == {"int8-table-affine"}
    assert len(after.lineage[-1]["tables"]) == len(own)
    if before.scorer.kind != "ranker":
        return
    hidden = after.scorer.tables()["network.hidden"].dense().T
    out = after.scorer.tables()["network.out"].dense()
    rebuilt = bundle_of(
        Ranker(
            after.scorer.items, LinearFold(), pair_ranker(hidden, out), history=after.scorer.history
        )
    )
    # What is left is the rounding of what the weights are multiplied by.
    exact = scores(before)
    far, near = (np.abs(scores(after) - one).std() for one in (exact, scores(rebuilt)))
    assert near < far


def test_saved_and_loaded_it_answers_the_same(after, tmp_path):
    after.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    np.testing.assert_array_equal(scores(loaded), scores(after))
    assert loaded.id == after.id


def test_tables_are_quantized_beside_it(before):
    both = compress(before, ["quantize:int8", TEXT])
    other = compress(before, [TEXT, "quantize:int8"])
    np.testing.assert_array_equal(scores(both), scores(other))


def test_the_input_is_unchanged(before):
    tables = {name: table.dense().copy() for name, table in before.scorer.tables().items()}
    exact = scores(before)
    compress(before, [TEXT])
    np.testing.assert_array_equal(scores(before), exact)
    for name, table in before.scorer.tables().items():
        np.testing.assert_array_equal(table.dense(), tables[name])


def test_a_second_time_is_refused(after):
    with pytest.raises(SpecError, match=f"^{TEXT} .*its network is in int8 already"):
        compress(after, [TEXT])


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (lambda: Popular(Table.of(np.ones(N, np.float32))), "over a popular scorer: it has no"),
        (lambda: Factors(ITEMS, LinearFold()), "over a factors scorer: it has no network"),
        (lambda: network(2), "network of a network scorer in place of .* leave it out"),
    ],
)
def test_what_does_not_apply_is_refused(scorer, message):
    with pytest.raises(SpecError, match=f"^{TEXT} .*{message}"):
        compress(bundle_of(scorer()), [TEXT])


def test_without_onnx_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(SpecError, match=r"pip install martlet\[compress\]"):
        quantize_network(TEXT, bundle_of(network()))


@pytest.mark.parametrize(
    "text", ["quantize:fp16,of=network", "quantize:int8,per=column,of=network"]
)
def test_a_network_takes_no_other_options(text):
    with pytest.raises(SpecError, match="a network goes with quantize:int8 and nothing besides"):
        parse(text)
    assert parse(TEXT).label == TEXT
