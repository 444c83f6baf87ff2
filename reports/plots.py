"""Plots: mean curves over time with 95 % bands, what the cache did, what it cost, and quality against budget.

Drawn on `Figure` objects without pyplot, so nothing global changes and the same data give the same bytes.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from magbench.reports.curves import DRAWN_POINTS, Curve, Entry, Floats, Panel, Timeline
from magbench.reports.grids import ARROWS
from magbench.reports.model import MIB, Report, TrackReport
from magbench.reports.sweep import Endpoint, Line, crowded, families, shown
from magbench.reports.time_away import AwayLine, AwayPanel
from magbench.traces import generated

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
"""Okabe and Ito's colours for all kinds of colour vision, without yellow and black, and a wine red."""
Dash = tuple[int, tuple[float, ...] | None]
SOLID: Dash = (0, None)
DASHES: tuple[Dash, ...] = (SOLID, (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
"""One round of the palette each."""
REFERENCE_STYLES: Mapping[str, tuple[str, Dash]] = {
    "real": ("#757575", (0, (6, 2))),
    "static": ("#8f8f8f", (0, (1, 1.5))),
    "shuffled": ("#a8a8a8", (0, (4, 1.5, 1, 1.5))),
}
INK, FAINT = "#1a1a1b", "#9a9a9b"
"""Not quite black, so that a page can find them and put its own colours in their place."""
BUDGET_MARKS = (
    "open circle: the budget a method has of its own; diamond: its budget can't be chosen;\n"
    "bar: 95 % interval of the mean over cases"
)
AWAY_BARS = "bar: 95 % interval of the mean over cases"
WIDTH, PANEL_HEIGHT = 3.4, 1.55
"""Inches: one column of a paper."""
TITLE = 50
"""Characters of a panel's title that fit; a longer one is set smaller."""
LEFT, RIGHT, TOP, BOTTOM, LEGEND_ROW, CAPTION = 0.56, 0.08, 0.26, 0.36, 0.12, 0.26


@dataclass(frozen=True)
class Style:
    """How a row is drawn."""

    color: str
    dash: Dash
    width: float


def styles(report: Report) -> dict[str, Style]:
    """A fixed look for each row of a run and each family of rows, in every plot and table.

    Colours tell families apart, dashes the budgets of one where all of them are drawn; its own is that of the family.
    """
    methods = {row.label: row for track in report.tracks for row in track.methods}
    rows = [methods[label] for label in report.labels]
    step = 0 if crowded(rows) else 1
    found: dict[str, Style] = {}
    for i, (family, members) in enumerate(families(rows).items()):
        for j, label in enumerate(dict.fromkeys([family, *(row.label for row in members)])):
            dash = DASHES[(i // len(PALETTE) + j * step) % len(DASHES)]
            found[label] = Style(PALETTE[i % len(PALETTE)], dash, 1.4)
    for row in (row for track in report.tracks for row in track.references):
        color, dash = REFERENCE_STYLES.get(row.label, ("#888888", SOLID))
        found.setdefault(row.label, Style(color, dash, 1.0))
    return found


def drift_figure(panels: Sequence[Panel], timeline: Timeline, look: Mapping[str, Style], legend: bool = True) -> Figure:
    """Panels above each other over the same seconds.

    Args:
        panels: All of one axis kind, time or lag.
        timeline: What to mark on a time axis: chunk borders (top edge), cache events (bottom edge), the switch.
        look: From `styles`.
        legend: Whether to leave room below for a legend and a line that explains the marks.
    """
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    banded = any(low is not None for panel in panels for curve in panel.curves for low in curve.low)
    marks = _explanation(timeline, banded) if panels[0].axis == "time" else ""
    below = (_legend_height(labels) + (CAPTION if marks else 0)) if legend else 0.0
    figure, axes = _canvas(len(panels), below)
    extent = [t for panel in panels for curve in panel.curves for t in curve.times]
    for ax, panel in zip(axes, panels, strict=True):
        off = _draw(ax, panel, look)
        if panel.axis == "time":
            _mark(ax, timeline, look, min(extent), max(extent))
        elif min(extent) > 0 and max(extent) > 20 * min(extent):
            ax.set_xscale("log")
        _title(ax, panel.title, panel.unit)
        _off_scale(ax, off)
    seconds = "seconds after the switch" if timeline.switch else "seconds"
    axes[-1].set_xlabel("lag, seconds" if panels[0].axis == "lag" else seconds, color=INK, labelpad=1)
    if legend:
        _legend(figure, labels, look, CAPTION if marks else 0.0)
        figure.text(0.02, 0.02 / figure.get_figheight(), marks, fontsize=5, color=FAINT, va="bottom", linespacing=1.2)
    return figure


def cost_figure(track: TrackReport, look: Mapping[str, Style]) -> Figure | None:
    """Keys and values in memory, and time, chunk by chunk; None when nothing was traced.

    Budgets are often equal, so later methods are drawn wider and behind: coinciding lines all stay visible.
    """
    lines = {
        row.label: _traced([e for e in track.entries if e.sample.method.label == row.label]) for row in shown(track)
    }
    lines = {label: points for label, points in lines.items() if len(points)}
    if not lines:
        return None
    figure, axes = _canvas(2, _legend_height(list(lines)))
    for ax, column, title in zip(axes, (1, 2), ("keys and values [MiB]", "time per chunk [ms]"), strict=True):
        for order, (label, points) in enumerate(lines.items()):
            width = 1.2 + 1.1 * min(order, 4)
            ax.plot(points[:, 0], points[:, column], color=look[label].color, linewidth=width, zorder=9 - order)
        ax.set_ylim(bottom=0)
        _title(ax, title)
    axes[-1].set_xlabel("chunk", color=INK, labelpad=1)
    _legend(figure, list(lines), look, 0.0)
    return figure


def budget_figure(endpoints: Sequence[Endpoint], look: Mapping[str, Style], legend: bool = True) -> Figure:
    """Quality against the most past frames a pass saw, a panel per endpoint, a line per method.

    Args:
        endpoints: From `sweep.endpoints`.
        look: From `styles`.
        legend: Whether to leave room below for a legend and a line that explains the marks.
    """
    lines = {line.family: line for endpoint in endpoints for line in endpoint.lines}
    labels = list(dict.fromkeys([*lines, *(label for endpoint in endpoints for label in endpoint.references)]))
    figure, axes = _canvas(len(endpoints), _legend_height(labels) + CAPTION if legend else 0.0)
    places = sorted({point.past_frames for line in lines.values() for point in line.points})
    for ax, endpoint in zip(axes, endpoints, strict=True):
        for order, line in enumerate(endpoint.lines):
            _draw_line(ax, line, look[line.family], 1 + 0.012 * (order - (len(endpoint.lines) - 1) / 2))
        bottom, top = ax.get_ylim()
        room = {label: top - bottom if label == "real" else 0.0 for label in endpoint.references}
        off = [n for n, level in endpoint.references.items() if not bottom - room[n] <= level <= top + room[n]]
        for label, level in endpoint.references.items():
            if label not in off:
                style = look[label]
                ax.axhline(level, color=style.color, linestyle=style.dash, linewidth=style.width, zorder=1)
        column = endpoint.column
        _title(ax, f"{column.key} {ARROWS[column.direction]}", column.unit)
        _off_scale(ax, off)
        ax.set_xscale("log")
        ax.set_xticks(places, [f"{place:g}" for place in places], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
    axes[-1].set_xlabel("past frames, the most that a pass saw", color=INK, labelpad=1)
    if legend:
        _legend(figure, labels, look, CAPTION)
        figure.text(0.02, 0.02 / figure.get_figheight(), BUDGET_MARKS, fontsize=5, color=FAINT, va="bottom")
    return figure


def away_figure(panels: Sequence[AwayPanel], look: Mapping[str, Style], legend: bool = True) -> Figure:
    """Endpoints against time away, a panel each, a line per row.

    Args:
        panels: From `time_away`, all of one unit.
        look: From `styles`.
        legend: Whether to leave room below for a legend and a line that explains the bars.
    """
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    points = [point for panel in panels for line in panel.lines for point in line.points]
    caption = AWAY_BARS if any(point.estimate.low is not None for point in points) else ""
    figure, axes = _canvas(len(panels), _legend_height(labels) + (CAPTION if caption else 0.0) if legend else 0.0)
    names = {point.away: point.name for point in points}
    places = sorted(names)
    wide = places[0] > 0 and places[-1] - places[-2] > 1.5 * (places[1] - places[0])
    gap = min(b / a if wide else b - a for a, b in pairwise(places))
    for ax, panel in zip(axes, panels, strict=True):
        methods = [line for line in panel.lines if not line.reference]
        for order, line in enumerate(methods):
            share = 0.05 * (order - (len(methods) - 1) / 2)
            at = [p.away * gap**share if wide else p.away + gap * share for p in line.points]
            style = look[line.label]
            ax.plot(
                at, [p.estimate.value for p in line.points], color=style.color, linestyle=style.dash,
                linewidth=style.width, marker="o", markersize=2.5, zorder=4,
            )  # fmt: skip
            bars = [(x, p.estimate.low, p.estimate.high) for x, p in zip(at, line.points, strict=True)]
            bars = [bar for bar in bars if None not in bar]
            if bars:
                ax.vlines(*zip(*bars, strict=True), color=style.color, linewidth=0.6, alpha=0.6, zorder=3)
        off = _draw_references(ax, [line for line in panel.lines if line.reference], look)
        _title(ax, f"{panel.title} {ARROWS[panel.direction]}", panel.value_unit)
        _off_scale(ax, off)
        if wide:
            ax.set_xscale("log")
        ax.set_xticks(places, [names[place] for place in places], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
    axes[-1].set_xlabel(f"time away, {panels[0].unit}", color=INK, labelpad=1)
    if legend:
        _legend(figure, labels, look, CAPTION if caption else 0.0)
        figure.text(0.02, 0.02 / figure.get_figheight(), caption, fontsize=5, color=FAINT, va="bottom")
    return figure


def _draw_references(ax: Axes, lines: Sequence[AwayLine], look: Mapping[str, Style]) -> list[str]:
    """Draw those near what is drawn, and the static one; returns the others."""
    bottom, top = ax.get_ylim() if ax.get_lines() else (-np.inf, np.inf)
    height, off = top - bottom, []
    for line in lines:
        style, values = look[line.label], [point.estimate.value for point in line.points]
        if line.label != "static" and (min(values) < bottom - height or max(values) > top + height):
            off.append(line.label)
            continue
        ax.plot(
            [point.away for point in line.points], values, color=style.color, linestyle=style.dash,
            linewidth=style.width, zorder=1,
        )  # fmt: skip
    if off:
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.1 * (top - bottom))
    return off


def _draw_line(ax: Axes, line: Line, style: Style, shift: float) -> None:
    """A method at its budgets: means with intervals; an open marker at its own budget, diamonds if it has no other."""
    at = [point.past_frames * shift for point in line.points]
    means = [point.estimate.value for point in line.points]
    ax.plot(at, means, color=style.color, linestyle=style.dash, linewidth=style.width, zorder=4)
    ends = [(x, e.low, e.high) for x, e in zip(at, (point.estimate for point in line.points), strict=True)]
    bars = [bar for bar in ends if None not in bar]
    if bars:
        ax.vlines(*zip(*bars, strict=True), color=style.color, linewidth=0.6, alpha=0.6, zorder=3)
    for own in (False, True):
        hollow = own and line.matched
        shown_at = [(x, y) for x, y, point in zip(at, means, line.points, strict=True) if point.own == own]
        ax.plot(
            *zip(*shown_at, strict=True), marker="o" if line.matched else "D", linestyle="", zorder=5,
            markersize=4.5 if hollow else 2.5, markeredgewidth=0.9, color=style.color,
            markerfacecolor="white" if hollow else style.color,
        )  # fmt: skip


def svg(figure: Figure) -> str:
    """The figure as SVG, text as text, coordinates to 1/100 pt. The same figure gives the same string."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r' d="([^"]*)"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), out.getvalue().decode())


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


@contextmanager
def plotting() -> Iterator[None]:
    """Settings for making and writing figures; restored afterwards."""
    settings: dict[Any, Any] = {
        "svg.hashsalt": "magbench",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 7,
        "legend.fontsize": 6.5,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "text.parse_math": False,
        "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings):
        yield


def _canvas(rows: int, below: float) -> tuple[Figure, list[Axes]]:
    height = rows * (PANEL_HEIGHT + TOP) + BOTTOM + below
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes: list[Axes] = []
    for row in range(rows):
        bottom = BOTTOM + below + (rows - 1 - row) * (PANEL_HEIGHT + TOP)
        box = (LEFT / WIDTH, bottom / height, (WIDTH - LEFT - RIGHT) / WIDTH, PANEL_HEIGHT / height)
        ax = figure.add_axes(box, sharex=axes[0] if axes else None, facecolor="none")
        ax.tick_params(length=2, width=0.5, colors=INK, pad=2, labelbottom=row == rows - 1)
        ax.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set(color=INK, linewidth=0.5)
        axes.append(ax)
    return figure, axes


def draw_curves(ax: Axes, panel: Panel, look: Mapping[str, Style]) -> None:
    """Draw the mean curves with their bands, references behind."""
    for order, curve in enumerate(sorted(panel.curves, key=lambda c: not c.reference)):
        style = look[curve.label]
        marker = "o" if panel.axis == "lag" or len(curve.times) == 1 else None
        ax.plot(
            curve.times, curve.mean, color=style.color, linestyle=style.dash, linewidth=style.width, marker=marker,
            markersize=2, zorder=3 + order, label=curve.label,
        )  # fmt: skip
        low = np.array([np.nan if v is None else v for v in curve.low])
        high = np.array([np.nan if v is None else v for v in curve.high])
        if not curve.reference and not np.isnan(low).all():
            ax.fill_between(curve.times, low, high, color=style.color, alpha=0.16, linewidth=0, zorder=2)


def _draw(ax: Axes, panel: Panel, look: Mapping[str, Style]) -> list[str]:
    """Draw and frame the curves; returns the references that are mostly outside."""
    draw_curves(ax, panel, look)
    bottom, top = _frame(panel.curves)
    room = (top - bottom) * 0.08 or abs(top) * 0.05 or 0.05
    ax.set_ylim(bottom - room, top + room)
    low_end, high_end = bottom - room, top + room
    return [c.label for c in panel.curves if np.mean([low_end <= v <= high_end for v in c.mean]) < 0.5]


def _frame(curves: Sequence[Curve]) -> tuple[float, float]:
    """Room for the methods, and for `real` where it wouldn't squeeze them to less than a third."""
    bottom, top = _range([c for c in curves if not c.reference] or curves)
    real = [c for c in curves if c.label == "real"]
    low, high = _range(real) if real else (bottom, top)
    if top > bottom and max(high, top) - min(low, bottom) > 3 * (top - bottom):
        return bottom, top
    return min(low, bottom), max(high, top)


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    drawn = (line for c in curves for line in ((c.mean,) if c.reference else (c.mean, c.low, c.high)))
    values = [v for line in drawn for v in line if v is not None]
    return min(values), max(values)


def _title(ax: Axes, text: str, unit: str = "") -> None:
    text = f"{text}{f' [{unit}]' if unit else ''}"
    ax.set_title(text, loc="left", fontsize=7.5 * min(1, TITLE / len(text)), color=INK, pad=3)


def _off_scale(ax: Axes, labels: Sequence[str]) -> None:
    if labels:
        text = f"off scale: {', '.join(labels)}"
        ax.text(0.99, 0.945, text, transform=ax.transAxes, ha="right", va="top", fontsize=5.5, color=FAINT)


def _mark(ax: Axes, timeline: Timeline, look: Mapping[str, Style], first: float, last: float) -> None:
    if timeline.switch:
        first = min(first, -0.02 * (last - first))
        ax.axvline(0, color=INK, linewidth=0.6, zorder=1.5)
        ax.axvspan(first, 0, color=FAINT, alpha=0.12, linewidth=0, zorder=0)
    if first < last:
        ax.set_xlim(first, last)
    across = ax.get_xaxis_transform()
    ax.vlines(
        [t for t in timeline.ticks if first <= t <= last],
        0.965,
        1,
        transform=across,
        color=FAINT,
        linewidth=0.5,
    )
    for row, (label, times) in enumerate(timeline.marked.items()):
        shown = [t for t in times if first <= t <= last]
        bottom = 0.01 + 0.035 * row
        ax.vlines(shown, bottom, bottom + 0.028, transform=across, color=look[label].color, linewidth=0.9)


def _explanation(timeline: Timeline, banded: bool) -> str:
    parts = ["band: pointwise 95 % interval of the mean over cases"] if banded else []
    if timeline.ticks:
        parts.append("ticks above: chunk borders")
    if timeline.marked:
        parts.append("ticks below: cache evicted, absorbed or compressed")
    half = -(-len(parts) // 2)
    return ";\n".join(filter(None, ("; ".join(parts[:half]), "; ".join(parts[half:]))))


def _legend_columns(labels: Sequence[str]) -> int:
    """As many as fit: about 66 characters to a column of a paper, six of them for each line's sample."""
    return max(1, min(3, 66 // (max(map(len, labels)) + 6)))


def _legend_height(labels: Sequence[str]) -> float:
    return LEGEND_ROW * -(-len(labels) // _legend_columns(labels)) + 0.08


def _legend(figure: Figure, labels: Sequence[str], look: Mapping[str, Style], above: float) -> None:
    found = [look[label] for label in labels]
    handles = [Line2D([], [], color=s.color, linestyle=s.dash, linewidth=s.width) for s in found]  # type: ignore[arg-type]
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, above / figure.get_figheight()),
        ncols=_legend_columns(labels),
        frameon=False, handlelength=1.8, columnspacing=1.0, handletextpad=0.4, borderaxespad=0.1, labelspacing=0.25,
    )  # fmt: skip


def _traced(entries: Sequence[Entry]) -> Floats:
    """[chunks, 3]: chunk, MiB of keys and values, ms; means over samples, generated chunks only.

    Of more than `DRAWN_POINTS` chunks, the last of so many, their largest size and their mean time.
    """
    by_chunk: dict[int, list[tuple[float, float]]] = {}
    for record in (record for entry in entries for record in generated(entry.trace)):
        by_chunk.setdefault(record.chunk, []).append((record.cache_bytes / MIB, record.ms))
    rows = np.array([(chunk, *np.mean(by_chunk[chunk], axis=0)) for chunk in sorted(by_chunk)])
    size = -(-len(rows) // DRAWN_POINTS)
    if size < 2:
        return rows
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return np.array([(part[-1, 0], part[:, 1].max(), part[:, 2].mean()) for part in parts])
