"""A verb's options as a TOML file: read in place of typing, written beside what they led to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from martlet.core import SpecError, new_file

# Not part of what led to a result: how it was told, and what had to give way.
_ASIDE = ("config", "json", "force", "help")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Let a TOML file stand for any argument or option of the verb; what is typed overrides it.

    Raises:
        SpecError: the file is not readable TOML, or sets what the verb does not know.
    """
    if path is None:
        return None
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(f"{path} is not readable TOML ({error})") from error
    values = {name.replace("_", "-"): value for name, value in values.items()}
    known = {spelled: name for name, spelled in _spelled(context).items() if spelled not in _ASIDE}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise SpecError(
            f"{path} sets {', '.join(unknown)}, which 'martlet {context.info_name}' does not know: "
            f"it knows {', '.join(sorted(known))}"
        )
    given = {known[name]: value for name, value in values.items()}
    context.default_map = {**(context.default_map or {}), **given}
    return path


def save_config(path: Path, context: typer.Context) -> None:
    """Write every argument and option with the value that ruled; ``--config`` reads the file.

    A password inside an address is left out.

    Raises:
        OutputError: the file could not be written.
    """
    spelled = _spelled(context)
    lines = [
        f"{spelled[name]} = {_toml(value)}"
        for name, value in context.params.items()
        if spelled[name] not in _ASIDE and value is not None
    ]
    head = f"# What ruled; 'martlet {context.info_name} --config' with this file does it again."
    with new_file(path) as target:
        target.write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def beside(out: Path) -> Path:
    """Return where the configuration of a result that is no folder of ours to add to goes."""
    return out.with_name(f"{out.name}.config.toml")


def _spelled(context: typer.Context) -> dict[str, str]:
    """Return each parameter's name to how people spell it: ``set_`` to ``set``."""
    found = {}
    for parameter in context.command.params:
        longest = max(parameter.opts, key=len).lstrip("-")
        found[str(parameter.name)] = longest.replace("_", "-")
    return found


def _toml(value: Any) -> str:
    """Return a value as TOML, whose strings, numbers and lists are spelled as JSON spells them."""
    import json

    plain = value if isinstance(value, bool | int | float | list) else str(value)
    if isinstance(plain, str):
        plain = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1@", plain)
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
