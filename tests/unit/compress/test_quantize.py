"""Quantization: what its options mean, what they are refused with, and what calibration is for."""

import numpy as np
import pytest

from martlet.compress import registry
from martlet.compress.calibrate import moments
from martlet.compress.compress import compress
from martlet.compress.quantize import Quantize
from martlet.core import CSR, Queries, SpecError, rng
from martlet.models.bpr import BPR
from martlet.models.fit import fit
from martlet.models.ials import IALS
from martlet.models.popularity import Popularity
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.item_item import ItemItem, LowRank
from martlet.scorers.popular import Popular
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table
from support.datasets import tasteful

N, D = 200, 24


@pytest.fixture(scope="module")
def dataset():
    return tasteful()


@pytest.fixture(scope="module")
def bundle(dataset):
    return fit(IALS(dim=16, iterations=3), dataset, seed=0)


@pytest.mark.parametrize(
    ("text", "stored_as"),
    [
        ("quantize", "int8"),
        ("quantize:bf16", "bf16"),
        ("quantize:int8,per=column", "int8-column"),
        ("quantize:int8,per=table,affine=yes", "int8-table-affine"),
        ("quantize:int8,affine=yes,calibrate=yes", "int8-affine"),
        ("quantize:int4", "int4"),
        ("quantize:int4,group=32", "int4:32"),
        ("quantize:int2,group=16,affine=yes", "int2-affine:16"),
    ],
)
def test_a_text_names_a_storage_and_is_the_label(text, stored_as):
    one = registry.parse(text)
    assert one.stored_as == stored_as
    assert registry.parse(one.label) == one
    assert one.label == (text if ":" in text else "quantize:int8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantize:fp8", "quantize:fp8 is unknown: expected quantize:fp16, :bf16, :int8, :int4"),
        ("quantize:int8-column", "quantize:int8-column is unknown"),
        ("quantize:int4:16", "quantize:int4:16 is unknown"),
        ("quantize:csr", "quantize:csr is unknown"),
        ("quantize:int4,group=1", "quantize:int4 is unknown: .*2 or more"),
        ("quantize:int4,group=few", "group in .* is 'few': expected a number"),
        ("quantize:int4,per=column", "quantize:int4,per=column: per goes with int8"),
        ("quantize:int8,per=item", "per is 'item': expected one of row, column, table"),
        ("quantize:int8,group=8", "quantize:int8,group=8: group goes with int4 and int2"),
        ("quantize:fp16,affine=yes", "fp16 has no ranges; affine goes with int8, int4 and int2"),
        ("quantize:bf16,calibrate=yes", "bf16 has no ranges; calibrate goes with"),
        ("quantize:int8,affine=maybe", "affine in .* is 'maybe': expected yes or no"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(text, words):
    with pytest.raises(SpecError, match=words):
        registry.parse(text)


@pytest.mark.parametrize("storage", ["bf16", "int8,per=table", "int4,group=5", "int2,affine=yes"])
def test_ranking_and_scores_of_a_compressed_bundle_agree(bundle, storage):
    found = compress(bundle, [f"quantize:{storage}"])
    assert found.lineage[-1]["tables"] == {"items": found.scorer.items.storage}
    queries = found.queries(found.users.names(np.arange(20)))
    ranking = found.scorer.topk(queries, 10)
    scores = found.scorer.score(queries, ranking.item_row)
    np.testing.assert_allclose(ranking.score, scores, rtol=1e-4, atol=1e-5)


def test_a_table_that_takes_fewer_bytes_as_it_is_stays():
    popular = Popular(Table.of(np.arange(50.0)))
    table = popular.popularity
    assert table.to("int8").nbytes > table.nbytes
    assert Quantize("int8")._smaller("popularity", table, None) is None
    assert Quantize("int4")._smaller("popularity", table, None) is None
    assert Quantize("int4")._smaller("x", Table.of(np.ones((3, 4))).to("int2"), None) is None
    assert Quantize("int8", "column")._smaller("popularity", table, None).nbytes < table.nbytes


def test_calibration_needs_a_dataset_and_a_product(bundle, dataset):
    with pytest.raises(SpecError, match="quantize:int4,calibrate=yes needs a dataset"):
        compress(bundle, ["quantize:int4,calibrate=yes"])
    popular = fit(Popularity(), dataset, seed=0)
    with pytest.raises(SpecError, match="over a popular scorer: its scores are no products"):
        compress(popular, ["quantize:int4,calibrate=yes"], dataset)


@pytest.mark.parametrize("storage", ["int4", "int2", "int8,per=table"])
def test_calibrated_scores_err_less_on_training_users(bundle, dataset, storage):
    def error(text):
        found = compress(bundle, [text], dataset)
        queries = found.queries(found.users.names(np.arange(len(found.users))))
        vectors = bundle.scorer.encode(queries)
        off = vectors @ (found.scorer.items.dense() - bundle.scorer.items.dense()).T
        return np.square(off).mean(), found.lineage[-1]

    plain, _ = error(f"quantize:{storage}")
    calibrated, line = error(f"quantize:{storage},calibrate=yes")
    assert calibrated <= plain * 1.001
    assert storage.startswith("int8") or calibrated < plain
    assert line["calibrated"] == ["items"]
    assert line["seed"] == 0


def test_stored_users_are_fitted_to_the_items_and_a_cascade_to_its_first(dataset, bundle):
    known = fit(BPR(dim=8, epochs=1), dataset, seed=0)
    found = moments(known, dataset)
    assert found.keys() == {"items", "projection.users"}
    items = known.scorer.items.dense().astype(np.float64)
    np.testing.assert_allclose(found["projection.users"], items.T @ items / len(items))
    both = bundle.then(Cascade(bundle.scorer, bundle.scorer, 50), {"spec": "both"})
    assert moments(both, dataset).keys() == {"retrieve.items"}


@pytest.mark.parametrize("storage", ["int8-column", "int4:8", "bf16", "int8-affine"])
def test_a_low_rank_part_is_read_from_any_storage(storage):
    u = Table.of(rng(0, "low rank").normal(size=(N, D)))
    ones = Table.of(np.ones(N))
    empty = Table.of_csr(CSR.from_rows([[0]] + [[]] * (N - 1), N))
    scorer = ItemItem(empty, LowRank(u.to(storage), ones, ones))
    plain = ItemItem(empty, LowRank(Table.of(u.to(storage).dense()), ones, ones))
    asked = Queries.of(CSR.from_rows([[3, 9], [5]], N))
    one, other = scorer.topk(asked, 12), plain.topk(asked, 12)
    assert np.array_equal(one.item_row, other.item_row)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-5)


