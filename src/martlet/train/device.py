"""Where the dense arithmetic runs."""

from __future__ import annotations

import torch

from martlet.core import SpecError


def device_of(name: str) -> torch.device:
    """Return the device called ``name``; "auto" takes a GPU where there is one.

    Raises:
        SpecError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(". ")[0].partition("\n")[0]  # torch goes on for pages
        raise SpecError(f"there is no device {name!r} here ({reason}): use auto or cpu") from error
    return device


def set_seed(seed: int, device: str | torch.device) -> None:
    """Start the random numbers of ``device`` anew.

    ``torch.manual_seed`` asks after every kind of device; on a CPU that took 0.1 ms of a step.
    """
    if torch.device(device).type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
