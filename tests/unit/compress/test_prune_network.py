from dataclasses import replace

import numpy as np
import pytest
import torch

import martlet as mt
from martlet.compress.compress import compress
from martlet.compress.prune_network import Schedule, prune_network
from martlet.compress.registry import parse
from martlet.core import CSR, SpecError, Vocabulary
from martlet.models.fields import DLRM
from martlet.models.gru4rec import GRU4Rec
from martlet.models.hstu import HSTU
from martlet.models.ncf import NCF
from martlet.models.nextitnet import NextItNet
from martlet.models.restore import spec_of
from martlet.models.sasrec import SASRec
from martlet.models.two_tower import TwoTower
from martlet.scorers.bundle import Bundle
from martlet.scorers.network import Network
from martlet.scorers.table import Table
from martlet.train.structure import groups_of, put, residual_layers, skip
from support.networks import mean_encoder
from support.rows import labelled
from support.sequences import ring

SEQUENCE = {"dim": 8, "max_length": 6, "tokens": 400, "epochs": 1}
TRAINED = {
    "sasrec": SASRec(**SEQUENCE, heads=4),
    "hstu": HSTU(**SEQUENCE, heads=4),
    "gru4rec": GRU4Rec(**SEQUENCE, hidden=6, layers=2),
    "nextitnet": NextItNet(**SEQUENCE, blocks=3),
    "two-tower": TwoTower(dim=8, max_length=6, hidden=8, batch=128, negatives=16, epochs=1),
    "ncf": NCF(dim=4, inner=8, epochs=1),
    "dlrm": DLRM(dim=4, hidden=8, batch=128, epochs=1, norm="batch"),
}
LEFT = {
    ("sasrec", "units"): {"blocks.0.units0": 16, "blocks.1.units0": 16},
    ("sasrec", "heads"): {"blocks.0.heads0": 2, "blocks.1.heads0": 2},
    ("sasrec", "layers"): {"layers": 1},
    ("hstu", "heads"): {"0.heads0": 2, "1.heads0": 2},
    ("hstu", "layers"): {"layers": 1},
    ("gru4rec", "units"): {"units0": 3, "units1": 3},
    ("nextitnet", "units"): {"0.units0": 4, "1.units0": 4, "2.units0": 4},
    ("nextitnet", "layers"): {"layers": 2},
    ("two-tower", "units"): {"units0": 4},
    ("ncf", "units"): {"units0": 2, "units1": 1},
    ("dlrm", "units"): {"units0": 4, "units1": 4},
}
AT_ONCE = Schedule(steps=1, epochs=0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data():
    return ring(users=60, items=12, length=6)


@pytest.fixture(scope="module")
def fitted(data):
    held = {}

    def one(name):
        if name not in held:
            held[name] = mt.fit(TRAINED[name], data, seed=0)
        return held[name]

    return one


@pytest.fixture(scope="module")
def wide():
    """A network whose vectors are worth cutting."""
    spec = SASRec(**SEQUENCE | {"dim": 16}, heads=4)
    return mt.fit(spec, ring(users=60, items=100, length=6), seed=0)


def scores(bundle):
    users = bundle.users.names(range(len(bundle.users)))
    every = np.broadcast_to(np.arange(len(bundle.items), dtype=np.int32), (len(users), 12))
    return bundle.scorer.score(bundle.queries(users), every)


@pytest.mark.parametrize(("name", "what"), LEFT)
def test_the_arithmetic_is_gone_and_what_is_left_is_restored(name, what, fitted, tmp_path):
    bundle = fitted(name)
    before = {key: table.dense().copy() for key, table in bundle.scorer.tables().items()}
    pruned = prune_network(f"prune:{what}", bundle, what, AT_ONCE)
    line = pruned.lineage[-1]
    assert line["transform"] == f"prune:{what}"
    assert line["left"] == LEFT[name, what]
    assert pruned.scorer.extra_bytes < bundle.scorer.extra_bytes
    inner = [sum(t.nbytes for t in b.scorer.parameters.values()) for b in (bundle, pruned)]
    assert inner[1] < inner[0]
    pruned.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    spec = spec_of(loaded)
    again = replace(loaded, scorer=spec.export(spec.restore(loaded), loaded))
    np.testing.assert_array_equal(scores(again), scores(pruned))
    assert bundle.lineage == pruned.lineage[:-1]
    for key, table in bundle.scorer.tables().items():
        np.testing.assert_array_equal(table.dense(), before[key])


def idle(bundle, spec, what):
    """Return the bundle with every second unit or head telling nobody anything."""
    network = spec.restore(bundle)
    numbers = {name: p.detach().clone() for name, p in network.core.state_dict().items()}
    for group in groups_of(network.core, what).values():
        last, out = group[-1], np.arange(len(group[0].at)) % 2 == 1
        numbers[last.parameter].index_fill_(last.axis, torch.from_numpy(last.at[out].ravel()), 0)
        for cut in group[:-1]:
            at = torch.from_numpy(cut.at[out].ravel())
            numbers[cut.parameter].index_copy_(
                cut.axis, at, 1e-3 * numbers[cut.parameter].index_select(cut.axis, at)
            )
    put(network.core, numbers)
    return replace(bundle, scorer=spec.export(network, bundle))


@pytest.mark.parametrize("by", ["magnitude", "gradient"])
# Not the heads of an HSTU: a norm is taken over all of them, and changes when one goes.
@pytest.mark.parametrize(
    ("name", "what"), [("sasrec", "units"), ("sasrec", "heads"), ("ncf", "units")]
)
def test_what_does_nothing_goes_first(name, what, by, fitted, data):
    start = idle(fitted(name), TRAINED[name], what)
    pruned = prune_network("prune", start, what, replace(AT_ONCE, by=by), data)
    np.testing.assert_allclose(scores(pruned), scores(start), atol=2e-3)


@pytest.mark.parametrize("by", ["magnitude", "gradient"])
def test_a_layer_that_does_nothing_goes_first(by, fitted, data):
    spec = TRAINED["nextitnet"]
    network = spec.restore(fitted("nextitnet"))
    with torch.no_grad():
        for name in ("norm2.weight", "norm2.bias", "second.weight", "first.weight"):
            network.core.get_parameter(f"1.{name}").mul_(0)
    start = replace(fitted("nextitnet"), scorer=spec.export(network, fitted("nextitnet")))
    pruned = prune_network("prune", start, "layers", Schedule(0.3, by, 1, 0), data)
    assert not any(name.startswith("1.") for name in pruned.scorer.parameters)
    np.testing.assert_allclose(scores(pruned), scores(start), atol=1e-6)


def test_training_on_brings_back_what_was_lost(data):
    spec = SASRec(**SEQUENCE | {"epochs": 25, "dropout": 0.1}, rate=0.01, inner=2)
    bundle = mt.fit(spec, data, seed=0)
    at_once = prune_network("prune", bundle, "units", Schedule(0.9, epochs=0))
    tuned = prune_network("prune", bundle, "units", Schedule(0.9, epochs=10), data)
    again = prune_network("prune", bundle, "units", Schedule(0.9, epochs=10), data)
    found = [mt.evaluate(b, data, part="valid").figures["ndcg@10"] for b in (at_once, tuned)]
    assert found[1] > found[0]
    assert tuned.id == again.id


def test_rows_with_labels_are_trained_on():
    rows = labelled((200, 60, 60))
    bundle = mt.fit(replace(TRAINED["dlrm"], batch=64), rows, seed=0)
    pruned = compress(bundle, ["prune:units,share=0.25,epochs=1"], rows)
    assert pruned.lineage[-1]["left"]["units1"] == 6
    assert np.isfinite(pruned.scorer.predict(rows.test.columns)).all()


def test_it_is_pruned_again(fitted, data):
    once = compress(fitted("sasrec"), ["prune:units,epochs=0"])
    twice = compress(once, ["prune:units,epochs=0", "prune:layers,epochs=0"])
    assert [line["left"] for line in twice.lineage[1:]] == [
        {"blocks.0.units0": 16, "blocks.1.units0": 16},
        {"blocks.0.units0": 8, "blocks.1.units0": 8},
        {"layers": 1},
    ]


def test_one_of_each_is_left(fitted):
    pruned = prune_network("prune", fitted("sasrec"), "heads", Schedule(0.99, epochs=0, steps=1))
    assert set(pruned.lineage[-1]["left"].values()) == {1}


def test_what_has_nothing_to_leave_out_is_refused(fitted, data):
    for name, what in (("hstu", "units"), ("gru4rec", "layers"), ("dlrm", "heads")):
        with pytest.raises(SpecError, match=f"prune:{what} over {name}: .* no {what} of which"):
            prune_network(f"prune:{what}", fitted(name), what, AT_ONCE)
    single = mt.fit(replace(TRAINED["sasrec"], blocks=1, heads=1), data, seed=0)
    for what in ("heads", "layers"):
        with pytest.raises(SpecError, match=f"has no {what} of which one could be left out"):
            prune_network("prune", single, what, AT_ONCE)


def test_data_is_asked_for(fitted):
    for schedule in (Schedule(), Schedule(by="gradient", epochs=0)):
        with pytest.raises(SpecError, match="give the dataset, or epochs=0 and by=magnitude"):
            prune_network("prune:units", fitted("sasrec"), "units", schedule)
    with pytest.raises(SpecError, match="has other users than the dataset"):
        prune_network("prune", fitted("sasrec"), "units", Schedule(), ring(users=50, items=12))


def test_order_is_kept(fitted):
    small = compress(fitted("sasrec"), ["quantize:fp16"])
    with pytest.raises(SpecError, match=r"after table items became fp16: .* prune first"):
        compress(small, ["prune:units,epochs=0"])
    indexed = replace(
        fitted("sasrec"), scorer=compress(fitted("sasrec"), ["index:exact-int8"]).scorer
    )
    with pytest.raises(SpecError, match="first, then the index"):
        compress(indexed, ["prune:units,epochs=0"])


@pytest.mark.parametrize("other", ["quantize:int8", "low-rank:4", "prune:dims", "index:exact-int8"])
def test_what_follows_takes_the_smaller_network(other, wide):
    both = compress(wide, ["prune:heads,epochs=0", other])
    assert [line["transform"] for line in both.lineage[1:]] == ["prune:heads,epochs=0", other]
    assert both.scorer.parameters["blocks.0.parts.weight"].shape == (24, 16)  # of three times 16
    assert both.scorer.topk(both.queries(["1", "2"]), 3).item_row.shape == (2, 3)


@pytest.mark.parametrize("other", ["quantize:int8", "low-rank:4", "prune:dims"])
def test_what_training_would_undo_stands_behind(other, wide):
    message = r"^prune:heads,epochs=0 .*(prune first|put prune:heads,epochs=0 first)"
    with pytest.raises(SpecError, match=message):
        compress(wide, [other, "prune:heads,epochs=0"])


def test_a_network_that_was_edited_is_refused(fitted):
    bundle = fitted("ncf")
    parameters = {"strange": Table.of(np.ones((2, 2), np.float32))}
    edited = replace(bundle, scorer=replace(bundle.scorer, parameters=parameters))
    with pytest.raises(
        SpecError, match=r"^prune:units,epochs=0 does not apply: .* of one network alone"
    ):
        compress(edited, ["prune:units,epochs=0"])


def strange(lineage, parameters=True):
    weight = np.eye(4, dtype=np.float32)
    given = {"weight": Table.of(weight)} if parameters else {}
    scorer = Network(Table.of(weight), mean_encoder(weight), None, 4, given)
    ids = Vocabulary.of("abcd")
    return Bundle(scorer, ids, ids, CSR.empty(4, 4), np.ones(4, np.float32), lineage=lineage)


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        (strange(({"spec": "toy"},)), "fitted by 'toy'"),
        (strange(()), "fitted by None"),
        (strange(({"spec": "ials", "params": {}},)), "ials has no network that could be"),
        (strange((), parameters=False), "it has no network of parameters"),
    ],
)
def test_a_network_from_elsewhere_is_refused(bundle, message):
    with pytest.raises(SpecError, match=rf"^prune:units,epochs=0 .*{message}"):
        compress(bundle, ["prune:units,epochs=0"])


def test_a_label_says_all():
    text = "prune:units,share=0.25,by=gradient,steps=3,epochs=0"
    assert parse(text).label == text


def test_a_skipped_layer_is_no_layer_any_more(fitted):
    core = TRAINED["sasrec"].restore(fitted("sasrec")).core
    skip(core, ["blocks.0"])
    assert residual_layers(core) == ["blocks.1"]
