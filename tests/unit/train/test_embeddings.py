import copy
import errno
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from martlet.core import DataError, OutputError, SpecError, rng
from martlet.kernels import embedding as kernel
from martlet.kernels import row_steps
from martlet.train import losses
from martlet.train.embeddings import Embedding, size_of, tables_of
from martlet.train.estimate import estimate
from martlet.train.loop import train
from martlet.train.plan import Plan
from martlet.train.run import Run

STORAGES = ("fp32", "fp16", "bf16", "int8")
OPTIMIZERS = ("sgd", "adagrad", "adam")
ROWS = np.array([[3, 7, 3], [0, 3, 9]])


def made(num_rows=10, dim=5, **options):
    return Embedding(num_rows, dim, **({"rate": 0.1, "init_scale": 0.5} | options))


def wide(table):
    return table.export().dense().copy()


def state(table):
    buffers = {name: buffer.clone() for name, buffer in table.named_buffers()}
    return buffers | {"steps": torch.tensor(table.steps)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Odds(nn.Module):
    """Logistic regression over two fields' vectors: a task with a table and a dense part."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.table = made(60, 4, **options)
        self.dense = nn.Linear(8, 1)

    def forward(self, rows):
        return self.dense(self.table(rows).flatten(1))[:, 0]


class Clicks:
    """Batches of pairs of rows, clicked where the first is even."""

    figure = "minus the loss"

    def __init__(self, size=400, **options):
        self.network = Odds(**options)
        random = rng(0, "clicks")
        self.rows = (60 * random.random((size, 2)) ** 2).astype(np.int32)
        self.label = torch.from_numpy((self.rows[:, 0] % 2 == 0).astype(np.float32))

    def batches(self, epoch):
        return np.array_split(rng(0, "order", epoch).permutation(len(self.rows)), 8)

    def take(self, batch, step):
        return torch.from_numpy(self.rows[batch]), self.label[torch.from_numpy(batch)]

    def loss(self, tensors):
        rows, label = tensors
        return losses.logistic(self.network(rows), label), len(label)

    def validate(self):
        everything = np.arange(len(self.rows))
        return -self.loss(self.take(everything, 0))[0].item()

    def describe(self, batch):
        return f"rows {batch[:3]}"


PLAN = Plan(epochs=3, rate=0.01, clip=1.0, schedule="cosine")


class TestLookup:
    @pytest.mark.parametrize("storage", STORAGES)
    @pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, torch.int32, torch.int64])
    def test_rows_of_any_shape_and_dtype(self, storage, kind):
        table = made(storage=storage)
        rows = ROWS.astype(kind) if isinstance(kind, type) else torch.tensor(ROWS, dtype=kind)
        found = table(rows)
        assert found.shape == (2, 3, 5)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.detach().numpy(), wide(table)[ROWS])

    def test_one_row_none_and_one_outside(self):
        table = made()
        assert table(np.array(3)).shape == (5,)
        assert table(np.zeros((0, 3), int)).shape == (0, 3, 5)
        with pytest.raises(DataError, match="row 10 at position 1 is outside the table"):
            table(np.array([0, 10]))

    def test_the_first_values_are_those_of_the_seed(self):
        first, again, other = made(5000, 8, seed=1), made(5000, 8, seed=1), made(5000, 8, seed=2)
        assert_same(state(first), state(again))
        assert not torch.equal(first.values, other.values)
        assert wide(first).std() == pytest.approx(0.5, rel=0.02)
        assert wide(first).mean() == pytest.approx(0, abs=0.01)

    def test_what_is_not_trained_keeps_no_gradient(self):
        table = made().eval()
        assert not table(ROWS).requires_grad
        with torch.no_grad():
            assert not made().train()(ROWS).requires_grad


class TestStep:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_steps_of_several_lookups_are_those_of_the_formula(self, optimizer):
        """Each step is compared with the reference in float64, from the same float32 state."""
        table = made(optimizer=optimizer, rate=0.3)
        weights = torch.from_numpy(rng(0, "w").normal(size=(2, 4, 5)).astype(np.float32))
        for step in range(1, 5):
            before = wide(table)
            first, second = table.first.numpy().copy(), table.second.numpy().copy()
            rows = (10 * rng(step, "rows").random((2, 4)) ** 2).astype(np.int64)
            vectors = [table(one) for one in rows]
            loss = sum((weights[at] * vectors[at] ** 2).sum() for at in range(2))
            loss.backward()
            gradients = (2 * weights.numpy() * before[rows]).reshape(-1, 5)
            table.step(share=0.5)
            held = {"sgd": (), "adagrad": (second,), "adam": (first, second)}[optimizer]
            further = {"step": step} if optimizer == "adam" else {}
            by_formula = getattr(row_steps, f"{optimizer}_reference")
            values = by_formula(before, *held, rows.ravel(), gradients, rate=0.15, **further)
            values = values[0] if held else values
            np.testing.assert_allclose(wide(table), values, rtol=2e-6, atol=2e-6)
        assert table.steps == 4

    def test_the_gradient_is_that_of_torch(self):
        """Through a network whose other parts are torch's own, in float64 beside it."""
        table = made()
        plain = nn.Parameter(torch.from_numpy(wide(table)).double())
        mix = torch.from_numpy(rng(0, "mix").normal(size=(5, 3)))
        torch.tanh(table(ROWS) @ mix.float()).prod(1).sum().backward()
        torch.tanh(plain[torch.from_numpy(ROWS)] @ mix).prod(1).sum().backward()
        rows, sums = kernel.merge(*table._merged())
        assert rows.tolist() == np.unique(ROWS).tolist()
        np.testing.assert_allclose(sums, plain.grad.numpy()[rows], rtol=1e-5, atol=1e-6)
        assert table.square_norm() == pytest.approx(float((plain.grad**2).sum()), rel=1e-5)

    @pytest.mark.parametrize("storage", STORAGES)
    def test_small_steps_add_up_in_every_storage(self, storage):
        """A thousand steps of .0005: each far below what half precision tells apart near 1."""
        table = made(4, 64, storage=storage, optimizer="sgd", rate=0.0005, init_scale=1e-9)
        table.table.store(np.arange(4), np.ones((4, 64), np.float32), 0)
        for _ in range(1000):
            table(np.array([1])).sum().backward()
            table.step()
        assert wide(table)[1].mean() == pytest.approx(0.5, abs=0.02)
        np.testing.assert_array_equal(wide(table)[[0, 2, 3]], 1)

    def test_nothing_at_hand_nothing_moves(self):
        table = made()
        before = state(table)
        table.step()
        table(ROWS).sum().backward()
        table.forget()
        table.step()
        assert_same(before, state(table))
        assert table.square_norm() == 0

    def test_gradients_are_scaled_and_those_of_others_are_not(self):
        table, other = made(optimizer="sgd"), made(optimizer="sgd")
        shared = table(ROWS) + other(ROWS)
        shared.backward(torch.ones_like(shared))
        before = wide(table), wide(other)
        table.scale_gradients(0.5)
        for one in (table, other):
            one.step()
        moved = [old - wide(one) for old, one in zip(before, (table, other), strict=True)]
        np.testing.assert_allclose(2 * moved[0], moved[1], rtol=1e-4, atol=1e-7)


class TestModule:
    def test_it_has_no_parameters_and_stays_where_it_is(self):
        network = Odds().double().to("meta")
        assert network.dense.weight.device.type == "meta"
        assert network.table.values.device.type == "cpu"
        assert network.table.values.dtype == torch.float32
        assert list(network.table.parameters()) == []
        assert tables_of(network) == {"table": network.table}
        assert size_of(network) == 60 * 4 + 9
        assert "60, 4, fp32, adagrad" in repr(network)

    def test_a_copy_moves_alone(self):
        table = made()
        twin = copy.deepcopy(table)
        before = state(table)
        twin(ROWS).sum().backward()
        twin.step()
        assert_same(before, state(table))
        assert not torch.equal(twin.values, table.values)

    @pytest.mark.parametrize("storage", STORAGES)
    def test_what_is_exported_is_what_was_trained(self, storage):
        table = made(storage=storage)
        found = table.export()
        found.check("it")
        assert found.storage == ("fp32" if storage == "bf16" else storage)
        np.testing.assert_array_equal(found.rows(ROWS.ravel()), table(ROWS.ravel()).detach())

    @pytest.mark.parametrize(
        "wrong",
        [{"storage": "fp8"}, {"optimizer": "lamb"}, {"rate": 0}, {"num_rows": 0}, {"dim": 1.5}],
    )
    def test_options_that_make_no_sense(self, wrong):
        with pytest.raises(SpecError, match=f"{next(iter(wrong))} is .*: expected"):
            made(**wrong)

    def test_bytes_count_values_scales_and_moments(self):
        assert made(storage="int8").nbytes == 10 * (5 + 4 + 4)
        assert made(optimizer="adam").nbytes == 10 * (4 * 5 + 4 * 5 + 4)
        assert made(storage="bf16", optimizer="sgd").nbytes == 10 * 2 * 5


class TestFile:
    def test_a_table_in_files_learns_what_one_in_memory_does(self, tmp_path):
        ours, other = (made(optimizer="adam", file=file) for file in (tmp_path / "t", None))
        for table in (ours, other):
            for _ in range(3):
                (table(ROWS) ** 2).sum().backward()
                table.step()
        assert_same(state(ours), state(other))
        assert {p.name for p in (tmp_path / "t").iterdir()} == {"values", "first", "second"}
        stored = np.fromfile(tmp_path / "t" / "values", np.float32).reshape(10, 5)
        np.testing.assert_array_equal(stored, wide(other))

    def test_a_full_disk_is_told_before_anything_is_written(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OutputError, match=r"could not write .*values: No space left"):
            made(file=tmp_path / "t")


class TestTheLoop:
    @pytest.mark.parametrize("storage", STORAGES)
    def test_a_table_learns_beside_a_dense_part(self, storage):
        task = Clicks(storage=storage)
        report = train(task, Plan(epochs=12, rate=0.05), seed=0, key="k")
        assert report.parameters == 60 * 4 + 9
        assert report.epochs[-1].loss < 0.6 * report.epochs[0].loss
        assert task.validate() == pytest.approx(max(e.figure for e in report.epochs), abs=1e-6)

    def test_tables_alone_are_a_network_too(self):
        task = Clicks()
        task.network = made(60, 4)
        task.loss = lambda tensors: (losses.squared(task.network(tensors[0]).sum((1, 2)),
                                                    tensors[1]), len(tensors[1]))  # fmt: skip
        report = train(task, Plan(epochs=8, clip=5.0), seed=0, key="k")
        assert report.epochs[-1].loss < 0.9 * report.epochs[0].loss

    def test_the_whole_gradient_is_clipped_tables_and_all(self):
        """Plain descent, one step: the dense part and the table move by the same share."""
        moved = []
        for clip in (0.0, 0.02):
            task = Clicks(optimizer="sgd")
            before = wide(task.network.table), task.network.dense.weight.detach().clone()
            task.batches = lambda epoch, task=task: [np.arange(len(task.rows))]
            plan = Plan(epochs=1, rate=0.1, optimizer="sgd", clip=clip)
            train(task, plan, seed=0, key="k")
            table, weight = task.network.table, task.network.dense.weight.detach()
            moved.append((wide(table) - before[0], (weight - before[1]).numpy()))
        share = np.abs(moved[1][1]).max() / np.abs(moved[0][1]).max()
        assert 0 < share < 0.5
        np.testing.assert_allclose(moved[1][0], share * moved[0][0], rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(moved[1][1], share * moved[0][1], rtol=1e-3)

    def test_without_patience_no_copy_is_made_and_the_last_values_stay(self):
        ends = []
        for patience in (0, 9):
            task = Clicks()
            figures = iter([0.3, 0.2, 0.1])
            task.validate = lambda figures=figures: next(figures)
            report = train(task, Plan(epochs=3, patience=patience), seed=0, key="k")
            ends.append((report, wide(task.network.table)))
        assert [report.best for report, _ in ends] == [2, 0]
        assert "from epoch 1 on" in ends[0][0].verdict
        assert "epoch 3 are kept" in ends[0][0].verdict
        assert not np.array_equal(ends[0][1], ends[1][1])

    def test_nothing_moves_while_it_is_estimated(self):
        task = Clicks(optimizer="adam")
        task.network.dense = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))
        before = copy.deepcopy(task.network.state_dict()), state(task.network.table)
        found = estimate(task, PLAN)
        assert_same(before[0], task.network.state_dict())
        assert_same(before[1], state(task.network.table))
        assert task.network.table.square_norm() == 0
        assert found.parameters == size_of(task.network)

    def test_a_table_larger_than_the_memory_is_refused_but_not_in_files(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("martlet.core.memory.memory_bytes", lambda: 1000)
        with pytest.raises(SpecError, match=r"training needs .*store tables as int8 or in files"):
            estimate(Clicks(), PLAN)
        monkeypatch.setattr("martlet.train.estimate._peak", lambda: 0)
        in_files = estimate(Clicks(file=tmp_path), Plan(epochs=1, patience=0))
        assert in_files.peak_mb == 4 * 4 * 9 / 1e6

    @pytest.mark.parametrize("storage", STORAGES)
    @pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
    def test_killed_and_resumed_the_table_is_that_of_a_whole_run(
        self, storage, optimizer, tmp_path
    ):
        options = {"storage": storage, "optimizer": optimizer}
        whole = Clicks(**options)
        train(whole, PLAN, seed=1, key="k")
        task = Clicks(**options)

        def stop(step, done, total):
            if done == 13:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(task, PLAN, seed=1, key="k", run=Run(tmp_path, every_steps=5, progress=stop))
        again = Clicks(**options)
        train(again, PLAN, seed=1, key="k", run=Run(tmp_path, resume=True))
        assert_same(whole.network.state_dict(), again.network.state_dict())
        assert_same(state(whole.network.table), state(again.network.table))

    def test_killed_for_good_with_a_table_in_files(self, tmp_path):
        """The files have moved on since the checkpoint; a resumed run starts from the latter."""
        child = f"""
            import os, signal
            from pathlib import Path
            from martlet.train.loop import train
            from martlet.train.run import Run
            from unit.train.test_embeddings import PLAN, Clicks

            def die(step, done, total):
                if done == 11:
                    os.kill(os.getpid(), signal.SIGKILL)

            folder = Path({str(tmp_path)!r})
            task = Clicks(storage="int8", file=folder / "table")
            train(task, PLAN, seed=1, key="k", run=Run(folder, every_steps=2, progress=die))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(child)],
            env=os.environ | {"PYTHONPATH": "tests"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        whole = Clicks(storage="int8")
        train(whole, PLAN, seed=1, key="k")
        again = Clicks(storage="int8", file=tmp_path / "table")
        train(again, PLAN, seed=1, key="k", run=Run(tmp_path, resume=True))
        assert_same(state(whole.network.table), state(again.network.table))


def test_logistic_and_squared_by_hand():
    logit, label = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 0.0, 0.5])
    chance = 1 / (1 + np.exp(-logit.numpy().astype(np.float64)))
    terms = -label.numpy() * np.log(chance) - (1 - label.numpy()) * np.log(1 - chance)
    weight = np.array([1.0, 3.0, 0.0])
    assert losses.logistic(logit, label).item() == pytest.approx(terms.mean(), rel=1e-6)
    weighted = losses.logistic(logit, label, torch.tensor(weight)).item()
    assert weighted == pytest.approx((weight * terms).sum() / 4, rel=1e-6)
    assert losses.squared(logit, label).item() == pytest.approx((1 + 4 + 2.25) / 3)
    assert losses.squared(logit, label, torch.tensor(weight)).item() == pytest.approx(13 / 4)
    assert losses.squared(logit, label, torch.zeros(3)).item() == 0
    huge = torch.tensor([1e4, -1e4], requires_grad=True)
    losses.logistic(huge, torch.tensor([0.0, 1.0])).backward()
    assert torch.isfinite(huge.grad).all()
