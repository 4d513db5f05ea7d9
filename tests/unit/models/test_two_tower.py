import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch

import martlet as mt
from martlet.core import CSR, BundleError, DataError, Queries, SpecError
from martlet.models.two_tower import TwoTower
from martlet.scorers.side import Side
from martlet.train.run import Run
from martlet.train.tower_task import _Task
from support.sequences import ring
from support.shelves import GUILDS, ITEMS, NEW, SHELVES, USERS, shelves

SMALL = {"dim": 8, "hidden": 16, "batch": 128, "rate": 0.02, "epochs": 12, "negatives": 24,
         "max_length": 6, "dropout": 0.0, "column_dim": 4}  # fmt: skip
SPEC = TwoTower(**SMALL | {"epochs": 3})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small are slowed down by a second thread, most where the cores are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data():
    return shelves()


@pytest.fixture(scope="module")
def bundle(data):
    return mt.fit(TwoTower(**SMALL), data, seed=0)


def ndcg(bundle, data, users=None):
    return mt.evaluate(bundle, data, users=users).figures["ndcg@10"]


def shelf_share(bundle, queries, shelf):
    """Share of the five best that stand on the shelf of each query."""
    rows = bundle.topk(queries, 5)[0].item_row
    return float((rows % SHELVES == np.asarray(shelf)[:, None]).mean())


@pytest.mark.parametrize("loss", ["sampled", "in-batch", "softmax"])
def test_it_learns_what_popularity_cannot_see_by_every_loss(loss, data):
    spec = TwoTower(**SMALL, loss=loss, user_columns=False)
    old = np.arange(USERS - NEW)
    learnt = ndcg(mt.fit(spec, data, seed=0), data, old)
    assert learnt > ndcg(mt.fit(mt.Popularity(), data), data, old) + 0.2


@pytest.mark.parametrize("settings", [{"tied": True}, {"item_columns": True}, {"layers": 2},
                                      {"tied": True, "item_columns": True, "loss": "softmax"},
                                      {"tied": True, "item_columns": True}])  # fmt: skip
def test_so_it_does_in_every_shape(settings, data):
    bundle = mt.fit(TwoTower(**SMALL, **settings), data, seed=0)
    queries = bundle.queries(data.users.names(np.arange(40)))
    assert shelf_share(bundle, queries, np.arange(40) % SHELVES) > 0.8


def test_who_did_nothing_is_known_by_the_columns(bundle, data):
    """The last users have no event in train; their guild alone tells their shelf."""
    new = np.arange(USERS - NEW, USERS)
    queries = bundle.queries(data.users.names(new))
    assert queries.history.nnz == 0
    assert bundle.scorer.knows(queries).all()
    assert shelf_share(bundle, queries, new % SHELVES) > 0.7
    assert bundle.recommend(["nobody"])[0].fallback
    blind = mt.fit(TwoTower(**SMALL, user_columns=False), data, seed=0)
    assert blind.scorer.context == ()
    assert blind.recommend([data.users.ids[USERS - 1]])[0].fallback


def test_a_question_brings_its_own_columns(bundle):
    for shelf, guild in enumerate(GUILDS):
        queries = bundle.queries(histories=[[]], context={"guild": [guild]})
        assert shelf_share(bundle, queries, [shelf]) > 0.6
    known = bundle.recommend(["u1"])[0]
    assert known.item_ids != bundle.recommend(["u1"], context={"guild": ["weaver"]})[0].item_ids
    text = bundle.recommend(["u1"], context={"height": ["tall"]})[0]
    assert text == bundle.recommend(["u1"], context={"height": [np.nan]})[0]


