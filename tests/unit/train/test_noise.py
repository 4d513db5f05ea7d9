import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import martlet as mt
from martlet.core import SpecError
from martlet.models.sasrec import SASRec
from martlet.train.noise import Noise
from support.sequences import ring

SMALL = {"dim": 16, "max_length": 6, "tokens": 200, "dropout": 0.1, "rate": 0.01}
LOSSES = torch.tensor([0.5, 4.0, 1.0, 3.0, 2.0])


@pytest.fixture(scope="module")
def data():
    return ring(users=200)


def ndcg(bundle, data):
    return mt.evaluate(bundle, data, part="test").figures["ndcg@10"]


class TestTrust:
    def test_by_itself_every_target_counts_alike(self):
        plan = Noise()
        assert not plan.doubts
        assert plan.trust(None, None, 0.5) is None
        assert plan.mean(LOSSES, None, 0.5) == LOSSES.mean()

    def test_weights_keep_the_size_of_the_loss(self):
        weight = torch.tensor([1.0, 1.0, 2.0, 0.0, 6.0])
        found = Noise(weighted=True).mean(LOSSES, weight, 0.0)
        assert found.item() == pytest.approx((LOSSES * weight).sum().item() / 10)

    def test_a_clipped_target_moves_nothing(self):
        losses = LOSSES.clone().requires_grad_()
        Noise(clip_loss=2.5).mean(losses, None, 0.0).backward()
        np.testing.assert_allclose(losses.grad, [0.2, 0, 0.2, 0, 0.2])

    @pytest.mark.parametrize(("done", "left"), [(0.0, 5), (0.25, 4), (0.5, 3), (1.0, 3)])
    def test_the_largest_losses_are_dropped_more_and_more(self, done, left):
        trust = Noise(drop_share=0.4, drop_warmup=0.5).trust(LOSSES, None, done)
        assert trust.sum() == left
        assert (trust[LOSSES.argsort()[:left]] == 1).all()

    def test_without_a_warm_up_they_are_dropped_at_once(self):
        assert Noise(drop_share=0.4, drop_warmup=0.0).trust(LOSSES, None, 0.0).sum() == 3

    def test_what_the_network_believes_counts_more(self):
        found = Noise(relax=0.5).trust(LOSSES, None, 0.0)
        np.testing.assert_allclose(found, np.exp(-0.5 * LOSSES.numpy()), rtol=1e-6)

    @pytest.mark.parametrize(
        "wrong",
        [{"clip_loss": -1.0}, {"relax": math.nan}, {"drop_share": 1.0}, {"drop_warmup": -0.1}],
    )
    def test_settings_that_make_no_sense(self, wrong):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            Noise(**wrong)


class TestNextItem:
    @pytest.mark.parametrize("loss", ["softmax", "sampled", "gbce", "bpr"])
    def test_targets_of_no_weight_teach_nothing(self, loss, data):
        # Every event of an odd item has no weight: it is never a target that counts.
        train = data.train
        weight = np.where(train.item_row % 2, 0.0, 1.0).astype(np.float32)
        given = replace(data, train=replace(train, weight=weight))
        spec = SASRec(**SMALL, epochs=6, patience=0, loss=loss, negatives=8, weighted=True)
        bundle = mt.fit(spec, given, seed=0)
        queries = mt.core.Queries.of(train.histories, seen="keep")
        top = bundle.scorer.topk(queries, 1).item_row[:, 0]
        assert (top % 2 == 0).mean() > 0.95

    def test_without_being_asked_a_weight_counts_for_nothing(self, data):
        weight = np.where(data.train.item_row % 2, 0.0, 1.0).astype(np.float32)
        given = replace(data, train=replace(data.train, weight=weight))
        spec = SASRec(**SMALL, epochs=1)
        one, other = (spec.fit(d, seed=0).items.dense() for d in (data, given))
        np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize(
        ("loss", "noise"),
        [
            ("softmax", {"clip_loss": 4.0}),
            ("softmax", {"relax": 0.1}),
            ("softmax", {"drop_share": 0.2}),
            ("sampled", {"drop_share": 0.2}),
            ("gbce", {"drop_share": 0.2}),
            ("bpr", {"drop_share": 0.2}),
        ],
    )
    def test_it_learns_with_doubts(self, loss, noise, data):
        spec = SASRec(**SMALL, epochs=8, patience=0, loss=loss, negatives=8, **noise)
        plain = SASRec(**SMALL, epochs=8, patience=0, loss=loss, negatives=8)
        doubting, trusting = (mt.fit(one, data, seed=0) for one in (spec, plain))
        assert ndcg(doubting, data) > 0.8 * ndcg(trusting, data)
        assert not np.array_equal(doubting.scorer.items.dense(), trusting.scorer.items.dense())

    def test_a_masked_target_has_the_weight_of_the_hidden_event(self, data):
        train = data.train
        weight = np.where(train.item_row % 2, 0.0, 1.0).astype(np.float32)
        given = replace(data, train=replace(train, weight=weight))
        spec = SASRec(**SMALL, epochs=10, patience=0, weighted=True, masked=0.3)
        queries = mt.core.Queries.of(train.histories, seen="keep")
        top = mt.fit(spec, given, seed=0).scorer.topk(queries, 1).item_row[:, 0]
        assert (top % 2 == 0).mean() > 0.95

    def test_a_teacher_and_doubts_together(self, data):
        teacher = mt.fit(SASRec(**SMALL, epochs=15), data, seed=0)
        spec = SASRec(**SMALL, epochs=6, distil_top=10, drop_share=0.2, weighted=True)
        assert ndcg(mt.fit(spec, data, seed=1, teacher=teacher), data) > 0.6
