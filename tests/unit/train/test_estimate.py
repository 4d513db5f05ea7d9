import json

import numpy as np
import pytest
import torch

from martlet.core import SpecError
from martlet.models.sasrec import SASRec
from martlet.train import estimate as estimating
from martlet.train.next_item import ItemNetwork, _Task
from martlet.train.run import Run
from support.sequences import ring

SPEC = SASRec(dim=8, heads=2, max_length=6, tokens=60, epochs=4)


@pytest.fixture
def task():
    data = ring()
    torch.manual_seed(0)
    return _Task(SPEC, ItemNetwork(data.num_items, 8, SPEC.encoder(), 0.1), data, 0)


def test_nothing_is_moved_and_parameters_are_counted(task):
    before = {name: p.clone() for name, p in task.network.state_dict().items()}
    found = estimating.estimate(task, SPEC)
    for name, p in task.network.state_dict().items():
        assert torch.equal(p, before[name])
    assert all(p.grad is None for p in task.network.parameters())
    assert found.parameters == sum(p.numel() for p in before.values())
    assert found.seconds > 0
    assert found.peak_mb * 1e6 >= 4 * 4 * found.parameters


def test_operations_are_those_of_the_products(task):
    """Twice for the forward products of each weight, four times more for both gradients."""
    found = estimating.estimate(task, SPEC)
    tokens = sum(task.pieces.take(batch).mask.size for batch in task.batches(0))
    weights = sum(p.numel() for p in task.network.encoder.parameters() if p.ndim == 2) - 6 * 8
    lower = 6 * SPEC.epochs * tokens * weights * 1e-9
    assert 0.5 * lower < found.gflops < 3 * lower


def test_more_memory_than_there_is_is_refused_with_advice(task, monkeypatch):
    monkeypatch.setattr("martlet.core.memory.memory_bytes", lambda: 1000)
    with pytest.raises(SpecError, match=r"training needs at least .* MB of memory.*: lower dim"):
        estimating.estimate(task, SPEC)


def test_it_is_told_before_the_first_step_and_logged(tmp_path):
    told = []
    SPEC.fit(ring(), run=Run(tmp_path, progress=lambda *words: told.append(words)))
    step, done, total = told[0]
    assert " parameters, " in step
    assert (done, total) == (0, told[-1][2])
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first["estimate"]["parameters"] == np.prod([20, 8]) + sum(
        p.numel() for p in SPEC.encoder().parameters()
    )
