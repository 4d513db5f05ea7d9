import pytest

from martlet.scorers.bundle import Bundle
from martlet.train import checkpoint
from support.command import document, run


def test_fit(place, tmp_path):
    made = document("fit", place / "data", "--set", "dim=4", "--out", tmp_path / "a")
    assert made["model"] == "ials"
    assert made["id"] == Bundle.load(tmp_path / "a").id
    assert made["train_s"] > 0
    told = run("fit", place / "data", "--model", "popularity", "--out", tmp_path / "b").stdout
    assert told.startswith("fitted popularity in ")
    assert str(tmp_path / "b") in told


def test_force_replaces_no_folder_but_a_bundle(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    for words in (
        ("fit", place / "data", "--out", place / "data"),
        ("fit", place / "data", "--out", tmp_path / "mine"),
        ("compress", place / "b", "--with", "quantize:fp16", "--out", tmp_path / "mine"),
        ("prepare", place / "log.csv", "--out", place / "b"),
    ):
        assert "so it is none that may be replaced" in run(*words, "--force", code=1).stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    words = ("fit", place / "data", "--model", "popularity", "--out", tmp_path / "b")
    document(*words)
    document(*words, "--force")


def test_fit_sees_the_validation_part_when_told(place, tmp_path):
    document("fit", place / "data", "--set", "dim=4", "--with-valid", "--out", tmp_path / "a")
    first = Bundle.load(place / "b").lineage[0]["trained_on"]
    both = Bundle.load(tmp_path / "a").lineage[0]["trained_on"]
    assert both[1] == first[0]
    assert len(both) == 3
    refused = run("measure", tmp_path / "a", place / "data", "--part", "valid", code=1)
    assert "part 'valid' was trained on" in refused.stderr
    assert not (tmp_path / "a" / "receipts.jsonl").exists()


@pytest.mark.parametrize("option", ["--init", "--teacher"])
def test_a_bundle_that_is_not_there_is_named(place, tmp_path, option):
    words = ("fit", place / "data", option, tmp_path / "none", "--out", tmp_path / "a")
    assert "none" in run(*words, code=1).stderr


@pytest.mark.parametrize("option", ["--init", "--teacher"])
def test_a_model_says_when_it_takes_no_bundle(place, tmp_path, option):
    words = ("fit", place / "data", option, place / "b", "--out", tmp_path / "a")
    assert "leave it out, or fit a model that does" in run(*words, code=1).stderr
    assert not list(tmp_path.iterdir())


def test_compress(place, tmp_path):
    words = ("compress", place / "b", "--with", "quantize:int8", "--out")
    made = document(*words, tmp_path / "a")
    assert made["scoring_mb"][1] < made["scoring_mb"][0]
    assert made["id"] == Bundle.load(tmp_path / "a").id
    assert "scoring_mb 0." in run(*words, tmp_path / "b").stdout
    words = ("compress", place / "b", "--with", "index:ivf", "--data", place / "data", "--out")
    assert document(*words, tmp_path / "c")["bundle"] == str(tmp_path / "c")


def test_how_often_a_training_is_kept(place, tmp_path, monkeypatch):
    kept = []
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *given: (kept.append(given[2]), real(*given)))
    words = ("fit", place / "data", "--model", "sasrec", "--set", "dim=8", "--set", "epochs=2",
             "--set", "tokens=100", "--run", tmp_path / "run", "--out", tmp_path / "a")  # fmt: skip
    run(*words, "--every-steps", -1, code=2)
    run(*words, "--every-steps", 1, "--every-minutes", 0)
    steps = [state["step"] for state in kept]
    assert len(steps) == steps[-1] + 2  # after each step, and at the end of an epoch


def test_a_training_is_kept_and_resumed(place, tmp_path):
    words = ("fit", place / "data", "--model", "sasrec", "--set", "dim=8", "--set", "epochs=2")
    run(*words, "--resume", "--out", tmp_path / "x", code=2)
    run(*words, "--watch", "mlflow", "--out", tmp_path / "x", code=2)
    watched = (*words, "--watch", "wandb", "--run", tmp_path / "w", "--out", tmp_path / "x")
    assert "watch is 'wandb': expected tensorboard or mlflow" in run(*watched, code=1).stderr
    made = document(*words, "--run", tmp_path / "run", "--out", tmp_path / "a")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoint.safetensors", "lock", "log.jsonl", "report.json",
    }  # fmt: skip
    again = document(*words, "--run", tmp_path / "run", "--resume", "--out", tmp_path / "b")
    assert again["id"] == made["id"]
    told = run("fit", place / "data", "--run", tmp_path / "run", "--out", tmp_path / "c", code=1)
    assert "ials takes no run: leave it out" in told.stderr
