from dataclasses import replace

import numpy as np
import pytest
import torch

import martlet as mt
from martlet.core import SpecError
from martlet.models.fields import DLRM, DCNv2, DeepFM, WideDeep
from martlet.models.gru4rec import GRU4Rec
from martlet.models.hstu import HSTU
from martlet.models.ncf import NCF
from martlet.models.nextitnet import NextItNet
from martlet.models.sasrec import SASRec
from martlet.models.two_tower import TwoTower
from support.rows import labelled
from support.sequences import ring

SEQUENCE = {"dim": 8, "max_length": 6, "tokens": 400, "epochs": 1}
FIELDS = {"dim": 4, "hidden": 8, "batch": 128, "epochs": 1}
TRAINED = {
    "sasrec": SASRec(**SEQUENCE),
    "masked": SASRec(**SEQUENCE, masked=0.3),
    "hstu": HSTU(**SEQUENCE),
    "gru4rec": GRU4Rec(**SEQUENCE, hidden=6, layers=2),
    "nextitnet": NextItNet(**SEQUENCE, blocks=3),
    "two-tower": TwoTower(dim=8, max_length=6, hidden=8, batch=128, negatives=16, epochs=1),
    "neumf": NCF(dim=4, inner=8, epochs=1),
    "mlp": NCF(kind="mlp", inner=8, epochs=1),
    "gmf": NCF(kind="gmf", dim=4, epochs=1),
    "wide-deep": WideDeep(**FIELDS),
    "deepfm": DeepFM(**FIELDS, norm="batch", dropout=0.1),
    "dcnv2": DCNv2(**FIELDS, storage="int8"),
    "dlrm": DLRM(**FIELDS, sharing="quotient"),
}


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


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_restored_and_exported_is_the_same(name, fitted):
    bundle, spec = fitted(name), TRAINED[name]
    torch.manual_seed(3)
    again = spec.export(spec.restore(bundle), bundle)
    assert again.tables().keys() == bundle.scorer.tables().keys()
    for key, table in bundle.scorer.tables().items():
        np.testing.assert_array_equal(again.tables()[key].dense(), table.dense(), err_msg=key)
    users = bundle.users.names(range(len(bundle.users)))
    queries, n = bundle.queries(users), len(bundle.items)
    every = np.broadcast_to(np.arange(n, dtype=np.int32), (len(users), n))
    scores = bundle.scorer.score(queries, every)
    np.testing.assert_array_equal(again.score(queries, every), scores)


@pytest.mark.parametrize("name", ["neumf", "wide-deep", "dlrm"])
def test_a_start_from_a_bundle_is_where_it_was_left(name, fitted, data):
    bundle = fitted(name)
    spec = replace(TRAINED[name], rate=1e-12, table_rate=1e-12, patience=0)
    warm = mt.fit(spec, data, seed=5, init=bundle)
    assert warm.lineage[0]["init"] == bundle.id
    users = bundle.users.names(range(len(bundle.users)))
    before, after = (b.scorer.topk(b.queries(users), 5) for b in (bundle, warm))
    np.testing.assert_allclose(after.score, before.score, atol=1e-5)


def test_labelled_rows_are_taken_up_too():
    rows = labelled((200, 60, 60))
    spec = DLRM(**FIELDS)
    bundle = mt.fit(spec, rows, seed=0)
    again = spec.export(spec.restore(bundle), bundle)
    columns = rows.test.columns
    np.testing.assert_array_equal(again.predict(columns), bundle.scorer.predict(columns))


@pytest.mark.parametrize(
    ("spec", "start", "message"),
    [
        (SASRec(**SEQUENCE | {"dim": 4}), "sasrec", "no vectors of length 4"),
        (SASRec(**SEQUENCE | {"max_length": 5}), "sasrec", r"parameter place is \(6, 8\)"),
        (SASRec(**SEQUENCE), "masked", "parameters are of one network alone: hole"),
        (SASRec(**SEQUENCE, inner=1), "sasrec", "expected one of the same family"),
        (HSTU(**SEQUENCE), "gru4rec", "expected one of the same family, dimension and length"),
        (NCF(dim=8, inner=8), "neumf", "it has no vectors of length 16"),
        (NCF(dim=4, inner=8), "dlrm", "expected one of ncf"),
        (DLRM(**FIELDS), "neumf", "the bundle is Ranker: expected one of fields"),
        (DLRM(**FIELDS | {"dim": 8}, sharing="quotient"), "dlrm", "tables are quotient"),
        (WideDeep(**FIELDS), "dlrm", "one alone has a weight for each value"),
        (DLRM(**FIELDS, layers=1, sharing="quotient"), "dlrm", "of one network alone"),
        (TwoTower(dim=4), "two-tower", "it has other vectors"),
    ],
)
def test_a_bundle_of_another_spec_is_refused(spec, start, message, fitted):
    with pytest.raises(SpecError, match=message):
        spec.restore(fitted(start))


@pytest.mark.parametrize(
    ("name", "message"),
    [("neumf", "has other users than the dataset"), ("dlrm", "start from the same rows alone")],
)
def test_a_start_from_other_rows_is_refused(name, message, fitted):
    with pytest.raises(SpecError, match=message):
        mt.fit(TRAINED[name], ring(users=50, items=11, length=6), init=fitted(name))


def test_a_narrower_network_is_taken_over_as_it_is(fitted, data):
    narrow = mt.fit(replace(TRAINED["sasrec"], inner=2), data, seed=0)
    spec = TRAINED["sasrec"]
    network = spec.restore(narrow)
    assert network.encoder.blocks[0].network[0].out_features == 16
    warm = mt.fit(spec, data, seed=1, init=narrow)
    shapes = {name: table.shape for name, table in narrow.scorer.tables().items()}
    assert {name: table.shape for name, table in warm.scorer.tables().items()} == shapes
