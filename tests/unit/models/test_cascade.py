from dataclasses import replace

import numpy as np
import pytest

import martlet as mt
from martlet.core import Queries, SpecError
from martlet.metrics import Tally
from martlet.models.cascade import Cascade, cascade
from support.sequences import ring

DEPTH = 6


@pytest.fixture(scope="module")
def data():
    return ring(users=80)


@pytest.fixture(scope="module")
def two(data):
    return mt.fit(mt.IALS(dim=4, iterations=4), data), mt.fit(mt.EASE(reg=5.0), data)


@pytest.fixture(scope="module")
def both(two):
    return cascade(*two, depth=DEPTH)


def test_what_is_found_by_one_is_ordered_by_the_other(both, two, data):
    retrieve, rank = two
    before, truth = data.before("test"), data.test.matrix
    users = np.flatnonzero(truth.lengths)
    queries = Queries.of(before.histories.take(users), users)
    found = retrieve.scorer.topk(queries, DEPTH).item_row
    score = rank.scorer.score(queries, found)
    order = np.argsort(-score, axis=1, kind="stable")
    tally = Tally(data.num_items, (3,), ("recall", "ndcg"))
    met = before.matrix
    wanted = truth.row_numbers().astype(np.int64) * truth.num_cols + truth.indices
    known = met.row_numbers().astype(np.int64) * met.num_cols + met.indices
    fresh = ~np.isin(wanted, known)
    truth = mt.core.CSR.from_pairs(
        truth.row_numbers()[fresh], truth.indices[fresh], None, (truth.num_rows, truth.num_cols)
    )
    asked = np.flatnonzero(truth.lengths[users])
    tally.add(np.take_along_axis(found, order, 1)[asked, :3], truth.take(users[asked]))
    measured = mt.evaluate(both, data, ks=(3,)).figures
    assert measured == pytest.approx(tally.figures())
    deep = cascade(*two, depth=data.num_items)
    assert mt.evaluate(deep, data).figures == mt.evaluate(rank, data).figures


def test_as_deep_as_the_list_it_finds_what_the_first_one_finds(two, data):
    shallow = cascade(*two, depth=5)
    mine, first = (mt.evaluate(b, data, ks=(5,)).figures for b in (shallow, two[0]))
    assert mine["recall@5"] == first["recall@5"]
    assert mine["ndcg@5"] != first["ndcg@5"]


def test_it_costs_what_both_cost(both, two):
    assert both.scoring_bytes == sum(bundle.scoring_bytes for bundle in two)
    spec = Cascade("ials:dim=4,iterations=4", "ease:reg=5.0", DEPTH)
    assert spec.bytes(20) == mt.IALS(dim=4).bytes(20) + mt.EASE().bytes(20)


def test_what_may_not_be_shown_is_not_shown(both, data):
    user = data.users.ids[0]
    seen = {data.items.ids[row] for row in both.queries([user]).history.indices}
    (first,) = both.recommend([user], 20)
    assert len(first.item_ids) == data.num_items - len(seen)
    assert not seen & set(first.item_ids)
    best = first.item_ids[0]
    assert best not in both.recommend([user], exclude=[best])[0].item_ids
    allow = np.ones(data.num_items, bool)
    allow[data.items.row(best)] = False
    assert best not in both.recommend([user], allow=allow)[0].item_ids
    some = first.item_ids[-3:]
    assert both.recommend([user], candidates=some)[0].item_ids == some
    assert seen & set(both.recommend([user], 20, seen="keep")[0].item_ids)


def test_both_lineages_are_kept_and_say_how_to_fit_it_again(both, two, data, tmp_path):
    (line,) = both.lineage
    assert line["params"] == {
        "retrieve": "ials:dim=4,iterations=4",
        "rank": "ease:reg=5.0",
        "depth": DEPTH,
    }
    assert [line["bundles"][name]["id"] for name in ("retrieve", "rank")] == [b.id for b in two]
    assert line["bundles"]["rank"]["lineage"] == list(two[1].lineage)
    again = mt.fit(Cascade(**line["params"]), data)
    users = data.users.names(range(9))
    assert again.recommend(users) == both.recommend(users)
    both.save(tmp_path / "b")
    assert mt.load(tmp_path / "b").recommend(users) == both.recommend(users)


def test_it_may_not_be_measured_on_what_either_was_trained_on(two, data):
    whole = mt.fit(mt.EASE(), replace(data, about={"merged": [data.test.hash]}))
    with pytest.raises(mt.MartletError, match="part 'test' was trained on"):
        mt.evaluate(cascade(two[0], whole), data)


def test_columns_of_both_are_at_hand(two):
    retrieve, rank = (
        replace(bundle, user_table={name: np.ones(len(bundle.users))})
        for bundle, name in zip(two, ("age", "size"), strict=True)
    )
    assert set(cascade(retrieve, rank).user_table) == {"age", "size"}


def test_it_takes_part_in_an_exploration(data):
    spec = Cascade("ials:dim=4,iterations=4", "ease", DEPTH)
    found = mt.explore(data, ["popularity", spec], [(), ("quantize:fp16",)], cold_runs=0)
    names = [receipt.name for receipt in found.receipts]
    assert len([name for name in names if name.startswith("cascade")]) == 2
    assert not found.skipped


def test_a_training_of_each_is_kept_in_a_folder_of_its_own(data, tmp_path):
    spec = Cascade("gru4rec:dim=4,epochs=1", "bpr:dim=4,epochs=2", DEPTH)
    mt.fit(spec, data, run=mt.Run(tmp_path))
    assert (tmp_path / "retrieve" / "report.json").exists()


def test_bundles_of_other_vocabularies_are_refused(two):
    other = mt.fit(mt.EASE(), ring(users=40))
    with pytest.raises(SpecError, match="number 80 and 40 users differently"):
        cascade(two[0], other)


def test_bundles_of_other_histories_are_refused(two, data):
    more = mt.fit(mt.EASE(), data.with_valid_in_train())
    with pytest.raises(SpecError, match="expected two fits on the same train part"):
        cascade(two[0], more)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"retrieve": "magic"}, "no model is called 'magic'"),
        ({"rank": "ease:reg"}, "'reg' in 'ease:reg': expected a model's name, a colon and key"),
        ({"rank": "ease:reg=1,reg=2"}, "'reg=2' in .* each key once"),
        ({"rank": "ease:dim=1"}, "ease has no parameter 'dim'"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_settings_that_make_no_sense(given, words, data):
    with pytest.raises(SpecError, match=words):
        mt.fit(Cascade(**given), data)
