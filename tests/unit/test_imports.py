"""What each start loads, seen in processes of their own; and names that stay what they are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import martlet
import martlet.core
from support.bundles import bundle

HEAVY = (
    "numpy", "numba", "scipy", "scipy.linalg", "polars", "pyarrow", "matplotlib", "faiss",
    "onnxruntime", "torch", "rich", "typer", "uvicorn", "asyncio", "msgspec", "safetensors",
)  # fmt: skip


def loaded(program):
    """Which of the heavy modules a program has loaded at its end."""
    told = f"\nimport sys; print('loaded', *[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program + told], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import martlet", set()),
        ("import martlet; dir(martlet); martlet.__version__", set()),
        ("from martlet.core import MartletError, new_file, num_threads, Progress, Scorer", set()),
        ("from martlet.core import *", {"numpy"}),
        ("import martlet; martlet.IALS", {"numpy"}),
        ("import martlet; martlet.load", set()),
        ("import martlet.serve.server, martlet.serve.counters", {"numpy", "asyncio"}),
    ],
)
def test_a_start_loads_no_more_than_it_needs(program, expected):
    assert loaded(program) == expected


def test_help_is_told_without_numpy():
    program = """
import sys
from martlet.cli import main
sys.argv = ["martlet", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code == 0
"""
    assert loaded(program) == {"typer"}


def test_a_first_answer_loads_numba_and_little_else(tmp_path):
    bundle().save(tmp_path / "b")
    program = f"import martlet; martlet.load({str(tmp_path / 'b')!r}).recommend(['u1'], k=3)"
    # Numba looks at SciPy's version, which loads SciPy's top and none of its parts.
    assert loaded(program) == {"numpy", "numba", "scipy"}


@pytest.mark.parametrize("package", [martlet, martlet.core], ids=lambda package: package.__name__)
def test_lazy_names_are_those_that_type_checkers_see(package):
    (block,) = (
        node
        for node in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = [name for line in block.body for name in line.names]
    assert all(name.asname == name.name for name in seen)
    own = {"load"} if package is martlet else set()
    assert sorted({name.name for name in seen} | own) == sorted(package.__all__) == dir(package)
    for line in block.body:
        home = sys.modules.get(line.module) or __import__(line.module, fromlist=["x"])
        for name in line.names:
            assert getattr(package, name.name) is getattr(home, name.name)
    with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'x'"):
        package.x  # noqa: B018


def test_verbs_keep_the_names_of_their_packages():
    program = """
import martlet as mt
import martlet.serve.server, martlet.compress.index, martlet.measure.cost
from martlet.serve import wire
from martlet import compress, measure, serve
assert all(callable(verb) for verb in (compress, measure, serve, mt.compress, mt.measure, mt.serve))
import martlet.measure.machine, martlet.serve.http
assert mt.measure is measure and mt.serve is serve
"""
    assert "numpy" in loaded(program)
