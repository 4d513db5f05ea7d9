import json

import numpy as np
import polars as pl
import pytest

from martlet.core import DataError, SpecError
from martlet.data import GivenSplit, LastOut, RandomSplit, TimeSplit, prepare
from martlet.data.clean import Duplicates, KCore, MinRating, RecencyDecay, ValidTime
from martlet.frontier import effect as module
from martlet.frontier.effect import ALL, NONE, effect
from martlet.models.item_knn import ItemKNN
from martlet.models.popularity import Popularity

RULES = (ValidTime(), MinRating(3), Duplicates(), RecencyDecay(5))


def two_tastes(users=80, items=40, noise=12):
    """Return a log of users who like every second item, and rate others low at random."""
    stream = np.random.default_rng(0)
    rows = []
    for user in range(users):
        liked = stream.permutation(np.arange(user % 2, items, 2))[:10]
        others = stream.permutation(np.arange(1 - user % 2, items, 2))[:noise]
        rows += [(user, item, 5.0) for item in liked] + [(user, item, 1.0) for item in others]
    order = stream.permutation(len(rows))
    user, item, rating = (np.array(column)[order] for column in zip(*rows, strict=True))
    time = np.arange(len(rows)) * 3600
    return pl.DataFrame({"user_id": user, "item_id": item, "rating": rating, "timestamp": time})


def test_each_rule_is_left_out_and_told():
    told = []
    found = effect(two_tastes(), clean=RULES, progress=lambda *step: told.append(step))
    names = [trial.without for trial in found.trials]
    assert names[0] == ALL
    assert names[-1] == NONE
    assert names[1:-1] == [
        "ValidTime(latest_s=None)",
        "MinRating(threshold=3)",
        "Duplicates(keep_which=last)",
        "RecencyDecay(half_life_days=5)",
    ]
    by_name = {trial.without: trial for trial in found.trials}
    assert by_name["MinRating(threshold=3)"].verdict == "helps"
    assert by_name["MinRating(threshold=3)"].gain.low > 0
    assert by_name["RecencyDecay(half_life_days=5)"].quality != by_name[ALL].quality
    idle = by_name["Duplicates(keep_which=last)"]
    assert idle.verdict == "changes nothing"
    assert idle.fit_s == by_name[ALL].fit_s  # it was not fitted again
    assert by_name[ALL].gain is None
    assert told[:2] == [("effect: warm up", 0, 6), ("effect: all rules", 0, 6)]
    assert told[-1] == ("effect", 6, 6)


@pytest.mark.parametrize("spec", [ItemKNN(), Popularity()])
def test_the_first_fit_is_small_and_is_not_timed(monkeypatch, spec):
    monkeypatch.setattr(module, "_WARM_UP", 40)
    fits, clock = [], iter(range(10**6))
    real = module.fit

    def spy(model, dataset, **more):
        fits.append((dataset.train, sorted(dataset.catalogue), next(clock)))
        return real(model, dataset, **more)

    monkeypatch.setattr(module, "fit", spy)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    side = pl.DataFrame({"item_id": range(40), "title": ["x"] * 40, "price": range(40)})
    found = effect(two_tastes(), clean=[MinRating(3)], spec=spec, items=side)
    (warm, columns, _), (whole, same, begun), *_ = fits
    assert len(fits) == 1 + len(found.trials)
    assert len(warm) == 40 < len(whole)
    assert 1 < warm.num_users < 40
    assert np.unique(warm.item_row).tolist() == list(range(warm.num_items))
    assert columns == same == ["price", "title"]
    # A fit is one tick of the clock between two: the warm-up's tick is in no trial's time.
    assert [trial.fit_s for trial in found.trials] == [2, 2]
    assert begun > fits[0][2] + 1


def test_a_model_that_cannot_warm_up_is_tried_all_the_same(monkeypatch):
    real = module.fit

    def spy(model, dataset, **more):
        if len(dataset.train) < 100:
            raise DataError("too few events")
        return real(model, dataset, **more)

    monkeypatch.setattr(module, "_WARM_UP", 20)
    monkeypatch.setattr(module, "fit", spy)
    assert len(effect(two_tastes(), clean=[MinRating(3)]).trials) == 2


