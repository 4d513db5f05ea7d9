import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from martlet.core import SpecError
from martlet.models.sasrec import SASRec
from martlet.train import precision as choosing
from martlet.train.loop import train
from martlet.train.moving import Movers
from martlet.train.plan import Plan
from martlet.train.precision import Scale, cast, choose
from martlet.train.run import Run
from support.sequences import ring
from unit.train.test_embeddings import Clicks, assert_same, state

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Return a function that says how long a pass in each precision takes."""
    spans, now, under_way = {}, [0.0], ["fp32"]
    real = choosing.cast

    def casting(name, device):
        under_way[0] = name
        return real(name, device)

    def tick():
        now[0] += spans[under_way[0]] / 2
        return now[0]

    monkeypatch.setattr(choosing, "cast", casting)
    monkeypatch.setattr(choosing.time, "perf_counter", tick)
    return spans.update


@pytest.mark.parametrize(
    ("spans", "taken"),
    [
        ({"fp32": 1.0, "bf16": 0.5, "fp16": 0.4}, "fp16"),
        ({"fp32": 1.0, "bf16": 0.4, "fp16": 0.5}, "bf16"),
        ({"fp32": 1.0, "bf16": 0.95, "fp16": 0.95}, "fp32"),
        ({"fp32": 1.0, "bf16": 3.0, "fp16": 9.0}, "fp32"),
    ],
)
def test_the_fastest_that_gains_enough_is_taken(spans, taken, clock):
    clock(spans)
    found = choose(Clicks())
    assert found.precision == taken
    assert found.loss["fp32"] == found.gradient["fp32"] == 0
    assert 0 < found.gradient["bf16"] < 0.1


def test_a_machine_that_does_something_else_changes_no_choice(clock, monkeypatch):
    """Only the passes of every fifth round are not held up, by ten times as long as they take."""
    clock({"fp32": 1.0, "bf16": 0.97, "fp16": 1.1})
    plain, ticks, late = choosing.time.perf_counter, itertools.count(1), [0.0]
    random = np.random.default_rng(0)

    def tick():
        number = next(ticks)
        if number % 2 == 0 and number // 27 % 5:
            late[0] += 10 * random.random()
        return plain() + late[0]

    monkeypatch.setattr(choosing.time, "perf_counter", tick)
    found = choose(Clicks())
    assert found.precision == "fp32"
    assert max(found.ms.values()) < 1000


def test_what_does_not_keep_the_loss_is_not_taken(clock):
    """Scores near 1,000 that differ by tenths: bfloat16 tells none of them apart."""
    clock({"fp32": 1.0, "bf16": 0.1, "fp16": 0.1})
    task = Clicks()
    nn.init.constant_(task.network.dense.weight, 30.0)
    nn.init.constant_(task.network.dense.bias, 1000.0)
    plain = task.loss
    task.loss = lambda tensors: plain_minus(plain, task, tensors)
    found = choose(task)
    assert found.loss["bf16"] > 0.01
    assert found.precision == "fp32"


def plain_minus(plain, task, tensors):
    rows, label = tensors
    return ((task.network(rows).float() - 1000.0 - label) ** 2).mean(), len(label)


def test_what_overflows_is_not_taken(clock):
    clock({"fp32": 1.0, "bf16": 9.0, "fp16": 0.1})
    task = Clicks()
    nn.init.constant_(task.network.dense.bias, 1e6)
    found = choose(task)
    assert found.precision == "fp32"
    json.dumps(found._asdict(), allow_nan=False)


def test_nothing_moves_while_it_is_chosen():
    task = Clicks(optimizer="adam")
    task.network.dense = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))
    before = {k: v.clone() for k, v in task.network.state_dict().items()}
    held = state(task.network.table)
    choose(task)
    assert_same(before, task.network.state_dict())
    assert_same(held, state(task.network.table))
    assert task.network.table.square_norm() == 0
    assert all(p.grad is None for p in task.network.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_network_learns_in_fewer_bits(precision):
    ends = []
    for name in ("fp32", precision):
        task = Clicks()
        report = train(task, Plan(epochs=8, rate=0.05, precision=name), seed=0, key="k")
        assert report.precision == name
        assert task.network.dense.weight.dtype == torch.float32
        ends.append(report.epochs[-1].loss)
    assert ends[1] == pytest.approx(ends[0], rel=0.02)
    assert ends[1] != ends[0]


@pytest.mark.parametrize("loss", ["softmax", "sampled", "gbce", "bpr"])
def test_every_loss_of_a_sequence_model_is_taken_in_float32(loss):
    spec = SASRec(dim=8, heads=2, max_length=6, tokens=60, epochs=1, loss=loss, precision="bf16")
    plain = SASRec(dim=8, heads=2, max_length=6, tokens=60, epochs=1, loss=loss)
    for one, other in zip(spec.fit(ring()).tables().values(), plain.fit(ring()).tables().values(),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one.dense(), other.dense(), atol=0.05)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_a_resumed_run_takes_the_same_precision_and_ends_the_same(precision, tmp_path, clock):
    plan = Plan(epochs=3, rate=0.05, precision=precision)
    clock({"fp32": 1.0, "bf16": 0.1, "fp16": 0.2})
    whole = Clicks()
    train(whole, plan, seed=1, key="k")

    def stop(step, done, total):
        if done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run = Run(tmp_path, every_steps=3, progress=stop)
        train(Clicks(), plan, seed=1, key="k", run=run)
    clock({"fp32": 0.1, "bf16": 1.0, "fp16": 1.0})  # what it would choose now
    again = Clicks()
    report = train(again, plan, seed=1, key="k", run=Run(tmp_path, resume=True))
    assert report.precision == ("bf16" if precision == "auto" else precision)
    assert_same(whole.network.state_dict(), again.network.state_dict())
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    chosen = [line["precision"] for line in lines if "precision" in line]
    assert [line["precision"] for line in chosen] == (["bf16"] if precision == "auto" else [])
    assert json.loads((tmp_path / "report.json").read_text())["precision"] == report.precision


class TestScale:
    def test_it_halves_at_an_overflow_and_doubles_after_a_thousand_steps(self):
        scale = Scale("fp16")
        assert scale.by == 2**16
        scale.after(False)
        assert scale.by == 2**15
        for _ in range(1000):
            scale.after(True)
        assert scale.by == 2**16
        again = Scale("fp16")
        again.restore(json.loads(json.dumps(scale.state())))
        assert again.state() == scale.state()
        assert Scale("bf16").by == Scale("fp32").by == 1

    def test_a_step_whose_gradient_overflows_is_not_taken(self):
        task = Clicks(optimizer="adam")
        movers = Movers(task.network, Plan(clip=1.0))
        movers.scale = Scale("fp16")
        before = {k: v.clone() for k, v in task.network.state_dict().items()}
        tensors = task.take(task.batches(0)[0], 0)
        movers.move(task.loss(tensors)[0] * 1e37, 1.0)
        assert_same(before, task.network.state_dict())
        assert movers.scale.by == 2**15
        assert task.network.table.steps == 0
        movers.move(task.loss(tensors)[0], 1.0)
        assert task.network.table.steps == 1
        assert not torch.equal(before["table.values"], task.network.table.values)

    @pytest.mark.parametrize("clip", [0.0, 0.01])
    def test_a_scaled_step_is_the_plain_one(self, clip):
        moved = []
        for name in ("fp32", "fp16"):
            task = Clicks(optimizer="sgd")
            movers = Movers(task.network, Plan(optimizer="sgd", rate=0.1, clip=clip))
            movers.scale = Scale(name)
            movers.move(task.loss(task.take(task.batches(0)[0], 0))[0], 1.0)
            moved.append({k: v.numpy() for k, v in task.network.state_dict().items()})
        for name, value in moved[0].items():
            np.testing.assert_allclose(moved[1][name], value, rtol=1e-5, atol=1e-8, err_msg=name)


def test_products_alone_are_taken_in_fewer_bits():
    x = torch.ones(2, 2)
    for name, dtype in choosing.PRECISIONS.items():
        with cast(name, CPU):
            assert (x @ x).dtype == dtype
            assert (x + x).dtype == torch.float32


def test_a_precision_that_is_none():
    with pytest.raises(SpecError, match="precision is 'fp8': expected one of auto, fp32"):
        Plan(precision="fp8")
