import numpy as np
import pytest
import torch

import martlet as mt
from martlet.core import DataError, Queries, SpecError
from martlet.data import RandomSplit, prepare
from martlet.data.synthetic import synthesize
from martlet.models.ncf import NCF, Pairs, _Task, stand_in
from martlet.train.loop import Diverged
from martlet.train.run import Run

FAST = {
    "dim": 8, "inner": 16, "layers": 2, "batch": 512, "table_rate": 0.02, "rate": 0.005,
    "reg": 0.06, "patience": 0,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data():
    log = synthesize(num_users=300, num_items=150, num_events=9000, seed=4)
    return prepare({"user": log.user_row, "item": log.item_row}, split=RandomSplit(0.1, 0.2))


@pytest.fixture(scope="module")
def popular(data):
    return mt.evaluate(mt.fit(mt.Popularity(), data), data).figures["ndcg@10"]


@pytest.fixture(scope="module", params=["gmf", "mlp", "neumf"])
def bundle(request, data):
    reg = 0.0 if request.param == "mlp" else 0.06
    return mt.fit(NCF(kind=request.param, epochs=40, **(FAST | {"reg": reg})), data, seed=0)


def test_it_ranks_better_than_popularity(bundle, data, popular):
    assert mt.evaluate(bundle, data).figures["ndcg@10"] > popular + 0.01


def test_who_is_unknown_is_ranked_for_by_what_was_met(bundle, data, popular):
    truth = data.test.matrix
    users = np.flatnonzero((truth.lengths > 0) & (data.train.matrix.lengths > 0))
    ranking = bundle.scorer.topk(Queries.of(data.before("test").histories.take(users)), 10)
    tally = mt.metrics.Tally(data.num_items, (10,), ("ndcg",))
    tally.add(ranking.item_row, truth.take(users))
    assert tally.figures()["ndcg@10"] > popular


@pytest.mark.parametrize("kind", ["gmf", "mlp", "neumf"])
def test_what_is_fitted_answers_as_the_network_did(kind, data):
    spec = NCF(kind=kind, **FAST)
    network = Pairs(spec, data.num_users, data.num_items, 0)
    task = _Task(spec, network, data, 0)
    for table in task.network.modules():  # far from their start, where all would be near 0
        if hasattr(table, "table"):
            table.values += torch.randn(table.values.shape)
    users, items = task.take(task.batches(0)[0], 0)
    expected = network.eval()(users, items).detach().numpy()
    scorer = network.export(data.train.matrix)
    asked = Queries.of(data.train.histories.take(users.numpy()), user_row=users.numpy())
    found = scorer.score(asked, items.numpy().astype(np.int32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    weights = sum(table.nbytes for table in scorer.tables().values())
    assert weights == spec.bytes(data.num_items) + scorer.projection.users.nbytes


def test_the_slope_is_that_of_the_loss_with_reg(data):
    spec = NCF(dim=3, inner=4, layers=2, batch=6, negatives=2, reg=0.3)
    network = Pairs(spec, data.num_users, data.num_items, 0)
    task = _Task(spec, network, data, 0)
    tensors = task.take(task.batches(0)[0], 0)
    users, items = tensors
    network.train()
    task.loss(tensors)[0].backward()
    for tables in (network.product, network.read):
        for side, rows, times in (("user", users, 3), ("item", items.reshape(-1), 1)):
            table = tables[side]
            _, values = table._merged()
            row = int(rows[0])
            before = table.values[row].clone()

            def loss(at, by, table=table, row=row, rows=rows, times=times, before=before):
                table.values[row] = before
                table.values[row, at] += by
                with torch.no_grad():
                    square = times * float((rows == row).sum()) * table.values[row].square().sum()
                    found = float(task.loss(tensors)[0] + spec.reg / 2 / items.numel() * square)
                table.values[row] = before
                return found

            slope = values[np.flatnonzero(rows.numpy() == row)].sum(0)
            expected = [(loss(at, 0.01) - loss(at, -0.01)) / 0.02 for at in range(table.dim)]
            np.testing.assert_allclose(slope, expected, atol=2e-4)


def test_epochs_take_every_event_once_beside_what_was_not_met(data):
    task = _Task(NCF(batch=1000, negatives=3), torch.nn.Identity(), data, 0)
    matrix = data.train.matrix
    met = np.zeros((data.num_users, data.num_items), bool)
    met[matrix.row_numbers(), matrix.indices] = True
    found = np.zeros(met.shape, int)
    for step, batch in enumerate(task.batches(0)):
        users, items = (tensor.numpy() for tensor in task.take(batch, step))
        np.add.at(found, (users, items[:, 0]), 1)
        assert not met[users[:, None], items[:, 1:]].any()
    np.testing.assert_array_equal(found, met)


def test_a_run_that_is_resumed_ends_alike(data, tmp_path):
    class Killed(Exception):
        pass

    def kill(words, step, steps):
        if step == 20:
            raise Killed

    spec = NCF(epochs=2, dropout=0.2, **FAST)
    whole = mt.fit(spec, data, seed=0).scorer
    with pytest.raises(Killed):
        mt.fit(spec, data, seed=0, run=Run(folder=tmp_path, every_steps=3, progress=kill))
    resumed = mt.fit(spec, data, seed=0, run=Run(folder=tmp_path, resume=True)).scorer
    for name, table in whole.tables().items():
        np.testing.assert_array_equal(table.dense(), resumed.tables()[name].dense())


def test_what_stands_for_an_item_adds_up_to_the_users(data):
    met = data.train.matrix
    stream = np.random.default_rng(0)
    items = stream.normal(size=(data.num_items, 3)).astype(np.float32)
    users = np.stack([items[met.row(row)].mean(0) for row in range(met.num_rows)])
    history = stand_in(users, met)
    folded = np.stack([history[met.row(row)].mean(0) for row in range(met.num_rows)])
    assert np.square(folded - users).mean() < 0.5 * np.square(users - users.mean(0)).mean()
    alike = np.ones((data.num_users, 2), np.float32)
    np.testing.assert_allclose(stand_in(alike, met), 1)


def test_a_train_part_without_events(data):
    nothing = data.train.select(np.zeros(len(data.train), bool))
    empty = mt.Dataset(data.users, data.items, nothing, nothing, nothing)
    with pytest.raises(DataError, match="there is nothing to learn from"):
        NCF().fit(empty)


def test_a_loss_that_is_no_number_names_the_rows(data):
    spec = NCF(kind="gmf", table_optimizer="sgd", table_rate=1e30, **FAST_BUT)
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="the events of users"):
        mt.fit(spec, data)


FAST_BUT = {"dim": 4, "batch": 512, "epochs": 3}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"negatives": 0}, "negatives is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"reg": -1.0}, "reg is -1.0"),
        ({"inner": 4, "layers": 4}, "the last layer would have no unit"),
    ],
)
def test_settings_that_make_no_sense(wrong, why):
    with pytest.raises(SpecError, match=why):
        NCF(**wrong)


def test_operations_grow_with_what_is_drawn(data):
    spec = NCF(kind="gmf", dim=8, negatives=1, epochs=1)
    assert spec.flops(data) == 6 * data.train.matrix.nnz * 2 * 8
    deep = NCF(kind="mlp", inner=8, layers=2, negatives=1, epochs=1)
    pair = 8 * 8 + 8 * 4 + 4
    assert deep.flops(data) == 6 * data.train.matrix.nnz * (8 * 8 + 2 * pair)
