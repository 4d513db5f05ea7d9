"""A bundle that predicts labels measured: figures, costs, refusals, the pair of two bundles."""

import json

import numpy as np
import pytest

from martlet.core import DataError, QueryError, SpecError, Tabular
from martlet.measure import fresh
from martlet.measure.labels import (
    compare_labels,
    evaluate_labels,
    label_cost,
    measure_labels,
    predictions,
)
from martlet.measure.measure import measure
from martlet.measure.quality import evaluate
from martlet.measure.receipt import Receipt
from martlet.metrics import LABEL_METRICS, label_quality
from martlet.models.fit import fit
from support import bundles, datasets
from support.rows import LogisticRegression, labelled, predicting

COSTS = {"p50_ms", "p95_ms", "p99_ms", "num_queries", "throughput_qps", "bundle_mb", "scoring_mb"}


def test_blocks_do_not_change_a_digit():
    data, bundle = labelled(), predicting()
    whole = bundle.predict(data.test.columns)
    seen = []
    for batch in (1, 7, 1000):
        told = predictions(bundle, data.test, batch=batch, progress=lambda *a: seen.append(a))
        assert (told == whole).all()
    assert seen[-1] == ("predict", 200, 200)


def test_the_figures_are_those_of_the_predictions():
    data, bundle = labelled(), predicting()
    found = evaluate_labels(bundle, data, part="valid")
    assert dict(found.figures) == label_quality(
        data.valid.label, bundle.predict(data.valid.columns)
    )
    assert (found.num_rows, found.num_positive) == (200, int(data.valid.label.sum()))
    plain = found.plain()
    assert plain["auc_low"] < plain["auc"] < plain["auc_high"]
    assert len(plain) == 3 * len(LABEL_METRICS) + 2


def test_the_receipt_has_quality_cost_and_origin():
    data, bundle = labelled(), predicting()
    receipt = measure(bundle, data, cold_runs=0, train_s=1.5)
    assert set(receipt.cost) == COSTS | {"train_s"}
    assert receipt.quality["auc"] > 0.8
    assert receipt.data_hash == data.test.hash
    assert receipt.spec == {"spec": "LogisticRegression", "params": {"steps": 300}}
    assert Receipt.from_json(receipt.to_json()) == receipt
    lines = str(receipt).splitlines()
    assert lines[0] == "LogisticRegression (part test)"
    assert lines[1].startswith(f"auc {receipt.quality['auc']:.4g} [")
    assert "auc_low" not in lines[1]
    alone = measure_labels(bundle, cost=False)
    assert (alone.quality, alone.cost, alone.part) == ({}, {}, None)
    some = measure(bundle, data, metrics=["auc"], cost=False)
    assert set(some.quality) == {"auc", "auc_low", "auc_high", "num_rows", "num_positive"}


def test_costs_without_rows_and_in_a_fresh_process(tmp_path, capsys):
    bundle = predicting()
    assert set(label_cost(bundle, cold_runs=0)) == COSTS
    bundle.save(tmp_path / "b")
    fresh._main(str(tmp_path / "b"), "10")  # only this process knows the toy scorer
    stamps = json.loads(capsys.readouterr().out)
    assert stamps["begin"] < stamps["opened"] < stamps["answered"]


def test_what_was_trained_on_is_not_measured_on():
    data = labelled()
    with pytest.raises(DataError, match="part 'train' was trained on"):
        evaluate_labels(predicting(data), data, part="train")
    merged = fit(LogisticRegression(), data.with_valid_in_train())
    with pytest.raises(DataError, match="part 'valid' was trained on"):
        evaluate_labels(merged, data, part="valid")
    with pytest.raises(DataError, match="part 'valid' was trained on"):
        compare_labels(predicting(data), merged, data, part="valid")
    assert evaluate_labels(merged, data).num_rows == 200


def test_bundles_and_data_that_do_not_go_together_are_refused():
    data, bundle = labelled(), predicting()
    for given, words in (
        ((bundle, datasets.tasteful()), "fitted on labelled rows, and the data are events"),
        ((bundles.bundle(), data), "ranks items for users, and the data are labelled rows"),
    ):
        with pytest.raises(DataError, match=words):
            measure(*given)
    with pytest.raises(DataError, match="labelled rows have no items to rank"):
        evaluate(bundle, data)
    with pytest.raises(QueryError, match="ranks items for users, and predicts no label"):
        evaluate_labels(bundles.bundle(), data)
    empty = Tabular(data.train, data.valid, data.test.slice(0, 0))
    with pytest.raises(DataError, match="part 'test' holds no row"):
        evaluate_labels(bundle, empty)
    with pytest.raises(SpecError, match="no figure of labels is called 'ndcg'"):
        evaluate_labels(bundle, data, metrics=["ndcg"])
    fewer = data.test.slice(0, 10)
    columns = {"age": fewer.columns["age"]}
    rows = Tabular(data.train, data.valid, type(fewer)(columns, fewer.label))
    with pytest.raises(DataError, match="no column 'city', which the model was fitted on"):
        evaluate_labels(bundle, rows)


def test_two_bundles_are_compared_row_by_row():
    data = labelled((600, 200, 2000))
    first, second = predicting(data, steps=1), predicting(data, steps=300)
    found = compare_labels(first, second, data)
    for name, one in found.items():
        alone = [evaluate_labels(b, data).figures[name] for b in (first, second)]
        assert one.mean == pytest.approx(alone[1].mean - alone[0].mean)
    assert found["auc"].low > 0
    assert found["log_loss"].high < 0
    assert all(tuple(one) == (0, 0, 0) for one in compare_labels(first, first, data).values())
    assert np.isfinite([*found["calibration"]]).all()


def test_chances_and_numbers_are_not_compared():
    data, numbers = labelled(), predicting()
    object.__setattr__(numbers.scorer, "loss", "squared")
    with pytest.raises(SpecError, match="one model predicts probabilities and the other numbers"):
        compare_labels(predicting(), numbers, data)
