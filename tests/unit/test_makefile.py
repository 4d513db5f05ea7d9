"""What ``make`` says where it cannot go on, and what it installs for whom."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSED_ON = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def place(tmp_path):
    """A folder with the Makefile and what it asks for, and nothing built."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(place, *words, code=0):
    # The tests may themselves be run by make, which talks to makes below it.
    own = {name: value for name, value in os.environ.items() if name not in PASSED_ON}
    done = subprocess.run(["make", *words], cwd=place, env=own, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def python(place, line):
    """A ``python3`` that runs ``line`` before what it is given with -c."""
    path = place / "python3"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"{line}; exec('''$2''')\"\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def said(done):
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ")]


@pytest.mark.parametrize("target", ["demo", "setup", "test"])
def test_without_ensurepip_it_says_what_to_install_and_leaves_nothing(place, target):
    given = python(place, "import sys; sys.modules['ensurepip'] = None")
    for _ in range(2):
        (line,) = said(make(place, target, given, code=2))
        own = "python{}.{}-venv".format(*sys.version_info)
        assert line.endswith(f"apt-get install python3-venv (or {own})")
        assert not (place / ".venv").exists()


@pytest.mark.parametrize("found", [(3, 10), (3, 14), (4, 0)])
def test_another_python_is_told_at_once(place, found):
    given = python(place, f"import sys; sys.version_info = ({found[0]}, {found[1]}, 0)")
    (line,) = said(make(place, "demo", given, code=2))
    assert "is not Python 3.11 to 3.13" in line
    assert not (place / ".venv").exists()


def test_no_python_at_all_is_told_the_same_way(place):
    (line,) = said(make(place, "demo", "PYTHON=no-such-python", code=2))
    assert line.startswith("no-such-python is not Python 3.11 to 3.13: ")


def test_an_environment_that_was_cut_short_is_made_whole(place):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / ".venv"], check=True)
    assert not (place / ".venv/bin/pip").exists()
    make(place, ".venv/bin/pip", f"PYTHON={sys.executable}")
    asked = [place / ".venv/bin/python", "-m", "pip", "--version"]
    assert subprocess.run(asked, capture_output=True).returncode == 0


def test_the_demo_installs_the_package_alone_and_the_others_the_tools_too(place):
    for target in ("demo", "setup", "test", "check", "bench", "docs"):
        told = make(place, "-n", target).stdout
        assert told.count("pip install") == 1, "what the tools need holds what the package needs"
        assert ("--editable '.[dev]'" in told) is (target != "demo")
        assert ("--editable .\n" in told) is (target == "demo")


def test_what_is_installed_is_not_installed_again(place):
    (place / ".venv/bin").mkdir(parents=True)
    for stamp in ("bin/pip", ".ready"):
        (place / ".venv" / stamp).touch()
    assert "pip install" not in make(place, "-n", "demo").stdout
    assert "--editable '.[dev]'" in make(place, "-n", "test").stdout
    (place / ".venv/.dev").touch()
    assert "pip install" not in make(place, "-n", "demo", "test").stdout
