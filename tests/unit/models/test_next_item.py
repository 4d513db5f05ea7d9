from dataclasses import replace

import numpy as np
import pytest
import torch

import martlet as mt
from martlet.core import CSR, DataError, Queries, SpecError
from martlet.models.gru4rec import GRU4Rec
from martlet.models.hstu import HSTU
from martlet.models.nextitnet import NextItNet
from martlet.models.popularity import Popularity
from martlet.models.sasrec import SASRec
from support.sequences import ring

FAMILIES = (GRU4Rec, NextItNet, SASRec, HSTU)
SMALL = {"dim": 16, "max_length": 6, "tokens": 200, "dropout": 0.1, "rate": 0.01, "epochs": 20}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small are slowed down by a second thread, most where the cores are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data():
    return ring(users=200)


@pytest.fixture(scope="module")
def bundle(data):
    return mt.fit(SASRec(**SMALL), data, seed=0)


def ndcg(bundle, data):
    return mt.evaluate(bundle, data, part="test").figures["ndcg@10"]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_an_order_that_popularity_cannot_see(family, data):
    taught = mt.fit(family(**SMALL), data, seed=0)
    assert ndcg(taught, data) > ndcg(mt.fit(Popularity(), data), data) + 0.25


@pytest.mark.parametrize(("loss", "epochs"), [("sampled", 25), ("gbce", 60), ("bpr", 15)])
def test_so_it_does_by_every_loss(loss, epochs, data):
    spec = SASRec(**SMALL | {"epochs": epochs, "patience": 0}, loss=loss, negatives=8)
    assert ndcg(mt.fit(spec, data, seed=0), data) > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bundle_answers_as_the_network(family, data):
    spec = family(**SMALL | {"epochs": 2})
    encoder = spec.encoder()
    scorer = spec.fit(data, seed=3)
    tables = scorer.tables()
    state = {
        name.removeprefix("network."): torch.tensor(table.dense())
        for name, table in tables.items()
        if name.startswith("network.")
    }
    shapes = {name: p.shape for name, p in encoder.state_dict().items()}
    encoder.load_state_dict({name: p.reshape(shapes[name]) for name, p in state.items()})
    encoder.eval()
    rows = [[1], [3, 4, 5], list(range(9))]
    found = scorer.encode(Queries.of(CSR.from_rows(rows, data.num_items)))
    for row, vector in zip(rows, found, strict=True):
        x = torch.tensor(tables["items"].rows(np.array(row[-6:])))[None]
        with torch.no_grad():
            expected = encoder(x)[0, -1].numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_later_changes_nothing_before(family):
    encoder = family(dim=8, max_length=6).encoder().eval()
    x = torch.randn(1, 5, 8)
    y = x.clone()
    y[0, 3:] = torch.randn(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)[:, :3], encoder(y)[:, :3])
        assert (encoder(x)[:, 3] - encoder(y)[:, 3]).abs().max() > 1e-3


def test_saved_and_loaded_it_gives_the_same(bundle, data, tmp_path):
    bundle.save(tmp_path / "b")
    again = mt.load(tmp_path / "b")
    users = data.users.names(range(5))
    assert [a.item_ids for a in again.recommend(users)] == [
        a.item_ids for a in bundle.recommend(users)
    ]
    assert again.lineage[0]["spec"] == "sasrec"


def test_a_warm_start_is_ahead(bundle, data):
    spec = SASRec(**SMALL | {"epochs": 1})
    cold, warm = (mt.fit(spec, data, seed=1, init=init) for init in (None, bundle))
    assert ndcg(warm, data) > ndcg(cold, data) + 0.05


def test_a_start_from_another_shape_is_refused(bundle, data):
    with pytest.raises(SpecError, match="expected one of the same family, dimension and length"):
        mt.fit(SASRec(**SMALL | {"dim": 8}), data, init=bundle)
    with pytest.raises(SpecError, match="expected one of the same family"):
        mt.fit(SASRec(**SMALL), data, init=mt.fit(mt.IALS(dim=16), data))


@pytest.fixture(scope="module")
def cloze(data):
    return mt.fit(TestMasked.spec, data, seed=0)


