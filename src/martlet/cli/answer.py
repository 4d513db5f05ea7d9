"""What a bundle answers: ``recommend``, ``similar``, ``explain``, ``serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from martlet.cli.config import beside, save_config
from martlet.cli.options import (
    Bundle,
    Config,
    Force,
    Item,
    Json,
    K,
    Seen,
    User,
    check_free,
    repeated,
)
from martlet.cli.output import print_json, print_table, progress
from martlet.core import MartletError, new_file


def recommend(
    context: typer.Context,
    bundle: Bundle,
    *,
    user: Annotated[str | None, typer.Option(help="An outside user id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every user, into --out.")] = False,
    out: Annotated[Path | None, typer.Option(help="Parquet file for --all.")] = None,
    k: K = 10,
    exclude: Annotated[list[str], repeated(metavar="ID", help="An item never to show")],
    seen: Seen = "hide",
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Answer one user, or write the answers of all."""
    from martlet.scorers.bundle import Bundle as Stored

    if (user is None) != all_:
        raise typer.BadParameter("give either --user ID, or --all with --out FILE.parquet")
    if all_:
        if out is None or out.suffix != ".parquet":
            raise typer.BadParameter("--all writes a Parquet file: give --out FILE.parquet")
        check_free(out, force)
        num_users = _write_all(Stored.load(bundle), out, k, exclude, seen, quiet=json_)
        save_config(beside(out), context)
        if json_:
            print_json({"out": str(out), "num_users": num_users, "k": k})
        else:
            print(f"wrote the top {k} of {num_users:,} users to {out}")
        return
    stored = Stored.load(bundle)
    answer = stored.recommend([str(user)], k, exclude=exclude or None, seen=seen)[0]
    listed = list(zip(answer.item_ids, answer.scores, strict=True))
    if json_:
        print_json({"user_id": user, "items": _items(listed), "fallback": answer.fallback})
        return
    what = "popular with everyone (nothing is known of this user)"
    title = f"User {user}: {what if answer.fallback else 'for them'}"
    _print_items(title, stored, listed)


def _write_all(
    stored: Any, out: Path, k: int, exclude: list[str], seen: str, *, quiet: bool
) -> int:
    """Write (user_id, item_id, rank, score, fallback) rows; return how many users there are."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "user_id": "string",
        "item_id": "string",
        "rank": "int32",
        "score": "float32",
        "fallback": "bool",
    }
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in types.items()])
    hidden = np.isin(np.arange(len(stored.items)), stored.items.rows(exclude))
    allow = ~hidden if exclude else None
    total, done = len(stored.users), 0
    with (
        progress(quiet=quiet) as note,
        new_file(out) as target,
        pq.ParquetWriter(target, schema) as writer,
    ):
        for answers in stored.recommend_all(k, allow=allow, seen=seen):
            rows = [
                (answer.user_id, item, rank, score, answer.fallback)
                for answer in answers
                for rank, (item, score) in enumerate(
                    zip(answer.item_ids, answer.scores, strict=True), 1
                )
            ]
            columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in types]
            writer.write_table(pa.table(columns, schema=schema))
            done += len(answers)
            note("recommend", done, total)
    return total


def similar(
    bundle: Bundle, item: Item, k: K = 10, config: Config = None, json_: Json = False
) -> None:
    """List the items nearest to one."""
    from martlet.scorers.bundle import Bundle as Stored

    stored = Stored.load(bundle)
    found = stored.similar(item, k)
    if json_:
        print_json({"item_id": item, "items": _items(found)})
    else:
        _print_items(f"Near {stored.title(stored.items.row(item))}", stored, found)


def explain(
    bundle: Bundle, user: User, item: Item, config: Config = None, json_: Json = False
) -> None:
    """Say why a user would be shown an item."""
    from martlet.scorers.bundle import Bundle as Stored

    stored = Stored.load(bundle)
    reasons = stored.explain(user, item)
    if json_:
        told = [
            {
                "item_id": None if reason.item_row < 0 else stored.items.ids[reason.item_row],
                "share": reason.share,
                "words": reason.words,
            }
            for reason in reasons
        ]
        print_json({"user_id": user, "item_id": item, "reasons": told})
        return
    print(f"{stored.title(stored.items.row(item))} for user {user}:")
    for reason in reasons[:10]:
        print(f"  {reason.words}")


def serve(
    bundle: Bundle,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes; they share the bundle.")] = 1,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Answer over HTTP until stopped.

    With --json the address is told as a document, and all else on standard error.
    """
    from martlet.serve.server import serve as run

    told = False

    def tell(line: str) -> None:
        nonlocal told
        _, listening, url = line.partition("listening on ")
        if listening:
            print_json({"url": url})
            told = True
        else:
            print(line, file=sys.stderr)

    try:
        run(bundle, host=host, port=port, workers=workers, say=tell if json_ else None)
    except MartletError as error:
        if not told:
            raise
        # Standard output has its one document.
        print(f"martlet: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _items(found: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"item_id": item, "score": score} for item, score in found]


def _print_items(title: str, stored: Any, found: list[tuple[str, float]]) -> None:
    if "title" not in stored.catalogue:
        print_table(title, ["item", "score"], found)
        return
    rows = [[item, stored.title(stored.items.row(item)), score] for item, score in found]
    print_table(title, ["item", "title", "score"], rows)