def test_a_sparse_table_is_stored_in_int8_by_row_alone(bundle):
    sparse = Table.of_csr(Table.of(np.tri(len(bundle.items))).csr())
    of_items = bundle.then(ItemItem(sparse), {"spec": "items"})
    small = compress(of_items, ["quantize:int8"])
    assert small.scorer.weights.storage == "csr-int8"
    ones = Table.of(np.ones(len(bundle.items)))
    u = Table.of(rng(0, "beside").normal(size=(len(bundle.items), D)))
    both = of_items.then(ItemItem(sparse, LowRank(u, ones, ones)), {"spec": "both"})
    beside = compress(both, ["quantize:int4,affine=yes"]).lineage[-1]["tables"]
    assert beside == {"weights": "csr-int8", "factors": "int4-affine"}
    for text in ("quantize:int4", "quantize:bf16", "quantize:int8,affine=yes"):
        with pytest.raises(SpecError, match=f"^{text} over the sparse table weights: the place"):
            compress(of_items, [text])


def test_factors_over_a_sparse_table_are_searched_as_dense_ones():
    dense = np.where(rng(1, "sparse").random((N, D)) < 0.2, 1.5, 0).astype(np.float32)
    table = Table.of_csr(Table.of(dense).csr())
    asked = Queries.of(CSR.from_rows([[3, 9], [5]], N))
    one, other = (Factors(t, LinearFold()).topk(asked, 9) for t in (table, Table.of(dense)))
    assert np.array_equal(one.item_row, other.item_row)
    assert np.array_equal(one.score, other.score)
