"""A sweep in small: what it measures, leaves out, keeps and chooses."""

import pytest

from martlet.compress.grid import pairs
from martlet.core import OutputError, SpecError
from martlet.frontier import sweep as module
from martlet.frontier.page import page
from martlet.frontier.plots import kind
from martlet.frontier.sweep import sweep
from martlet.measure.ledger import read
from martlet.models.fit import fit
from martlet.models.ials import IALS
from support import datasets
from support.costs import quick
from support.rows import labelled, predicting

STAGES = (("quantize:fp16", "quantize:int8", "melt:9"), ("index:exact-int8",))


@pytest.fixture(scope="module", autouse=True)
def costs():
    """Every latency is the same, so that what is beaten is not a matter of chance."""
    with pytest.MonkeyPatch.context() as patch:
        yield quick(patch)


@pytest.fixture(scope="module")
def fitted():
    data = datasets.tasteful()
    return data, fit(IALS(dim=8, iterations=4), data)


@pytest.fixture(scope="module")
def found(fitted, tmp_path_factory):
    data, bundle = fitted
    folder = tmp_path_factory.mktemp("sweep")
    told = []
    limits = {"ndcg@10": 0.3}
    made = sweep(
        bundle, data, folder, limits, grid=STAGES, cold_runs=0, progress=lambda *a: told.append(a)
    )
    assert told[-1][1:] == (2, 2)
    return made, folder


def test_singles_then_pairs_and_what_was_left_out(found):
    made, folder = found
    assert [made.steps(receipt) for receipt in made.receipts] == [
        (), ("quantize:fp16",), ("quantize:int8",), ("index:exact-int8",),
        ("quantize:fp16", "index:exact-int8"),
    ]  # fmt: skip
    assert made.skipped[0].startswith("melt:9: no transform is called 'melt'")
    assert made.skipped[1].startswith("quantize:int8 + index:exact-int8: ")
    assert len(read(folder / "receipts.jsonl")) == 5
    assert all(receipt.cost["compress_s"] >= 0 for receipt in made.receipts)


def test_each_is_corrected_for_all(found):
    made, folder = found
    kept = {receipt.bundle_id: receipt for receipt in read(folder / "receipts.jsonl")}
    assert len(made.gates) == len(kept) - 1 == 4
    for gate in made.gates.values():
        low, high = (gate.after.quality[f"ndcg@10_loss_{end}"] for end in ("low", "high"))
        loss = gate.verdicts[0].loss
        assert loss.low <= low <= high <= loss.high
        assert kept[gate.after.bundle_id].quality["ndcg@10"] == gate.verdicts[0].after


def test_the_smallest_that_passes_is_chosen(found):
    made, _ = found
    assert made.steps(made.chosen) == ("quantize:int8",)
    assert "smallest tables" in made.choice.why
    assert made.best()[2]
    assert made.row(made.receipts[0])["outcome"] == ""
    assert made.row(made.chosen)["outcome"] == "passes"


def test_what_was_measured_is_not_measured_again(fitted, found, monkeypatch):
    data, bundle = fitted
    made, folder = found
    monkeypatch.setattr(module, "measured", None)
    again = sweep(bundle, data, folder, {"ndcg@10": 0.3}, grid=STAGES, cold_runs=0)
    assert [r.to_json() for r in again.receipts] == [r.to_json() for r in made.receipts]
    assert {k: g.verdicts for k, g in again.gates.items()} == {
        k: g.verdicts for k, g in made.gates.items()
    }


def test_a_folder_of_another_sweep_is_refused(fitted, found):
    data, bundle = fitted
    with pytest.raises(OutputError, match="a sweep of other seed: choose another"):
        sweep(bundle, data, found[1], {"ndcg@10": 0.3}, grid=STAGES, seed=1)
    (found[1] / "sweep.json").rename(found[1] / "kept.json")
    (found[1] / "sweep.json").write_text("{")
    with pytest.raises(OutputError, match=r"sweep.json cannot be read"):
        sweep(bundle, data, found[1], {"ndcg@10": 0.3}, grid=STAGES)
    (found[1] / "kept.json").rename(found[1] / "sweep.json")


def test_pairs_of_what_fails_alone_are_left_out(fitted, tmp_path, monkeypatch):
    data, bundle = fitted
    whole = module.compress

    def make(bundle, steps, *more, **how):
        made = whole(bundle, steps, *more, **how)
        if steps[0] == "quantize:int8":
            made.popularity[:] = 0
            items = made.scorer.tables()["items"]
            items.arrays["values"][:] = items.arrays["values"][::-1].copy()
        return made

    monkeypatch.setattr(module, "compress", make)
    stages = (("quantize:int8",), ("index:ivf",))
    made = sweep(bundle, data, tmp_path, grid=stages, cold_runs=0)
    assert [made.steps(r) for r in made.receipts] == [(), ("quantize:int8",), ("index:ivf",)]
    assert made.skipped == [made.skipped[0]]
    assert made.skipped[0].startswith("pairs with quantize:int8: alone, ndcg@10 loses ")
    assert made.gates[made.receipts[1].bundle_id].outcome == "fails"
    assert made.chosen is made.receipts[0]
    assert "none of smaller tables is known to lose under 1% of ndcg@10" in made.choice.why


def test_the_page_and_the_kinds(found):
    made, _ = found
    text = page(made.receipts, made.story("Songs"))
    assert "One bundle under 4 transforms and pairs of them, each measured on 40 users" in text
    assert "corrected for 4 comparisons" in text
    assert "composed" in text
    assert ">training<" not in text
    assert [kind(receipt) for receipt in made.receipts] == [
        "as it was", "quantize", "quantize", "index", "composed",
    ]  # fmt: skip


def test_longer_compositions_come_last(fitted, tmp_path):
    data, bundle = fitted
    also = (
        ("quantize:fp16", "quantize:int8", "index:ivf"),
        ("melt:9", "index:ivf"),
        ("index:ivf",),
    )
    made = sweep(bundle, data, tmp_path, grid=(("index:ivf",),), also=also, cold_runs=0)
    steps = [made.steps(receipt) for receipt in made.receipts]
    assert steps == [(), ("index:ivf",), ("quantize:fp16", "quantize:int8", "index:ivf")]
    assert len(made.skipped) == 1


def test_labelled_rows_are_swept_by_auc(tmp_path):
    made = sweep(predicting(), labelled(), tmp_path, grid=STAGES, cold_runs=0)
    assert made.quality == "auc"
    assert made.chosen is made.receipts[0]
    assert len(made.skipped) == 4
    assert "each measured on 200 rows" in page(made.receipts, made.story("Rows"))
    with pytest.raises(SpecError, match="more is better, and log_loss is none: give another"):
        sweep(predicting(), labelled(), tmp_path, {"log_loss": 0.1})


def test_pairs_are_of_different_stages():
    assert pairs((("a",), ("b", "c"), ("d",))) == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d"),
    ]  # fmt: skip
