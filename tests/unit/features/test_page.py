"""The page on features: its Python runs, and it names whatever there is."""

import re
from pathlib import Path

import martlet.features as package
from martlet.features.plain import KINDS

PAGE = (Path(__file__).parents[3] / "docs" / "features.md").read_text()


def test_the_python_of_the_page_runs():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)


def test_the_page_names_every_kind_of_column():
    for spec, _ in KINDS.values():
        assert f"`{spec.__name__}(" in PAGE
        assert spec.__name__ in package.__all__
