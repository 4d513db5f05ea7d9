"""Whatever is done to the bytes of a bundle, loading states an error that names the file."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.core import BundleError
from martlet.scorers.bundle import Bundle
from martlet.scorers.storage import read_manifest, read_tensors, write_manifest
from support.bundles import bundle, cascade

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    bundle(cascade()).save(folder)
    return folder


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def damaged(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "bundle", dirs_exist_ok=True)


def refused(folder, name, content):
    """Load the folder with ``content`` in the place of one file, then put the file back."""
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(BundleError, match=name.rpartition("/")[2].replace(".", r"\.")):
            Bundle.load(folder)
    finally:
        path.write_bytes(whole)


@FUZZ
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(damaged, data):
    name = data.draw(st.sampled_from(files(damaged)))
    content = bytearray((damaged / name).read_bytes())
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    content[at // 8] ^= 1 << at % 8
    refused(damaged, name, bytes(content))


def test_bits_all_over_the_manifest_are_covered(saved):
    path = saved / "manifest.json"
    whole = path.read_bytes()
    try:
        for at in range(0, len(whole) * 8, 41):
            content = bytearray(whole)
            content[at // 8] ^= 1 << at % 8
            path.write_bytes(content)
            with pytest.raises(BundleError, match=r"manifest\.json"):
                read_manifest(saved, verify=False)
    finally:
        path.write_bytes(whole)


@FUZZ
@given(data=st.data())
def test_a_file_of_another_length_is_refused(damaged, data):
    name = data.draw(st.sampled_from(files(damaged)))
    content = (damaged / name).read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    more = data.draw(st.binary(min_size=1, max_size=9))
    refused(damaged, name, content[:cut])
    refused(damaged, name, content + more)


@FUZZ
@given(data=st.data())
def test_a_header_of_an_enemy_gives_arrays_or_an_error_and_nothing_else(damaged, data):
    """The hash may be honest: then only the checks of the header stand between."""
    path = damaged / "tables.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 8 + length - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        arrays = read_tensors(path)
        assert sum(array.nbytes for array in arrays.values()) < len(whole)
    except BundleError:
        pass
    finally:
        path.write_bytes(whole)


@FUZZ
@given(data=st.data())
def test_dishonest_content_under_an_honest_hash_answers_or_is_refused(damaged, data):
    names = [name for name in files(damaged) if name.endswith(".safetensors")]
    path = damaged / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    manifest = (damaged / "manifest.json").read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    about = json.loads(manifest)
    write_manifest(damaged, {key: about[key] for key in ("scorer", "tables", "lineage")})
    try:
        loaded = Bundle.load(damaged)
        assert len(loaded.recommend(["u1", "u2"], 5)) == 2
        assert list(loaded.catalogue["title"])
        loaded.scorer.topk(loaded.queries(loaded.users.names(np.arange(3))), 5)
    except BundleError:
        pass
    finally:
        path.write_bytes(whole)
        (damaged / "manifest.json").write_bytes(manifest)


@pytest.mark.parametrize("name", ["tables.safetensors", "rank/encoder.onnx", "manifest.json"])
def test_a_lost_file_is_named(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(BundleError, match=name.rpartition("/")[2]):
        Bundle.load(damaged)


def test_a_file_too_many_is_named(damaged):
    (damaged / "rank" / "more.py").write_text("import os")
    with pytest.raises(BundleError, match=r"rank/more\.py does not belong to the bundle"):
        Bundle.load(damaged)


def test_no_folder_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"nowhere holds no manifest\.json"):
        Bundle.load(tmp_path / "nowhere")
