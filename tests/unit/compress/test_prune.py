from dataclasses import replace

import numpy as np
import pytest

import martlet as mt
from martlet.compress.compress import compress
from martlet.compress.prune import Prune
from martlet.compress.registry import parse
from martlet.core import CSR, SpecError, Text, Vocabulary, rng
from martlet.features import Category, Features
from martlet.scorers.bundle import Bundle
from martlet.scorers.factors import Factors
from martlet.scorers.field_rows import Layout
from martlet.scorers.fields import Fields
from martlet.scorers.item_item import ItemItem
from martlet.scorers.network import Network
from martlet.scorers.popular import Popular
from martlet.scorers.projections import LinearFold, Lookup
from martlet.scorers.ranker import Ranker
from martlet.scorers.table import Table
from support.networks import mean_encoder, pair_ranker

N, USERS, D = 120, 50, 16


def draw(name, *shape):
    return rng(0, "prune", name).normal(size=shape).astype(np.float32)


def bundle_of(scorer, met=True):
    """Item i is met the less the larger i is; user u has u % 9 events."""
    random = rng(0, "prune", "histories")
    share = 1 / np.arange(1, N + 1)
    rows = [random.choice(N, u % 9, replace=False, p=share / share.sum()) for u in range(USERS)]
    histories = CSR.from_rows(rows if met else [[]] * USERS, N)
    return Bundle(
        scorer,
        Vocabulary.of(f"u{i}" for i in range(USERS)),
        Vocabulary.of(f"i{i}" for i in range(N)),
        histories,
        np.bincount(histories.indices, minlength=N).astype(np.float32),
        lineage=({"spec": "toy"},),
    )


def factors():
    return Factors(Table.of(draw("items", N, D)), LinearFold())


def lookup():
    return Factors(Table.of(draw("items", N, D)), Lookup(Table.of(draw("users", USERS, D))))


def network():
    weight = draw("weight", D, D)
    return Network(Table.of(draw("items", N, D)), mean_encoder(weight), None, 5)


def ranker():
    hidden, out = draw("hidden", D + 8, 9), draw("out", 9, 1)
    seen = Table.of(draw("history", N, D))
    return Ranker(Table.of(draw("features", N, 8)), LinearFold(), pair_ranker(hidden, out), seen)


def item_item():
    dense = draw("weights", N, N) * (draw("which", N, N) > 0)
    return ItemItem(Table.of_csr(Table.of(dense).csr()))


def scores(bundle):
    queries = bundle.queries([f"u{i}" for i in range(USERS)])
    return bundle.scorer.score(queries, np.tile(np.arange(N, dtype=np.int32), (USERS, 1)))


