"""How much memory a computation may use, and refusing early what can never fit."""

import os
from contextlib import suppress
from pathlib import Path

from martlet.core.errors import SpecError

# Where Linux tells what a container may use: its second way and its first.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int | None:
    """Return the bytes of memory that the machine has, or the container if it may use less.

    None where the system does not tell.
    """
    found = []
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in _LIMITS:
        with suppress(ValueError, OSError):  # it says "max" where there is no limit
            found.append(int(Path(name).read_text()))
    return min(found, default=None)


def check_memory(what: str, num_bytes: float, advice: str) -> None:
    """Refuse what needs more memory than there is, whatever else may run.

    Args:
        what: needs it; the subject of the message.
        num_bytes: that are needed at least.
        advice: what to give instead.

    Raises:
        SpecError: there are fewer.
    """
    have = memory_bytes()
    if have is not None and num_bytes > have:
        raise SpecError(
            f"{what} needs at least {num_bytes / 1e6:,.0f} MB of memory, and there are "
            f"{have / 1e6:,.0f} MB: {advice}"
        )
