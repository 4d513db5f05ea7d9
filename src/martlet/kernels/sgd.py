"""Stochastic gradient descent on a factorization: observed cells, drawn cells, or pairs.

Where items are drawn, users and items meet in parts: see ``kernels.parts``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.jit import njit
from martlet.kernels.parts import (
    GOLDEN,
    TRIES,
    Parts,
    below,
    events_reference,
    leave,
    longest,
    meet,
)

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_FULL = 1e200  # a product of chances is taken as a logarithm when it has grown so far


def sgd_epoch(
    rows: I32, cols: I32, values: F32, order: NDArray[np.int64], users: F32, items: F32,
    rate: float, reg: float, logistic: bool,
) -> None:  # fmt: skip
    """Move both factors once for every cell, in the given order. O(n d), in place.

    With e = f(u . v) - r, where f is the identity or the logistic function, a step is
    u -= rate (e v + reg u) and v -= rate (e u + reg v), from the values before the step: half the
    gradient of the square, the gradient of the cross-entropy.

    Args:
        rows: (n,) int32 of each cell.
        cols: (n,) int32.
        values: (n,) float32 r.
        order: (n,) int64, a permutation of the cells.
        users: (users, d) float32, moved.
        items: (items, d) float32, moved.
        rate: length of a step.
        reg: L2 strength.
        logistic: whether f is the logistic function.
    """
    _epoch(rows, cols, values, order, users, items, np.float32(rate), np.float32(reg), logistic)


def sgd_epoch_reference(
    rows: I32, cols: I32, values: F32, order: NDArray[np.int64], users: F32, items: F32,
    rate: float, reg: float, logistic: bool,
) -> None:  # fmt: skip
    """Do the same in NumPy."""
    for at in order:
        user, item = users[rows[at]].copy(), items[cols[at]].copy()
        score = user @ item
        error = (1 / (1 + np.exp(-score)) if logistic else score) - values[at]
        users[rows[at]] -= np.float32(rate) * (error * item + np.float32(reg) * user)
        items[cols[at]] -= np.float32(rate) * (error * user + np.float32(reg) * item)


def drawn_epoch(
    matrix: CSR, users: F32, items: F32, biases: tuple[F32, F32] | None, *,
    negatives: int, rate: float, reg: float, logistic: bool, seed: int, num_threads: int,
) -> float:  # fmt: skip
    """Move the factors once for every event and the items drawn for it, which its user has not met.

    A step takes an event's item and its m drawn ones at once. With e_k = f(u . v_k + b + b_k) - r_k
    and r = 0 for what was drawn, it is u -= rate (sum_k e_k v_k + (1 + m) reg u) and
    v_k -= rate (e_k u + reg v_k), from the u and the e before the step; biases likewise.
    O(nnz (1 + m) d), in place.

    Args:
        matrix: (users x items) CSR, its values r.
        users: (users, d) float32, moved.
        items: (items, d) float32, moved.
        biases: (users,) and (items,) float32, moved; None leaves them out.
        negatives: m.
        rate: length of a step.
        reg: L2 strength.
        logistic: whether f is the logistic function, or the identity.
        seed: of the parts, the order and the drawn items.
        num_threads: at most; more than ``BLOCKS`` find no work.

    Returns:
        The sum over events and drawn items of the loss before each step: log(1 + e^-s) and
        log(1 + e^s) for r of 1 and 0, or e^2.
    """
    values = matrix.weights()
    of_users, of_items = biases or (np.zeros(len(users), np.float32), np.zeros(0, np.float32))

    def visit(some: I32, others: I32, place: I32, first: int, key: Any) -> float:
        return _drawn(
            matrix.indptr, matrix.indices, values, some, others, place, first, users, items,
            of_users, of_items, np.float32(rate), np.float32(reg), negatives, logistic, key,
        )  # fmt: skip

    return Parts(matrix, seed).visit(visit, num_threads)


def drawn_epoch_reference(
    matrix: CSR, users: F32, items: F32, biases: tuple[F32, F32] | None, *,
    negatives: int, rate: float, reg: float, logistic: bool, seed: int,
) -> float:  # fmt: skip
    """Do the same in NumPy."""
    total, short, strength = 0.0, np.float32(rate), np.float32(reg)
    for user, at, drawn in events_reference(matrix, negatives, seed):
        picked = [int(matrix.indices[at]), *drawn]
        u, actual = users[user].copy(), np.zeros(len(picked), np.float32)
        actual[0] = matrix.weights()[at]
        score = items[picked] @ u
        if biases is not None:
            score += biases[0][user] + biases[1][picked]
        error = (1 / (1 + np.exp(-score)) if logistic else score) - actual
        if logistic:
            total += float((np.logaddexp(0, score) - actual * score).sum())
        else:
            total += float((error**2).sum())
        slope = len(picked) * strength * u
        for e, item in zip(error, picked, strict=True):
            v = items[item].copy()
            slope += e * v
            items[item] -= short * (e * u + strength * v)
            if biases is not None:
                biases[1][item] -= short * (e + strength * biases[1][item])
        users[user] -= short * slope
        if biases is not None:
            own = biases[0][user]
            biases[0][user] -= short * (error.sum() + len(picked) * strength * own)
    return total


def bpr_epoch(
    matrix: CSR, users: F32, items: F32, *, rate: float, reg: float, seed: int, num_threads: int
) -> float:
    """Move the factors once for every event against a drawn item that its user has not met.

    With x = u . (i - j) and s = 1 / (1 + e^x), a step is u += rate (s (i - j) - reg u),
    i += rate (s u - reg i), j += rate (-s u - reg j), from the values before the step. O(nnz d).

    Args:
        matrix: (users x items) CSR.
        users: (users, d) float32, moved.
        items: (items, d) float32, moved.
        rate: length of a step.
        reg: L2 strength.
        seed: of the parts, the order and the drawn items.
        num_threads: at most; more than ``BLOCKS`` find no work.

    Returns:
        The sum of log(1 + e^-x) before each step.
    """

    def visit(some: I32, others: I32, place: I32, first: int, key: Any) -> float:
        return _bpr(
            matrix.indptr, matrix.indices, some, others, place, first, users, items,
            np.float32(rate), np.float32(reg), key,
        )  # fmt: skip

    return Parts(matrix, seed).visit(visit, num_threads)


def bpr_epoch_reference(
    matrix: CSR, users: F32, items: F32, *, rate: float, reg: float, seed: int
) -> float:
    """Do the same in NumPy."""
    total, short, strength = 0.0, np.float32(rate), np.float32(reg)
    for user, at, drawn in events_reference(matrix, 1, seed):
        for other in drawn:
            mine = matrix.indices[at]
            u, i, j = users[user].copy(), items[mine].copy(), items[other].copy()
            x = u @ (i - j)
            share = 1 / (1 + np.exp(x))
            total += float(np.logaddexp(0, -x))
            users[user] += short * (share * (i - j) - strength * u)
            items[mine] += short * (share * u - strength * i)
            items[other] += short * (-share * u - strength * j)
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _epoch(
    rows: Any, cols: Any, values: Any, order: Any, users: Any, items: Any, rate: Any, reg: Any,
    logistic: bool,
) -> None:  # fmt: skip
    one = np.float32(1)
    for at in order:
        user, item = users[rows[at]], items[cols[at]]
        error = np.float32(0)
        for f in range(len(user)):
            error += user[f] * item[f]
        if logistic:
            error = one / (one + np.exp(-error))
        error -= values[at]
        for f in range(len(user)):
            u, v = user[f], item[f]
            user[f] = u - rate * (error * v + reg * u)
            item[f] = v - rate * (error * u + reg * v)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _drawn(
    indptr: Any, indices: Any, values: Any, some: Any, others: Any, place: Any, first: Any,
    users: Any, items: Any, of_users: Any, of_items: Any, rate: Any, reg: Any, negatives: Any,
    logistic: bool, state: Any,
) -> float:  # fmt: skip
    golden, one, dim = np.uint64(GOLDEN), np.float32(1), users.shape[1]
    met, mine = np.zeros(len(others), np.uint8), np.empty(longest(indptr, some), np.int64)
    picked, error = np.empty(negatives + 1, np.int64), np.empty(negatives + 1, np.float32)
    slope = np.empty(dim, np.float32)
    total, chance = 0.0, 1.0  # what is lost is the logarithm of the chance
    for row in some:
        user, bias = users[row], of_users[row]
        count = meet(indptr, indices, row, place, first, met, mine)
        for turn in range(count):
            state += golden
            other = turn + below(state, count - turn)
            mine[turn], mine[other] = mine[other], mine[turn]
            picked[0], size = indices[mine[turn]], 1
            for _ in range(negatives):
                for _ in range(TRIES):
                    state += golden
                    at = below(state, len(others))
                    if met[at] == 0:
                        picked[size] = others[at]
                        size += 1
                        break
            for k in range(size):
                item, score = items[picked[k]], np.float32(0)
                for f in range(dim):
                    score += user[f] * item[f]
                error[k] = score
            along, actual = np.float32(0), values[mine[turn]]
            for k in range(size):
                score = error[k]
                if len(of_items):
                    score += bias + of_items[picked[k]]
                if logistic:
                    power = np.exp(-score)
                    error[k] = one / (one + power)
                    # log(1 + e^-s) + (1 - r) s; where e^-s has no room, s is what is left of it.
                    if power < np.float32(1e30):
                        chance *= 1.0 + np.float64(power)
                        total += score * (one - actual)
                    else:
                        total -= score * actual
                else:
                    error[k] = score - actual
                    total += np.float64(error[k]) ** 2
                if chance > _FULL:
                    total, chance = total + np.log(chance), 1.0
                error[k] -= actual if logistic else np.float32(0)
                actual = np.float32(0)
                along += error[k]
            for f in range(dim):
                slope[f] = size * reg * user[f]
            for k in range(size):
                item, e = items[picked[k]], error[k]
                for f in range(dim):
                    v = item[f]
                    slope[f] += e * v
                    item[f] = v - rate * (e * user[f] + reg * v)
                if len(of_items):
                    of_items[picked[k]] -= rate * (e + reg * of_items[picked[k]])
            for f in range(dim):
                user[f] -= rate * slope[f]
            if len(of_items):
                bias -= rate * (along + size * reg * bias)
        of_users[row] = bias
        leave(indices, mine, count, place, first, met)
    return total + np.log(chance)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _bpr(
    indptr: Any, indices: Any, some: Any, others: Any, place: Any, first: Any, users: Any,
    items: Any, rate: Any, reg: Any, state: Any,
) -> float:  # fmt: skip
    golden, one, total = np.uint64(GOLDEN), np.float32(1), 0.0
    met, mine = np.zeros(len(others), np.uint8), np.empty(longest(indptr, some), np.int64)
    for row in some:
        user = users[row]
        count = meet(indptr, indices, row, place, first, met, mine)
        for turn in range(count):
            state += golden
            other = turn + below(state, count - turn)
            mine[turn], mine[other] = mine[other], mine[turn]
            for _ in range(TRIES):
                state += golden
                at = below(state, len(others))
                if met[at] == 0:
                    break
            if met[at]:
                continue
            item, rival, x = items[indices[mine[turn]]], items[others[at]], np.float32(0)
            for f in range(len(user)):
                x += user[f] * (item[f] - rival[f])
            share = one / (one + np.exp(x))
            total += np.log1p(np.exp(-abs(x))) + max(-x, np.float32(0))
            for f in range(len(user)):
                u, i, j = user[f], item[f], rival[f]
                user[f] = u + rate * (share * (i - j) - reg * u)
                item[f] = i + rate * (share * u - reg * i)
                rival[f] = j + rate * (-share * u - reg * j)
        leave(indices, mine, count, place, first, met)
    return total
