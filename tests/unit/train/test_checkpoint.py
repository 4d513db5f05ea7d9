import pytest
import torch
from safetensors.torch import load_file, save_file

from martlet.core import DataError, OutputError
from martlet.train import checkpoint

TENSORS = {
    "half": torch.randn(3, 5).half(),
    "brain": torch.randn(7).bfloat16(),
    "codes": torch.arange(-3, 4, dtype=torch.int8),
    "turned": torch.randn(4, 6).T,
    "count": torch.tensor(12),
    "none": torch.zeros(0, 3),
    "mask": torch.tensor([True, False]),
    "wide": torch.randn(2, dtype=torch.float64),
    "weight": torch.nn.Parameter(torch.randn(2, 2)),
}


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    path = tmp_path / "folder" / "c.safetensors"
    state = {"step": 3, "words": 'naïve "words"\n', "list": [0.1, None]}
    checkpoint.save(path, TENSORS, state)
    found, told = checkpoint.load(path)
    assert told == state
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_others_read_it_too_and_shared_memory_is_written_twice(tmp_path):
    both = {"one": TENSORS["half"], "two": TENSORS["half"]}
    checkpoint.save(tmp_path / "c", both, {})
    found = load_file(tmp_path / "c")
    assert all(torch.equal(found[name], tensor) for name, tensor in both.items())


def test_a_failed_write_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "c"
    checkpoint.save(path, TENSORS, {"step": 1})
    before = path.read_bytes()
    broken = {"fine": torch.zeros(3), "torn": torch.zeros(3, dtype=torch.float32)}

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.Tensor, "contiguous", refuse)
    with pytest.raises(OutputError, match="No space left"):
        checkpoint.save(path, broken, {"step": 2})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_file_of_somebody_else_is_no_checkpoint(tmp_path):
    (tmp_path / "c").write_text("words")
    with pytest.raises(DataError, match="is no readable checkpoint"):
        checkpoint.load(tmp_path / "c")


def test_no_byte_may_change(tmp_path):
    path = tmp_path / "c"
    checkpoint.save(path, {"weight": torch.randn(5)}, {"step": 3})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"no readable checkpoint|a checkpoint of format"):
            checkpoint.load(path)
    path.write_bytes(whole)
    assert checkpoint.load(path)[1] == {"step": 3}


def test_one_of_another_version_says_so(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "c", {"state": "{}"})
    with pytest.raises(DataError, match="checkpoint of format unknown: expected 2, that of this"):
        checkpoint.load(tmp_path / "c")
