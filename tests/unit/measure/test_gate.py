"""The gate: its arithmetic worked out by hand, what it refuses, both kinds of data."""

from dataclasses import replace

import numpy as np
import pytest

from martlet.core import DataError, SpecError, rng
from martlet.measure.gate import Measured, gate, judge, loss_of
from martlet.measure.verdict import Gate, Verdict, check_limits, read_limit
from martlet.metrics import Interval, bootstrap, label_difference
from martlet.models.fit import fit
from martlet.models.ials import IALS
from martlet.scorers.table import Table
from support import datasets
from support.receipts import receipt
from support.rows import labelled, predicting

LIMIT = {"ndcg@10": 0.01}


def verdict(mean, low, high, limit=0.01, num=1000):
    return Verdict("ndcg@10", limit, 0.2, 0.19, Interval(mean, low, high), num)


def of_users(values):
    values = np.asarray(values, float)
    told = replace(receipt("a", float(values.mean()), 1, 1), bundle_id=str(values.sum()))
    return Measured(told, {"ndcg@10": values})


@pytest.mark.parametrize(
    ("loss", "outcome"),
    [
        ((0.005, 0.001, 0.009), "passes"),
        ((0.005, 0.001, 0.01), "passes"),
        ((-0.02, -0.03, -0.01), "passes"),
        ((0.03, 0.011, 0.05), "fails"),
        ((0.03, 0.01, 0.05), "unresolved"),
        ((0.005, -0.01, 0.02), "unresolved"),
    ],
)
def test_the_bound_decides(loss, outcome):
    assert verdict(*loss).outcome == outcome
    assert (verdict(*loss).more == 0) == (outcome != "unresolved")


def test_how_many_more_users_it_takes():
    # The bound reaches 0.005 up and may reach 0.002: 2.5 times too far, so 6.25 times the users.
    assert verdict(0.008, 0.004, 0.013).more == 5250
    # Above the limit it is the lower bound that has to come up: 0.012 down where 0.006 would do.
    assert verdict(0.016, 0.004, 0.031).more == 3000
    assert verdict(0.01, 0.004, 0.013).more is None
    assert verdict(0.008, 0.004, 0.01000001).more == 1


def test_the_words():
    assert str(verdict(0.005, 0.001, 0.009)) == (
        "ndcg@10 loses 0.5% [0.1, 0.9] of 0.2: passes, at most 1% may be lost"
    )
    assert "fails, at most 1% may be lost, and this is 0.5 points beyond it or more" in str(
        verdict(0.03, 0.015, 0.05)
    )
    assert "unresolved, at most 1% may be lost; needs about 5,200 more users" in str(
        verdict(0.008, 0.004, 0.013)
    )
    assert "it stands at the limit itself" in str(verdict(0.01, 0.004, 0.013))


def test_among_many_the_interval_reaches_further():
    one = verdict(0.005, 0.003, 0.009)
    assert one.among(1) == one
    # 5% shared by 10 candidates: 2.807 standard errors where one alone takes 1.960.
    low, high = one.among(10).loss[1:]
    assert (low, high) == pytest.approx(
        (0.005 - 0.002 * 2.807 / 1.96, 0.005 + 0.004 * 2.807 / 1.96), rel=1e-3
    )
    assert one.outcome == "passes"
    assert one.among(10).outcome == "unresolved"


def test_the_worst_verdict_is_that_of_the_gate():
    passes, fails = verdict(0, 0, 0), verdict(0.5, 0.4, 0.6)
    open_ = verdict(0.005, -0.01, 0.02)
    old, new = receipt("a", 0.2, 1, 1), receipt("b", 0.2, 1, 1)
    assert Gate((passes,), old, new).outcome == "passes"
    assert Gate((passes, open_), old, new).outcome == "unresolved"
    assert Gate((fails, passes, open_), old, new).outcome == "fails"


def test_a_loss_is_a_share_of_what_was_there():
    before = rng(0, "gate").uniform(0, 1, 500)
    assert loss_of("ndcg@10", of_users(before), of_users(before)) == (0, 0, 0)
    # The same share of every user's: nothing varies.
    same = loss_of("ndcg@10", of_users(before), of_users(0.97 * before))
    assert same == pytest.approx((0.03, 0.03, 0.03))
    # A figure before that does not vary leaves the bootstrap of the differences.
    lost = rng(0, "lost").uniform(-0.1, 0.2, 500)
    even = loss_of("ndcg@10", of_users(np.ones(500)), of_users(1 - lost))
    assert even == pytest.approx(bootstrap(lost))


def test_a_ratio_has_the_error_of_both_its_means():
    random = rng(1, "gate")
    before, after = random.uniform(0, 1, (2, 2000))
    low, high = loss_of("ndcg@10", of_users(before), of_users(after))[1:]
    ratio = after.mean() / before.mean()
    error = (after - ratio * before).std() / before.mean() / np.sqrt(2000)  # delta method
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_nothing_can_be_lost_of_nothing():
    with pytest.raises(DataError, match="ndcg@10 was 0 before: nothing can be lost"):
        judge(of_users(np.zeros(9)), of_users(np.ones(9)), LIMIT)


