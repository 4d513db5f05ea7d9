import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from martlet.core import DataError, OutputError, SpecError
from martlet.models.sasrec import SASRec
from martlet.train import checkpoint
from martlet.train.loop import Diverged, train
from martlet.train.plan import Plan
from martlet.train.run import Epoch, Report, Run, Stopped
from support.sequences import ring

SPEC = SASRec(dim=8, heads=2, max_length=6, tokens=60, epochs=3, dropout=0.2, rate=0.01)


def tables(scorer):
    return {name: np.asarray(table.dense()) for name, table in scorer.tables().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def whole():
    return tables(SPEC.fit(ring(), seed=1))


class Line:
    """Fits y = 2 x by one weight; ``figures`` are what validation answers, one after the other."""

    figure = "score"

    def __init__(self, figures=(), values=(1.0, 2.0)):
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.figures, self.values = list(figures), values
        self.kept = []

    def batches(self, epoch):
        return list(self.values)

    def take(self, batch, step):
        return torch.tensor([[batch]])

    def loss(self, x):
        return ((self.network(x) - 2 * x) ** 2).mean(), len(x)

    def validate(self):
        self.kept.append(self.network.weight.item())
        return self.figures.pop(0) if self.figures else None

    def describe(self, batch):
        return f"row {batch}"


def plan(**params):
    return Plan(**{"epochs": 5, "optimizer": "sgd", "rate": 0.05} | params)


class TestTheLoop:
    def test_plain_gradient_descent_by_hand(self):
        task = Line(values=(1.0,))
        report = train(task, plan(epochs=3), seed=0, key="k")
        weight = 0.0
        losses = []
        for _ in range(3):
            losses.append((weight - 2) ** 2)
            weight -= 0.05 * 2 * (weight - 2)
        assert task.network.weight.item() == pytest.approx(weight)
        assert [epoch.loss for epoch in report.epochs] == pytest.approx(losses)
        assert report.parameters == 1
        assert report.ended == "epochs"

    def test_the_best_epoch_is_kept_and_patience_ends_the_run(self):
        task = Line([0.1, 0.5, 0.4, 0.3, 0.6])
        report = train(task, plan(epochs=9, patience=2), seed=0, key="k")
        assert (report.best, report.ended, len(report.epochs)) == (1, "early", 4)
        assert task.network.weight.item() == task.kept[1]

    def test_without_patience_or_figures_the_last_epoch_is_kept(self):
        task = Line()
        report = train(task, plan(), seed=0, key="k")
        assert report.best == 4
        assert task.network.weight.item() == task.kept[-1]

    @pytest.mark.parametrize(
        ("params", "shares"),
        [
            ({}, [1, 1, 1, 1]),
            ({"schedule": "exponential"}, [1, 10**-0.25, 10**-0.5, 10**-0.75]),
            ({"schedule": "cosine"}, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
            ({"warmup": 0.5}, [0.5, 1, 1, 1]),
            ({"schedule": "plateau"}, [1, 1, 1, 0.5]),
        ],
    )
    def test_schedules(self, params, shares, monkeypatch):
        used = []
        real = torch.optim.SGD.step

        def step(self):
            used.append(self.param_groups[0]["lr"])
            return real(self)

        monkeypatch.setattr(torch.optim.SGD, "step", step)
        task = Line([0.5, 0.4, 0.3, 0.2], values=(1.0,))
        train(task, plan(epochs=4, patience=0, rate=0.01, **params), seed=0, key="k")
        assert used == pytest.approx([0.01 * share for share in shares])

    def test_a_gradient_is_clipped(self):
        task = Line(values=(1.0,))
        train(task, plan(epochs=1, rate=1.0, clip=0.25), seed=0, key="k")
        assert task.network.weight.item() == pytest.approx(0.25)

    def test_a_loss_that_is_no_number_names_step_rows_and_advice(self):
        with pytest.raises(
            Diverged, match=r"nan at step 2 \(epoch 1\), on row nan: lower the rate"
        ):
            train(Line(values=(1.0, float("nan"))), plan(), seed=0, key="k")

    def test_what_the_last_step_ruined_is_told_too(self):
        with pytest.raises(Diverged, match=r"inf after step 1 \(epoch 1\), on row 1.0: lower the"):
            train(Line(values=(1.0,)), plan(epochs=1, rate=1e30), seed=0, key="k")

    def test_a_fault_in_the_thread_of_the_batches_is_told(self):
        task = Line()
        task.take = lambda batch, step: torch.tensor([[1.0]]) if step == 0 else 1 / 0
        with pytest.raises(ZeroDivisionError):
            train(task, plan(), seed=0, key="k")
        assert not any(t.name == "martlet-batches" for t in threading.enumerate())

    @pytest.mark.parametrize(
        "wrong", [{"epochs": 0}, {"rate": 0.0}, {"patience": -1}, {"clip": -1.0}, {"warmup": 1.0}]
    )
    def test_plans_that_make_no_sense(self, wrong):
        with pytest.raises(SpecError, match=f"{next(iter(wrong))} is .*: expected"):
            plan(**wrong)


class TestResume:
    @pytest.mark.parametrize("dies_at", [1, 4, 5, 11])
    def test_killed_and_resumed_the_tables_are_those_of_a_whole_run(self, dies_at, whole, tmp_path):
        child = f"""
            import os, signal
            from pathlib import Path
            from martlet.train.run import Run
            from support.sequences import ring
            from unit.train.test_loop import SPEC

            def die(step, done, total):
                if done == {dies_at}:
                    os.kill(os.getpid(), signal.SIGKILL)

            SPEC.fit(ring(), seed=1, run=Run(Path({str(tmp_path)!r}), every_steps=2, progress=die))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(child)],
            env=os.environ | {"PYTHONPATH": "tests"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        resumed = SPEC.fit(ring(), seed=1, run=Run(tmp_path, resume=True))
        assert_same(tables(resumed), whole)
        kept = {"checkpoint.safetensors", "lock", "log.jsonl", "report.json"}
        assert {path.name for path in tmp_path.iterdir()} == kept

    def test_a_finished_run_resumes_to_the_same(self, whole, tmp_path):
        first = SPEC.fit(ring(), seed=1, run=Run(tmp_path))
        again = SPEC.fit(ring(), seed=1, run=Run(tmp_path, resume=True))
        assert_same(tables(first), whole)
        assert_same(tables(again), whole)

    def test_a_run_of_other_settings_is_refused(self, tmp_path):
        SPEC.fit(ring(), seed=1, run=Run(tmp_path))
        with pytest.raises(DataError, match="other settings, data or seed"):
            SPEC.fit(ring(), seed=2, run=Run(tmp_path, resume=True))

    @pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"x" * 500])
    def test_a_damaged_checkpoint_is_refused(self, damage, tmp_path):
        SPEC.fit(ring(), seed=1, run=Run(tmp_path))
        path = tmp_path / "checkpoint.safetensors"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match="is no readable checkpoint"):
            SPEC.fit(ring(), seed=1, run=Run(tmp_path, resume=True))

    @pytest.mark.parametrize("change", [
        lambda tensors, state: state.pop("epochs"),
        lambda tensors, state: state.update(epochs=[{"loss": 1.0}]),
        lambda tensors, state: state.update(sums=[0.0]),
        lambda tensors, state: tensors.update(other=tensors["network.items"]),
        lambda tensors, state: tensors.update({"network.items": tensors["network.items"][:3]}),
        lambda tensors, state: tensors.pop("network.items"),
        lambda tensors, state: tensors.update({"optimizer.dense.x": tensors["network.items"]}),
    ])  # fmt: skip
    def test_a_checkpoint_of_another_model_is_refused(self, change, tmp_path):
        SPEC.fit(ring(), seed=1, run=Run(tmp_path))
        tensors, state = checkpoint.load(tmp_path / "checkpoint.safetensors")
        change(tensors, state)
        checkpoint.save(tmp_path / "checkpoint.safetensors", tensors, state)
        with pytest.raises(DataError, match=r"does not fit the model \(.*\): resume with the ver"):
            SPEC.fit(ring(), seed=1, run=Run(tmp_path, resume=True))

    def test_two_trainings_never_share_a_folder(self, tmp_path):
        def second(*_):
            SPEC.fit(ring(), seed=2, run=Run(tmp_path))

        with pytest.raises(OutputError, match=r"another training is under way .*: wait for"):
            SPEC.fit(ring(), seed=1, run=Run(tmp_path, progress=second))
        SPEC.fit(ring(), seed=1, run=Run(tmp_path))

    @pytest.mark.parametrize("blocked", ["", "lock", "log.jsonl", "report.json"])
    def test_a_folder_that_cannot_be_written_to(self, blocked, tmp_path):
        where = tmp_path / "run"
        if blocked:
            (where / blocked).mkdir(parents=True)
        else:
            where.write_text("a file")
        with pytest.raises(OutputError, match=r"could not write .*run|is a folder: expected"):
            SPEC.fit(ring(), seed=1, run=Run(where))

    def test_half_a_line_is_taken_back(self, tmp_path):
        child = f"""
            import resource, signal
            from pathlib import Path
            from martlet.core import OutputError
            from martlet.train.run import Run

            run = Run(Path({str(tmp_path)!r}))
            run.log({{"epoch": 1}})
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, -1))
            try:
                run.log({{"epoch": 2}})
            except OutputError as error:
                assert "No space left" in str(error), error
            else:
                raise AssertionError
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(child)], check=True)
        assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1}\n'

    def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(self, whole, tmp_path):
        def interrupt(step, done, total):
            if done == 3:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)

        with pytest.raises(Stopped, match=r"stopped after step 4; .*checkpoint.*go on with resume"):
            SPEC.fit(ring(), seed=1, run=Run(tmp_path, progress=interrupt))
        assert_same(tables(SPEC.fit(ring(), seed=1, run=Run(tmp_path, resume=True))), whole)

    def test_what_is_kept_of_a_run(self, tmp_path):
        told = []
        SPEC.fit(ring(), seed=1, run=Run(tmp_path, progress=lambda *words: told.append(words)))
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        estimate, *lines = lines
        assert "seconds" in estimate["estimate"]
        assert [line["epoch"] for line in lines] == [1, 2, 3]
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["epochs"][1]["loss"] == lines[1]["loss"]
        assert report["figure"] == "ndcg@10"
        step, done, total = told[-1]
        assert step.startswith("train: epoch 3, loss ")
        assert done == total == lines[-1]["step"]


