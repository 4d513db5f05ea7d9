import importlib.metadata

from martlet.cli import doctor


def found(name):
    return next(check for check in doctor.examine() if check.name == name)


def test_this_installation_is_well():
    assert [check for check in doctor.examine() if check.state == "bad"] == []
    assert found("numpy").found == importlib.metadata.version("numpy")


def test_a_missing_library_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED", ("no-such-library",))
    check = found("no-such-library")
    assert (check.state, check.advice) == ("bad", "python -m pip install no-such-library")


def test_threads_that_make_no_sense(monkeypatch):
    monkeypatch.setenv("MARTLET_THREADS", "many")
    assert found("threads").state == "bad"


def test_too_many_threads(monkeypatch):
    monkeypatch.setenv("MARTLET_THREADS", "4096")
    assert "set MARTLET_THREADS to" in found("threads").advice


def test_nested_blas_threads(monkeypatch):
    pool = {"user_api": "blas", "internal_api": "openblas", "version": "1", "num_threads": 9999}
    monkeypatch.setattr(doctor, "_pools", lambda: [pool])
    assert "OPENBLAS_NUM_THREADS" in found("pool blas").advice


def test_a_cache_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/no-such-folder")
    check = found("kernel cache")
    assert check.state == "warn"
    assert "NUMBA_CACHE_DIR" in check.advice


def test_an_unsupported_python(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 0))
    assert found("python").advice == "use Python 3.11, 3.12 or 3.13"
