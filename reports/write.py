"""Puts a report into its run folder."""

import re
from pathlib import Path

from magbench.reports.csvs import curves_csv, samples_csv, table_csv
from magbench.reports.curves import Panel
from magbench.reports.grids import differences, headline, levels
from magbench.reports.model import Report, TrackReport
from magbench.reports.page import Drawing, render
from magbench.reports.plots import Style, cost_figure, drift_figure, plotting, png, styles, svg
from magbench.reports.results import efficiency, quality
from magbench.reports.tables import latex, markdown
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


def _draw(folder: _Folder, track: TrackReport, look: dict[str, Style]) -> list[Drawing]:
    main = main_panels(track)
    if main:
        figure = drift_figure(main, track.timeline, look)
        folder.put(f"plots/{track.name}.svg", svg(figure))
        folder.put(f"plots/{track.name}.png", png(figure))
    drawings = [Drawing(p.title, "", svg(drift_figure([p], track.timeline, look, legend=False))) for p in main]
    for panel in track.panels:
        if panel not in main:
            name = f"plots/{track.name}.{_slug(panel.metric)}.{_slug(panel.series)}.svg"
            folder.put(name, svg(drift_figure([panel], track.timeline, look)))
            drawings.append(Drawing(panel.title, name, ""))
    cost = cost_figure(track, look)
    if cost:
        name = f"plots/{track.name}.cost.svg"
        folder.put(name, svg(cost))
        folder.put(f"plots/{track.name}.cost.png", png(cost))
        drawings.append(Drawing("cost per chunk", name, ""))
    return drawings


def main_panels(track: TrackReport) -> list[Panel]:
    """The first series over time of each metric of the headline table, in its order."""
    first: dict[str, Panel] = {}
    for panel in track.panels:
        if panel.axis == "time":
            first.setdefault(panel.metric, panel)
    metrics = dict.fromkeys(column.metric for column in track.headline)
    return [first[metric] for metric in metrics if metric in first]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9=@+_-]+", "-", text)[:60].strip("-") or "x"
