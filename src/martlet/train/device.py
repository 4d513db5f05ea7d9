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
