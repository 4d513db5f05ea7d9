"""Catalogues to search, small and full of ties, hidden items and numbers that are none."""

import numpy as np
from hypothesis import strategies as st

from martlet.core import CSR


@st.composite
def searches(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    size, n, d = draw(st.integers(0, 11)), draw(st.integers(0, 300)), draw(st.integers(1, 9))
    # Whole numbers are summed without rounding and collide often: ties are the rule here.
    vectors = rng.integers(-2, 3, (size, d)).astype(np.float32)
    items = rng.integers(-2, 3, (d, n)).astype(np.float32)
    if n and draw(st.booleans()):
        items[:, rng.integers(n)] = rng.choice([np.nan, np.inf, -np.inf])
    share = draw(st.sampled_from([0.0, 0.1, 1.0]))
    hidden = CSR.from_rows([np.flatnonzero(rng.random(n) < share) for _ in range(size)], n)
    allow = rng.random(n) < 0.7 if draw(st.booleans()) else None
    return vectors, items, draw(st.sampled_from([1, 2, 10, 20, 64, 65, 100, 320])), hidden, allow