def test_rows_are_those_that_prepare_leaves():
    log = two_tastes()
    found = effect(log, clean=RULES, split=RandomSplit(0.2, 0.1), seed=3)
    counts = prepare(log, clean=RULES, split=RandomSplit(0.2, 0.1), seed=3).about["counts"]
    assert found.trials[0].rows == sum(counts[part] for part in ("train", "valid", "test"))
    assert found.trials[-1].rows == len(log)


def test_every_trial_answers_the_same_users_about_the_same_items(monkeypatch):
    asked = []
    measure = module.evaluate

    def spy(bundle, dataset, **options):
        asked.append((dataset.valid.hash, options))
        met = dataset.train.matrix
        pairs = set(zip(met.row_numbers().tolist(), met.indices.tolist(), strict=True))
        valid = zip(dataset.valid.user_row.tolist(), dataset.valid.item_row.tolist(), strict=True)
        assert not pairs & set(valid)
        return measure(bundle, dataset, **options)

    monkeypatch.setattr(module, "evaluate", spy)
    log = two_tastes()
    again = log.with_columns(pl.col("timestamp") + 400_000)[::7]  # pairs that two parts hold
    found = effect(pl.concat([log, again]), clean=(MinRating(3), Duplicates(), KCore(3, 3)))
    assert len(asked) > 2
    assert len({valid for valid, _ in asked}) == 1
    assert found.num_targets >= found.num_users > 0


def test_an_event_in_the_given_validation_log_is_to_be_found():
    log = two_tastes()
    train, valid, test = log[:-300], log[-300:-100], log[-100:]
    found = effect(train, clean=[MinRating(3)], split=GivenSplit(test, valid))
    assert [trial.without for trial in found.trials] == [ALL, NONE]  # one rule is left out once
    assert found.num_targets == 200
    share = effect(train, clean=[MinRating(3)], split=GivenSplit(test, 0.2))
    assert share.num_targets > 0


def test_many_users_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "_ASKED", 7)
    one, same = (effect(two_tastes(), clean=RULES, split=LastOut(), seed=5) for _ in range(2))
    assert one.num_users == 7
    assert [t.quality for t in one.trials] == [t.quality for t in same.trials]


def test_another_model_with_its_tables(tmp_path):
    path = tmp_path / "items.csv"
    pl.DataFrame({"item_id": range(40), "title": ["x"] * 40}).write_csv(path)
    found = effect(two_tastes(), clean=RULES, items=str(path), spec=Popularity())
    assert found.model == "popularity"


def test_words_and_json():
    found = effect(two_tastes(), clean=RULES)
    lines = str(found).splitlines()
    assert lines[0].startswith(f"Effect of the rules on item-knn: {found.num_users} users")
    assert lines[0].endswith("; 95% intervals, corrected for 5 comparisons")
    assert len(lines) == 2 + len(found.trials)
    assert lines[2].startswith("nothing  ")
    assert "helps" in lines[4]
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["trials"][0]["gain"] is None
    assert document["trials"][2]["verdict"] == "helps"


def test_verdicts_go_by_the_bounds():
    def verdict(low, high):
        gain = module.Interval((low + high) / 2, low, high)
        return module.Trial("r", 1, gain, gain, 0.0, 0.0).verdict

    assert verdict(-0.2, -0.1) == "hurts"
    assert verdict(-0.1, 0.1) == "unresolved"
    assert verdict(0.1, 0.2) == "helps"


def test_nothing_to_try_or_to_find():
    with pytest.raises(SpecError, match="no cleaning rule to try"):
        effect(two_tastes(), clean=())
    with pytest.raises(DataError, match="no pair of user and item is to be found under every rule"):
        effect(two_tastes(), clean=[KCore(99, 99)], split=TimeSplit())
