"""Every served shape, as a toy of a few lines, held to one behaviour."""

from dataclasses import replace

import numpy as np
import pytest

from martlet.core import CSR, BundleError, Queries, QueryError, Scorer, Text, Vocabulary, rng
from martlet.features import Bag, Category, Cross, Features, Numeric
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.field_rows import Layout
from martlet.scorers.fields import Fields
from martlet.scorers.item_item import ItemItem
from martlet.scorers.network import Network
from martlet.scorers.popular import Popular
from martlet.scorers.projections import IALSFold, LinearFold, Lookup
from martlet.scorers.ranker import Ranker
from martlet.scorers.side import Side, check_plain
from martlet.scorers.table import Table
from support.networks import field_network, mean_encoder, pair_ranker, side_encoder

N, D, USERS = 60, 8, 12


def draw(name, *shape):
    return rng(0, "scorers", name).normal(size=shape).astype(np.float32)


ITEMS = Table.of(draw("items", N, D))


def factors():
    return Factors(ITEMS, LinearFold(power=0.5))


def ials():
    gram = ITEMS.dense().T @ ITEMS.dense()
    return Factors(ITEMS, IALSFold(Table.of(gram), 0.1, 0.02, 1.0))


def lookup():
    return Factors(ITEMS, Lookup(Table.of(draw("users", USERS, D))))


def sequence_network():
    """A sequence model: vectors of its own for the history, an encoder, vectors to answer with."""
    weight = draw("weight", 5, D)
    return Network(
        ITEMS,
        mean_encoder(weight),
        inputs=Table.of(draw("inputs", N, 5)),
        max_length=4,
        parameters={"weight": Table.of(weight)},
    )


def side_network():
    """A network told of a user's town (a vector) and height (a number) beside the history."""
    columns = {"town": ["Graz", "Bern", "Graz"], "height": [1.7, 1.8, 1.6]}
    features = Features.fit([Category("town"), Numeric("height")], columns)
    side = Side(features, Table.of(draw("towns", features.num_vector_rows, 3)))
    encoder = side_encoder(draw("weight", D, D), draw("beside", side.width, D))
    return Network(ITEMS, encoder, max_length=4, side=side)


def feature_ranker():
    """A feature model: price and age of an item, the mean history and the hour of a query."""
    features = Table.of(draw("features", N, 2))
    hidden, out = draw("hidden", D + 1 + 2, 16), draw("out", 16, 1)
    return Ranker(
        features,
        LinearFold(),
        pair_ranker(hidden, out),
        history=ITEMS,
        context=("hour",),
        parameters={"hidden": Table.of(hidden), "out": Table.of(out)},
    )


def fields():
    """Item, maker, moods and price of an item; history, hour and country of a query."""
    about = {
        "maker": Text.of(f"m{i % 7}" for i in range(N)),
        "moods": Text.of("|".join(f"w{i * j % 5}" for j in range(i % 3)) for i in range(N)),
        "price": np.arange(N) / 9,
    }
    asked = {"hour": np.arange(24.0), "country": Text.of(f"c{i % 4}" for i in range(24))}
    plans = (
        (Category("maker"), Bag("moods"), Numeric("price")),
        (Numeric("hour"), Category("country")),
    )
    item, user = (
        Features.fit(plan, given) for plan, given in zip(plans, (about, asked), strict=True)
    )
    layout = Layout.of({"item": item, "user": user}, N)
    side = layout.sides["item"]
    return Fields(
        Table.of(draw("vectors", layout.num_vector_rows, 4)),
        Table.of(draw("wide", layout.num_rows, 1)),
        field_network(draw("out", 4 * layout.num_vectors + layout.num_numbers)),
        layout,
        items=side.with_item(side.encode(about, N), np.arange(N)),
        max_length=5,
    )


def item_item():
    dense = np.abs(draw("weights", N, N)) * (draw("which", N, N) > 0.5)
    np.fill_diagonal(dense, 0)
    return ItemItem(Table.of_csr(Table.of(dense).csr()))


TOYS = {
    "popular": lambda: Popular(Table.of(np.arange(N, dtype=np.float32)[::-1])),
    "factors": factors,
    "ials": ials,
    "lookup": lookup,
    "item_item": item_item,
    "network": sequence_network,
    "network with columns": side_network,
    "ranker": feature_ranker,
    "fields": fields,
    "cascade": lambda: Cascade(factors(), feature_ranker(), depth=20),
    "cascade of networks": lambda: Cascade(sequence_network(), feature_ranker(), depth=20),
}


@pytest.fixture(params=TOYS)
def scorer(request):
    return TOYS[request.param]()


