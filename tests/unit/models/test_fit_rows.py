"""A labelled table fitted: which models take one, what the bundle is, and what it refuses."""

import numpy as np
import pytest

from martlet.core import DataError, QueryError, SpecError, Tabular
from martlet.metrics import label_quality
from martlet.models.fit import fit
from martlet.models.registry import names, spec, spec_class
from martlet.scorers.bundle import Bundle
from support.bundles import bundle as ranking
from support.rows import LogisticRegression, labelled, predicting


def test_models_of_fields_take_rows_and_all_others_refuse_by_name():
    taking = {name for name in names() if getattr(spec_class(name), "takes_rows", False)}
    assert taking >= {"wide-deep", "deepfm", "dcnv2", "dlrm"}
    refusing = set(names()) - taking
    assert refusing >= {"ials", "ease", "sasrec"}
    for name in refusing:
        words = f"{name} learns from events of users and items, and cannot learn from labelled rows"
        with pytest.raises(SpecError, match=words):
            fit(spec(name), labelled())


def test_the_lineage_says_what_was_learnt_from():
    data = labelled()
    line = predicting(data).lineage[0]
    assert line["trained_on"] == [data.train.hash]
    assert line["columns"] == {"age": "number", "city": "text"}
    assert line["data"] == {"source": ["rows"]}
    merged = fit(LogisticRegression(), data.with_valid_in_train()).lineage[0]
    assert set(merged["trained_on"]) >= {data.train.hash, data.valid.hash}


def test_it_learns_and_survives_its_folder(tmp_path):
    data = labelled()
    made = predicting(data)
    told = made.predict(data.test.columns)
    assert label_quality(data.test.label, told, ["auc"])["auc"].low > 0.75
    made.save(tmp_path / "b")
    back = Bundle.load(tmp_path / "b")
    assert back.id == made.id
    assert back.predicts
    assert (back.predict(data.test.columns) == told).all()
    few = back.predict({"age": [70, None], "city": ["Oslo", ""]})
    assert few.dtype == np.float32
    assert few[0] > few[1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda b: b.recommend(["u"]),
        lambda b: b.recommend(histories=[[]]),
        lambda b: next(b.recommend_all()),
        lambda b: b.similar("i"),
        lambda b: b.explain("u", "i"),
        lambda b: b.queries(["u"]),
    ],
)
def test_it_ranks_nothing_and_says_so(ask):
    words = "fitted on labelled rows and has no users or items to rank: ask it to predict"
    with pytest.raises(QueryError, match=words):
        ask(predicting())


def test_a_bundle_that_ranks_predicts_nothing():
    with pytest.raises(QueryError, match="ranks items for users, and predicts no label"):
        ranking().predict({"age": [1]})


def test_an_empty_train_part_is_refused():
    nothing = labelled().train.slice(0, 0)
    empty = Tabular(nothing, nothing, nothing)
    with pytest.raises(DataError, match="the train part holds no events"):
        fit(LogisticRegression(), empty)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"age": 30, "city": ["Oslo"]}, "column 'age' is 30: expected its values as a list"),
        ({"city": "Oslo"}, "column 'city' is 'Oslo': expected its values as a list"),
        ({"age": None}, "column 'age' is None: expected its values as a list"),
        ([1], r"the rows are \[1\]: expected columns by name"),
        (None, "the rows are None: expected columns by name"),
    ],
)
def test_values_in_the_place_of_columns_are_refused(columns, words):
    with pytest.raises(QueryError, match=words):
        predicting().predict(columns)