class TestMasked:
    spec = SASRec(**SMALL | {"epochs": 40, "patience": 0}, masked=0.3)

    def test_it_learns_what_comes_next_from_what_was_hidden(self, cloze, data):
        assert ndcg(cloze, data) > 0.6

    def test_an_event_is_seen_from_both_sides(self):
        encoder = self.spec.encoder().eval()
        x, inside = torch.randn(1, 5, 16), torch.tensor([[True] * 4 + [False]])
        y = x.clone()
        y[0, 3] = torch.randn(16)
        with torch.no_grad():
            assert (encoder(x, inside) - encoder(y, inside))[:, 0].abs().max() > 1e-3
            y = x.clone()
            y[0, 4] = torch.randn(16)  # padding
            torch.testing.assert_close(encoder(x, inside)[:, :4], encoder(y, inside)[:, :4])

    def test_at_serving_a_hidden_event_stands_after_the_last(self, cloze):
        scorer = cloze.scorer
        tables = {name: torch.tensor(table.dense()) for name, table in scorer.tables().items()}
        encoder = self.spec.encoder().eval()
        encoder.load_state_dict(
            {name: tables[f"network.{name}"].reshape(p.shape)
             for name, p in encoder.state_dict().items()}
        )  # fmt: skip
        rows = [[1], [3, 4, 5], list(range(9))]
        found = scorer.encode(Queries.of(CSR.from_rows(rows, scorer.num_items)))
        for row, vector in zip(rows, found, strict=True):
            x = torch.cat([tables["items"][row[-6:]], encoder.hole[None]])[None]
            with torch.no_grad():
                expected = encoder(x, torch.ones(1, x.shape[1], dtype=torch.bool))[0, -1]
            np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)

    def test_histories_of_unlike_length_run_together_as_alone(self, cloze):
        rows = [[1], [3, 4, 5], list(range(9))]
        runtime, items = cloze.scorer.runtime, cloze.scorer.items
        x = np.zeros((3, 6, 16), np.float32)
        for one, row in zip(x, rows, strict=True):
            one[: len(row[-6:])] = items.rows(np.array(row[-6:]))
        found = runtime.run(x=x, lengths=np.array([1, 3, 6]))
        alone = cloze.scorer.encode(Queries.of(CSR.from_rows(rows, items.shape[0])))
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)

    def test_stopped_and_resumed_it_ends_with_the_same_digits(self, data, tmp_path):
        spec = replace(self.spec, epochs=3)
        whole = spec.fit(data, seed=2)

        class Enough(Exception):
            pass

        def stop(step, done, total):
            if done == total // 2:
                raise Enough

        run = mt.Run(tmp_path, every_steps=1, progress=stop)
        with pytest.raises(Enough):
            spec.fit(data, seed=2, run=run)
        again = spec.fit(data, seed=2, run=replace(run, resume=True, progress=None))
        for name, table in whole.tables().items():
            np.testing.assert_array_equal(table.dense(), again.tables()[name].dense())

    def test_it_warms_up_another(self, cloze, data):
        warm = mt.fit(replace(self.spec, epochs=1), data, seed=1, init=cloze)
        assert ndcg(warm, data) > 0.5
        with pytest.raises(SpecError, match="same family, dimension and length"):
            mt.fit(SASRec(**SMALL), data, init=cloze)


def test_operations_of_a_training(data):
    targets, inner = 200 * 6, 3 * 16 * (8 + 16) + 16 * 8
    spec = GRU4Rec(dim=8, hidden=16, epochs=2)
    assert spec.flops(data) == 6 * 2 * targets * (inner + 8 * data.num_items)
    sampled = replace(spec, loss="sampled", negatives=4)
    assert sampled.flops(data) == 6 * 2 * targets * (inner + 8 * 5)
    whole, masked = (SASRec(dim=8, blocks=1, max_length=6, masked=share) for share in (0.0, 0.5))
    inner = 12 * 8 * 8
    left = [one.flops(data) / (6 * 50 * targets) - inner for one in (whole, masked)]
    assert left == pytest.approx([8 * 6 + 8 * data.num_items, 8 * 7 + 4 * data.num_items])


def test_users_of_one_event_teach_no_order(data):
    lonely = data.train.select(np.flatnonzero(np.diff(data.train.user_row, prepend=-1)))
    with pytest.raises(DataError, match="no user of the train part has two events"):
        mt.fit(SASRec(**SMALL), replace(data, train=lonely))


@pytest.mark.parametrize(
    ("family", "wrong"),
    [
        (SASRec, {"dim": 0}),
        (SASRec, {"heads": 3}),
        (SASRec, {"blocks": 0}),
        (SASRec, {"dropout": 1.0}),
        (SASRec, {"tokens": 0}),
        (SASRec, {"device": "abacus"}),
        (SASRec, {"masked": 1.0}),
        (SASRec, {"distil": "by heart"}),
        (SASRec, {"distil_weight": 1.5}),
        (SASRec, {"distil_top": 0}),
        (SASRec, {"temperature": 0.0}),
        (GRU4Rec, {"layers": 0}),
        (NextItNet, {"cycle": 0}),
        (NextItNet, {"kernel": 0}),
        (HSTU, {"heads": 3}),
        (HSTU, {"blocks": 0}),
    ],
)
def test_settings_that_make_no_sense(family, wrong, data):
    with pytest.raises(SpecError, match=rf"{next(iter(wrong))}|device|heads"):
        mt.fit(family(**SMALL | wrong), data)
