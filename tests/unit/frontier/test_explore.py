from dataclasses import dataclass, replace

import numpy as np
import pytest

from martlet.core import DataError, SpecError
from martlet.frontier.budget import Budget
from martlet.frontier.explore import MAX_LOSS, explore
from martlet.measure import ledger, measure
from martlet.measure.quality import evaluate
from martlet.metrics import paired_bootstrap
from martlet.models.fit import fit
from martlet.models.ials import IALS
from martlet.models.item_knn import ItemKNN
from martlet.models.popularity import Popularity
from support.costs import quick
from support.datasets import tasteful


@dataclass(frozen=True)
class Broken:
    """A spec whose fit fails."""

    error: type[Exception]

    def fit(self, dataset, *, seed, init=None, teacher=None, executor=None):
        raise self.error("items x items would take 9 TB") if self.error is SpecError else self.error


@pytest.fixture(scope="module")
def data():
    return tasteful()


@pytest.fixture
def measured(monkeypatch):
    return quick(monkeypatch)


@pytest.fixture(scope="module")
def found(data):
    with pytest.MonkeyPatch.context() as patch:
        measured = quick(patch)
        steps = []
        one = explore(
            data,
            ["popularity", IALS(dim=8)],
            [(), ("quantize:int8",), ("index:ivf",)],
            progress=lambda *step: steps.append(step),
        )
        yield one, measured, steps


def test_every_candidate_is_measured_once_and_the_choice_once_more(found):
    one, measured, _ = found
    names = [receipt.name for receipt in one.receipts]
    assert names[0] == "popularity"
    assert {"ials", "ials + quantize:int8"} <= set(names)
    assert measured == [*(receipt.bundle_id for receipt in one.receipts), one.bundle.id]
    assert all(receipt.part == "valid" for receipt in one.receipts)
    assert one.final.part == "test"
    assert one.final.bundle_id == one.bundle.id


def test_the_choice_is_fitted_again_with_the_validation_part(found, data):
    one, _, _ = found
    assert one.bundle.lineage[0]["trained_on"][1:] == [data.train.hash, data.valid.hash]
    with pytest.raises(DataError, match="part 'valid' was trained on"):
        evaluate(one.bundle, data, part="valid")


def test_what_does_not_apply_is_left_out_with_the_reason(found):
    one, _, _ = found
    reasons = [reason for reason in one.skipped if reason.startswith("popularity + index:ivf: ")]
    assert len(reasons) == 1
    assert "no item vectors to search" in reasons[0]


def test_the_steps_are_named_and_end(found):
    _, _, steps = found
    words = [step for step, _, _ in steps]
    assert words[0] == "explore: fit popularity"
    assert "explore: measure ials + quantize:int8" in words
    done = [done for _, done, _ in steps]
    assert done == sorted(done)
    assert steps[-1][1] == steps[-1][2] == 2 * (1 + 3) + 1


def test_the_choice_is_the_fewest_bytes_among_those_as_good_as_the_best(found, data):
    one, _, _ = found
    users = {}
    for receipt, spec, steps in ((receipt, *_recipe(receipt.name)) for receipt in one.receipts):
        bundle = measure_again(spec, steps, data)
        assert bundle.id == receipt.bundle_id
        quality = evaluate(bundle, data, part="valid", metrics=("ndcg",), per_user=True)
        users[receipt.bundle_id] = quality.users["ndcg@10"]
    best = max(one.receipts, key=lambda r: r.quality["ndcg@10"])
    top = users[best.bundle_id]
    # Every candidate but the best is compared, and any of them may be chosen.
    others = len(one.receipts) - 1
    losses = {
        bundle_id: paired_bootstrap(values, top, comparisons=others)
        for bundle_id, values in users.items()
    }
    assert one.losses == losses
    alike = [r for r in one.receipts if losses[r.bundle_id].high <= MAX_LOSS * top.mean()]
    cheapest = min(alike, key=lambda r: r.cost["scoring_mb"])
    assert one.choice.receipt.cost["scoring_mb"] == cheapest.cost["scoring_mb"]
    assert one.choice.receipt.name.startswith("ials")
    assert one.choice.receipt.name in one.choice.why
    assert one.losses[one.receipts[0].bundle_id].low > 0, "popularity loses, without doubt"


def _recipe(name):
    model, *steps = name.split(" + ")
    return IALS(dim=8) if model == "ials" else Popularity(), steps


def measure_again(spec, steps, data):
    from martlet.compress.compress import compress

    return compress(fit(spec, data), steps, data)


