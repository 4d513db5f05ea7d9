"""The verbs by name. Each is a few lines over functions of the library, imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from martlet import __version__
from martlet.cli import answer, data, doctor, make, tabular, weigh


def _ending(words: Callable[[], str]) -> type[TyperCommand]:
    """Return a kind of command whose help ends with words that are looked up when it is shown."""

    class Command(TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            formatter.write_paragraph()
            formatter.write_text(words())

    return Command


def _logs() -> str:
    from martlet.data.sources import NAMES

    return f"Public logs: {', '.join(NAMES)}."


def _models() -> str:
    from martlet.models.registry import names

    return f"Models: {', '.join(names())}."


def _transforms() -> str:
    from martlet.compress.registry import names

    return f"Transforms: {', '.join(names())}; such as quantize:fp16, quantize:int8, index:ivf."


def _metrics() -> str:
    from martlet.metrics import LABEL_METRICS, METRICS, NUMBER_METRICS

    of_rows = ", ".join(LABEL_METRICS | NUMBER_METRICS)
    return f"Metrics: {', '.join(METRICS)}. Of labelled rows: {of_rows}."


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("martlet: stopped; nothing was left half-written", file=sys.stderr)
            raise SystemExit(130) from None


app = typer.Typer(
    cls=_Verbs,
    help="Recommenders that are cheap to train and to serve: from a log to a measured answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"martlet {__version__}")
        raise typer.Exit


@app.callback()
def _first(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold what may stand before a verb."""


logs = typer.Typer(help="Get public logs, look at a log, make one.", no_args_is_help=True)
logs.command(cls=_ending(_logs))(data.get)
logs.command()(data.describe)
logs.command()(data.synthesize)

app.command()(weigh.demo)
app.add_typer(logs, name="data")
app.command()(data.prepare)
app.command(cls=_ending(_models))(make.fit)
app.command(cls=_ending(_transforms))(make.compress)
app.command(cls=_ending(_metrics))(weigh.measure)
app.command(cls=_ending(lambda: f"{_models()} {_transforms()}"))(weigh.frontier)
app.command()(answer.recommend)
app.command()(answer.similar)
app.command()(answer.explain)
app.command()(tabular.predict)
app.command()(answer.serve)
app.command()(weigh.report)
app.command()(doctor.doctor)
