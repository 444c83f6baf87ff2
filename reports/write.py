"""Puts a report into its run folder."""

import re
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from magbench.records import WhyRecord
from magbench.reports.csvs import curves_csv, samples_csv, table_csv
from magbench.reports.curves import Panel
from magbench.reports.grids import away_grid, differences, headline, levels
from magbench.reports.model import Column, Report, TrackReport
from magbench.reports.page import Drawing, Drawings, render
from magbench.reports.plots import (
    Style,
    away_figure,
    budget_figure,
    cost_figure,
    drift_figure,
    plotting,
    png,
    styles,
    svg,
)
from magbench.reports.results import efficiency, quality
from magbench.reports.sweep import endpoints, shown
from magbench.reports.tables import latex, markdown
from magbench.reports.time_away import time_away
from magbench.reports.why import captions, why_grid, why_rows
from magbench.reports.why_figure import why_figure
from magbench.store import RunStore, write_json


class _Folder:
    """The run folder, remembering what was written."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.paths: dict[str, Path] = {}

    def json(self, name: str, value: object) -> None:
        write_json(self.store.root / name, value)
        self.paths[name] = self.store.root / name

    def put(self, name: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.paths[name] = self.store.publish_at(name, lambda path: _write(path, data))

    def plot(self, name: str, figure: Figure) -> None:
        self.put(f"{name}.svg", svg(figure))
        self.put(f"{name}.png", png(figure))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def write_all(store: RunStore, report: Report) -> dict[str, Path]:
    """Write results, tables, plots and the page; see `magbench.reports.build`."""
    folder = _Folder(store)
    folder.json("results.json", quality(report))
    folder.json("efficiency.json", efficiency(report))
    for track in report.tracks:
        folder.put(f"tables/{track.name}.csv", table_csv(track))
        grids = [headline(track), levels(track), *([differences(track)] if track.baseline else [])]
        grids += [away_grid(track, panels) for panels in time_away(track).values()]
        folder.put(f"tables/{track.name}.md", "\n".join(map(markdown, grids)))
        folder.put(f"tables/{track.name}.tex", "\n".join(map(latex, grids)))
    folder.put("tables/samples.csv", samples_csv(report))
    folder.put("tables/curves.csv", curves_csv(report))
    look = styles(report)
    with plotting():
        drawings = {track.name: _draw(folder, track, look) for track in report.tracks}
    files = tuple(folder.paths)
    folder.put("report.html", render(report, drawings, look, files, lambda name: (store.root / name).is_file()))
    return folder.paths


def write_why(store: RunStore, record: WhyRecord) -> None:
    """Write the figure and the table of diagnostics; see `magbench.reports.build_why`."""
    folder, rows = _Folder(store), why_rows(record)
    with plotting():
        folder.plot("plots/why", why_figure(rows, captions(rows, store.run)))
    folder.put("tables/why.md", markdown(why_grid(rows, store.run)))


def _draw(folder: _Folder, track: TrackReport, look: dict[str, Style]) -> Drawings:
    labels = {row.label for row in shown(track)}
    panels = [panel.drawable() for p in track.panels if (panel := p.only(labels)).curves]
    timeline = track.timeline.only(labels)
    main = main_panels(panels, track.headline)
    over_time = [Drawing(p.title, "", svg(drift_figure([p], timeline, look, legend=False))) for p in main]
    if main:
        folder.plot(f"plots/{track.name}", drift_figure(main, timeline, look))
    files = []
    for panel in panels:
        if panel not in main:
            name = f"plots/{track.name}.{_slug(panel.metric)}.{_slug(panel.series)}.svg"
            folder.put(name, svg(drift_figure([panel], timeline, look)))
            files.append(Drawing(panel.title, name, ""))
    cost = cost_figure(track, look)
    if cost:
        folder.plot(f"plots/{track.name}.cost", cost)
        files.append(Drawing("cost per chunk", f"plots/{track.name}.cost.svg", ""))
    swept = endpoints(track)
    by_budget = [Drawing(e.column.key, "", svg(budget_figure([e], look, legend=False))) for e in swept]
    if swept:
        folder.plot(f"plots/budget-{track.name}", budget_figure(swept, look))
    by_away = []
    for unit, away in time_away(track).items():
        folder.plot(f"plots/away-{track.name}-{unit}", away_figure(away, look))
        by_away += [Drawing(panel.title, "", svg(away_figure([panel], look, legend=False))) for panel in away]
    return Drawings(by_budget, over_time, files, by_away)


def main_panels(panels: Iterable[Panel], headline: Iterable[Column]) -> list[Panel]:
    """The first series over time of each metric of the headline table, in its order."""
    first: dict[str, Panel] = {}
    for panel in panels:
        if panel.axis == "time":
            first.setdefault(panel.metric, panel)
    metrics = dict.fromkeys(column.metric for column in headline)
    return [first[metric] for metric in metrics if metric in first]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9=@+_-]+", "-", text)[:60].strip("-") or "x"