def test_losses_are_corrected_for_many_comparisons(found, data, measured, monkeypatch):
    one, _, _ = found
    few = explore(data, ["popularity", IALS(dim=8)], [()])
    popular = few.receipts[0].bundle_id
    assert popular == one.receipts[0].bundle_id
    few_low, few_high = few.losses[popular][1:]
    low, high = one.losses[popular][1:]
    assert high - low > 1.1 * (few_high - few_low)
    monkeypatch.setattr("martlet.frontier.explore.MAX_LOSS", 1.0)
    for variants, words in (([()], "1 comparison:"), ([(), ("quantize:fp16",)], "3 comparisons:")):
        choice = explore(data, ["popularity", IALS(dim=8)], variants).choice
        assert choice.receipt.name.startswith("popularity")
        assert f"by the bound of a 95% paired interval, corrected for {words} it" in choice.why


def test_intervals_hold_the_figures(found):
    one, _, _ = found
    for receipt in (*one.receipts, one.final):
        interval = one.intervals[receipt.bundle_id]
        assert interval.low <= receipt.quality["ndcg@10"] <= interval.high
        assert interval.mean == pytest.approx(receipt.quality["ndcg@10"])


def test_the_ledger_holds_every_receipt(data, measured, tmp_path):
    one = explore(data, [Popularity()], [()], ledger_path=tmp_path / "l.jsonl")
    assert ledger.read(tmp_path / "l.jsonl") == [*one.receipts, one.final]


@pytest.mark.parametrize("error", [SpecError, MemoryError])
def test_a_candidate_that_fails_does_not_lose_the_rest(data, measured, error):
    one = explore(data, [Popularity(), Broken(error), ItemKNN()], [()])
    assert [receipt.name for receipt in one.receipts] == ["popularity", "item-knn"]
    why = (
        "items x items would take 9 TB" if error is SpecError else "Broken found no room in memory"
    )
    (skipped,) = one.skipped
    assert skipped.startswith(f"Broken: {why}")


def test_a_measurement_that_fails_does_not_lose_the_rest(data, monkeypatch):
    quick(monkeypatch)
    real = measure.measure

    def once(bundle, *rest, **more):
        if bundle.lineage[0]["spec"] == "popularity":
            raise DataError("a fresh process could not answer")
        return real(bundle, *rest, **more)

    monkeypatch.setattr("martlet.frontier.explore.measure", once)
    one = explore(data, [Popularity(), ItemKNN()], [()])
    assert [receipt.name for receipt in one.receipts] == ["item-knn"]
    assert one.skipped == ["popularity: a fresh process could not answer"]


def test_nothing_that_works(data, measured):
    with pytest.raises(SpecError, match="no candidate could be fitted and measured: Broken: item"):
        explore(data, [Broken(SpecError)], [()])


def test_a_budget_leaves_out_and_says_when_nothing_is_left(data, measured):
    models = [Popularity(), IALS(dim=8)]
    small = explore(data, models, [()], budget=Budget.parse("scoring_mb<=0.001"))
    assert small.choice.receipt.name == "popularity"
    assert small.choice.fits
    none = explore(data, models, [()], budget=Budget.parse("p99_ms<=1"))
    assert not none.choice.fits
    assert "p99_ms<=1 (it has 3)" in none.choice.why
    assert none.bundle.id == none.final.bundle_id


@pytest.mark.parametrize(
    ("models", "variants", "budget", "reason", "fits"),
    [
        (["popularty"], [()], "", "no model is called 'popularty'", 0),
        (["popularity"], [("quantise",)], "", "no transform is called 'quantise'", 0),
        (["popularity", "ials"], [()], "joules<=1", "limits 'joules', which was not measured", 1),
    ],
)
def test_a_word_that_is_misspelled_is_told_before_the_work(
    data, measured, models, variants, budget, reason, fits
):
    with pytest.raises(SpecError, match=reason):
        explore(data, models, variants, budget=Budget.parse(budget))
    assert len(measured) == fits


@pytest.mark.parametrize("part", ["valid", "test"])
def test_both_parts_are_needed(data, part):
    nothing = data.part(part).select(np.zeros(len(data.part(part)), bool))
    with pytest.raises(DataError, match=f"part '{part}' is empty: one part chooses"):
        explore(replace(data, **{part: nothing}), [Popularity()], [()])


def test_two_of_one_family_are_told_apart(data, measured):
    one = explore(data, [IALS(dim=4), IALS(dim=8)], [()])
    assert len({receipt.bundle_id for receipt in one.receipts}) == len(one.losses) == 2
    from martlet.frontier.frontier import labels

    assert labels(one.receipts) == ["ials (dim 4)", "ials (dim 8)"]
