"""What the kernels load, seen in processes of their own."""

import subprocess
import sys

import numba
import numpy as np
import pytest

from martlet.kernels import jit

FIRST_ANSWER = """
import sys
import numpy as np
from martlet.kernels.topk import topk_dot
topk_dot(np.ones((1, 4), np.float32), np.ones((4, 9), np.float32), 3, None, None, 1)
print("numba.np.arraymath" in sys.modules, "scipy.linalg" in sys.modules)
"""
OTHER_NUMBA = """
import numba.np.linalg
del numba.np.linalg.ensure_blas
from martlet.kernels import jit
print(callable(jit.njit()))
"""


def said(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_kernel_without_linear_algebra_loads_none():
    assert said(FIRST_ANSWER) == "True False\n"


def test_numba_without_that_look_is_taken_as_it_is():
    assert said(OTHER_NUMBA) == "True\n"


def test_linear_algebra_in_kernels_works_all_the_same():
    from numba.np import linalg

    assert linalg.ensure_blas.__name__ == "ensure_blas"
    a = np.arange(6.0).reshape(2, 3)
    assert (jit.njit()(lambda a, b: a @ b)(a, a.T) == a @ a.T).all()


def test_a_function_whose_code_can_be_cached_nowhere_is_compiled_all_the_same():
    names = {}
    exec("def double(a): return 2 * a", names)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(names["double"])
    assert jit.njit(cache=True, nogil=True)(names["double"])(4) == 8