@pytest.mark.parametrize(
    ("limits", "labelled", "words"),
    [
        ({}, False, "no limit to judge by"),
        ({"ndcg@10": 1.0}, False, "at most 1 of ndcg@10"),
        ({"ndcg@10": -0.1}, False, "at most -0.1 of ndcg@10"),
        ({"ndcg": 0.1}, False, "'ndcg' cannot be judged user by user: expected one of recall@10"),
        ({"auc@10": 0.1}, False, "'auc@10' cannot"),
        ({"coverage@10": 0.1}, False, "'coverage@10' cannot"),
        ({"novelty@10": 0.1}, False, "'novelty@10' cannot"),
        ({"value_recall@10": 0.1}, False, "'value_recall@10' cannot"),
        ({"ndcg@10": 0.1}, True, "of labelled rows expected one of auc, pr_auc"),
        ({"calibration": 0.1}, True, "calibration has no end that is better"),
    ],
)
def test_a_limit_that_cannot_be_judged_is_refused(limits, labelled, words):
    with pytest.raises(SpecError, match=words):
        check_limits(limits, labelled=labelled)


def test_limits_are_read():
    assert read_limit("ndcg@10=1%") == ("ndcg@10", 0.01)
    assert read_limit(" log_loss = .002 ") == ("log_loss", 0.002)
    for text in ("ndcg@10", "ndcg@10=", "ndcg@10=much"):
        with pytest.raises(SpecError, match="is no limit of a loss"):
            read_limit(text)


@pytest.fixture(scope="module")
def fitted():
    data = datasets.tasteful()
    return data, fit(IALS(dim=8, iterations=4), data)


def spoiled(bundle):
    tables = dict(bundle.scorer.tables())
    items = tables["items"].dense()
    tables["items"] = Table.of(items[::-1].copy())
    return bundle.then(bundle.scorer.with_tables(tables), {"transform": "spoil"})


def test_a_bundle_and_its_like(fitted):
    data, bundle = fitted
    found = gate(bundle, bundle, data, {**LIMIT, "auc": 0}, cold_runs=0, compress_s=1.5)
    assert found.outcome == "passes"
    assert [v.loss for v in found.verdicts] == [(0, 0, 0)] * 2
    assert found.after.cost["compress_s"] == 1.5
    assert found.after.quality["ndcg@10_loss_high"] == 0
    ends = [found.before.quality[f"ndcg@10_{end}"] for end in ("low", "high")]
    assert ends[0] < found.before.quality["ndcg@10"] < ends[1]
    assert found.to_json()["verdicts"][0]["loss"] == {"mean": 0, "low": 0, "high": 0}


def test_a_bundle_that_lost_much(fitted):
    data, bundle = fitted
    found = gate(bundle, spoiled(bundle), data, {"recall@5": 0.01}, cost=False)
    assert found.outcome == "fails"
    assert found.verdicts[0].loss.mean > 0.2
    assert found.verdicts[0].unit == "users"
    assert found.before.k == 5
    assert found.after.name.endswith("spoil")
    assert str(found).startswith("recall@5 loses ")


def test_labelled_rows_are_judged_by_their_figures():
    data, bundle = labelled(), predicting()
    weight = 0.5 * bundle.scorer.weight.dense()
    worse = bundle.then(bundle.scorer.with_tables({"weight": Table.of(weight)}), {"transform": "x"})
    limits = {"log_loss": 0.01, "auc": 0.01}
    found = gate(bundle, worse, data, limits, cost=False)
    loss, area = found.verdicts
    assert (loss.num, loss.unit) == (200, "rows")
    assert loss.loss.mean == pytest.approx(loss.after / loss.before - 1, abs=1e-6)
    assert area.loss.mean == pytest.approx(1 - area.after / area.before, abs=1e-6)
    rows = data.valid
    told = [one.predict(rows.columns) for one in (bundle, worse)]
    wide = label_difference(rows.label, *told, ["log_loss"])["log_loss"]
    assert loss.loss == pytest.approx([end / loss.before for end in wide])
    assert area.loss.low <= area.loss.mean <= area.loss.high


def test_a_model_that_predicts_numbers_is_judged_by_their_errors():
    data, bundle = labelled(), predicting()
    object.__setattr__(bundle.scorer, "loss", "squared")
    found = gate(bundle, bundle, data, {"rmse": 0, "mae": 0}, cost=False)
    assert [one.outcome for one in found.verdicts] == ["passes"] * 2
    assert found.verdicts[0].before == found.before.quality["rmse"]
    with pytest.raises(SpecError, match="auc is a figure of probabilities"):
        gate(bundle, bundle, data, {"auc": 0.1}, cost=False)


def test_the_wrong_kind_of_data_is_refused(fitted):
    data, bundle = fitted
    with pytest.raises(DataError, match="the bundle ranks items"):
        gate(bundle, bundle, labelled(), LIMIT, cost=False)
    with pytest.raises(DataError, match="the data are events"):
        gate(predicting(), predicting(), data, {"auc": 0.1}, cost=False)
