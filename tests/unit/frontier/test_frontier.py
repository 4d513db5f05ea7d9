import pytest

from martlet.core import SpecError
from martlet.frontier.budget import Budget
from martlet.frontier.frontier import Frontier
from support.receipts import THREE, receipt


class TestBudget:
    def test_a_budget_is_read_and_written(self):
        budget = Budget.parse(" p99_ms <= 5,ndcg@10>=1e-1 ")
        assert str(budget) == "p99_ms<=5, ndcg@10>=0.1"
        assert str(Budget.parse("")) == "no limits"

    @pytest.mark.parametrize("text", ["p99_ms<5", "p99_ms<=fast", "<=5", "p99_ms", "p99_ms<=5ms"])
    def test_what_is_no_limit_is_refused_by_its_words(self, text):
        with pytest.raises(SpecError, match=f"the budget has {text!r}: expected name<=number"):
            Budget.parse(text)

    @pytest.mark.parametrize("name", ["joules", "peak_mb"])
    def test_what_was_not_measured_cannot_be_limited(self, name):
        with pytest.raises(
            SpecError, match=f"limits '{name}', which was not measured: use ndcg@10"
        ):
            Budget.parse(f"{name}<=5").broken(THREE[0])


class TestFrontier:
    def test_what_is_dominated(self):
        assert Frontier(THREE).best().tolist() == [True, True, False]

    def test_equal_receipts_do_not_dominate_each_other(self):
        assert Frontier((THREE[0], THREE[0])).best().all()

    def test_the_budget_decides(self):
        frontier = Frontier(THREE)
        assert frontier.choose().receipt is THREE[1]
        choice = frontier.choose(Budget.parse("p99_ms<=5"))
        assert choice.receipt is THREE[0]
        assert choice.fits

    def test_among_equals_the_one_that_scans_less(self):
        twin = receipt("twin", 0.4, 9, 10)
        assert Frontier((*THREE, twin)).choose().receipt is twin

    def test_when_nothing_fits_the_nearest_and_what_would_have_to_give(self):
        choice = Frontier(THREE).choose(Budget.parse("p99_ms<=0.5"))
        assert choice.receipt is THREE[0]
        assert not choice.fits
        assert "p99_ms<=0.5 (it has 1)" in choice.why

    def test_no_receipts(self):
        with pytest.raises(SpecError, match="at least one receipt"):
            Frontier(())

    def test_a_receipt_without_the_figure(self):
        with pytest.raises(SpecError, match=r"the receipt of small lacks recall@10"):
            Frontier(THREE, quality="recall@10")
