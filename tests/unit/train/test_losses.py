import numpy as np
import pytest
import torch
from torch.nn import functional as F

from martlet.train import losses


def numbers(*shape, seed=0, scale=1.0):
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        * scale
    )


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("scale", [0.1, 3.0])
@pytest.mark.parametrize("chunk_values", [1, 1 << 12, 1 << 20])
def test_the_softmax_in_pieces_is_the_softmax(count, scale, chunk_values, monkeypatch):
    monkeypatch.setattr(losses, "_CHUNK_VALUES", chunk_values)
    vectors, items = numbers(count, 8, scale=scale), numbers(50, 8, seed=1, scale=scale)
    target = torch.randint(50, (count,), generator=torch.Generator().manual_seed(2))
    ours, plain = leaves(vectors, items), leaves(vectors, items)
    loss = losses.softmax(*ours, target)
    expected = F.cross_entropy(plain[0] @ plain[1].T, target)
    (2 * loss).backward()
    (2 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5 * b.grad.abs().max().item())


@pytest.mark.parametrize("chunk_values", [1, 1 << 20])
def test_a_row_of_the_softmax_counts_as_its_weight_says(chunk_values, monkeypatch):
    monkeypatch.setattr(losses, "_CHUNK_VALUES", chunk_values)
    vectors, items = numbers(40, 8), numbers(50, 8, seed=1)
    target = torch.randint(50, (40,), generator=torch.Generator().manual_seed(2))
    weight = torch.rand(40, generator=torch.Generator().manual_seed(3))
    weight[::5] = 0
    ours, plain = leaves(vectors, items), leaves(vectors, items)
    rows = F.cross_entropy(plain[0] @ plain[1].T, target, reduction="none")
    loss, expected = losses.softmax(*ours, target, weight), (weight * rows).mean()
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.softmax_rows(vectors, items, target), rows.detach())


def test_another_mean_of_the_rows():
    positive, negative = numbers(6), numbers(6, 3, seed=1)
    log_q, hit = torch.zeros(6), torch.zeros(6, 3, dtype=torch.bool)
    for one in (
        lambda **given: losses.bpr(positive, negative, **given),
        lambda **given: losses.gbce(positive, negative, 0.1, **given),
        lambda **given: losses.sampled_softmax(positive, negative, log_q, log_q[:3], hit, **given),
    ):
        rows = one(mean=lambda rows: rows)
        assert rows.shape == (6,)
        assert one().item() == pytest.approx(rows.mean().item())


def test_the_softmax_of_huge_scores_is_finite():
    vectors, items = leaves(numbers(5, 4, scale=100.0), numbers(9, 4, seed=1, scale=100.0))
    losses.softmax(vectors, items, torch.zeros(5, dtype=torch.int64)).backward()
    assert torch.isfinite(vectors.grad).all()
    assert torch.isfinite(items.grad).all()


def test_no_gradient_is_made_where_none_is_asked_for():
    loss = losses.softmax(numbers(5, 4), numbers(9, 4), torch.zeros(5, dtype=torch.int64))
    assert not loss.requires_grad
    assert loss.item() > 0


def test_bpr_by_hand():
    positive, negative = torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 2.0], [0.0, -1.0]])
    margins = np.array([1.0, -1.0, 0.0, 1.0])
    assert losses.bpr(positive, negative).item() == pytest.approx(np.log1p(np.exp(-margins)).mean())


def test_gbce_without_calibration_is_cross_entropy_and_with_it_weighs_the_positive_less():
    positive, negative = numbers(6), numbers(6, 3, seed=1)
    labels = torch.cat([torch.ones(6, 1), torch.zeros(6, 3)], 1)
    plain = F.binary_cross_entropy_with_logits(torch.cat([positive[:, None], negative], 1), labels)
    share = 3 / 30
    assert losses.gbce(positive, negative, share, 0.0).item() == pytest.approx(
        plain.item(), rel=1e-6
    )
    full = losses.gbce(positive, negative, share, 1.0).item()
    by_hand = (share * F.softplus(-positive) + F.softplus(negative).sum(1)).mean().item() / 4
    assert full == pytest.approx(by_hand, rel=1e-6)


def test_the_sampled_softmax_with_every_item_drawn_once_is_the_softmax():
    vectors, items, target = numbers(6, 4), numbers(10, 4, seed=1), torch.arange(6)
    drawn, log_q = torch.arange(10), torch.zeros(10)
    scores = vectors @ items.T
    loss = losses.sampled_softmax(
        scores[target, target], scores[:, drawn], log_q[target], log_q, target[:, None] == drawn
    )
    assert loss.item() == pytest.approx(F.cross_entropy(scores, target).item(), rel=1e-5)


def test_the_correction_takes_the_popularity_of_the_draw_back():
    """Over many draws the corrected mass of the negatives is that of the whole catalogue."""
    stream = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    scores = np.array([0.2, -0.5, 1.0, 0.3, -1.0])
    drawn = stream.choice(5, 200_000, p=share)
    mass = np.exp(scores[drawn] - np.log(share[drawn] * len(drawn))).sum()
    log_q = torch.tensor(np.log(share * len(drawn)), dtype=torch.float32)
    negative = torch.tensor(scores[drawn], dtype=torch.float32)[None]
    no_hit = torch.zeros(negative.shape, dtype=torch.bool)
    loss = losses.sampled_softmax(
        torch.tensor([0.2]), negative, torch.tensor([0.0]), log_q[drawn], no_hit
    )
    assert mass == pytest.approx(np.exp(scores).sum(), rel=0.01)
    assert loss.item() == pytest.approx(np.log(np.exp(0.2) + mass) - 0.2, rel=1e-4)
