"""Columns of users: kept with the bundle, gathered for those scorers alone that read them."""

import json
from dataclasses import replace

import numpy as np
import pytest

import martlet as mt
from martlet.core import BundleError, Dataset, Interactions, QueryError, Ranking, Text
from martlet.measure.quality import evaluate
from martlet.measure.sampled import evaluate_sampled
from martlet.scorers.bundle import Bundle
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.projections import LinearFold
from martlet.scorers.ranker import Ranker
from martlet.scorers.saved import write_bundle
from martlet.scorers.storage import read_tensors, write_manifest, write_tensors
from martlet.scorers.table import Table
from support.bundles import DIM, NUM_ITEMS, NUM_USERS, bundle, draw, items
from support.networks import pair_ranker

AGES = np.arange(NUM_USERS, dtype=np.float32) * 10


def ranker():
    hidden, out = draw("hidden", DIM + 1 + 2, 8), draw("out", 8, 1)
    features = Table.of(draw("features", NUM_ITEMS, 2))
    return Ranker(features, LinearFold(), pair_ranker(hidden, out), items(), context=("age",))


def aged(scorer=None):
    table = {"age": AGES, "city": Text.of(f"c{i}" for i in range(NUM_USERS))}
    return replace(bundle(scorer or ranker()), user_table=table)


def test_only_what_a_scorer_reads_is_gathered():
    assert bundle().queries(["u1"]).context == {}
    assert aged(Factors(items(), LinearFold())).queries(["u1"]).context == {}
    context = aged().queries(["u3", "nobody", "u1"]).context
    assert list(context) == ["age"]
    assert context["age"][[0, 2]].tolist() == [30, 10]
    assert np.isnan(context["age"][1])
    both = aged(Cascade(Factors(items(), LinearFold()), ranker(), depth=9))
    assert both.queries(["u3"]).context["age"].tolist() == [30]


def test_the_column_decides_the_answer_and_a_question_overrides_it():
    toy = aged()
    mine, other = toy.recommend(["u3"])[0], toy.recommend(["u3"], context={"age": [70]})[0]
    assert mine.scores != other.scores
    assert mine == toy.recommend(["u3"], context={"age": [30.0]})[0]
    ids = [toy.items.ids[row] for row in toy.histories.row(3)]
    by_history = toy.recommend(histories=[ids], context={"age": [30.0]})[0]
    assert set(by_history.item_ids) == set(mine.item_ids)
    with pytest.raises(QueryError, match="context 'age' is int64"):
        toy.recommend(["u3", "u1"], context={"age": [1]})


def test_a_user_without_history_is_known_by_a_column_that_says_something():
    toy = aged()
    assert [one.fallback for one in toy.recommend(["u7", "nobody"])] == [False, True]
    nothing = replace(toy, user_table={"age": np.full(NUM_USERS, np.nan)})
    assert nothing.recommend(["u7"])[0].fallback
    assert nothing.recommend(["u1"]) == replace(toy, user_table={}).recommend(["u1"])


def test_saved_verified_and_part_of_the_id(tmp_path):
    toy = aged()
    toy.save(tmp_path / "b")
    back = Bundle.load(tmp_path / "b")
    assert back.recommend(["u3", "u7"]) == toy.recommend(["u3", "u7"])
    assert back.user_table["city"][4] == "c4"
    assert back.id == toy.id != replace(toy, user_table={"age": AGES + 1}).id
    assert toy.bundle_bytes > replace(toy, user_table={}).bundle_bytes
    names = json.loads((tmp_path / "b" / "manifest.json").read_text())["files"]
    assert "user_table.safetensors" in names
    path = tmp_path / "b" / "user_table.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BundleError, match=r"user_table\.safetensors is damaged"):
        Bundle.load(tmp_path / "b")


def test_a_bundle_without_such_columns_is_saved_as_ever(tmp_path):
    bundle().save(tmp_path / "b")
    assert not (tmp_path / "b" / "user_table.safetensors").exists()
    assert Bundle.load(tmp_path / "b").user_table == {}


@pytest.mark.parametrize(
    ("key", "array", "words"),
    [
        ("age", np.ones(3, np.float32), "user_table column 'age' are float32"),
        ("city.offsets", np.arange(3), "user_table column 'city' are int64"),
        ("city.offsets", np.arange(NUM_USERS + 1)[::-1], "the text of user_table column 'city'"),
    ],
)
def test_columns_that_fit_no_user_are_refused(tmp_path, key, array, words):
    (tmp_path / "b").mkdir()
    write_bundle(tmp_path / "b", aged())
    path = tmp_path / "b" / "user_table.safetensors"
    arrays = {name: np.array(one) for name, one in read_tensors(path).items()}
    write_tensors(path, arrays | {key: np.ascontiguousarray(array)})
    about = json.loads((tmp_path / "b" / "manifest.json").read_text())
    write_manifest(tmp_path / "b", {name: about[name] for name in ("scorer", "tables", "lineage")})
    with pytest.raises(BundleError, match=words):
        Bundle.load(tmp_path / "b")


class ByAge:
    """Ranks item ``age / 10`` first, whatever the history."""

    num_items, context = NUM_ITEMS, ("age",)

    def score(self, queries, candidates):
        wanted = np.nan_to_num(queries.context["age"] / 10, nan=-1.0)
        score = -np.abs(candidates - wanted[:, None]).astype(np.float32)
        return np.where(candidates >= 0, score, -np.inf)

    def topk(self, queries, k):
        rows = np.broadcast_to(np.arange(NUM_ITEMS, dtype=np.int32), (len(queries), NUM_ITEMS))
        order = np.argsort(-self.score(queries, rows), axis=1, kind="stable")[:, :k]
        return Ranking(
            order.astype(np.int32), np.take_along_axis(self.score(queries, rows), order, 1)
        )


def dataset():
    toy = bundle()
    users = np.arange(NUM_USERS)
    size = {"num_users": NUM_USERS, "num_items": NUM_ITEMS}
    train = Interactions.sort(users, users + 10, **size)
    test = Interactions.sort(users, users, **size)
    empty = Interactions.sort(users[:0], users[:0], **size)
    return Dataset(toy.users, toy.items, train, empty, test, user_table={"age": AGES})


def test_a_measurement_asks_with_the_columns():
    data = dataset()
    assert evaluate(ByAge(), data, ks=(1,)).figures["recall@1"] == 1
    assert evaluate_sampled(ByAge(), data, ks=(1,)).figures["sampled99_hit_rate@1"] == 1
    blind = replace(data, user_table={"age": np.full(NUM_USERS, np.nan)})
    assert evaluate(ByAge(), blind, ks=(1,)).figures["recall@1"] < 0.5


def test_so_does_one_of_a_bundle_with_other_rows():
    data = dataset()
    order = np.arange(NUM_USERS)[::-1]
    other = replace(
        bundle(ByAge()), users=mt.core.Vocabulary.of(data.users.names(order)), user_table={}
    )
    assert evaluate(other, data, ks=(1,)).figures["recall@1"] == 1


def test_a_fit_keeps_no_column_that_nobody_reads():
    assert mt.fit(mt.Popularity(), dataset()).user_table == {}


def test_an_index_is_tuned_on_whole_questions():
    toy = aged(Cascade(Factors(items(), LinearFold()), ranker(), depth=9))
    made = mt.compress(toy, ["index:ivf,recall=0.5"])
    assert made.recommend(["u3"], 3)[0].item_ids
