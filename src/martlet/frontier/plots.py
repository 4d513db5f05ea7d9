"""Pictures of receipts and logs. They read figures that were measured, and never measure."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from martlet.compress import registry as transforms
from martlet.core import new_file
from martlet.frontier.budget import figures_of
from martlet.frontier.frontier import Frontier, labels
from martlet.measure.receipt import Receipt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers; the shapes tell families apart in
# grey print. Each colour stands out on white and on near-black alike.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
SHAPES = "osD^vPX"
CHOSEN = "#d62728"
# Inside a page this colour gives way to the page's own, so that a picture reads in the dark too.
INK = "#222223"
KINDS = ("as it was", "composed")
WIDTH = 4.6  # inches a panel: on a phone its letters are still 11 px high
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "martlet",
    "font.size": 10,
    "font.family": ["sans-serif"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8c8c8c",
    "grid.alpha": 0.25,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.use": True,
}
LABELS = {
    "p50_ms": "median latency of one query, ms",
    "p95_ms": "95th percentile latency of one query, ms",
    "p99_ms": "99th percentile latency of one query, ms",
    "throughput_qps": "users answered a second, in batches",
    "scoring_mb": "memory of the tables that answer, MB",
    "bundle_mb": "bundle on disk, MB",
    "train_s": "training time, s",
    "peak_mb": "peak memory, MB",
    "rss_mb": "peak memory of the whole process, MB",
    "cold_start_s": "process start to first answer, s",
}
_QUIET: dict[str, Any] = {
    "frameon": False,
    "fontsize": 9,
    "labelcolor": INK,
    "handletextpad": 0.1,
    "borderaxespad": 0.2,
}
Intervals = Mapping[str, tuple[float, float]]


def frontier_figure(
    frontier: Frontier, costs: Sequence[str], chosen: Receipt | None = None
) -> Figure:
    """Return quality against each cost, a panel each.

    Filled where no other receipt is better on both of a panel's axes, and joined by a line; hollow
    where one is. The choice is ringed.
    """
    figure, panels = _figure(WIDTH * len(costs), 3.7, len(costs))
    named, families = _families(frontier.receipts)
    y = np.array([receipt.quality[frontier.quality] or 0.0 for receipt in frontier.receipts])
    for axes, cost in zip(np.atleast_1d(panels), costs, strict=True):
        x = np.array([figures_of(receipt)[cost] for receipt in frontier.receipts])
        best = Frontier(frontier.receipts, frontier.quality, (cost,)).best()
        order = np.flatnonzero(best)[np.argsort(x[best], kind="stable")]
        axes.plot(x[order], y[order], color=INK, linewidth=1, alpha=0.5, zorder=1)
        for at, label in enumerate(labels(frontier.receipts)):
            colour, shape = families[named(frontier.receipts[at])]
            point = axes.scatter(
                x[at],
                y[at],
                s=42,
                marker=shape,
                edgecolors=colour,
                facecolors=colour if best[at] else "none",
                linewidths=1.3,
                zorder=2 + best[at],
            )
            point.set_gid(_tip(f"{label}: {frontier.quality} {y[at]:.4f}, {cost} {x[at]:.3g}"))
        if x.min() > 0 and x.max() > 5 * x.min():
            _log(axes, "x")
        axes.margins(0.1)
        axes.set_xlabel(LABELS.get(cost, cost))
        if chosen is not None:
            ring = figures_of(chosen)[cost], chosen.quality[frontier.quality] or 0.0
            axes.scatter(*ring, s=190, facecolors="none", edgecolors=CHOSEN, linewidths=2, zorder=4)
    np.atleast_1d(panels)[0].set_ylabel(f"{frontier.quality}, higher is better")
    _legend(figure, families, ring=chosen is not None)
    return figure


def quality_figure(
    receipts: Sequence[Receipt], quality: str, intervals: Intervals | None = None
) -> Figure:
    """Return the quality of each receipt, best on top, with its interval by bundle id."""
    rows = sorted(receipts, key=lambda receipt: receipt.quality[quality] or 0.0)
    middle = [receipt.quality[quality] or 0.0 for receipt in rows]
    figure, axes = _rows(rows)
    _whiskers(axes, rows, middle, intervals or {}, "{:.4f}")
    axes.set_xlabel(f"{quality}, higher is better")
    return figure


def loss_figure(
    receipts: Sequence[Receipt], quality: str, losses: Intervals, best: float, allowed: float
) -> Figure:
    """Return what each receipt loses against the best, in % of it, least on top.

    Args:
        receipts: those with a loss are drawn.
        quality: the metric.
        losses: bundle id to the interval of the paired difference, best minus its own.
        best: the best quality.
        allowed: share of the best that may be lost; a line marks it.
    """
    percent = {one: (100 * low / best, 100 * high / best) for one, (low, high) in losses.items()}
    rows = [receipt for receipt in receipts if receipt.bundle_id in percent]
    rows.sort(key=lambda receipt: -percent[receipt.bundle_id][1])
    middle = [100 * (1 - (receipt.quality[quality] or 0.0) / best) for receipt in rows]
    figure, axes = _rows(rows)
    axes.axvline(100 * allowed, color=CHOSEN, linewidth=1.2, linestyle="--", zorder=1)
    _whiskers(axes, rows, middle, percent, "{:+.1f}%")
    axes.set_xlabel(f"{quality} lost, %")
    return figure


def latency_figure(receipts: Sequence[Receipt]) -> Figure:
    """Return the median, 95th and 99th percentile latency of each receipt, fastest on top."""
    rows = sorted(receipts, key=lambda receipt: -(receipt.cost.get("p50_ms") or math.inf))
    figure, axes = _rows(rows)
    for name, shape, colour in zip(("p50_ms", "p95_ms", "p99_ms"), "o|d", COLOURS, strict=False):
        values = [receipt.cost.get(name) or math.nan for receipt in rows]
        label = f"{name[1:3]}%" if name != "p50_ms" else "median"
        axes.scatter(values, range(len(rows)), marker=shape, color=colour, label=label, s=36)
    _log(axes, "x")
    axes.set_xlabel("latency of one query, ms")
    figure.legend(loc="outside upper right", ncols=3, **_QUIET)
    return figure


def curves_figure(curves: Mapping[str, Sequence[tuple[int, int]]]) -> Figure:
    """Return each curve of (place, events) on log axes: how activity falls from the top."""
    figure, panels = _figure(WIDTH, 2.6, len(curves))
    for axes, (name, points) in zip(np.atleast_1d(panels), curves.items(), strict=True):
        axes.plot(*np.transpose(points), color=COLOURS[0])
        _log(axes, "x")
        _log(axes, "y")
        axes.set_xlabel(f"{name}, most active first")
    np.atleast_1d(panels)[0].set_ylabel("events")
    return figure


def family(receipt: Receipt) -> str:
    """Return the name of the model family that a receipt's bundle was fitted with."""
    return str(receipt.spec.get("spec", "?"))


