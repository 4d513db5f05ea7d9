import pytest
import torch

from martlet.core import SpecError
from martlet.train.device import device_of


@pytest.mark.parametrize("present", [True, False])
def test_auto_takes_a_gpu_where_there_is_one(present, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert device_of("auto").type == ("cuda" if present else "cpu")


def test_a_device_by_name():
    assert device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["xla:7", "abacus"])
def test_a_device_that_is_not_there(name):
    words = f"there is no device '{name}' here .*: use auto or cpu"
    with pytest.raises(SpecError, match=words) as told:
        device_of(name)
    assert len(str(told.value)) < 300
