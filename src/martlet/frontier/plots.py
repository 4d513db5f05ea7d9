"""Pictures of receipts and logs. They read figures that were measured, and never measure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Interactions, new_file
from martlet.frontier.budget import figures_of
from martlet.frontier.frontier import Frontier
from martlet.measure.receipt import Receipt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey print by lightness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#9a9a9a"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "martlet",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.constrained_layout.use": True,
}
LABELS = {
    "p50_ms": "median latency of one query (ms)",
    "p99_ms": "99th percentile latency of one query (ms)",
    "scoring_mb": "bytes an answer scans (MB)",
    "bundle_mb": "bundle on disk (MB)",
    "train_s": "training (s)",
    "peak_mb": "peak memory (MB)",
    "cold_start_s": "process start to first answer (s)",
    "throughput_qps": "answers a second",
}


def frontier_figure(frontier: Frontier, cost: str, chosen: Receipt | None = None) -> Figure:
    """Return quality against one cost: grey where dominated on these two, the choice ringed."""
    figure, axes = _figure(6.4, 4.0)
    x = np.array([figures_of(receipt)[cost] for receipt in frontier.receipts])
    y = np.array([receipt.quality[frontier.quality] for receipt in frontier.receipts], float)
    front = Frontier(frontier.receipts, frontier.quality, (cost,)).best()
    families = list(dict.fromkeys(family(receipt) for receipt in frontier.receipts))
    order = np.flatnonzero(front)[np.argsort(x[front], kind="stable")]
    axes.plot(x[order], y[order], color="#444444", linewidth=1, zorder=1)
    for number, name in enumerate(families):
        mine = np.array([family(receipt) == name for receipt in frontier.receipts])
        colour = COLOURS[number % len(COLOURS)]
        axes.scatter(x[mine & ~front], y[mine & ~front], s=26, color=GREY, marker="o", zorder=2)
        axes.scatter(x[mine & front], y[mine & front], s=46, color=colour, zorder=3)
        _name_cluster(axes, name, x[mine], y[mine], colour)
    if chosen is not None:
        at = (figures_of(chosen)[cost], chosen.quality[frontier.quality] or 0.0)
        axes.scatter(*at, s=190, facecolors="none", edgecolors="#d00000", linewidths=2, zorder=4)
    if x.min() > 0 and x.max() > 10 * x.min():
        axes.set_xscale("log")
    axes.margins(0.12)
    axes.set_xlabel(LABELS.get(cost, cost))
    axes.set_ylabel(frontier.quality)
    return figure


def quality_figure(
    receipts: Sequence[Receipt],
    quality: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Return one bar a receipt, best on top; ``intervals`` by receipt name become whiskers."""
    rows = sorted(receipts, key=lambda receipt: receipt.quality[quality] or 0.0)
    figure, axes = _figure(6.4, 0.8 + 0.27 * len(rows))
    families = list(dict.fromkeys(family(receipt) for receipt in receipts))
    for place, receipt in enumerate(rows):
        value = receipt.quality[quality] or 0.0
        colour = COLOURS[families.index(family(receipt)) % len(COLOURS)]
        axes.barh(place, value, color=colour, height=0.7)
        low, high = (intervals or {}).get(receipt.name, (value, value))
        axes.plot([low, high], [place, place], color="#333333", linewidth=1.4)
        axes.text(max(value, high), place, f" {value:.4f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [receipt.name for receipt in rows], fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.set_xlabel(quality)
    return figure


def latency_figure(receipts: Sequence[Receipt]) -> Figure:
    """Return the median, 95th and 99th percentile latency of each receipt, fastest on top."""
    rows = sorted(receipts, key=lambda receipt: -(receipt.cost.get("p50_ms") or 0.0))
    figure, axes = _figure(6.4, 0.8 + 0.27 * len(rows))
    for name, marker, colour in zip(("p50_ms", "p95_ms", "p99_ms"), "o|d", COLOURS, strict=False):
        values = [receipt.cost.get(name) or np.nan for receipt in rows]
        axes.scatter(values, range(len(rows)), marker=marker, color=colour, label=name[:3], s=36)
    axes.set_yticks(range(len(rows)), [receipt.name for receipt in rows], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("latency of one query (ms)")
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def curves_figure(events: Interactions) -> Figure:
    """Return the popularity of items and the length of histories, each sorted, on log axes."""
    figure, axes = _figure(6.4, 2.8, columns=2)
    lengths = np.bincount(events.user_row, minlength=events.num_users)
    for at, counts, name in ((0, events.item_count, "items"), (1, lengths, "users")):
        _falling(axes[at], counts)
        axes[at].set_xlabel(f"{name}, most active first")
        axes[at].set_ylabel("events")
    return figure


def family(receipt: Receipt) -> str:
    """Return the name of the model family that a receipt's bundle was fitted with."""
    return str(receipt.spec.get("spec", "?"))


def svg(figure: Figure) -> str:
    """Return the figure as an SVG element to stand inside a page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG or SVG, by the ending of ``path``."""
    import matplotlib

    ending = Path(path).suffix.removeprefix(".") or "png"
    with matplotlib.rc_context(STYLE), new_file(path) as target:
        figure.savefig(target, format=ending, dpi=150)


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots(1, columns)


def _falling(axes: Axes, counts: NDArray[np.integer]) -> None:
    values = np.sort(counts[counts > 0])[::-1]
    axes.plot(np.arange(1, len(values) + 1), values, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_yscale("log")


def _name_cluster(
    axes: Axes, name: str, x: NDArray[np.floating], y: NDArray[np.floating], colour: str
) -> None:
    """Write a family's name once, beside its best point; the variants lie close to each other."""
    top = int(np.argmax(y))
    axes.annotate(
        name,
        (x[top], y[top]),
        xytext=(7, 6),
        textcoords="offset points",
        fontsize=9,
        color=colour,
    )