def kind(receipt: Receipt) -> str:
    """Return the name of the transform that made a receipt's bundle what it is."""
    steps = [str(line.get("transform", "?")).partition(":")[0] for line in receipt.transforms]
    plain, composed = KINDS
    return composed if len(steps) > 1 else steps[0] if steps else plain


def svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element to stand inside a page; ``name`` makes its ids unique."""
    text = _draw(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG or SVG, by the ending of ``path``.

    Raises:
        OutputError: the file could not be written.
    """
    ending = Path(path).suffix.removeprefix(".") or "png"
    with new_file(path) as target:
        target.write_bytes(_draw(figure, ending, facecolor="white", dpi=150))


def _draw(figure: Figure, ending: str, **how: Any) -> bytes:
    """Return the same bytes each time: no date, and no address of the library that drew them."""
    import matplotlib

    buffer = io.BytesIO()
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type")) if ending == "svg" else {}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=ending, metadata=silent, **how)
    if ending != "svg":
        return buffer.getvalue()
    return re.sub(r' id="tip:([^"]*)"', _title, buffer.getvalue().decode()).encode()


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots(1, columns)


def _rows(rows: Sequence[Receipt]) -> tuple[Figure, Axes]:
    """Return a figure with a line for each receipt, from below."""
    figure, axes = _figure(WIDTH, 0.9 + 0.25 * len(rows))
    axes.set_yticks(range(len(rows)), [_short(label) for label in labels(rows)], fontsize=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False, axis="y")
    return figure, axes


def _whiskers(
    axes: Axes, rows: Sequence[Receipt], middle: Sequence[float], ends: Intervals, words: str
) -> None:
    named, families = _families(rows)
    for place, (receipt, value) in enumerate(zip(rows, middle, strict=True)):
        colour, shape = families[named(receipt)]
        low, high = ends.get(receipt.bundle_id, (value, value))
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, zorder=2)
        axes.scatter(value, place, color=colour, marker=shape, s=34, zorder=3)
        axes.text(
            1.01,
            place,
            words.format(value),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            color=INK,
        )


def _families(
    receipts: Sequence[Receipt],
) -> tuple[Callable[[Receipt], str], dict[str, tuple[str, str]]]:
    """Return what a receipt is drawn as, and the colour and the shape of each such name.

    That is its model; where all are of one, the kind of transform. By name, so that every picture
    of a page agrees.
    """
    models = {family(receipt) for receipt in receipts}
    named, all_names = family, sorted(models)
    if len(models) == 1:
        named = kind
        all_names = sorted({kind(receipt) for receipt in receipts} | {*KINDS, *transforms.names()})
    looks = {
        name: (COLOURS[at % len(COLOURS)], SHAPES[at % len(SHAPES)])
        for at, name in enumerate(all_names)
    }
    there = sorted({named(receipt) for receipt in receipts})
    return named, {name: looks[name] for name in there}


def _legend(figure: Figure, families: Mapping[str, tuple[str, str]], *, ring: bool) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=colour, marker=shape, linestyle="", label=name)
        for name, (colour, shape) in families.items()
    ]
    if ring:
        look: Any = {
            "color": "none",
            "markeredgecolor": CHOSEN,
            "markeredgewidth": 2,
            "markersize": 9,
        }
        marks.append(Line2D([], [], marker="o", linestyle="", label="chosen", **look))
    figure.legend(handles=marks, loc="outside upper left", ncols=6, columnspacing=0.7, **_QUIET)


def _log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, its ticks plain numbers that do not collide."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    steps = (1.0, 2.0, 5.0) if high < 30 * low else (1.0, 3.0) if high < 500 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _short(label: str) -> str:
    """Return a label without the words that its neighbours repeat."""
    return label.replace("quantize:", "").replace("index:", "")


def _tip(words: str) -> str:
    return f"tip:{escape(words, quote=True)}"


def _title(match: re.Match[str]) -> str:
    return f"><title>{match[1]}</title"
