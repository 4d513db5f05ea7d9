import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.core import DataError, SpecError
from martlet.metrics import LABEL_METRICS, label_difference, label_quality
from martlet.metrics.labels import EDGE, _Rows
from martlet.metrics.labels import LABEL_METRICS as FUNCTIONS

# Worked out by hand. Scores .9 (1), .8 (0), .8 (1), .3 (0), .1 (0): label 1 twice, 0 three times.
LABEL, SCORE = [1, 0, 1, 0, 0], [0.9, 0.8, 0.8, 0.3, 0.1]
# Pairs: .9 beats all three; .8 beats .3 and .1, and ties with one: (3 + 2.5) / 6.
AUC = 5.5 / 6
# Precision at .9 is 1/1; at .8, with the three rows that have it or more, 2/3: their mean.
PR_AUC = (1 + 2 / 3) / 2
LOSSES = -np.log([0.9, 0.2, 0.8, 0.7, 0.9])
ENTROPY = -0.4 * np.log(0.4) - 0.6 * np.log(0.6)


def figure(name, label=LABEL, score=SCORE):
    return label_quality(label, score, [name])[name]


def test_figures_worked_out_by_hand():
    assert figure("auc").mean == pytest.approx(AUC)
    assert figure("pr_auc").mean == pytest.approx(PR_AUC)
    assert figure("log_loss").mean == pytest.approx(LOSSES.mean())
    assert figure("normalized_entropy").mean == pytest.approx(LOSSES.mean() / ENTROPY)
    assert figure("calibration").mean == pytest.approx((2.9 / 5) / (2 / 5))


def test_the_interval_of_auc_worked_out_by_hand():
    # What each row of label 1 wins: 1 and 2.5/3; their mean is 11/12, their variance 1/72.
    # What each row of label 0 loses: .8 loses 1.5 of 2, .3 and .1 both: .75, 1, 1; variance 1/48.
    error = np.sqrt((1 / 72) / 2 + (1 / 48) / 3)
    found = figure("auc")
    assert found.low == pytest.approx(AUC - 1.959964 * error, abs=1e-6)
    assert found.high == 1.0  # it would lie beyond


def test_the_interval_of_a_mean_is_the_normal_one():
    found = figure("log_loss")
    reach = 1.959964 * LOSSES.std() / np.sqrt(5)
    assert found.high == pytest.approx(LOSSES.mean() + reach, abs=1e-6)
    assert found.low == 0.0  # it would lie beyond
    wide = label_quality(LABEL, SCORE, ["log_loss"], level=0.99)["log_loss"]
    assert found.high < wide.high


def slow_auc(label, score):
    pairs = [(p, n) for p in score[label == 1] for n in score[label == 0]]
    return np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs])


