import hashlib
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from martlet.core import DataError, SpecError
from martlet.measure.quality import evaluate
from martlet.measure.tables import measure_table
from martlet.models.fit import fit
from martlet.models.ials import IALS
from support.datasets import tasteful


@pytest.fixture(scope="module")
def data():
    one = tasteful()
    return replace(one, catalogue={"price": np.arange(one.num_items, dtype=float)})


def table(tmp_path, answers):
    rows = [
        (answer.user_id, item, rank)
        for answer in answers
        for rank, item in enumerate(answer.item_ids, 1)
    ]
    path = tmp_path / "lists.parquet"
    pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row").write_parquet(path)
    return path


def test_lists_have_the_figures_of_what_made_them(tmp_path, data):
    bundle = fit(IALS(dim=8), data)
    path = table(tmp_path, bundle.recommend(data.users.ids, 10))
    how = {"part": "valid", "ks": (3, 10), "value": "price"}
    names = ("ndcg", "recall", "coverage", "value_recall", "novelty")
    receipt, quality = measure_table(path, data, metrics=names, **how)
    ours = evaluate(bundle, data, metrics=names, per_user=True, **how)
    assert receipt.quality.keys() == ours.figures.keys()
    for name, value in ours.figures.items():
        assert receipt.quality[name] == pytest.approx(value, rel=1e-12)
    assert quality.user_row.tolist() == ours.user_row.tolist()
    np.testing.assert_allclose(quality.users["ndcg@10"], ours.users["ndcg@10"], rtol=1e-12)
    assert (receipt.num_users, receipt.part, receipt.k) == (ours.num_users, "valid", 10)
    assert receipt.bundle_id == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_user_without_a_list_counts_nothing(tmp_path, data):
    bundle = fit(IALS(dim=8), data)
    answers = bundle.recommend(data.users.ids, 10)
    whole, _ = measure_table(table(tmp_path, answers), data, metrics=("recall",))
    half, quality = measure_table(table(tmp_path, answers[:30]), data, metrics=("recall",))
    assert half.num_users == whole.num_users
    assert half.quality["recall@10"] < whole.quality["recall@10"]
    assert (quality.users["recall@10"][quality.user_row >= 30] == 0).all()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_other_files_other_names_and_scores_alone(tmp_path, data, ending):
    answers = fit(IALS(dim=8), data).recommend(data.users.ids, 10)
    whole, _ = measure_table(table(tmp_path, answers), data, metrics=("ndcg", "novelty"))
    lists = pl.read_parquet(tmp_path / "lists.parquet")
    scored = lists.select(user="user_id", item="item_id", score=-pl.col("rank").cast(pl.Float64))
    path = tmp_path / f"lists.{ending}"
    if ending == "jsonl":
        scored.write_ndjson(path)
    else:
        scored.write_csv(path, separator="\t" if ending == "tsv" else ",")
    receipt, _ = measure_table(path, data, metrics=("ndcg", "novelty"))
    assert receipt.quality == whole.quality
    assert receipt.spec["params"] == {"file": path.name}


def test_lists_do_not_tell_auc(tmp_path, data):
    path = table(tmp_path, fit(IALS(dim=8), data).recommend(["u0"], 10))
    with pytest.raises(SpecError, match=r"auc needs the score of every item, and .* holds lists"):
        measure_table(path, data, metrics=("recall", "auc"))


def test_what_is_no_table_is_refused_by_name(tmp_path, data):
    path = tmp_path / "x.parquet"
    with pytest.raises(DataError, match=r"x.parquet is no readable .parquet table"):
        measure_table(path, data)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="expected columns user_id, item_id, and rank or score"):
        measure_table(path, data)
    pl.DataFrame({"user_id": ["u0"]}).write_parquet(path)
    with pytest.raises(DataError, match="the ranked table has no column 'item_id'"):
        measure_table(path, data)
    pl.DataFrame({"user": ["u0"], "item": ["40"], "rank": [1]}).write_parquet(path)
    with pytest.raises(DataError, match=r"no item of .* is in the dataset: it has '40', the .* 'i"):
        measure_table(path, data)


def test_nothing_to_find(tmp_path, data):
    nothing = data.test.select(np.zeros(len(data.test), bool))
    path = table(tmp_path, fit(IALS(dim=8), data).recommend(["u0"], 10))
    with pytest.raises(DataError, match="part 'test' has no item to find"):
        measure_table(path, replace(data, test=nothing))