@pytest.fixture
def bundle(scorer):
    random = rng(0, "scorers", "histories")
    rows = [random.choice(N, size, replace=False) for size in random.integers(2, 9, USERS)]
    histories = CSR.from_rows(rows, N)
    histories = replace(histories, values=random.uniform(0.5, 2, histories.nnz).astype(np.float32))
    return Bundle(
        scorer,
        Vocabulary.of(f"u{i}" for i in range(USERS)),
        Vocabulary.of(f"i{i}" for i in range(N)),
        histories,
        np.bincount(histories.indices, minlength=N).astype(np.float32),
        catalogue={"title": Text.of(f"Song {i}" for i in range(N))},
        lineage=({"spec": "toy"},),
    )


@pytest.fixture
def queries(bundle):
    return bundle.queries([f"u{i}" for i in range(USERS)])


def same(one, other):
    return np.array_equal(one.item_row, other.item_row) and np.array_equal(one.score, other.score)


def test_a_toy_is_a_scorer(scorer):
    assert isinstance(scorer, Scorer)
    assert scorer.num_items == N


def test_topk_orders_the_whole_catalogue_by_score(scorer, queries):
    found = scorer.topk(queries, 5)
    everything = np.broadcast_to(np.arange(N, dtype=np.int32), (USERS, N))
    scores = scorer.score(queries, everything)
    for b in range(USERS):
        mine = scores[b].copy()
        mine[queries.history.row(b)] = -np.inf
        listed = mine[found.item_row[b]]
        np.testing.assert_allclose(found.score[b], listed, rtol=1e-4, atol=1e-5)
        if not isinstance(scorer, Cascade):
            np.testing.assert_allclose(listed, np.sort(mine)[::-1][:5], rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_single_queries(scorer, queries):
    whole = scorer.topk(queries, 7)
    candidates = np.broadcast_to(np.arange(9, dtype=np.int32), (USERS, 9))
    scores = scorer.score(queries, candidates)
    for b in range(USERS):
        one = queries.slice(b, b + 1)
        alone = scorer.topk(one, 7)
        assert np.array_equal(alone.item_row[0], whole.item_row[b])
        assert np.array_equal(alone.score[0], whole.score[b])
        assert np.array_equal(scorer.score(one, candidates[:1])[0], scores[b])


def test_what_may_not_be_shown_never_is(scorer, bundle):
    allow = np.arange(N) % 3 != 0
    ids = [f"u{i}" for i in range(USERS)]
    queries = bundle.queries(ids, exclude=["i1", "i2", "nothing"], allow=allow)
    rows = scorer.topk(queries, N).item_row
    for b in range(USERS):
        shown = rows[b][rows[b] >= 0]
        assert len(shown) == len(set(shown.tolist())) > 0
        assert not set(shown.tolist()) & {1, 2, *queries.history.row(b).tolist()}
        assert allow[shown].all()


def test_seen_items_may_be_kept(scorer, bundle):
    queries = bundle.queries(["u0", "u1"], seen="keep")
    rows = scorer.topk(queries, N).item_row
    if not isinstance(scorer, Cascade | ItemItem):
        assert set(queries.history.row(0).tolist()) <= set(rows[0].tolist())


def test_candidates_are_all_that_is_ranked(scorer, bundle):
    queries = bundle.queries(["u0", "u3"], candidates=["i5", "i9", "i9", "i7"], seen="keep")
    rows = scorer.topk(queries, 4).item_row
    assert [sorted(row.tolist()) for row in rows] == [[-1, 5, 7, 9]] * 2


def test_k_beyond_the_catalogue_pads(scorer, queries):
    found = scorer.topk(queries, N + 3)
    assert found.item_row.shape == (USERS, N + 3)
    assert (found.item_row[:, -3:] == -1).all()
    assert np.isneginf(found.score[found.item_row < 0]).all()


def test_k_below_one_is_refused(scorer, queries):
    with pytest.raises(QueryError, match="k is 0: expected a whole number of at least 1"):
        scorer.topk(queries, 0)


def test_no_candidate_scores_minus_infinity(scorer, queries):
    scores = scorer.score(queries, np.full((USERS, 2), -1, np.int32))
    assert np.isneginf(scores).all()


def test_no_queries_have_no_answers(scorer, bundle):
    assert scorer.topk(bundle.queries([]), 3).item_row.shape == (0, 3)
    assert bundle.recommend([]) == []


def test_saved_and_loaded_gives_the_same_answers(bundle, queries, tmp_path):
    bundle.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.id == bundle.id
    assert same(loaded.scorer.topk(queries, 10), bundle.scorer.topk(queries, 10))
    assert loaded.recommend(["u1", "who"]) == bundle.recommend(["u1", "who"])
    loaded.save(tmp_path / "again")
    assert Bundle.load(tmp_path / "again", verify=False).id == bundle.id


def test_the_same_tables_give_the_same_scorer(scorer, queries):
    again = scorer.with_tables(scorer.tables())
    assert same(again.topk(queries, 10), scorer.topk(queries, 10))
    assert again.tables().keys() == scorer.tables().keys()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_tables_keep_most_of_each_list(scorer, queries, precision):
    small = scorer.with_tables({k: t.to(precision) for k, t in scorer.tables().items()})
    mine, other = scorer.topk(queries, 10).item_row, small.topk(queries, 10).item_row
    kept = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(mine, other, strict=True)])
    assert kept > 0.85


