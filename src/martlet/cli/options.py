"""Options that several verbs share, declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from martlet.cli.config import read_config
from martlet.core import OutputError, SpecError, check_replaceable
from martlet.core.files import stated

if TYPE_CHECKING:
    from martlet.core import Dataset as Data
    from martlet.core import Tabular


def repeated(*names: str, metavar: str, help: str) -> Any:
    """Return an option that may be given several times; none at all is an empty list."""
    words = f"{help}; may be repeated."
    return typer.Option(
        *names, metavar=metavar, help=words, default_factory=list, show_default=False
    )


Dataset = Annotated[Path, typer.Argument(help="A folder that 'martlet prepare' wrote.")]
Bundle = Annotated[Path, typer.Argument(help="A folder that 'martlet fit' or 'compress' wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
User = Annotated[str, typer.Option(help="An outside user id.")]
Item = Annotated[str, typer.Option(help="An outside item id.")]
Seen = Annotated[
    Literal["hide", "keep"], typer.Option(help="Whether items of the history may be shown again.")
]
Config = Annotated[
    Path | None,
    typer.Option("--config", callback=read_config, is_eager=True, help="These options as TOML."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Seed = Annotated[int, typer.Option("--seed", help="Drives everything that is random.")]
K = Annotated[int, typer.Option("--k", "-k", min=1, help="Length of the lists.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
Budget = Annotated[str, typer.Option(help='Limits, such as "p99_ms<=5, bundle_mb<=20".')]
With = Annotated[
    list[str], repeated("--with", metavar="TRANSFORM", help="Such as quantize:int8, index:ivf")
]


def load_data(folder: Path) -> Data | Tabular:
    """Return the dataset, or the labelled table, that a folder holds.

    Raises:
        DataError: it holds neither, or is damaged.
    """
    from martlet.core import Dataset as Data
    from martlet.core import Tabular
    from martlet.core.stored import is_tabular

    return Tabular.load(folder) if is_tabular(folder) else Data.load(folder)


def check_free(out: Path, force: bool, proof: Sequence[str] | None = None) -> None:
    """Raise OutputError where ``out`` exists and may not be replaced, before any work is done.

    ``proof`` names the files of a folder that ``force`` may replace; None where ``out`` is a file.
    """
    with stated(out):
        if out.exists() and not force:
            raise OutputError(f"{out} exists: choose another --out, or give --force to replace it")
        if proof is not None:
            check_replaceable(out, proof)


def assignments(pairs: Sequence[str], option: str = "--set") -> dict[str, str]:
    """Return ``{"dim": "64"}`` for ``["dim=64"]``.

    Raises:
        SpecError: a part without an equals sign, or a key given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key or key in found:
            raise SpecError(f"{option} {pair!r}: expected key=value, each key once")
        found[key] = value.strip()
    return found
