"""What is minimized. Each loss is a mean over its rows, and every gradient is checked by tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Mean = Callable[[Tensor], Tensor]  # from a loss a row to one

_CHUNK_VALUES = 1 << 20  # logits held at a time: 4 MB, which a core's cache still feeds well


def logistic(logit: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of sigmoid(logit).

    Args:
        logit: (B,).
        label: (B,) chances from 0 to 1, most often one of both.
        weight: (B,) 0 or more; the mean is weighted by it.
    """
    return weighted_mean(logistic_rows(logit, label), weight)


def logistic_rows(logit: Tensor, label: Tensor) -> Tensor:
    """Return the (B,) losses that ``logistic`` is the mean of."""
    return F.binary_cross_entropy_with_logits(_wide(logit), label, reduction="none")


def squared(value: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean of (value - label)^2.

    Args:
        value: (B,).
        label: (B,).
        weight: (B,) 0 or more; the mean is weighted by it.
    """
    return weighted_mean(squared_rows(value, label), weight)


def squared_rows(value: Tensor, label: Tensor) -> Tensor:
    """Return the (B,) losses that ``squared`` is the mean of."""
    return (_wide(value) - label) ** 2


def weighted_mean(terms: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean of (B,) losses by (B,) weights of 0 or more."""
    if weight is None:
        return terms.mean()
    return (terms * weight).sum() / weight.sum().clamp_min(torch.finfo(terms.dtype).tiny)


def bpr(positive: Tensor, negative: Tensor, mean: Mean = torch.mean) -> Tensor:
    """Return the mean of -log sigmoid(positive - negative).

    **Source**: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback" (2009).

    Args:
        positive: (T,) scores of what was met.
        negative: (T, m) scores of what was not.
        mean: of the (T,) losses.
    """
    return mean(F.softplus(_wide(negative) - _wide(positive)[:, None]).mean(1))


def gbce(
    positive: Tensor,
    negative: Tensor,
    share: float,
    calibration: float = 0.75,
    mean: Mean = torch.mean,
) -> Tensor:
    """Return the generalized binary cross-entropy of one positive and m negatives a row.

    Sampling few negatives makes a model too sure; sigmoid(positive)^beta takes that back.

    **Source**: Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential
    Recommendation Trained with Negative Sampling" (2023), equation 7.

    Args:
        positive: (T,) scores.
        negative: (T, m) scores of items drawn evenly.
        share: m over the items that could be drawn.
        calibration: 0 is plain binary cross-entropy, 1 undoes the sampling.
        mean: of the (T,) losses.
    """
    beta = share * (calibration * (1 - 1 / share) + 1 / share)
    terms = beta * F.softplus(-_wide(positive)) + F.softplus(_wide(negative)).sum(1)
    return mean(terms / (1 + negative.shape[1]))


def softmax(vectors: Tensor, items: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over the whole catalogue, in bounded memory. O(T n d).

    The (T, n) logits are never held: a few rows at a time are scored, turned into probabilities
    and folded into both gradients at once, so nothing is computed again in the backward pass.

    Args:
        vectors: (T, d) float32, of the users.
        items: (n, d) float32.
        target: (T,) int64 rows of ``items``.
        weight: (T,) 0 or more, by which each row's part of the mean is multiplied.
    """
    with torch.autocast(items.device.type, enabled=False):  # its sums over items are long
        loss: Tensor = _Softmax.apply(_wide(vectors), _wide(items), target, weight)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def softmax_rows(vectors: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """Return the (T,) losses that ``softmax`` is the mean of, without a gradient. O(T n d)."""
    with torch.autocast(items.device.type, enabled=False):
        vectors, items = _wide(vectors), _wide(items)
        chunk = _chunk(vectors, items)
        buffer, found = items.new_empty(chunk, len(items)), items.new_empty(len(vectors))
        for start in range(0, len(vectors), chunk):
            rows, aim = vectors[start : start + chunk], target[start : start + chunk]
            logits = torch.mm(rows, items.T, out=buffer[: len(rows)])
            hit = logits.gather(1, aim[:, None])[:, 0]
            found[start : start + chunk] = torch.logsumexp(logits, 1) - hit
    return found


def sampled_softmax(
    positive: Tensor,
    negative: Tensor,
    log_q_positive: Tensor,
    log_q: Tensor,
    hit: Tensor,
    mean: Mean = torch.mean,
) -> Tensor:
    """Return the mean cross-entropy among a target and m drawn items, corrected for the drawing.

    **Source**: Bengio and Senécal (2008); the correction is that of Yi et al., "Sampling-Bias-
    Corrected Neural Modeling for Large Corpus Item Recommendations" (2019).

    Args:
        positive: (T,) scores.
        negative: (T, m) scores.
        log_q_positive: (T,) logarithm of how often each target is drawn.
        log_q: (m,) the same of the drawn items.
        hit: (T, m) bool: the drawn item is the target itself, and counts for nothing.
        mean: of the (T,) losses.
    """
    drawn = (_wide(negative) - log_q).masked_fill(hit, -torch.inf)
    logits = torch.cat([(_wide(positive) - log_q_positive)[:, None], drawn], 1)
    return mean(torch.logsumexp(logits, 1) - logits[:, 0])


def _wide(scores: Tensor) -> Tensor:
    """Return half precision, which products may be taken in, as float32: losses are not."""
    return scores.float() if scores.element_size() < 4 else scores


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, items: Tensor, target: Tensor, weight: Tensor | None
    ) -> Tensor:
        count, size = len(vectors), len(items)
        chunk = _chunk(vectors, items)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        of_vectors, of_items = torch.empty_like(vectors), torch.zeros_like(items)
        buffer = items.new_empty(chunk, size)
        total = items.new_zeros((), dtype=torch.float64)
        for start in range(0, count, chunk):
            rows, aim = vectors[start : start + chunk], target[start : start + chunk]
            logits = torch.mm(rows, items.T, out=buffer[: len(rows)])
            hit = logits.gather(1, aim[:, None])
            most = logits.amax(1, keepdim=True)
            logits.sub_(most).exp_()
            mass = logits.sum(1, keepdim=True)
            loss = mass.log() + most - hit
            if weight is not None:
                share = weight[start : start + chunk, None]
                loss, mass = loss * share, mass / share  # a mass without end is a weight of 0
            total += loss.sum(dtype=torch.float64)
            if wanted:
                # Probabilities are never divided out: the mass goes to the short side of each
                # product, (chunk, d) in place of (chunk, n).
                torch.div(logits @ items, mass, out=of_vectors[start : start + chunk])
                of_items.addmm_(logits.T, rows / mass)
        if wanted:
            apart, rows = items[target], vectors
            if weight is not None:
                apart, rows = apart * weight[:, None], rows * weight[:, None]
            of_vectors -= apart
            of_items.index_add_(0, target, rows, alpha=-1)
        ctx.save_for_backward(of_vectors, of_items)
        return (total / max(1, count)).to(items.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_vectors, of_items = ctx.saved_tensors
        scale = gradient / max(1, len(of_vectors))
        return of_vectors * scale, of_items * scale, None, None


def _chunk(vectors: Tensor, items: Tensor) -> int:
    """Return how many rows are scored at a time."""
    return max(16, min(len(vectors), _CHUNK_VALUES // len(items)))
