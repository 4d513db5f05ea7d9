import json
import sys

import pytest

from martlet.core import SpecError
from martlet.models.sasrec import SASRec
from martlet.train import watch
from martlet.train.run import Run
from support.sequences import ring

SPEC = SASRec(dim=8, heads=2, max_length=6, tokens=60, epochs=2, rate=0.01)


class Listener:
    def __init__(self, folder, key, step):
        self.folder, self.from_step, self.told, self.closed = folder, step, [], False
        Listener.last = self

    def tell(self, step, figures):
        self.told.append((step, figures))

    def close(self):
        self.closed = True


@pytest.fixture
def listened(monkeypatch):
    monkeypatch.setitem(watch.WATCHERS, "mlflow", Listener)


def curve(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "epoch" in line]


@pytest.mark.usefixtures("listened")
class TestTelling:
    def test_each_epoch_is_told_with_the_figures_of_the_log(self, tmp_path):
        SPEC.fit(ring(), run=Run(tmp_path, watch=("mlflow",)))
        heard, logged = Listener.last, curve(tmp_path)
        assert (heard.folder, heard.from_step, heard.closed) == (tmp_path, 0, True)
        assert [step for step, _ in heard.told] == [line["step"] for line in logged]
        for (_, figures), line in zip(heard.told, logged, strict=True):
            assert figures["loss"] == line["loss"]
            assert figures["ndcg@10"] == line["figure"]
            assert figures["memory_mb"] > 50

    def test_long_epochs_are_told_on_the_way(self, tmp_path, monkeypatch):
        monkeypatch.setattr(watch, "_EVERY_S", 0.0)
        SPEC.fit(ring(), run=Run(tmp_path, watch=("mlflow",)))
        steps = [step for step, _ in Listener.last.told]
        last = curve(tmp_path)[-1]["step"]
        assert sorted(set(steps)) == list(range(1, last + 1))

    def test_a_resumed_run_says_where_it_starts_and_a_failed_one_closes(self, tmp_path):
        def fail(step, done, total):
            if done == 5:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            SPEC.fit(ring(), run=Run(tmp_path, watch=("mlflow",), every_steps=2, progress=fail))
        assert Listener.last.closed
        SPEC.fit(ring(), run=Run(tmp_path, watch=("mlflow",), resume=True))
        assert Listener.last.from_step == 4


@pytest.mark.parametrize(("name", "module"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_what_is_not_installed_is_told_before_the_first_step(name, module, tmp_path, monkeypatch):
    for known in [m for m in sys.modules if m.startswith(("tensorboard", "torch.utils.tensorb"))]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SpecError, match=f"{name} cannot watch .*python -m pip install {name}"):
        SPEC.fit(ring(), run=Run(tmp_path, watch=(name,)))
    assert not (tmp_path / "log.jsonl").exists()


def test_what_makes_no_sense():
    assert Run(watch="mlflow").watch == ("mlflow",)
    with pytest.raises(SpecError, match="watch is 'wandb': expected tensorboard or mlflow"):
        Run(watch=("wandb",))
    with pytest.raises(SpecError, match="tensorboard writes beside the run's log, and there is no"):
        SPEC.fit(ring(), run=Run(watch=("tensorboard",)))


def test_events_that_tensorboard_reads(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    SPEC.fit(ring(), run=Run(tmp_path, watch=("tensorboard",)))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    found = [(scalar.step, scalar.value) for scalar in read.Scalars("loss")]
    assert found == [(line["step"], pytest.approx(line["loss"])) for line in curve(tmp_path)]


def test_a_run_that_mlflow_reads(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    SPEC.fit(ring(), run=Run(tmp_path, watch=("mlflow",)))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("martlet")
    (run,) = client.search_runs([experiment.experiment_id])
    found = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")]
    assert run.info.status == "FINISHED"
    assert found == [(line["step"], pytest.approx(line["loss"])) for line in curve(tmp_path)]


def test_memory_is_told(monkeypatch):
    held = bytearray(50 << 20)
    with_it = watch.memory_in_use()
    del held
    assert with_it > watch.memory_in_use() + (25 << 20)

    def absent(*_):
        raise FileNotFoundError

    monkeypatch.setattr(watch.Path, "read_text", absent)
    assert watch.memory_in_use() == 0
