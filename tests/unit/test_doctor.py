import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from martlet.cli import doctor
from support.command import document, run

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def found(name):
    return next(check for check in doctor.examine() if check.name == name)


def test_this_installation_is_well():
    assert [check for check in doctor.examine() if check.state == "bad"] == []
    assert found("numpy").found == importlib.metadata.version("numpy")


def test_all_that_the_project_needs_is_looked_at():
    needed = [re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]]
    assert sorted(doctor.NEEDED) == sorted(needed)
    assert doctor.OPTIONAL.keys() == {"torch", "connectorx"}, "what some line of the project uses"


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED", {"no-such-library": "no_such_library"})
    check = found("no-such-library")
    assert (check.state, check.found) == ("bad", "missing")
    assert check.advice == "python -m pip install no-such-library"


@pytest.mark.parametrize(("name", "module"), [("faiss-cpu", "faiss"), ("uvloop", "uvloop")])
def test_a_library_that_is_installed_but_cannot_be_imported_is_bad(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    check = found(name)
    assert check.state == "bad"
    assert check.found.startswith(f"{importlib.metadata.version(name)} cannot be imported: ")
    assert check.advice == f"python -m pip install --force-reinstall {name}"
    states = {check["name"]: check["state"] for check in document("doctor", code=1)}
    assert [name for name, state in states.items() if state == "bad"] == [name]


def test_what_fails_in_its_own_way_is_told_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "torn.py").write_text("raise OSError('no libgomp.so\\nand more words')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "NEEDED", {"torn": "torn"})
    assert found("torn").found == "cannot be imported: no libgomp.so"


def test_an_extra_is_offered_with_what_it_is_for(monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_extra": ("'martlet[deep]'", "dreams")})
    check = found("no_such_extra")
    assert (check.state, check.found) == ("ok", "not installed, optional")
    assert check.advice == "for dreams: python -m pip install 'martlet[deep]'"
    assert "'martlet[deep]'" in doctor.OPTIONAL["no_such_extra"]


def test_an_extra_that_is_broken_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "OPTIONAL", {"onnx": ("onnx", "nothing")})
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert found("onnx").state == "warn"


def test_without_what_draws_tables_it_still_tells():
    hide = "import sys; sys.modules['rich.table'] = None; sys.argv[1:] = ['doctor']; "
    done = subprocess.run(
        [sys.executable, "-c", hide + "from martlet.cli import main; main()"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"^bad; rich; .* cannot be imported: .*reinstall rich$", done.stdout, re.M)
    assert done.stderr == "martlet: not as it must be: rich; the advice stands beside each\n"


def test_without_the_library_that_finds_the_pools_there_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert not [check for check in doctor.examine() if check.name.startswith("pool ")]
    assert found("threadpoolctl").state == "bad"


def test_threads_that_make_no_sense(monkeypatch):
    monkeypatch.setenv("MARTLET_THREADS", "many")
    assert found("threads").state == "bad"


def test_too_many_threads(monkeypatch):
    monkeypatch.setenv("MARTLET_THREADS", "4096")
    assert "set MARTLET_THREADS to" in found("threads").advice


def pool(kind, threads):
    return {"user_api": kind, "internal_api": "one", "version": "1", "num_threads": threads}


@pytest.mark.parametrize(
    ("ours", "blas", "state"), [(1, 4, "ok"), (2, 2, "ok"), (4, 1, "ok"), (2, 4, "warn")]
)
def test_nested_blas_threads(monkeypatch, ours, blas, state):
    monkeypatch.setattr(doctor, "_cores", lambda: 4)
    monkeypatch.setattr(doctor, "_pools", lambda: [pool("blas", 1), pool("blas", blas)])
    monkeypatch.setenv("MARTLET_THREADS", str(ours))
    check = found("pool blas")
    assert check.state == state
    if state == "warn":
        assert check.found == "4 threads (one 1) for each of our 2: up to 8 on 4 cores"
        assert "OMP_NUM_THREADS and OPENBLAS_NUM_THREADS to 2" in check.advice


def test_a_pool_larger_than_the_machine(monkeypatch):
    monkeypatch.setattr(doctor, "_cores", lambda: 4)
    monkeypatch.setattr(doctor, "_pools", lambda: [pool("openmp", 9)])
    assert found("pool openmp").found == "9 threads (one 1) on 4 cores"
    assert found("pool openmp").advice.endswith("OPENBLAS_NUM_THREADS to 4")


def test_a_cache_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/no-such-folder")
    check = found("kernel cache")
    assert check.state == "warn"
    assert "NUMBA_CACHE_DIR" in check.advice


def test_an_unsupported_python(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 0))
    assert found("python").advice == "use Python 3.11, 3.12 or 3.13"


def test_a_well_installation_is_told_to_people(monkeypatch):
    install, _ = doctor.OPTIONAL["torch"]
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_extra": (install, "one")})
    told = run("doctor").stdout
    assert "Martlet on this machine" in told
    assert "'martlet[deep]'" in told
    assert "faiss-cpu" in told
