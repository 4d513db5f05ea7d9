import sys
from dataclasses import replace

import numpy as np
import pytest

from martlet.core import DataError
from martlet.measure.measure import METRICS, measure
from martlet.measure.quality import evaluate
from martlet.models.fit import fit
from martlet.models.ials import IALS
from support.costs import quick
from support.datasets import tasteful


@pytest.fixture(scope="module")
def data():
    return tasteful()


@pytest.fixture(scope="module")
def bundle(data):
    return fit(IALS(dim=8), data, seed=4)


def test_quality_and_cost_stand_under_the_names_that_programs_read(bundle, data, monkeypatch):
    assert quick(monkeypatch) == []
    receipt = measure(bundle, data, k=5, train_s=2.0)
    assert receipt.quality == evaluate(bundle, data, ks=(5,), metrics=METRICS).figures
    assert list(receipt.quality) == [f"{name}@5" for name in METRICS]
    document = receipt.to_json()
    assert list(document)[:3] == ["quality", "num_users", "cost"]
    assert document["cost"].keys() == {
        "p50_ms", "p95_ms", "p99_ms", "throughput_qps", "bundle_mb", "scoring_mb", "peak_mb",
        "cold_start_s", "train_s",
    }  # fmt: skip
    assert document["num_users"] == evaluate(bundle, data, ks=(5,)).num_users


def test_the_receipt_says_what_was_measured_on_what(bundle, data):
    receipt = measure(bundle, data, part="valid", cost=False)
    assert (receipt.part, receipt.k, receipt.seed) == ("valid", 10, 4)
    assert receipt.data_hash == data.valid.hash
    assert receipt.bundle_id == bundle.id
    assert receipt.spec["spec"] == "ials"
    assert receipt.spec["params"]["dim"] == 8
    assert receipt.cost == {}


def test_quality_that_was_measured_is_not_measured_again(bundle, data, monkeypatch):
    quality = evaluate(bundle, data, metrics=("ndcg",))
    # By the module itself: ``martlet.measure`` is a function to whoever asks the package for it.
    monkeypatch.setattr(sys.modules["martlet.measure.quality"], "evaluate", None)
    receipt = measure(bundle, data, cost=False, quality=quality)
    assert (receipt.quality, receipt.num_users) == (quality.figures, quality.num_users)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_part_that_stands_in_the_lineage_is_refused(data, part):
    bundle = fit(IALS(dim=4), replace(data, train=data.part(part)))
    with pytest.raises(DataError, match=f"part '{part}' was trained on: its events stand in the"):
        measure(bundle, data, part=part, cost=False)


def test_a_validation_part_that_was_merged_is_refused(data):
    bundle = fit(IALS(dim=4), data.with_valid_in_train())
    with pytest.raises(DataError, match="part 'valid' was trained on"):
        measure(bundle, data, part="valid", cost=False)
    assert measure(bundle, data, cost=False).num_users


def test_what_evaluate_is_told_it_is_told(bundle, data):
    priced = replace(data, catalogue={"price": np.arange(data.num_items, dtype=float)})
    receipt = measure(
        bundle, priced, k=3, metrics=("value_recall",), value="price", seen="keep", cost=False,
        memory_mb=0.01,
    )  # fmt: skip
    same = evaluate(bundle, priced, ks=(3,), metrics=("value_recall",), value="price", seen="keep")
    assert receipt.quality == same.figures
