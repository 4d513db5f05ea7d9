import math

import numpy as np
import pytest

from martlet.core import CSR, DataError, SpecError, Text
from martlet.features import (
    Category,
    Cross,
    Importance,
    Numeric,
    mutual_information,
    permutation,
    select,
)

N = 4000
RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, N).astype(np.float32)
COLUMNS = {
    "all": Text.of(["yes" if one else "no" for one in LABEL]),
    "half": np.where(RNG.random(N) < 0.5, LABEL, RNG.integers(0, 2, N)),
    "wing": LABEL + RNG.normal(0, 0.3, N),
    "noise": RNG.normal(0, 1, N),
    "ring": Text.of(f"r{n}" for n in range(N)),
}


def test_a_copy_tells_all_and_noise_nothing():
    told = mutual_information(COLUMNS, LABEL)
    share = LABEL.mean()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert list(told) == sorted(told, key=told.get, reverse=True)
    assert told["all"] == pytest.approx(entropy, abs=1e-3)
    # A symmetric channel that errs once in four: ln 2 - H(1/4).
    assert told["half"] == pytest.approx(math.log(2) - 0.5623, abs=0.02)
    assert 0.3 < told["wing"] < entropy
    # Its bias alone would be (bins - 1) / 2n = .008.
    assert abs(told["noise"]) < 0.003
    assert abs(told["ring"]) < 0.003


def test_a_missing_value_may_tell():
    told = mutual_information({"x": np.where(LABEL > 0, np.nan, 1.0)}, LABEL)
    assert told["x"] > 0.6
    wing = np.where(LABEL > 0, np.nan, COLUMNS["wing"])
    assert mutual_information({"x": wing}, LABEL)["x"] > 0.6


def test_a_label_of_numbers():
    target = RNG.normal(0, 1, N)
    told = mutual_information({"x": target * 2 + 1, "y": RNG.normal(0, 1, N)}, target, bins=8)
    assert told["x"] == pytest.approx(math.log(8), abs=0.01)
    assert abs(told["y"]) < 0.005


def test_the_same_seed_gives_the_same():
    assert mutual_information(COLUMNS, LABEL, seed=3) == mutual_information(COLUMNS, LABEL, seed=3)
    assert mutual_information(COLUMNS, LABEL, seed=4) != mutual_information(COLUMNS, LABEL, seed=3)
    assert mutual_information({"x": []}, np.zeros(0)) == {"x": 0}


def predict(columns):
    words = np.array(list(columns["tail"]))
    return (words == "long") + 0.5 * columns["wing"] + 0.0 * np.diff(columns["seen"].indptr)


def loss(label, prediction):
    return float(((label - prediction) ** 2).mean())


def table():
    return {
        "tail": Text.of(RNG.choice(["long", "short"], 500).tolist()),
        "wing": RNG.normal(0, 1, 500),
        "seen": CSR.from_rows([[0]] * 500, num_cols=1),
        "other": [1] * 500,
    }


def test_a_shuffled_column_costs_what_it_told():
    columns = table()
    label = predict(columns)
    found = permutation(predict, columns, label, loss, better="smaller", repeats=6)
    assert list(found)[:2] == ["wing", "tail"] or list(found)[:2] == ["tail", "wing"]
    # Shuffled, the squared error is twice the variance of what the column adds.
    for name, variance in (("tail", 0.25), ("wing", 0.25)):
        assert found[name].mean == pytest.approx(2 * variance, rel=0.15)
        assert found[name].low < found[name].mean < found[name].high
    assert found["seen"] == found["other"] == Importance(0, 0, 0)
    again = permutation(predict, columns, label, loss, better="smaller", repeats=6)
    assert found == again


def test_only_some_columns_and_a_larger_metric():
    columns = table()
    label = predict(columns)
    found = permutation(
        predict, columns, label, lambda y, p: -loss(y, p), names=["wing"], repeats=2
    )
    assert list(found) == ["wing"]
    assert found["wing"].mean > 0


def test_the_interval_is_students():
    values = iter([1.0, 2.0, 4.0, 5.0, 8.0])
    found = permutation(
        lambda columns: np.zeros(2),
        {"x": np.zeros(2)},
        np.zeros(2),
        lambda label, prediction: -next(values),
        repeats=4,
    )["x"]
    # Losses 1, 3, 4, 7: mean 3.75, deviation 2.5; t of 3 degrees at .975 is 3.182.
    assert found.mean == 3.75
    assert found.high - found.mean == pytest.approx(3.182 * 2.5 / 2, rel=0.01)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


PLAN = (Category("tail"), Numeric("wing"), Category("ring"), Cross(("tail", "ring")))
WORTH = {"tail": 0.4, "wing": 0.2, "ring": 0.1}


def names(plan):
    return [spec.field for spec in plan]


def test_select():
    assert names(select(PLAN, WORTH, best=2)) == ["tail", "wing"]
    assert names(select(PLAN, WORTH, above=0.1)) == ["tail", "wing"]
    assert names(select(PLAN, WORTH, above=0.05)) == ["tail", "wing", "ring", "tail x ring"]
    assert names(select(PLAN, WORTH, best=1, above=0.1)) == ["tail"]
    sure = {"tail": Importance(3, 2, 4), "wing": Importance(5, -1, 11), "ring": Importance(1, 1, 1)}
    assert names(select(PLAN, sure, above=0)) == ["tail", "ring", "tail x ring"]
    assert names(select(PLAN, sure, best=1)) == ["wing"]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: select(PLAN, WORTH), SpecError, "nothing to select by: give best, above or both"),
        (lambda: select(PLAN, WORTH, best=0), SpecError, "best is 0: expected a whole number"),
        (lambda: select(PLAN, {"tail": 1}, best=1), SpecError, "column 'wing' has no worth"),
        (lambda: select(PLAN, WORTH, above=9), SpecError, "no column passes: lower the bound"),
        (lambda: mutual_information(COLUMNS, LABEL, bins=0), SpecError, "bins is 0"),
        (lambda: mutual_information(COLUMNS, LABEL, shuffles=0), SpecError, "shuffles is 0"),
        (lambda: mutual_information(COLUMNS, LABEL[1:]), DataError, "'all' has 4000 values for 3"),
        (
            lambda: permutation(predict, table(), LABEL, loss, better="more"),
            SpecError,
            "better is 'more': expected 'larger' or 'smaller'",
        ),
        (lambda: permutation(predict, table(), LABEL, loss, repeats=0), SpecError, "repeats is 0"),
        (
            lambda: permutation(predict, table(), LABEL, loss, repeats=1),
            SpecError,
            "repeats is 1: an interval needs 2 or more",
        ),
        (
            lambda: permutation(predict, table(), LABEL, loss, names=["beak"]),
            SpecError,
            "there is no column 'beak': expected some of tail, wing, seen, other",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
