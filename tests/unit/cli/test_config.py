import tomllib

import pytest

import martlet.data
from support.command import document, run


def test_a_file_holds_options_and_typed_ones_override(place, tmp_path):
    (tmp_path / "fit.toml").write_text(
        'model = "item-knn"\nset = ["neighbours=5"]\nwith-valid = true'
    )
    words = ("fit", place / "data", "--config", tmp_path / "fit.toml")
    assert document(*words, "--out", tmp_path / "knn")["model"] == "item-knn"
    ruled = tomllib.loads((tmp_path / "knn.config.toml").read_text())
    assert ruled["set"] == ["neighbours=5"]
    assert ruled["with-valid"] is True
    assert ruled["seed"] == 0
    assert not {"json", "force", "config", "init"} & ruled.keys()
    made = document(
        *words, "--model", "popularity", "--set", "weighted=true", "--out", tmp_path / "p"
    )
    assert made["model"] == "popularity"


def test_what_was_saved_does_it_again(place, tmp_path):
    words = ("fit", place / "data", "--model", "ials", "--set", "dim=4", "--seed", "3")
    first = document(*words, "--out", tmp_path / "a")
    again = document("fit", "--config", tmp_path / "a.config.toml", "--out", tmp_path / "b")
    assert again["id"] == first["id"]
    assert "exists" in run("fit", "--config", tmp_path / "a.config.toml", code=1).stderr
    document("fit", "--config", tmp_path / "a.config.toml", "--force")


def test_each_result_has_its_configuration_beside_it(place, tmp_path):
    odd = 'a "quoted"\\ user\n雨\x7f.parquet'
    run("recommend", place / "b", "--all", "-k", 2, "--out", tmp_path / odd)
    ruled = tomllib.loads((tmp_path / f"{odd}.config.toml").read_text())
    assert ruled == {
        "bundle": str(place / "b"), "all": True, "out": str(tmp_path / odd), "k": 2, "exclude": [],
        "seen": "hide",
    }  # fmt: skip
    document("compress", place / "b", "--with", "quantize:int8", "--out", tmp_path / "small")
    assert tomllib.loads((tmp_path / "small.config.toml").read_text())["with"] == ["quantize:int8"]
    ruled = tomllib.loads((place / "data.config.toml").read_text())
    assert (ruled["split"], ruled["min-user"], ruled["cost" if "cost" in ruled else "strict"]) == (
        "time:0.1,0.1",
        1,
        False,
    )


def test_underscores_and_arguments_are_read(place, tmp_path):
    (tmp_path / "c.toml").write_text(f'log = "{place / "log.csv"}"\nmin_user = 3')
    about = document("prepare", "--config", tmp_path / "c.toml", "--out", tmp_path / "d")
    assert about["cleaning"][-1]["rule"] == "KCore(users=3, items=1)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "modle = 1",
            "sets modle, which 'martlet fit' does not know: it knows dataset, every-minutes,",
        ),
        ("json = true", "sets json, which"),
        ("not toml", "is not readable TOML"),
        (b"\xff\xfe", "is not readable TOML"),
        ("a = " + "[" * 5000, "is not readable TOML"),
        ("a = " + "{b=" * 5000, "is not readable TOML"),
        (None, "is not readable TOML"),
    ],
)
def test_a_file_that_makes_no_sense(place, tmp_path, text, reason):
    path = tmp_path / "bad.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    words = ("fit", place / "data", "--config", path, "--out", tmp_path / "x")
    assert reason in run(*words, code=1).stderr


def test_a_path_that_is_too_long_is_stated(place, tmp_path):
    long = tmp_path / ("x" * 300)
    words = ("fit", place / "data", "--config", long, "--out", tmp_path / "x")
    assert "is not readable TOML" in run(*words, code=1).stderr
    for words in (
        ("fit", long, "--out", tmp_path / "x"),
        ("fit", place / "data", "--out", long),
        ("prepare", place / "log.csv", "--out", long),
        ("recommend", long, "--user", "u1"),
        ("recommend", place / "b", "--all", "--out", f"{long}.parquet"),
        ("compress", place / "b", "--with", "quantize:int8", "--out", long, "--force"),
    ):
        assert "File name too long" in run(*words, code=1).stderr
    assert not list(tmp_path.iterdir())


def test_a_value_of_the_wrong_type_is_wrong_usage(place, tmp_path):
    (tmp_path / "c.toml").write_text('seed = "one"')
    run("fit", place / "data", "--config", tmp_path / "c.toml", "--out", tmp_path / "x", code=2)


def test_a_password_is_not_written_down(tmp_path, place, monkeypatch):
    monkeypatch.setattr(
        "martlet.data.read_sql", lambda query, log, **_: martlet.data.read(place / "log.csv")
    )
    address = "postgresql://me:secret@host:5432/shop"
    document("prepare", address, "--sql", "select 1", "--out", tmp_path / "a")
    text = (tmp_path / "a.config.toml").read_text()
    assert "secret" not in text
    assert tomllib.loads(text)["log"] == "postgresql://me@host:5432/shop"
