import numpy as np
import pytest

from martlet.core import rng
from martlet.scorers.runtime import Runtime
from martlet.scorers.tiles import LARGE, SMALL, Tiles
from support.networks import pair_ranker


def draw(*shape):
    return rng(0, "tiles", *shape).standard_normal(shape, np.float32)


@pytest.fixture
def tiles():
    return Tiles(pair_ranker(draw(24, 32), draw(32, 1)), {"user": 2, "item": 2})


@pytest.fixture
def sizes(monkeypatch):
    """The rows of each run of a network."""
    found, run = [], Runtime.run

    def seen(self, **arrays):
        found.append(len(arrays["user"]))
        return run(self, **arrays)

    monkeypatch.setattr(Runtime, "run", seen)
    return found


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, LARGE // 2 + 1, LARGE, LARGE + 3])
def test_rows_have_the_digits_of_a_large_tile(tiles, size):
    user, item = draw(2 * LARGE, 16), draw(2 * LARGE, 8)
    whole = tiles.run(user=user, item=item)
    np.testing.assert_array_equal(tiles.run(user=user[:size], item=item[:size]), whole[:size])
    hidden, out = draw(24, 32), draw(32, 1)
    expected = np.maximum(np.concatenate([user, item], 1) @ hidden, 0) @ out
    np.testing.assert_allclose(whole, expected[:, 0], rtol=1e-3, atol=1e-4)


def test_few_rows_take_small_tiles_after_a_trial(tiles, sizes):
    user, item = draw(2 * LARGE, 16), draw(2 * LARGE, 8)
    tiles.run(user=user[:1], item=item[:1])
    assert sizes == [SMALL] * (LARGE // SMALL) + [LARGE] + [SMALL]
    sizes.clear()
    tiles.run(user=user[: LARGE + 20], item=item[: LARGE + 20])
    assert sizes == [LARGE, SMALL, SMALL]
    sizes.clear()
    tiles.run(user=user[: LARGE // 2 + 1], item=item[: LARGE // 2 + 1])
    assert sizes == [LARGE]


def test_digits_that_depend_on_the_tile_leave_it_large(tiles, monkeypatch):
    def last_digits(self, **arrays):
        return arrays["user"].sum(1) * np.float32(1 + 1e-7 * (len(arrays["user"]) == SMALL))

    monkeypatch.setattr(Runtime, "run", last_digits)
    user, item = draw(LARGE, 16), draw(LARGE, 8)
    np.testing.assert_array_equal(
        tiles.run(user=user[:3], item=item[:3]), tiles.run(user=user, item=item)[:3]
    )
