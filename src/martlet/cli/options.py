"""Options that several verbs share, declared once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from martlet.core import SpecError


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Let a TOML file stand for any option of the verb; what is typed overrides it."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path} is not readable TOML ({error})") from error
    values = {name.replace("-", "_"): value for name, value in values.items()}
    known = {parameter.name for parameter in context.command.params}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise SpecError(
            f"{path} sets {', '.join(unknown)}, which 'martlet {context.info_name}' does not know: "
            f"it knows {', '.join(sorted(filter(None, known - {'config', 'help'})))}"
        )
    context.default_map = {**(context.default_map or {}), **values}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", callback=_read_config, is_eager=True, help="A TOML file of these options."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Seed = Annotated[int, typer.Option("--seed", help="Drives everything that is random.")]
Set = Annotated[
    list[str], typer.Option("--set", help="A hyper-parameter, key=value; may be repeated.")
]
K = Annotated[int, typer.Option("--k", "-k", min=1, help="Length of the lists.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


def assignments(pairs: list[str]) -> dict[str, str]:
    """Return ``{"dim": "64"}`` for ``["dim=64"]``.

    Raises:
        SpecError: a part without an equals sign, or a key given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            raise SpecError(f"--set {pair!r}: expected key=value, each key once")
        found[key.strip()] = value.strip()
    return found


def expanded(context: typer.Context) -> dict[str, Any]:
    """Return every option of the verb with the value that ruled, as plain JSON."""
    values = {"verb": context.info_name, **context.params}
    return {
        name: value if isinstance(value, bool | int | float | list | None) else str(value)
        for name, value in values.items()
        if name not in ("config", "json_", "force")
    }