def test_in_batch_negatives_are_corrected_for_how_often_they_come(data):
    """Against a loop: each other target of the batch counts, less the logarithm of its share."""
    torch.manual_seed(0)
    task = _Task(replace(SPEC, loss="in-batch", user_columns=False, age=False), data, 0)
    batch = task.batches(0)[0]
    given = task.take(batch, 0)
    found, count = task.loss(given)
    rows, vectors = given["target"], task.network.items.detach().double()
    queries = []
    for start, stop in zip(given["start"].tolist(), given["stop"].tolist(), strict=True):
        queries.append(task.network.inputs[given["events"][start:stop]].mean(0))
    with torch.no_grad():
        users = task.network.user_vectors(torch.stack(queries), [], None, None).double()
    share = (data.train.item_count + 1) / (data.train.item_count + 1).sum()
    total = 0.0
    for user, row in zip(users, rows.tolist(), strict=True):
        own = float(user @ vectors[row] - np.log(share[row]))
        others = [float(user @ vectors[r] - np.log(share[r])) for r in rows.tolist() if r != row]
        total += np.log(np.exp([own, *others]).sum()) - own
    assert count == len(rows)
    assert float(found.detach()) == pytest.approx(total / count, rel=1e-4)


def test_only_columns_that_teach_are_kept(bundle, data):
    assert set(bundle.scorer.context) == set(bundle.user_table) == {"guild", "height"}
    plain = mt.fit(SPEC, replace(data, user_table={"all": np.ones(USERS)}))
    assert plain.scorer.side is None
    assert plain.user_table == {}


@pytest.mark.parametrize("settings", [{}, {"tied": True, "user_columns": False},
                                      {"item_columns": True}])  # fmt: skip
def test_the_bundle_answers_as_the_network(settings, data):
    spec = replace(SPEC, **settings)
    torch.manual_seed(0)
    task = _Task(spec, data, 0)
    task.network.eval()
    rows = [[1], [3, 4, 5], list(range(9))] + ([] if not spec.user_columns else [[]])
    users = np.array([5, 0, 9, 159])[: len(rows)]
    with torch.inference_mode():
        expected = task._encode(Queries.of(CSR.from_rows(rows, ITEMS)), users)
    scorer = task.export()
    bundle = mt.fit(spec, data, seed=0).then(scorer, {})
    context = {
        name: column for name, column in bundle.queries(data.users.names(users)).context.items()
    }
    found = scorer.encode(Queries.of(CSR.from_rows(rows, ITEMS), context=context))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_items_that_nobody_met_are_placed_by_their_columns():
    data = shelves(new_items=8)
    spec = TwoTower(**SMALL, item_columns=True)
    bundle = mt.fit(spec, data, seed=0)
    queries = bundle.queries(data.users.names(np.arange(40)))
    fresh = np.broadcast_to(np.arange(ITEMS - 8, ITEMS, dtype=np.int32), (40, 8))
    best = bundle.scorer.score(queries, fresh).argmax(1) + ITEMS - 8
    assert (best % SHELVES == np.arange(40) % SHELVES).mean() > 0.8


def test_the_age_tells_fashion_from_taste():
    """All take what is in fashion; an answer is of today, though nothing else tells the day."""
    stream = np.random.default_rng(0)
    day = np.sort(stream.integers(0, 20, (300, 6)), axis=1)
    item = day // 5 * 5 + stream.integers(0, 5, day.shape)
    log = {"user": np.repeat(np.arange(300), 6), "item": item.ravel(), "time": day.ravel() * 86_400}
    data = mt.prepare(log, clean=(), split=mt.TimeSplit(0.01, 0.01))
    shares = []
    for age in (True, False):
        bundle = mt.fit(TwoTower(**SMALL | {"patience": 0}, age=age), data, seed=0)
        everyone = Queries.of(
            CSR.from_rows([[row] for row in range(data.num_items)], data.num_items)
        )
        late = {str(i) for i in range(15, 20)}
        rows = bundle.scorer.topk(replace(everyone, seen="keep"), 5).item_row
        shares.append(np.mean([[data.items.ids[row] in late for row in line] for line in rows]))
    assert shares[0] > shares[1] + 0.2


def test_a_log_without_times_has_no_ages():
    data = ring(users=40)
    timeless = replace(data, train=replace(data.train, time_s=None))
    assert mt.fit(SPEC, timeless).recommend(["0"], 3)[0].item_ids


