"""Products of a user with the items of its pairs, and vectors that shrink, inside a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from martlet.core import num_threads
from martlet.kernels.pairs import pair_dots, pair_slopes


def shrunk(vectors: Tensor, strength: float) -> Tensor:
    """Return vectors as they are, pulled towards 0 by so much of them in the backward pass."""
    return _Shrunk.apply(vectors, strength)  # type: ignore[no-any-return, no-untyped-call]


class _Shrunk(torch.autograd.Function):
    """Vectors as they are, pulled towards 0 by so much of them in the backward pass."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        if strength:
            ctx.save_for_backward(vectors)
        return vectors.view_as(vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.strength:  # in place: it was made for these vectors, which only one thing reads
            gradient = gradient.add_(ctx.saved_tensors[0], alpha=ctx.strength)
        return gradient, None


class _Dots(torch.autograd.Function):
    """Products of (B, d) with (B, C, d) by the kernel, where torch would make B small matrices."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor) -> Tensor:
        ctx.save_for_backward(users, items)
        return torch.from_numpy(pair_dots(users.numpy(), items.numpy(), num_threads()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        users, items = (tensor.numpy() for tensor in ctx.saved_tensors)
        slopes = pair_slopes(users, items, gradient.contiguous().numpy(), num_threads())
        return torch.from_numpy(slopes[0]), torch.from_numpy(slopes[1])


def pair_products(users: Tensor, items: Tensor) -> Tensor:
    """Return (B, C) products of (B, d) with (B, C, d), as a part of a network."""
    if users.device.type != "cpu":
        return torch.einsum("bd,bcd->bc", users, items)
    return _Dots.apply(users, items)  # type: ignore[no-any-return, no-untyped-call]
