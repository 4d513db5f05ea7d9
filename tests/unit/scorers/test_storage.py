import hashlib
import json
import struct

import numpy as np
import pytest

from martlet.core import BundleError
from martlet.scorers.storage import (
    _canonical,
    read_manifest,
    read_tensors,
    write_manifest,
    write_tensors,
)

ARRAYS = {
    "a": np.arange(6, dtype=np.int64).reshape(2, 3),
    "b": np.ones(3, np.float16),
    "c": np.empty((0, 4), np.int8),
    "d": np.array([True, False]),
}


def raw(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def test_arrays_come_back_as_they_were(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS)
    found = read_tensors(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].flags.aligned


def test_what_is_written_to_the_arrays_never_reaches_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS)
    before = path.read_bytes()
    read_tensors(path)["a"][:] = 7
    assert path.read_bytes() == before
    assert read_tensors(path)["a"][0, 0] == 0


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    write_tensors(tmp_path / "one", ARRAYS)
    write_tensors(tmp_path / "two", dict(reversed(ARRAYS.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        raw({}, length=1 << 60),
        raw({}, length=1),
        raw(b"not json"),
        raw(b"\xff\xfe{}"),
        raw(b"[" * 100_000),
        raw([]),
        raw({"a": 3}),
        raw({"a": entry(dtype="F8")}, bytes(8)),
        raw({"a": entry(dtype=["F32"])}, bytes(8)),
        raw({"a": entry(shape=[3])}, bytes(8)),
        raw({"a": entry(shape=[-2])}, bytes(8)),
        raw({"a": entry(shape=[2.0])}, bytes(8)),
        raw({"a": entry(shape=[True, 2])}, bytes(8)),
        raw({"a": entry(shape=[1 << 61, 1 << 61])}, bytes(8)),
        raw({"a": entry(shape=[1] * 9 + [2])}, bytes(8)),
        raw({"a": entry(shape=None)}, bytes(8)),
        raw({"a": entry(data_offsets=[0, 8, 9])}, bytes(8)),
        raw({"a": entry(data_offsets=[8, 0])}, bytes(8)),
        raw({"a": entry(data_offsets=[8, 16])}, bytes(16)),
        raw({"a": entry()}, bytes(4)),
        raw({"a": entry()}, bytes(12)),
        raw({"a": entry(), "b": entry()}, bytes(8)),
        raw({"a": entry(), "b": entry(data_offsets=[4, 12])}, bytes(12)),
        raw({"a": entry(shape=[1 << 40], data_offsets=[0, 1 << 42])}, bytes(8)),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x.safetensors is damaged"):
        read_tensors(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"nothing.safetensors is damaged"):
        read_tensors(tmp_path / "nothing.safetensors")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.bin").write_bytes(b"one")
    (tmp_path / "sub" / "two.bin").write_bytes(b"two")
    write_manifest(tmp_path, {"about": ["Zürich", 0.1]})
    return tmp_path


def forge(folder, **changes):
    """Give the manifest other content, and the id that belongs to it."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    del manifest["id"]
    manifest["id"] = hashlib.sha256(_canonical(manifest)).hexdigest()
    (folder / "manifest.json").write_bytes(_canonical(manifest))


def test_a_manifest_covers_every_file(folder):
    manifest = read_manifest(folder, verify=True)
    assert manifest["files"].keys() == {"one.bin", "sub/two.bin"}
    assert manifest["about"] == ["Zürich", 0.1]


def test_receipts_may_lie_beside(folder):
    (folder / "receipts.jsonl").write_text("{}\n")
    before = read_manifest(folder, verify=True)["id"]
    (folder / "receipts.jsonl").write_text("{}\n{}\n")
    assert read_manifest(folder, verify=True)["id"] == before


def test_an_empty_folder_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"holds no manifest.json: expected a folder"):
        read_manifest(tmp_path, verify=True)


def test_another_format_is_refused(folder):
    forge(folder, format=2)
    with pytest.raises(BundleError, match="has format 2, this version reads 1"):
        read_manifest(folder, verify=True)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "one.bin").unlink(), "one.bin is missing"),
        (lambda f: (f / "one.bin").write_bytes(b"longer"), "one.bin is damaged"),
        (lambda f: (f / "sub" / "new.bin").write_bytes(b""), "new.bin does not belong"),
        (lambda f: (f / "link").symlink_to("/etc/hostname"), "link does not belong"),
        (lambda f: (f / "link").symlink_to("/etc"), "link does not belong"),
    ],
)
def test_files_that_are_not_the_manifests_are_refused(folder, damage, words, verify):
    damage(folder)
    with pytest.raises(BundleError, match=words):
        read_manifest(folder, verify=verify)


@pytest.mark.parametrize("name", ["one.bin", "manifest.json"])
def test_a_link_in_the_place_of_a_file_is_refused(folder, tmp_path_factory, name):
    whole = (folder / name).rename(tmp_path_factory.mktemp("elsewhere") / name)
    (folder / name).symlink_to(whole)
    with pytest.raises(BundleError, match=rf"{name} is a link, which no file of a bundle may be"):
        read_manifest(folder, verify=True)


def test_bytes_of_the_same_size_are_refused_when_verified(folder):
    (folder / "one.bin").write_bytes(b"0ne")
    with pytest.raises(BundleError, match=r"one.bin is damaged"):
        read_manifest(folder, verify=True)
    read_manifest(folder, verify=False)


@pytest.mark.parametrize(
    "name",
    ["../one.bin", "/etc/passwd", "sub/../../x", "", ".", "a//b", "sub\\two.bin", "receipts.jsonl"],
)
def test_names_outside_the_folder_are_refused(folder, name):
    forge(folder, files={name: {"bytes": 3, "sha256": "0" * 64}})
    with pytest.raises(BundleError, match=r"names the file .*: no bundle does"):
        read_manifest(folder, verify=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"id": 3, "format": 1}', b'{"id": NaN}'],
)
def test_a_damaged_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        read_manifest(folder, verify=True)


def test_an_endless_manifest_is_refused(folder):
    (folder / "manifest.json").write_bytes(b" " * ((16 << 20) + 1))
    with pytest.raises(BundleError, match=r"manifest.json is damaged .*larger than"):
        read_manifest(folder, verify=True)


def test_a_manifest_written_in_another_way_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("\\u00fc", "\\u00Fc"))
    with pytest.raises(BundleError, match=r"manifest.json is damaged .*not written as"):
        read_manifest(folder, verify=True)


def test_files_of_another_shape_are_refused(folder):
    forge(folder, files={"one.bin": 3})
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        read_manifest(folder, verify=True)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_a_lineage_that_is_not_plain_json_is_refused(tmp_path, value):
    with pytest.raises(BundleError, match="lineage or configuration is not plain JSON"):
        write_manifest(tmp_path, {"lineage": [value]})