def test_reasons_name_the_history(scorer, bundle):
    (answer,) = bundle.recommend(["u4"], 1)
    reasons = bundle.explain("u4", answer.item_ids[0])
    assert reasons == sorted(reasons, key=lambda reason: -reason.share)
    seen = set(bundle.queries(["u4"]).history.indices.tolist())
    for reason in reasons:
        assert reason.item_row in seen | {-1}
        assert -1 <= reason.share <= 1
        if reason.item_row >= 0:
            percent = f"{reason.share:.0%}"
            assert reason.words == f"with 'Song {reason.item_row}' in the history ({percent})"
    assert sum(abs(reason.share) for reason in reasons) == pytest.approx(1, abs=1e-4)


def test_nothing_known_falls_back_to_popularity(bundle):
    popular = [f"i{row}" for row in np.argsort(-bundle.popularity, kind="stable")]
    unknown, empty = bundle.recommend(["who", "u2"])[0], bundle.recommend(histories=[[]])[0]
    for answer in (unknown, empty):
        assert answer.fallback
        assert len(answer.item_ids) == 10
        counts = [bundle.popularity[int(item[1:])] for item in answer.item_ids]
        assert counts == sorted(bundle.popularity, reverse=True)[:10]
    assert not bundle.recommend(["who", "u2"])[1].fallback
    assert set(popular) >= set(unknown.item_ids)


def test_inputs_are_not_changed(scorer, queries):
    before = [a.copy() for a in (queries.history.indices, queries.history.values)]
    tables = {k: t.dense().copy() for k, t in scorer.tables().items()}
    scorer.topk(queries, 5)
    scorer.explain(queries, np.zeros(USERS, np.int32))
    assert np.array_equal(before[0], queries.history.indices)
    assert np.array_equal(before[1], queries.history.values)
    assert all(np.array_equal(tables[k], t.dense()) for k, t in scorer.tables().items())


def test_a_column_of_the_context_reaches_the_ranker(queries):
    ranker = feature_ranker()
    late = replace(queries, context={"hour": np.full(USERS, 23.0)})
    assert not same(ranker.topk(queries, 5), ranker.topk(late, 5))
    for hour in ("noon", "nan", 1e39, -np.inf):
        with pytest.raises(QueryError, match=r"context 'hour' is \[.*expected numbers of float32"):
            ranker.topk(replace(queries, context={"hour": np.array([hour] * USERS)}), 5)


def test_columns_of_the_context_reach_the_network(queries):
    network = side_network()
    towns = np.array(["Graz", "Bern", "Oslo", ""] * 3)
    heights = np.array([1.7, np.nan, 2.0] * 4)
    told = replace(queries, context={"town": towns, "height": heights})
    assert not same(network.topk(queries, 5), network.topk(told, 5))
    nobody = replace(told, history=CSR.empty(USERS, N), time_s=None)
    known = (towns != "") | ~np.isnan(heights)
    assert network.knows(nobody).tolist() == known.tolist()
    moved = network.encode(told) - network.encode(queries)
    unknown = network.side.encode(queries) @ draw("beside", network.side.width, D)
    expected = (network.encode(nobody) - unknown)[known]
    np.testing.assert_allclose(moved[known], expected, atol=1e-4)
    assert not network.encode(nobody)[~known].any()
    assert network.context == ("town", "height")


def test_crossed_columns_have_no_vectors():
    columns = {"town": ["Graz", "Bern"] * 2, "guild": ["smith", "baker"] * 2}
    with pytest.raises(BundleError, match=r"the crossed field '.*' has no vector"):
        check_plain(Features.fit([Category("town"), Cross(("town", "guild"))], columns))


def test_a_new_user_is_projected_as_a_known_one(bundle):
    if isinstance(bundle.scorer, Factors) and isinstance(bundle.scorer.projection, Lookup):
        pytest.skip("known users have a vector of their own")
    known = bundle.queries(["u7"])
    unknown = Queries.of(known.history)
    assert same(bundle.scorer.topk(known, 5), bundle.scorer.topk(unknown, 5))
