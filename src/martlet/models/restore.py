"""The spec that a bundle was fitted with."""

from __future__ import annotations

from typing import Any

from martlet.core import SpecError
from martlet.models.registry import names, spec
from martlet.scorers.bundle import Bundle


def spec_of(bundle: Bundle) -> Any:
    """Return the spec that the first line of a bundle's lineage tells of, by which it is restored.

    Raises:
        SpecError: it was not fitted by a spec of the registry, or by one without a network to
            restore.
    """
    line = bundle.lineage[0] if bundle.lineage else {}
    name = line.get("spec")
    if name not in names():
        raise SpecError(
            f"the bundle says of itself that it was fitted by {name!r}: a network is restored "
            "where a spec of the registry was fitted"
        )
    found = spec(name, **line["params"])
    if not hasattr(found, "restore"):
        raise SpecError(f"{name} has no network that could be trained on")
    return found