def test_layers_without_end_are_refused_before_they_are_built():
    with pytest.raises(SpecError, match="blocks is 1000000000000: expected at most 1,000"):
        SASRec(blocks=10**12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"every_steps": "a"}, "every_steps is 'a': expected a number, 0 or more"),
        ({"every_s": float("nan")}, "every_s is nan"),
        ({"every_s": -1}, "every_s is -1"),
    ],
)
def test_a_run_that_makes_no_sense(given, words):
    with pytest.raises(SpecError, match=words):
        Run(**given)


def report(*curve):
    epochs = tuple(Epoch(loss, figure, 1.0, 1.0) for loss, figure in curve)
    figures = [figure for _, figure in curve]
    best = max(range(len(figures)), key=lambda at: figures[at] if figures[at] is not None else at)
    return Report(epochs, best, "ndcg@10", 1, "epochs")


@pytest.mark.parametrize(
    ("curve", "word"),
    [
        (((3, 0.1), (2, 0.2), (1, 0.3)), "under-fitted"),
        (((3, 0.1), (2, 0.3), (1, 0.2)), "over-fitted from epoch 2"),
        (((3, 0.1), (2, 0.3), (2, 0.2)), "settled at epoch 2"),
        (((3, None), (2, None)), "no validation curve"),
    ],
)
def test_the_verdict(curve, word):
    assert word in report(*curve).verdict