@pytest.mark.parametrize("make", [factors, network, ranker])
def test_the_rarest_rows_become_their_mean(make, tmp_path):
    bundle = bundle_of(make())
    small = compress(bundle, ["prune:rows,share=0.75"])
    before, after = (b.scorer.tables()["items"] for b in (bundle, small))
    assert after.storage == "shared:fp32"
    rare = np.argsort(bundle.popularity, kind="stable")[: N * 3 // 4]
    kept = np.setdiff1d(np.arange(N), rare)
    np.testing.assert_array_equal(after.rows(kept), before.rows(kept))
    weight = bundle.popularity[rare]
    mean = weight @ before.rows(rare) / weight.sum()
    np.testing.assert_allclose(after.rows(rare), np.tile(mean, (len(rare), 1)), rtol=1e-5)
    assert small.lineage[-1]["tables"]["items"] == {"left": N // 4 + 1, "of": N}
    assert small.scoring_bytes < bundle.scoring_bytes
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(scores(Bundle.load(tmp_path / "small")), scores(small))


def test_rows_that_nobody_met_count_alike():
    bundle = bundle_of(factors())
    never = np.flatnonzero(bundle.popularity == 0)
    small = compress(bundle, [Prune("rows", share=(len(never) - 0.4) / N)])
    mean = bundle.scorer.items.rows(never).mean(0)
    np.testing.assert_allclose(small.scorer.items.rows(never[:1])[0], mean, rtol=1e-5)


def test_a_user_whose_row_goes_is_answered_by_the_history():
    bundle = bundle_of(lookup())
    small = compress(bundle, ["prune:rows,share=0.5"])
    few = np.flatnonzero((bundle.histories.lengths > 0) & (bundle.histories.lengths < 3))
    many = np.flatnonzero(bundle.histories.lengths > 6)
    queries = small.queries([f"u{u}" for u in (*few, *many)])
    vectors = small.scorer.encode(queries)
    history = LinearFold().project(queries, small.scorer.items)
    np.testing.assert_array_equal(vectors[: len(few)], history[: len(few)])
    users = bundle.scorer.projection.users.rows(many)
    np.testing.assert_array_equal(vectors[len(few) :], users)


def test_without_histories_users_keep_their_rows():
    bundle = bundle_of(lookup(), met=False)
    small = compress(bundle, ["prune:rows,by=magnitude"])
    assert list(small.lineage[-1]["tables"]) == ["items"]
    with pytest.raises(SpecError, match=r"^prune:rows: no history tells .*; give by=magnitude"):
        compress(bundle, ["prune:rows"])


def test_rows_of_fields_go_by_magnitude():
    seen = {"city": Text.of(f"c{i}" for i in range(90))}
    layout = Layout.of({"row": Features.fit((Category("city"),), seen)})
    vectors = draw("vectors", layout.num_vector_rows, 6)
    vectors[::2] *= 0.01
    network = Network(Table.of(vectors), mean_encoder(draw("w", 6, 6))).encoder
    bundle = bundle_of(Fields(Table.of(vectors), None, network, layout))
    small = compress(bundle, ["prune:rows"]).scorer.vectors
    np.testing.assert_array_equal(small.rows(slice(1, None, 2)), vectors[1::2])
    assert len(np.unique(small.dense(), axis=0)) == len(vectors[1::2]) + 1
    with pytest.raises(SpecError, match="how often a row of vectors is met is not known"):
        compress(bundle, ["prune:rows,by=frequency"])


def test_rows_then_quantized_stay_shared():
    bundle = bundle_of(factors())
    once = compress(bundle, ["prune:rows"])
    small = compress(once, ["quantize:int8"])
    assert small.scorer.items.storage == "shared:int8"
    assert small.scoring_bytes < once.scoring_bytes / 2
    turned = compress(once, ["low-rank:4"])
    assert turned.scorer.items.storage == "shared:fp32"
    assert turned.scorer.items.values.shape == (N // 2 + 1, 4)


@pytest.mark.parametrize("storage", [[], ["quantize:fp16"], ["quantize:int8"]])
@pytest.mark.parametrize("by", ["magnitude", "frequency"])
def test_the_smallest_entries_go(storage, by):
    bundle = compress(bundle_of(item_item()), storage)
    small = compress(bundle, [f"prune:entries,share=0.8,by={by}"])
    before, after = (b.scorer.weights for b in (bundle, small))
    assert after.storage == before.storage
    count = before.csr().nnz
    assert after.csr().nnz == count - round(0.8 * count)
    left = after.dense()
    there = left != 0
    np.testing.assert_array_equal(left[there], before.dense()[there])
    size = np.abs(before.dense())
    if by == "frequency":
        size = size * np.sqrt(bundle.popularity)[:, None]
    assert size[there].min() >= size[~there].max() - 1e-6
    assert small.scoring_bytes < 0.3 * bundle.scoring_bytes
    after.check("weights")


@pytest.mark.parametrize("storage", ["fp32", "fp16", "int8"])
def test_the_smallest_values_go_and_the_others_are_stored(storage, tmp_path):
    bundle = bundle_of(factors())
    small = compress(bundle, ["prune:values,share=0.8"])
    items, before = small.scorer.items, bundle.scorer.items.dense()
    assert items.storage == "csr"
    size = np.abs(before)
    kept = size > np.sort(size.ravel())[round(0.8 * size.size) - 1]
    np.testing.assert_array_equal(items.dense(), np.where(kept, before, 0))
    assert items.nbytes < 4 * before.size
    queries = small.queries([f"u{i}" for i in range(USERS)])
    dense = Factors(Table.of(items.dense()), LinearFold()).topk(queries, 7)
    found = small.scorer.topk(queries, 7)
    np.testing.assert_array_equal(found.item_row, dense.item_row)
    np.testing.assert_array_equal(found.score, dense.score)
    if storage != "fp32":
        small = compress(small, [f"quantize:{storage}"])
        assert small.scorer.items.storage == f"csr-{storage}"
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(scores(Bundle.load(tmp_path / "small")), scores(small))


def test_dimensions_that_give_least_go():
    items = draw("items", N, D) * np.where(np.arange(D) % 2, 1, 0.01).astype(np.float32)
    bundle = bundle_of(Factors(Table.of(items), LinearFold()))
    small = compress(bundle, ["prune:dims"])
    np.testing.assert_allclose(small.scorer.items.dense(), items[:, 1::2])
    assert small.lineage[-1]["tables"]["items"]["rank"] == D // 2
    np.testing.assert_allclose(scores(small), scores(bundle), atol=2e-3)
    told = compress(bundle_of(network()), ["prune:dims,share=0.25"]).scorer
    assert told.items.shape == (N, 12)


def test_parts_of_a_network_are_handed_on(monkeypatch):
    from martlet.compress import prune_network

    met = {}

    def stand_in(label, bundle, what, schedule, dataset, *, seed, progress):
        met.update(label=label, what=what, schedule=schedule, seed=seed)
        return bundle.then(bundle.scorer, {"transform": label})

    monkeypatch.setattr(prune_network, "prune_network", stand_in)
    text = "prune:units,share=0.3,by=gradient,epochs=1"
    compress(bundle_of(factors()), [text], seed=4)
    assert (met["label"], met["what"], met["seed"]) == (text, "units", 4)
    given = prune_network.Schedule(share=0.3, by="gradient", epochs=1)
    assert met["schedule"] == given
    compress(bundle_of(factors()), ["prune:layers"])
    assert met["schedule"] == prune_network.Schedule()


@pytest.mark.parametrize(
    "text", ["prune:rows", "prune:rows,share=0.2,by=magnitude", "prune:heads,steps=3,epochs=0"]
)
def test_a_label_is_the_text(text):
    assert parse(text).label == text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Prune("leaves"), "prune:leaves is unknown: expected one of values, entries, rows"),
        (lambda: Prune("rows", 1.0), "share is 1.0: expected a number between 0 and 1"),
        (lambda: Prune("dims", by="frequency"), "prune:dims by frequency: expected by magnitude"),
        (lambda: Prune("rows", by="gradient"), "by gradient: expected by frequency or magnitude"),
        (lambda: Prune("rows", epochs=3), "prune:rows trains nothing: leave epochs out"),
        (lambda: Prune("units", steps=0), "steps is 0: expected at least 1"),
        (lambda: Prune("units", epochs=-1), "epochs is -1: expected at least 0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make, words):
    with pytest.raises(SpecError, match=words):
        make()


def popular():
    return Popular(Table.of(np.arange(N, dtype=np.float32)))


def shared_values(scorer):
    return scorer.with_tables({"items": scorer.items.to("shared:fp32")})


@pytest.mark.parametrize(
    ("scorer", "steps", "words"),
    [
        (popular, ["prune:rows"], "^prune:rows over a popular scorer: it has no vectors"),
        (popular, ["prune:values"], "^prune:values over a popular scorer: it has no vectors"),
        (popular, ["prune:entries"], "^prune:entries over a popular scorer: it has no entries"),
        (popular, ["prune:dims"], "^prune:dims over a popular scorer: it has no vectors to cut"),
        (factors, ["prune:entries"], "^prune:entries over a factors scorer: it has no entries"),
        (item_item, ["prune:rows"], "^prune:rows over a item_item scorer: it has no vectors"),
        (item_item, ["prune:entries,share=.00001"], "it has no entries of items by items to leave"),
        (factors, ["prune:values,share=.3"], "would take more bytes with the places of what is"),
        (factors, ["prune:rows,share=.01"], "would take more bytes with a place for each row"),
        (factors, ["quantize:int8", "prune:rows"], "^prune:rows over items stored as int8: put"),
        (factors, ["quantize:int8", "prune:dims"], "^prune:dims over items stored as int8"),
        (factors, ["prune:rows", "prune:values"], "^prune:values over items stored as shared:fp32"),
        (factors, ["prune:dims,share=.01"], "^prune:dims,share=0.01 leaves every direction"),
        (
            network,
            ["prune:dims", "prune:units"],
            "^prune:units after prune:dims: .* put prune:units",
        ),
        (
            factors,
            ["low-rank:3", "prune:heads"],
            "^prune:heads after low-rank:3: a network is rest",
        ),
        (network, ["prune:dims,share=.06"], r"^prune:dims,share=0.06 would take [\d,]+ bytes"),
    ],
)
def test_what_cannot_be_is_refused_by_name(scorer, steps, words):
    with pytest.raises(SpecError, match=words):
        compress(bundle_of(scorer()), steps)


def test_an_index_is_not_left_over_old_vectors():
    indexed = compress(bundle_of(factors()), ["index:exact-int8"])
    with pytest.raises(SpecError, match=r"^prune:rows after exact-int8: .* put prune:rows first"):
        Prune("rows").of_tables(indexed)


def test_bundles_made_elsewhere_are_pruned(tmp_path):
    weight = draw("weight", D, D)
    (tmp_path / "encoder.onnx").write_bytes(mean_encoder(weight))
    histories = [[i, (i * 7) % N, (i * 3) % N] for i in range(40)]
    vectors = draw("items", N, D)
    for bundle in (
        mt.from_vectors(vectors, histories=histories),
        mt.from_vectors(vectors, user_vectors=draw("users", 40, D), histories=histories),
        mt.from_onnx(tmp_path / "encoder.onnx", vectors, histories=histories),
        mt.from_onnx(
            tmp_path / "encoder.onnx", vectors, histories=histories, input_vectors=vectors * 2
        ),
    ):
        for text in ("prune:rows", "prune:values,share=0.7", "prune:dims", "low-rank:5"):
            small = compress(bundle, [text])
            assert small.scoring_bytes < bundle.scoring_bytes
            before, after = (b.recommend(["3", "20"], k=5) for b in (bundle, small))
            assert [len(one.item_ids) for one in after] == [len(one.item_ids) for one in before]
        with pytest.raises(SpecError, match=r"^prune:units"):
            compress(bundle, ["prune:units"])


def test_a_share_of_shared_rows_can_go_too():
    bundle = bundle_of(factors())
    once = compress(bundle, ["prune:rows,share=0.3"])
    twice = compress(once, ["prune:rows,share=0.6"])
    assert twice.scorer.items.storage == "shared:fp32"
    assert twice.scorer.items.values.shape[0] == N - round(0.6 * N) + 1
    assert replace(twice, lineage=()).scoring_bytes < once.scoring_bytes
