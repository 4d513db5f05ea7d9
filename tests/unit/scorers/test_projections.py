import numpy as np
import pytest

from martlet.core import CSR, BundleError, Queries, QueryError, SpecError, rng
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.item_item import ItemItem
from martlet.scorers.popular import Popular
from martlet.scorers.projections import IALSFold, LinearFold, Lookup, projection_from
from martlet.scorers.reasons import event_reasons, left_out_reasons
from martlet.scorers.registry import scorer_from, similar
from martlet.scorers.table import Table

N, D = 20, 4
Y = rng(0, "projections").normal(size=(N, D)).astype(np.float32)
ITEMS = Table.of(Y)
HISTORY = CSR.from_rows([[3, 5, 3], [], [7]], N, [[1, 2, 0.5], [], [4]])
QUERIES = Queries.of(HISTORY, np.array([1, 0, -1]))
AT = np.array([9, 9, 2], np.int32)
GRAM = Table.of(Y.T @ Y)


def dense(projection):
    """Score of item ``AT[b]`` for each query."""
    return np.einsum("ij,ij->i", projection.project(QUERIES, ITEMS), Y[AT])


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_a_linear_fold_sums_and_scales(power):
    found = LinearFold(power).project(QUERIES, ITEMS)
    want = (1.5 * Y[3] + 2 * Y[5]) / 3.5**power
    np.testing.assert_allclose(found[0], want, rtol=1e-5)
    np.testing.assert_allclose(found[2], Y[7] * 4 / 4**power, rtol=1e-5)
    assert not found[1].any()


def test_a_linear_fold_may_have_vectors_of_its_own():
    inputs = Table.of(rng(1, "inputs").normal(size=(N, D)))
    found = LinearFold(0, inputs).project(QUERIES, ITEMS)
    np.testing.assert_allclose(found[2], 4 * inputs.dense()[7], rtol=1e-6)


