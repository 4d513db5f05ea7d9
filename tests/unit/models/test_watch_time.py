from dataclasses import replace

import numpy as np
import pytest

import martlet as mt
from martlet.core import DataError, Examples, SpecError, Tabular, Text
from martlet.models.fields import WideDeep
from martlet.models.watch_time import WatchTime
from support.shelves import shelves

KINDS = ("clip", "film", "news", "song")
CHANCE = np.array([0.05, 0.10, 0.05, 0.2])
SECONDS = np.array([20.0, 20.0, 200.0, 10.0])
SMALL = {"dim": 4, "hidden": 16, "layers": 1, "batch": 2048, "rate": 0.01, "table_rate": 0.05}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small are slowed down by a second thread, most where the cores are shared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARTLET_THREADS", "1")
        yield


def showings(size=40_000):
    """What is shown, whether it is watched, and for how long: both depend on its kind."""
    stream = np.random.default_rng(0)
    parts = []
    for count in (size, 4000, 4000):
        kind = stream.integers(0, len(KINDS), count)
        label = (stream.random(count) < CHANCE[kind]).astype(np.float32)
        weight = np.where(label > 0, stream.exponential(SECONDS[kind]), 1).astype(np.float32)
        parts.append(Examples({"kind": Text.of(KINDS[k] for k in kind)}, label, weight))
    return Tabular(*parts)


@pytest.fixture(scope="module")
def rows():
    return showings()


def test_the_odds_are_the_expected_seconds(rows, tmp_path):
    bundle = mt.fit(WatchTime(**SMALL, epochs=15, schedule="cosine"), rows, seed=0)
    found = bundle.predict({"kind": list(KINDS)})
    part, kind = rows.train, np.array([KINDS.index(name) for name in rows.train.columns["kind"]])
    watched = np.bincount(kind, part.label * part.weight)
    unwatched = np.bincount(kind, 1 - part.label)
    np.testing.assert_allclose(found, watched / unwatched, rtol=0.1)
    # Beside the truth: the mean of a draw, and the factor 1 / (1 - P).
    np.testing.assert_allclose(found, CHANCE * SECONDS / (1 - CHANCE), rtol=0.3)
    bundle.save(tmp_path / "b")
    assert np.array_equal(mt.load(tmp_path / "b").predict({"kind": list(KINDS)}), found)


def test_what_is_clicked_most_is_not_what_is_watched_longest(rows):
    """A song is clicked four times as often as news, and brings a fifth of the seconds."""
    settings = SMALL | {"epochs": 6, "batch": 512}
    plain = Tabular(*(replace(part, weight=None) for part in (rows.train, rows.valid, rows.test)))
    clicks = mt.fit(WideDeep(**settings), plain, seed=0).predict({"kind": ["news", "song"]})
    seconds = mt.fit(WatchTime(**settings), rows, seed=0).predict({"kind": ["news", "song"]})
    assert clicks[1] > 2 * clicks[0]
    assert seconds[0] > 2 * seconds[1]


@pytest.fixture(scope="module")
def events():
    """Every second item is watched for a minute, the others for two seconds."""
    data = shelves()

    def timed(part):
        return replace(part, weight=np.where(part.item_row % 8 < 4, 60, 2).astype(np.float32))

    return replace(data, train=timed(data.train), valid=timed(data.valid), test=timed(data.test))


def test_it_ranks_a_catalogue_by_seconds(events, tmp_path):
    settings = SMALL | {"batch": 128, "negatives": 4, "epochs": 15, "patience": 0}
    bundle = mt.fit(WatchTime(**settings), events, seed=0)
    users = np.arange(40)
    rows = bundle.topk(bundle.queries(events.users.names(users)), 1)[0].item_row
    assert (rows % 8 < 4).mean() > 0.9
    assert (rows % 4 == users[:, None] % 4).mean() > 0.8
    scores = bundle.scorer.score(bundle.queries(["u0"]), np.array([[0, -1, 5]], np.int32))
    assert (scores[0, [0, 2]] > 0).all()
    assert scores[0, 1] == -np.inf
    assert set(bundle.user_table) == {"guild", "height"}
    bundle.save(tmp_path / "b")
    again = mt.load(tmp_path / "b")
    assert again.recommend(["u3"]) == bundle.recommend(["u3"])


def test_behind_two_towers_it_orders_what_they_find(events):
    settings = SMALL | {"batch": 128, "epochs": 8}
    towers = mt.TwoTower(dim=8, hidden=16, batch=128, rate=0.02, epochs=8, negatives=24)
    retrieve = mt.fit(towers, events, seed=0)
    both = mt.cascade(retrieve, mt.fit(WatchTime(**settings), events, seed=0), depth=8)
    assert set(both.user_table) == {"guild", "height"}
    queries = both.queries(["u0", "u159"])
    found = retrieve.scorer.topk(queries, 8).item_row
    ranked = both.topk(queries, 8)[0].item_row
    assert np.array_equal(np.sort(found, 1), np.sort(ranked, 1))
    assert not np.array_equal(found, ranked)


def test_odds_have_no_end_that_float32_lacks(events):
    scorer = mt.fit(WatchTime(**SMALL | {"batch": 128, "epochs": 1}), events, seed=0).scorer
    assert np.isfinite(scorer._told(np.array([1e9, -1e9], np.float32))).all()


def test_rows_without_seconds_are_refused(rows):
    bare = replace(rows, train=replace(rows.train, weight=None))
    with pytest.raises(DataError, match="the rows have no weights"):
        mt.fit(WatchTime(**SMALL), bare)
    stars = replace(rows.train, label=rows.train.label * 5)
    with pytest.raises(DataError, match="a label is neither 0 nor 1"):
        mt.fit(WatchTime(**SMALL), replace(rows, train=stars))


def test_another_loss_is_refused():
    with pytest.raises(SpecError, match="loss is 'squared': watch-time has odds to learn"):
        WatchTime(loss="squared")


def test_weights_of_events_reach_no_other_model(events):
    light = replace(
        events, train=replace(events.train, weight=np.ones(len(events.train), np.float32))
    )
    one, two = (mt.fit(WideDeep(**SMALL | {"epochs": 1}), data, seed=0) for data in (events, light))
    tables = [bundle.scorer.tables()["vectors"].dense() for bundle in (one, two)]
    assert np.array_equal(*tables)