def test_a_warm_start_is_ahead(bundle, data):
    spec = TwoTower(**SMALL | {"epochs": 1, "rate": 1e-3})
    cold, warm = (mt.fit(spec, data, seed=1, init=init) for init in (None, bundle))
    assert ndcg(warm, data) > ndcg(cold, data) + 0.05
    tower = TwoTower(**SMALL | {"epochs": 1, "rate": 1e-7}, item_columns=True)
    mixed = mt.fit(tower, data, seed=1, init=bundle)
    np.testing.assert_allclose(mixed.scorer.items.dense(), bundle.scorer.items.dense(), atol=1e-4)


def test_a_start_from_another_shape_is_refused(bundle, data):
    for other in ({"hidden": 8}, {"tied": True}, {"user_columns": False}):
        with pytest.raises(SpecError, match="expected two towers of the same widths"):
            mt.fit(TwoTower(**SMALL | other), data, init=bundle)
    with pytest.raises(SpecError, match="expected two towers of the same widths"):
        mt.fit(TwoTower(**SMALL), data, init=mt.fit(mt.IALS(dim=8), data))


def test_saved_indexed_and_quantized_it_answers(bundle, data, tmp_path):
    bundle.save(tmp_path / "b")
    again = mt.load(tmp_path / "b")
    users = data.users.names([0, 5, USERS - 1])
    assert again.recommend(users) == bundle.recommend(users)
    found = mt.compress(again, ["quantize:fp16", "index:ivf,recall=0.9"])
    found.save(tmp_path / "small")
    small = mt.load(tmp_path / "small")
    assert small.recommend(users) == found.recommend(users)
    shared = set(small.recommend(users)[0].item_ids) & set(bundle.recommend(users)[0].item_ids)
    assert len(shared) >= 8
    reasons = again.explain("u0", bundle.recommend(["u0"])[0].item_ids[0])
    assert len(reasons) == len(set(data.train.histories.row(0).tolist()))


def test_columns_that_do_not_fit_the_table_are_refused(bundle, tmp_path):
    side = bundle.scorer.side
    side.save(tmp_path)
    few = mt.scorers.table.Table.of(np.zeros((3, 4)))
    with pytest.raises(BundleError, match="table side has 3 rows: expected"):
        Side.from_parts(side.features.to_json(), few, tmp_path)


def test_killed_and_resumed_the_tables_are_those_of_a_whole_run(data, tmp_path):
    whole = SPEC.fit(data, seed=1).tables()
    child = f"""
        import os, signal
        from pathlib import Path
        from martlet.train.run import Run
        from support.shelves import shelves
        from unit.models.test_two_tower import SPEC

        def die(step, done, total):
            if done == 9:
                os.kill(os.getpid(), signal.SIGKILL)

        SPEC.fit(shelves(), seed=1, run=Run(Path({str(tmp_path)!r}), every_steps=2, progress=die))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(child)],
        env=os.environ | {"PYTHONPATH": "tests"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = SPEC.fit(data, seed=1, run=Run(tmp_path, resume=True)).tables()
    assert resumed.keys() == whole.keys()
    for name, table in whole.items():
        assert np.array_equal(table.dense(), resumed[name].dense()), name


def test_the_last_run_of_examples_is_named_where_the_loss_breaks(data):
    wild = TwoTower(**SMALL | {"rate": 1e6, "optimizer": "sgd"})
    with pytest.raises(mt.MartletError, match="the histories of users u"):
        mt.fit(wild, data)


def test_users_of_one_event_teach_nothing(data):
    lonely = data.train.select(np.flatnonzero(np.diff(data.train.user_row, prepend=-1)))
    with pytest.raises(DataError, match="no user of the train part has two events"):
        mt.fit(replace(SPEC, user_columns=False), replace(data, train=lonely))
    assert mt.fit(SPEC, replace(data, train=lonely)).scorer.knows


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"dropout": 1.0}, {"loss": "hinge"}, {"batch": 0}, {"column_dim": 0}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        TwoTower(**SMALL | wrong)
