"""The figure of `magbench why`: one row per method; what is kept, how old it is, who looks at it, what one sees.

It re-makes the argument of the MemRoPE paper's Figure 3 (arXiv 2603.12513), which looked at Deep Forcing alone.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from magbench.records import AGES, Tier
from magbench.reports.plots import FAINT, INK
from magbench.reports.why import TRANSFER, WhyRow, age_names

ROW, HEAD, FOOT, CAPTION = 0.36, 0.36, 0.84, 0.13
"""Inches: a row, the titles, axis labels and legends, a line of the caption."""
LABELS, GAP, UNDER = 1.62, 0.3, 0.34
"""Inches: names of the rows, space between columns, from an axis to its legend."""
NAME, WRAP = 24, 245
"""Characters of a policy's name, the end of a file's path, and of a line of the caption."""
MEMORY = "#cc79a7"
TIER_COLORS: dict[Tier, str] = {
    "sink": "#0072b2",
    "memory": MEMORY,
    "chosen before": "#f0c060",
    "newly chosen": "#d55e00",
    "recent": "#8fd0b8",
    "newly cached": "#009e73",
    "own": "#dcdcdc",
}
KEPT, CHOSEN, GREY = "#0072b2", "#d55e00", "#606060"
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)


def why_figure(rows: Sequence[WhyRow], caption: Sequence[str]) -> Figure:
    """Draw.

    Args:
        rows: From `why_rows`.
        caption: Sentences to stand below.
    """
    lines = [line for text in caption for line in textwrap.wrap(text, WRAP)]
    width = LABELS + sum(inches + GAP for inches, _ in COLUMNS)
    below = FOOT + CAPTION * len(lines)
    height = HEAD + ROW * len(rows) + below
    figure = Figure(figsize=(width, height), facecolor="white")
    left = LABELS
    for inches, draw in COLUMNS:
        box = (left / width, below / height, inches / width, ROW * len(rows) / height)
        ax = figure.add_axes(box, facecolor="none")
        _frame(ax, len(rows))
        draw(ax, rows)
        left += inches + GAP
    _names(figure.axes[0], rows)
    for place, line in enumerate(lines):
        y = (CAPTION * (len(lines) - place) - 0.05) / height
        figure.text(0.1 / width, y, line, fontsize=6, color=INK, va="center")
    return figure


def _frame(ax: Axes, count: int) -> None:
    ax.set_ylim(count, 0)
    ax.yaxis.set_major_locator(NullLocator())
    ax.tick_params(length=2, width=0.5, colors=INK, pad=2)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set(color=INK, linewidth=0.5)
    for row in range(0, count, 2):
        ax.axhspan(row, row + 1, color=FAINT, alpha=0.09, linewidth=0, zorder=0)


def _title(ax: Axes, letter: str, text: str, axis: str) -> None:
    ax.set_title(f"{letter}   {text}", loc="left", fontsize=7.5, color=INK, pad=5)
    ax.set_xlabel(axis, color=INK, labelpad=1, fontsize=6.5)


def _names(ax: Axes, rows: Sequence[WhyRow]) -> None:
    for place, row in enumerate(rows):
        budget = "all past frames" if row.budget is None else f"{row.budget:g} past frames"
        large = row.policy if len(row.policy) <= NAME else f"…{row.policy[1 - NAME :]}"
        small = _cut(", ".join(filter(None, (budget, row.parameters))), 40)
        mark = f" {TRANSFER}" if row.transfer else ""
        for text, offset, size, color in ((large + mark, 0.34, 7, INK), (small, 0.72, 5.5, GREY)):
            ax.annotate(
                text, (0, place + offset), (-8, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", va="center", fontsize=size, color=color,
            )  # fmt: skip
        if row.reason:
            ax.annotate(
                _cut(row.reason, 150), (0, place + 0.5), (3, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=6, color=GREY, style="italic", annotation_clip=False,
            )  # fmt: skip


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _overlaps(ax: Axes, rows: Sequence[WhyRow]) -> None:
    def height(place: int, overlap: float) -> float:
        return place + 0.88 - 0.76 * overlap

    for place, row in enumerate(rows):
        if row.reason:
            continue
        for end in (0, 1):
            ax.axhline(height(place, end), color=FAINT, linewidth=0.3, zorder=0.5)
        lines: tuple[tuple[Sequence[tuple[int, float]], dict[str, Any]], ...] = (
            (row.overlap, {"color": KEPT, "linewidth": 1}),
            (row.chosen_overlap, {"color": CHOSEN, "linewidth": 1, "marker": "o", "markersize": 1.8}),
            (row.chosen_chance, {"color": GREY, "linewidth": 0.8, "linestyle": ":", "zorder": 4}),
        )
        for points, style in lines:
            if points:
                ax.plot([first for first, _ in points], [height(place, overlap) for _, overlap in points], **style)
        for name, color, offset in (("overlap", KEPT, 0.3), ("chosen_overlap", CHOSEN, 0.7)):
            if name in row.numbers:
                ax.annotate(
                    f"{row.numbers[name].value:.2f}", (1, place + (offset if row.chosen_overlap else 0.5)), (3, 0),
                    xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=6,
                    color=color,
                )  # fmt: skip
    _title(ax, "a", "same tokens as before, 0 to 1", "latent frame")
    _legend(ax, [
        Line2D([], [], color=KEPT, linewidth=1, label="all kept tokens, from chunk to chunk"),
        Line2D([], [], color=CHOSEN, linewidth=1, marker="o", markersize=2, label="chosen, from choice to choice"),
        Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label="if chosen at random"),
    ])  # fmt: skip


def _ages(ax: Axes, rows: Sequence[WhyRow]) -> None:
    shades = matplotlib.colormaps["YlGnBu"]
    colors = [*(to_hex(shades(0.15 + 0.8 * place / (len(AGES) - 1))) for place in range(len(AGES))), MEMORY]
    for place, row in enumerate(rows):
        _stack(ax, place + 0.5, 0.56, list(zip(row.ages, colors, strict=False)))
    ax.set_xlim(0, 1)
    _title(ax, "b", "age of what is kept", "share of past tokens")
    _legend(ax, [Patch(color=color, label=name) for color, name in zip(colors, age_names(), strict=True)], 3)


def _attention(ax: Axes, rows: Sequence[WhyRow]) -> None:
    for place, row in enumerate(rows):
        _stack(ax, place + 0.4, 0.44, [(row.mass.get(tier, 0.0), color) for tier, color in TIER_COLORS.items()])
        _stack(ax, place + 0.75, 0.14, [(row.keys.get(tier, 0.0), color) for tier, color in TIER_COLORS.items()])
    ax.set_xlim(0, 1)
    _title(ax, "c", "attention (thin: share of keys)", "share")
    _legend(ax, [Patch(color=color, label=tier) for tier, color in TIER_COLORS.items()], 3)


def _stack(ax: Axes, y: float, height: float, parts: Sequence[tuple[float, str]]) -> None:
    start = 0.0
    for share, color in parts:
        ax.barh(y, share, height, start, color=color, linewidth=0)
        start += share


def _ratios(ax: Axes, rows: Sequence[WhyRow]) -> None:
    marks: tuple[tuple[Tier, str, float], ...] = (("newly cached", "o", 0.36), ("newly chosen", "D", 0.68))
    for place, row in enumerate(rows):
        for name, marker, offset in marks:
            _point(ax, row, name, place + (offset if row.chosen_overlap else 0.5), marker, TIER_COLORS[name])
    ax.set_xscale("log")
    ax.axvline(1, color=INK, linewidth=0.6, zorder=1)
    low, high = ax.get_xlim()
    low, high = min(low, 0.8) / 1.05, max(high, 2.0) * 1.05
    ticks = [tick for tick in TICKS if low <= tick <= high]
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    _title(ax, "d", "attention, new : old", "times as much per token")
    against = ("others of the past", "chosen before")
    pairs = zip(marks, against, strict=True)
    _legend(ax, [_dot(marker, TIER_COLORS[name], f"{name} : {other}") for (name, marker, _), other in pairs])


def _seams(ax: Axes, rows: Sequence[WhyRow]) -> None:
    marks = (("other", "o", KEPT, 0.36), ("update", "D", CHOSEN, 0.68))
    for place, row in enumerate(rows):
        for name, marker, color, offset in marks:
            _point(ax, row, name, place + (offset if "update" in row.numbers else 0.5), marker, color)
    ax.axvline(0, color=INK, linewidth=0.6, zorder=1)
    ax.locator_params(axis="x", nbins=5)
    _title(ax, "e", "SSIM across chunk borders", "less that inside chunks")
    _legend(ax, [_dot("o", KEPT, "chunk borders without an update"), _dot("D", CHOSEN, "borders with an update")])


def _point(ax: Axes, row: WhyRow, name: str, y: float, marker: str, color: str) -> None:
    found = row.numbers.get(name)
    if found:
        ax.plot(found.value, y, marker=marker, color=color, markersize=3.4, linewidth=0, zorder=3)
        if found.low is not None and found.high is not None:
            ax.plot([found.low, found.high], [y, y], color=color, linewidth=1, zorder=2)


def _dot(marker: str, color: str, label: str) -> Line2D:
    return Line2D([], [], color=color, marker=marker, markersize=3.4, linewidth=0, label=label)


def _legend(ax: Axes, handles: Sequence[Line2D | Patch], columns: int = 1) -> None:
    """Under the axis label."""
    below = UNDER / (ROW * ax.get_ylim()[0])
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -below), ncols=columns, frameon=False, fontsize=5.8,
        handlelength=1.2, handletextpad=0.4, columnspacing=0.8, labelspacing=0.25, borderaxespad=0, borderpad=0,
    )  # fmt: skip


Draw = Callable[[Axes, Sequence[WhyRow]], None]
COLUMNS: tuple[tuple[float, Draw], ...] = (
    (1.75, _overlaps),
    (1.5, _ages),
    (1.95, _attention),
    (1.35, _ratios),
    (1.6, _seams),
)
"""Inches, and what to draw."""
