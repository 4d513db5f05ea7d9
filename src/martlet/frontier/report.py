"""One self-contained HTML page: the choice, the pictures, every receipt, how to do it again."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from martlet.core import Interactions, new_file
from martlet.frontier import plots
from martlet.frontier.budget import Budget, figures_of
from martlet.frontier.frontier import Choice, Frontier
from martlet.measure.receipt import Receipt

_CSS = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif }
body { color: #1b1b1b; background: #fff }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: .2rem }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #ccc }
.note { background: #fff3cd; border-left: .3rem solid #b58900; padding: .6rem 1rem }
.choice { background: #e8f1fa; border-left: .3rem solid #0072b2; padding: .6rem 1rem }
figure { display: inline-block; margin: 1rem 1rem 1rem 0; max-width: 100% }
svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .85rem }
caption { text-align: left; color: #555 }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
th button { all: unset; cursor: pointer }
th button:focus-visible { outline: 2px solid #0072b2 }
tr.chosen { background: #e8f1fa; font-weight: 600 }
.wide { overflow-x: auto; white-space: nowrap }
pre { background: #f4f4f4; padding: .7rem 1rem; overflow-x: auto }
@media print { body { max-width: none } .wide { overflow: visible } table { font-size: .6rem } }
"""
_SORT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0];
  const at = [...head.parentNode.children].indexOf(head), up = head.ariaSort !== "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.ariaSort = up ? "ascending" : "descending";
  const key = row => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const order = (a, b) => isNaN(key(a)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
  body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * order(a, b)));
};
"""
_SHOWN = (
    "train_s",
    "p50_ms",
    "p99_ms",
    "throughput_qps",
    "scoring_mb",
    "bundle_mb",
    "peak_mb",
    "cold_start_s",
)


@dataclass(frozen=True)
class Story:
    """What the report tells beside the receipts.

    Attributes:
        title: the name of the data.
        choice: what was chosen, and why.
        budget: the limits it had to keep.
        quality: the metric that was maximized.
        final: the receipt of the chosen bundle on the test part, if it was measured.
        intervals: receipt name to the 95% bootstrap interval of its quality.
        events: the training part, for its curves.
        description: lines on the data.
        notes: what a reader must know first, such as that the log is synthetic.
        commands: what to type to do it again, or to go on.
    """

    title: str
    choice: Choice
    budget: Budget = field(default_factory=Budget)
    quality: str = "ndcg@10"
    final: Receipt | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    events: Interactions | None = None
    description: str = ""
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()


def write_report(folder: str | Path, receipts: Sequence[Receipt], story: Story) -> Path:
    """Write ``report.html`` and ``report.csv`` into ``folder`` and return the page's path.

    Raises:
        OutputError: the folder could not be written.
    """
    folder = Path(folder)
    with new_file(folder / "report.html") as target:
        target.write_text(_page(receipts, story), encoding="utf-8")
    with new_file(folder / "report.csv") as target, open(target, "w", newline="") as file:
        names = list(dict.fromkeys(name for receipt in receipts for name in figures_of(receipt)))
        writer = csv.writer(file)
        writer.writerow(["name", *names])
        for receipt in receipts:
            figures = figures_of(receipt)
            writer.writerow([receipt.name, *(figures.get(name, "") for name in names)])
    return folder / "report.html"


def _page(receipts: Sequence[Receipt], story: Story) -> str:
    chosen = story.choice.receipt
    figures: list[tuple[str, str]] = []
    frontier = Frontier(receipts, story.quality)
    for cost in frontier.costs:
        caption = (
            f"{story.quality} against {plots.LABELS.get(cost, cost)}. Grey: dominated on these; "
            "the line joins what is not; the red ring is the choice."
        )
        figures.append((plots.svg(plots.frontier_figure(frontier, cost, chosen)), caption))
    bars = plots.quality_figure(receipts, story.quality, story.intervals)
    figures.append((plots.svg(bars), f"{story.quality} on the validation users, 95% intervals."))
    speed = plots.latency_figure(receipts)
    figures.append((plots.svg(speed), "Latency of single queries, one after another, warm."))
    if story.events is not None:
        curves = plots.curves_figure(story.events)
        figures.append(
            (plots.svg(curves), "How popularity and activity fall in the training part.")
        )
    notes = "".join(f'<p class="note" role="note">{escape(note)}</p>' for note in story.notes)
    about = f"<h2>The data</h2><pre>{escape(story.description)}</pre>" if story.description else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Martlet: {escape(story.title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>
<body><h1>{escape(story.title)}</h1><p>Budget: {escape(str(story.budget))}</p>{notes}
<p class="choice">{escape(story.choice.why)}.{_final(story)}</p>
<h2>The frontier</h2>{"".join(_figure(*figure) for figure in figures)}
<h2>Every receipt</h2>{_table(receipts, chosen, story.quality)}
{about}
<h2>How it was measured</h2>{_method(chosen)}
<h2>Do it again, go on</h2><pre>{escape(chr(10).join(story.commands))}</pre>
<script>{_SORT}</script></body></html>
"""


def _final(story: Story) -> str:
    if story.final is None:
        return ""
    figures = ", ".join(
        f"{name} {value:.4f}" for name, value in story.final.quality.items() if value is not None
    )
    return (
        f" Fitted once more with the validation part and measured once on the test part "
        f"({story.final.num_users:,} users): {escape(figures)}."
    )


def _figure(picture: str, caption: str) -> str:
    label = escape(caption, quote=True)
    picture = picture.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(receipts: Sequence[Receipt], chosen: Receipt, quality: str) -> str:
    names = [quality, *(name for name in receipts[0].quality if name != quality), *_SHOWN]
    head = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button></th>'
        for name in ("bundle", *names)
    )
    rows = []
    for receipt in sorted(receipts, key=lambda r: -(r.quality[quality] or 0.0)):
        figures = figures_of(receipt)
        cells = "".join(
            f'<td data-value="{figures[n]:.6g}">{figures[n]:.4g}</td>'
            if n in figures
            else "<td>-</td>"
            for n in names
        )
        mark = ' class="chosen"' if receipt is chosen else ""
        rows.append(f"<tr{mark}><td>{escape(receipt.name)}</td>{cells}</tr>")
    caption = "Click a heading to sort. Units end the names: _ms, _s, _mb (10^6 bytes), _qps."
    return (
        f'<div class="wide"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _method(receipt: Receipt) -> str:
    lines = {
        "machine": receipt.machine,
        "threads": receipt.threads,
        "versions": receipt.versions,
        "seed": receipt.seed,
        "users": receipt.num_users,
        "part": receipt.part,
    }
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td style="text-align:left;white-space:normal">'
        f"{escape(_words(value))}</td></tr>"
        for name, value in lines.items()
    )
    return f"<table>{rows}</table>"


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