def slow_pr_auc(label, score):
    """The sum over thresholds of the precision there times the recall gained there."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        picked = label[score >= threshold]
        recall = picked.sum() / label.sum()
        total += (recall - before) * picked.mean()
        before = recall
    return total


SLOW = {
    "auc": slow_auc,
    "pr_auc": slow_pr_auc,
    "log_loss": lambda y, p: np.mean(
        [-np.log(np.clip(q if z else 1 - q, EDGE, 1 - EDGE)) for z, q in zip(y, p, strict=True)]
    ),
    "normalized_entropy": lambda y, p: (
        SLOW["log_loss"](y, p) / SLOW["log_loss"](y, np.full(len(y), y.mean()))
    ),
    "calibration": lambda y, p: p.mean() / y.mean(),
}


@st.composite
def rows(draw, most=30):
    n = draw(st.integers(2, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    label = (rng.random(n) < draw(st.floats(0.1, 0.9))).astype(float)
    label[:2] = 0, 1
    steps = draw(st.sampled_from([2, 5, 1000]))  # few distinct scores make many ties
    return label, np.round(rng.random(n) * steps) / steps


@pytest.mark.parametrize("name", LABEL_METRICS)
@given(drawn=rows())
def test_each_figure_is_what_its_slow_definition_says(name, drawn):
    assert figure(name, *drawn).mean == pytest.approx(SLOW[name](*drawn))


@pytest.mark.parametrize("name", LABEL_METRICS)
@given(drawn=rows(), row=st.integers(0, 10**6))
def test_the_influence_of_a_row_is_how_much_more_of_it_moves_the_figure(name, drawn, row):
    """Copies of every row, and one more of one of them: the figure moves by its influence."""
    label, score = drawn
    n, times, row = len(label), 2000, row % len(label)
    estimate = FUNCTIONS[name](_Rows(label, score))
    assert estimate.influence.sum() == pytest.approx(0, abs=1e-8 * n)
    repeats = np.full(n, times)
    repeats[row] += 1
    more = _Rows(np.repeat(label, repeats), np.repeat(score, repeats))
    moved = (FUNCTIONS[name](more).value - estimate.value) * repeats.sum()
    own = estimate.influence[row]
    if name == "auc":  # DeLong's are larger, to be unbiased
        m = (label == label[row]).sum()
        own *= np.sqrt(max(m - 1, 1) / m)
    assert moved == pytest.approx(own, rel=0.01, abs=0.02)


def drawn_rows(rng, n):
    """Labels drawn with the probabilities that are told, rounded so that some tie."""
    score = np.round(rng.beta(1, 3, n), 2)
    return (rng.random(n) < score).astype(float), score


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_an_interval_is_as_wide_as_the_figures_of_other_rows_scatter(name):
    rng = np.random.default_rng(0)
    found = [figure(name, *drawn_rows(rng, 500)) for _ in range(400)]
    scatter = np.std([one.mean for one in found])
    width = np.mean([(one.high - one.low) / 2 / 1.96 for one in found])
    assert width == pytest.approx(scatter, rel=0.12)
    truth = figure(name, *drawn_rows(rng, 200_000)).mean
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.91 < held < 0.98


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_a_paired_interval_is_as_wide_as_differences_scatter_and_narrower_than_two(name):
    rng = np.random.default_rng(1)
    found, alone = [], []
    for _ in range(300):
        label, score = drawn_rows(rng, 400)
        other = np.clip(score + rng.normal(0, 0.03, len(score)), 0.001, 0.999)
        first = np.clip(score, 0.001, 0.999)
        found.append(label_difference(label, first, other, [name])[name])
        alone.append(figure(name, label, other))
        direct = alone[-1].mean - figure(name, label, first).mean
        assert found[-1].mean == pytest.approx(direct)
    scatter = np.std([one.mean for one in found])
    width = np.mean([(one.high - one.low) / 2 / 1.96 for one in found])
    assert width == pytest.approx(scatter, rel=0.15)
    assert width < np.mean([(one.high - one.low) / 2 / 1.96 for one in alone])


def placements(label, score):
    """What each row of label 1 wins against those of 0, and what each of 0 loses, pair by pair."""
    happened, not_so = score[label == 1], score[label == 0]
    won = (happened[:, None] > not_so) + 0.5 * (happened[:, None] == not_so)
    return won.mean(1), won.mean(0)


@given(drawn=rows(), seed=st.integers(0, 1000))
def test_intervals_of_auc_are_those_of_delong_alone_and_paired(drawn, seed):
    label, score = drawn
    label = np.concatenate([label, [0, 1]])  # two of each at least
    first = np.concatenate([score, [0.3, 0.6]])
    second = np.round(np.random.default_rng(seed).random(len(first)), 1)
    parts = [placements(label, one) for one in (first, second)]
    for name, (won, lost) in (
        ("alone", parts[0]),
        ("paired", [after - before for before, after in zip(*parts, strict=True)]),
    ):
        error = np.sqrt(won.var(ddof=1) / len(won) + lost.var(ddof=1) / len(lost))
        if name == "alone":
            value, _, high = figure("auc", label, first)
            assert high == pytest.approx(min(value + 1.959964 * error, 1), abs=1e-6)
        else:
            value, low, high = label_difference(label, first, second, ["auc"])["auc"]
            assert high == pytest.approx(value + 1.959964 * error, abs=1e-6)
            assert low == pytest.approx(value - 1.959964 * error, abs=1e-6)


def test_a_model_does_not_differ_from_itself():
    for one in label_difference(LABEL, SCORE, SCORE).values():
        assert tuple(one) == (0.0, 0.0, 0.0)


def test_order_alone_decides_the_ranks():
    squared = label_quality(LABEL, np.square(SCORE), ["auc", "pr_auc"])
    shifted = label_quality(LABEL, np.array(SCORE) * 7 - 3, ["auc", "pr_auc"])
    assert squared == shifted == label_quality(LABEL, SCORE, ["auc", "pr_auc"])
    assert figure("auc", [0, 1], [0.2, 0.2]).mean == 0.5


def test_a_certain_mistake_costs_much_and_not_infinitely_much():
    assert figure("log_loss", [1.0], [0.0]).mean == pytest.approx(-np.log(EDGE))


@pytest.mark.parametrize(
    ("label", "score", "words"),
    [
        ([], [], "a row at least"),
        ([1, 0], [0.5], r"labels are \(2,\) and scores \(1,\)"),
        ([2, 0], [0.5, 0.5], "a label is 2: expected 0 or 1"),
        ([1, 1], [0.5, 0.4], "all 2 labels are 1: expected both 0 and 1"),
        ([1, 0], [0.5, np.nan], "row 2 has the score nan: expected a probability"),
        ([1, 0], [1.5, 0.2], "row 1 has the score 1.5: expected a probability"),
    ],
)
def test_what_cannot_be_measured_is_refused(label, score, words):
    with pytest.raises(DataError, match=words):
        label_quality(label, score)


def test_bad_names_and_levels_are_refused():
    with pytest.raises(SpecError, match="no figure of labels is called 'ndcg'"):
        label_quality(LABEL, SCORE, ["ndcg"])
    with pytest.raises(SpecError, match="level is 95"):
        label_quality(LABEL, SCORE, level=95)


def test_how_far_numbers_are_off():
    label, score = np.array([10.0, -3.0, 5.0, 5.0]), np.array([11.0, -5.0, 5.0, 2.0])
    found = label_quality(label, score, ["rmse", "mae"])
    assert found["rmse"].mean == pytest.approx(np.sqrt(14 / 4))
    assert found["mae"].mean == pytest.approx(1.5)
    reach = 1.959964 * np.array([1, 2, 0, 3]).std() / 2
    assert found["mae"].high == pytest.approx(1.5 + reach, abs=1e-5)
    rise = 1.959964 * np.array([1, 4, 0, 9]).std() / 2 / (2 * found["rmse"].mean)
    assert found["rmse"].low == pytest.approx(found["rmse"].mean - rise, abs=1e-5)
    exact = label_quality(label, label, ["rmse", "mae"])
    assert exact["rmse"] == exact["mae"] == (0, 0, 0)


def test_numbers_that_cannot_be_measured_are_refused():
    with pytest.raises(DataError, match="a label is inf: expected a finite number"):
        label_quality([np.inf, 1], [0, 1], ["mae"])
    with pytest.raises(DataError, match="row 1 has the score nan: expected a finite number"):
        label_quality([3, 1], [np.nan, 1], ["mae"])
    with pytest.raises(DataError, match="a label is 3: expected 0 or 1 for auc"):
        label_quality([3, 1], [0, 1], ["mae", "auc"])