def test_an_ials_fold_solves_the_normal_equations():
    fold = IALSFold(GRAM, 0.3, 0.1, 0.5)
    found = fold.project(QUERIES, ITEMS)
    for b in range(3):
        rows = HISTORY.row(b)
        weight = HISTORY.values[HISTORY.indptr[b] : HISTORY.indptr[b + 1], None]
        ridge = 0.1 * (len(rows) + 0.3 * N) ** 0.5
        system = 0.3 * Y.T @ Y + (weight * Y[rows]).T @ Y[rows] + ridge * np.eye(D)
        want = np.linalg.solve(system, (weight * Y[rows]).sum(0))
        np.testing.assert_allclose(found[b], want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "projection", [LinearFold(0.5), LinearFold(0, ITEMS), IALSFold(GRAM, 0.3, 0.1, 1.0)]
)
def test_the_parts_of_a_score_add_up_to_it(projection):
    parts = projection.parts(QUERIES, ITEMS, AT)
    sums = np.bincount(HISTORY.row_numbers(), parts, 3)
    np.testing.assert_allclose(sums, dense(projection), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("projection", [LinearFold(0.5), IALSFold(GRAM, 0.3, 0.1, 1.0)])
def test_neighbours_in_a_batch_change_no_digit(projection):
    whole = projection.project(QUERIES, ITEMS)
    for b in range(3):
        assert np.array_equal(projection.project(QUERIES.slice(b, b + 1), ITEMS)[0], whole[b])


def test_a_lookup_knows_users_and_averages_for_others():
    users = Table.of(rng(2, "users").normal(size=(2, D)))
    lookup = Lookup(users)
    found = lookup.project(QUERIES, ITEMS)
    assert np.array_equal(found[:2], users.dense()[[1, 0]])
    np.testing.assert_allclose(found[2], Y[7], rtol=1e-6)
    assert lookup.knows(QUERIES).tolist() == [True, True, True]
    beyond = Queries.of(CSR.empty(2, N), np.array([2, -1]))
    assert lookup.knows(beyond).tolist() == [False, False]
    (why,) = Factors(ITEMS, lookup).explain(QUERIES.slice(0, 1), AT[:1])[0]
    assert why == (-1, 1.0, "close to what is known of the user")


def test_a_stored_projection_must_fit_the_items():
    with pytest.raises(BundleError, match=r"projection.gram is 4 x 3: expected 4 x 4"):
        projection_from({"kind": "ials"}, {"gram": Table.of(np.ones((4, 3)))}, (N, D))
    with pytest.raises(BundleError, match=r"projection.users is 2 x 3: expected any x 4"):
        projection_from({"kind": "lookup"}, {"users": Table.of(np.ones((2, 3)))}, (N, D))
    with pytest.raises(BundleError, match=r"projection.inputs is 2 x 4: expected 20 x 4"):
        projection_from({"kind": "linear"}, {"inputs": Table.of(np.ones((2, 4)))}, (N, D))
    with pytest.raises(BundleError, match="the projection is of kind 'x': expected ials, linear"):
        projection_from({"kind": "x"}, {}, (N, D))


def test_events_of_one_item_count_together():
    parts = np.array([0.25, -0.5, 0.25, 3], np.float32)
    reasons = event_reasons(QUERIES, parts)
    assert [[(r.item_row, r.share) for r in one] for one in reasons] == [
        [(3, 0.5), (5, -0.5)],
        [],
        [(7, 1.0)],
    ]
    assert event_reasons(QUERIES, parts * 0)[2][0].share == 0


def test_leaving_out_finds_the_parts_of_a_sum():
    summed = Factors(ITEMS, LinearFold(power=0))
    for mine, exact in zip(
        left_out_reasons(summed, QUERIES, AT), summed.explain(QUERIES, AT), strict=True
    ):
        assert [r.item_row for r in mine] == [r.item_row for r in exact]
        assert [r.share for r in mine] == pytest.approx([r.share for r in exact], abs=1e-4)


def test_an_item_without_a_direction_is_like_no_other():
    flat = Y.copy()
    flat[4] = 0
    found = Factors(Table.of(flat), LinearFold()).similar(4, 3)
    assert found.score.tolist() == [[0, 0, 0]]
    assert np.isfinite(Factors(Table.of(flat), LinearFold()).similar(3, N - 1).score).all()


def test_a_cascade_needs_two_scorers_of_one_catalogue():
    one, two = Popular(Table.of(np.ones(3))), Popular(Table.of(np.ones(4)))
    with pytest.raises(SpecError, match="retrieve knows 3 items, rank 4"):
        Cascade(one, two, 10)
    with pytest.raises(SpecError, match="depth is 0: expected at least 1 candidate"):
        Cascade(one, one, 0)


def test_a_cascade_is_as_like_as_what_retrieves():
    factors = Factors(ITEMS, LinearFold())
    cascade = Cascade(factors, Popular(Table.of(np.ones(N))), 5)
    assert np.array_equal(similar(cascade, 3, 4).item_row, factors.similar(3, 4).item_row)
    with pytest.raises(QueryError, match="popularity knows of no item"):
        similar(Cascade(Popular(Table.of(np.ones(N))), factors, 5), 3, 4)


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(BundleError, match="the scorer is of kind 'x': expected one of popular, "):
        scorer_from("x", {}, {}, tmp_path)


class Plain:
    """A scorer without a word on likeness."""

    num_items = N

    def topk(self, queries, k):
        return Factors(ITEMS, LinearFold()).topk(queries, k)


def test_without_vectors_likeness_is_the_answer_to_one_item():
    found = similar(Plain(), 3, N)
    assert 3 not in found.item_row
    assert (found.item_row >= 0).sum() == N - 1


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("weights", Table.of_csr(CSR.empty(N, N + 1)), r"weights is stored as csr \(20, 21\)"),
        ("weights", Table.of(np.ones((N, N))), r"weights is stored as fp32 .* expected csr"),
        ("left", Table.of(np.ones(3)), r"left is stored as fp32 \(3, 1\): expected dense values"),
        ("factors", Table.of(np.ones((3, 2))), r"factors .* expected dense values \(20, 2\)"),
    ],
)
def test_stored_item_weights_must_fit_each_other(tmp_path, name, table, words):
    tables = {"weights": Table.of_csr(CSR.empty(N, N)), "factors": ITEMS}
    tables |= {"left": Table.of(np.ones(N)), "right": Table.of(np.ones(N))}
    ItemItem.from_parts({"weighted": False}, tables, tmp_path)
    with pytest.raises(BundleError, match=words):
        ItemItem.from_parts({"weighted": False}, tables | {name: table}, tmp_path)
