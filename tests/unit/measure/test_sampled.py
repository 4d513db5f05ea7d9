from dataclasses import replace

import numpy as np
import pytest

from martlet.core import DataError, Queries, SpecError, rng
from martlet.measure import sampled as module
from martlet.measure.quality import questions
from martlet.measure.sampled import _draw, _met, evaluate_sampled
from martlet.metrics import sampled, sampled_values
from martlet.models.fit import fit
from martlet.models.ials import IALS
from martlet.models.item_knn import ItemKNN
from martlet.models.popularity import Popularity
from support.datasets import NUM_ITEMS, tasteful


@pytest.fixture(scope="module")
def data():
    return tasteful()


def test_negatives_are_never_what_the_user_met(data):
    met = _met(data)
    users = np.repeat(np.arange(data.num_users), 5)
    drawn = _draw(rng(0, "x"), users, 50, met, data.num_items)
    assert ((drawn >= 0) & (drawn < NUM_ITEMS)).all()
    for part in (data.train, data.valid, data.test):
        pairs = set(zip(part.user_row.tolist(), part.item_row.tolist(), strict=True))
        for user, items in zip(users.tolist(), drawn.tolist(), strict=True):
            assert not pairs & {(user, item) for item in items}


def test_a_user_who_met_everything_has_no_negatives():
    met = np.arange(10, dtype=np.int64)  # user 0 with all of ten items, user 1 with none
    drawn = _draw(rng(0, "x"), np.array([0, 1]), 4, met, 10)
    assert (drawn[0] == -1).all()
    assert (drawn[1] >= 0).all()


# Few negatives are scored by themselves, many by the scores of the whole catalogue.
@pytest.mark.parametrize("negatives", [1, 4, 20])
@pytest.mark.parametrize("spec", [IALS(dim=8), ItemKNN()])
def test_the_figures_are_those_of_the_protocol_on_the_same_draw(data, spec, negatives):
    bundle = fit(spec, data)
    how = {"ks": (1, 10), "negatives": negatives, "seed": 3}
    found = evaluate_sampled(bundle, data, per_user=True, **how)
    history, truth, repeats = questions(data, "test", "hide")
    users = truth.row_numbers()
    drawn = _draw(rng(3, "negatives", "test"), users, negatives, _met(data), data.num_items)
    queries = Queries.of(history.csr.take(users), users, seen="keep")
    assert (history.csr.lengths[users] > 0).all(), "every user here is known"
    same = sampled(bundle.scorer, queries, truth.indices, drawn, ks=(1, 10))
    name = f"sampled{negatives}_"
    assert found.figures == {name + metric: value for metric, value in same.items()}
    assert found.figures[name + "hit_rate@1"] == found.figures[name + "ndcg@1"]
    assert (found.num_users, found.num_fallback) == (len(np.unique(users)), 0)
    assert found.num_repeats == repeats
    rows = np.column_stack([truth.indices, drawn]).astype(np.int32)
    each = sampled_values(bundle.scorer.score(queries, rows), (1, 10))
    for metric, values in each.items():
        means = [values[users == user].mean() for user in found.user_row]
        np.testing.assert_allclose(found.users[name + metric], means, rtol=1e-12)


@pytest.mark.parametrize("negatives", [2, 30])
def test_a_user_is_asked_once_whatever_the_bound_on_memory(data, negatives, monkeypatch):
    bundle = fit(IALS(dim=8), data)

    class Spy:
        num_items = data.num_items

        def score(self, queries, candidates):
            asked.append(len(queries))
            users.extend(queries.user_row.tolist())
            return bundle.scorer.score(queries, candidates)

    found = []
    for memory_mb, threads in ((256, "1"), (256, "2"), (0.02, "2"), (1e-9, "1")):
        monkeypatch.setenv("MARTLET_THREADS", threads)
        asked, users = [], []
        found.append(evaluate_sampled(Spy(), data, negatives=negatives, memory_mb=memory_mb))
        assert len(users) == len(set(users)) == found[0].num_users
    assert max(asked) <= 2, "where there is no memory, a user or two at a time"
    assert all(one.figures == found[0].figures for one in found)


def test_where_the_draw_stops_changes_nothing(data, monkeypatch):
    def draw(random, users, size, met, num_items):
        return (users[:, None] * 7 + np.arange(size)) % num_items

    monkeypatch.setattr(module, "_draw", draw)
    bundle = fit(IALS(dim=8), data)
    told = []
    found = []
    for cells in (1 << 20, 70):
        monkeypatch.setattr(module, "_CELLS", cells)
        found.append(
            evaluate_sampled(bundle, data, progress=lambda *step: told.append(step), per_user=True)
        )
    assert found[0].figures == found[1].figures
    assert found[0].num_users == found[1].num_users
    events = told[0][1]
    assert told[0] == ("measure among negatives", events, events)
    assert [done for _, done, _ in told[1:]] == list(range(1, events + 1))


def test_popularity_answers_for_users_of_whom_nothing_is_known(data):
    nobody = np.unique(data.test.user_row)[:10]
    known = ~np.isin(data.train.user_row, nobody)
    cold = replace(
        data,
        train=data.train.select(known),
        valid=data.valid.select(~np.isin(data.valid.user_row, nobody)),
        test=data.test.select(np.isin(data.test.user_row, nobody)),
    )
    model, popular = fit(IALS(dim=8), cold), fit(Popularity(), cold)
    for negatives in (2, 15):
        found = evaluate_sampled(model, cold, negatives=negatives)
        assert found.figures == evaluate_sampled(popular, cold, negatives=negatives).figures
        assert found.num_fallback == found.num_users == 10


def test_a_scorer_alone_is_measured_too(data):
    bundle = fit(IALS(dim=8), data)
    alone, whole = (evaluate_sampled(one, data).figures for one in (bundle.scorer, bundle))
    assert alone == whole


def test_what_cannot_be_measured(data):
    bundle = fit(Popularity(), data)
    nothing = data.test.select(np.zeros(len(data.test), bool))
    with pytest.raises(DataError, match="part 'test' has no item to find"):
        evaluate_sampled(bundle, replace(data, test=nothing))
    later = fit(Popularity(), data.with_valid_in_train())
    with pytest.raises(DataError, match="part 'valid' was trained on"):
        evaluate_sampled(later, data, part="valid")
    with pytest.raises(SpecError, match="memory_mb is nan: expected a finite number of MB above 0"):
        evaluate_sampled(bundle, data, memory_mb=float("nan"))
    with pytest.raises(SpecError, match="negatives is 0: expected a whole number of 1 or more"):
        evaluate_sampled(bundle, data, negatives=0)
    with pytest.raises(SpecError, match=r"k is \[0\]"):
        evaluate_sampled(bundle, data, ks=(0,))
