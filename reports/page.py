"""One HTML page for a run: tables, plots, contact sheets, and the videos side by side.

Styles, script and the main plots are inside; videos and sheets are beside it, by relative path, and load when looked
at. Everything that came from a user goes through the template's escaping.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from magbench.records import CaseRecord
from magbench.reports.curves import Entry
from magbench.reports.grids import Grid, against, away_grid, case_grid, differences, headline, levels
from magbench.reports.horizons import METRIC as HORIZON
from magbench.reports.model import Failure, Missing, Report, TrackReport
from magbench.reports.plots import FAINT, INK, Style
from magbench.reports.sweep import absent, common_budget, endpoints, shown
from magbench.reports.time_away import time_away

OPEN_CASES = 2
"""Cases per track that are unfolded at first."""
SMALL = 128
"""Up to this width in pixels a video is shown enlarged with hard pixels."""


@dataclass(frozen=True)
class Drawing:
    """A plot, within the page or beside it."""

    title: str
    file: str
    """Relative to the run folder; empty when it is `inline`."""
    inline: str
    """SVG text, or empty when it is a `file`."""


@dataclass(frozen=True)
class Drawings:
    """The plots of a track."""

    by_budget: Sequence[Drawing]
    over_time: Sequence[Drawing]
    files: Sequence[Drawing]
    """More, beside the page."""
    by_away: Sequence[Drawing] = ()


@dataclass(frozen=True)
class Player:
    """A video of a case."""

    label: str
    video: str
    """URL, or empty where there is no preview."""
    sheet: str
    """URL of the contact sheet, or empty."""
    note: str
    """Why there is nothing to see."""
    seconds: float
    ratio: str
    small: bool


@dataclass(frozen=True)
class CaseView:
    """One case and seed on the page."""

    id: str
    title: str
    prompt: str
    facts: str
    players: tuple[Player, ...]
    seconds: float
    given: float
    """Seconds of given history."""
    grid: Grid
    opened: bool


@dataclass(frozen=True)
class TrackView:
    """One track on the page."""

    track: TrackReport
    about: str
    headline: Grid
    levels: Grid
    differences: Grid | None
    against: str
    """What the differences are to."""
    by_budget: tuple[tuple[str, Markup], ...]
    swept: tuple[str, ...]
    """What is drawn there."""
    absent: tuple[str, ...]
    """What could not be."""
    by_away: tuple[tuple[str, Markup], ...]
    away: tuple[Grid, ...]
    """What is drawn there, as tables."""
    over_time: tuple[tuple[str, Markup], ...]
    drawn: tuple[str, ...]
    """Labels of the rows that have a curve."""
    left_out: str
    """Which rows of a sweep the plots over time and the players show; empty when it is all."""
    reading: str
    """How to read the plots over time."""
    files: Sequence[Drawing]
    cases: tuple[CaseView, ...]


ABOUT = {
    "long-horizon": "Videos from a prompt, much longer than the cache. Does the picture hold, or does it drift?",
    "mag-bench": "A given clip leaves a scene and comes back; the model continues. Does it still know what it saw?",
    "videos": "Given videos, scored as they are.",
}


def render(
    report: Report,
    drawings: Mapping[str, Drawings],
    look: Mapping[str, Style],
    files: Sequence[str],
    has: Callable[[str], bool],
) -> str:
    """Make the page.

    Args:
        report: What to show.
        drawings: Track -> its plots.
        look: Colours of the rows, from `plots.styles`.
        files: What can be downloaded beside the page, relative to it.
        has: Whether a path relative to the page exists.

    Returns:
        HTML. The same arguments give the same text.
    """
    views = [_track(track, drawings[track.name], has) for track in report.tracks]
    failures: dict[tuple[str, Failure], list[Failure]] = {}
    for track_name, failure in ((t.name, f) for t in report.tracks for f in t.failures):
        failures.setdefault((track_name, replace(failure, case="", seed=0)), []).append(failure)
    methods = {row.label: row.family for track in report.tracks for row in track.methods}
    missing: dict[str, list[Missing]] = {}
    for found in dict.fromkeys(m for track in report.tracks for m in track.missing):
        missing.setdefault(found.metric, []).append(found)
    return _template().render(
        report=report,
        run=report.run,
        views=views,
        look=look,
        families=dict.fromkeys(methods[label] for label in report.labels),
        failures=failures,
        missing=missing,
        files=[(name, quote(name)) for name in files if not name.startswith("plots/") or name.count(".") == 1],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("magbench.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _track(track: TrackReport, drawings: Drawings, has: Callable[[str], bool]) -> TrackView:
    pairs = dict.fromkeys((entry.sample.case.id, entry.sample.seed) for entry in track.entries)
    rows = shown(track)
    curves = {curve.label for panel in track.panels for curve in panel.curves}
    swept = endpoints(track)
    lines = [name for e in swept for name in (*(line.family for line in e.lines), *e.references)]
    return TrackView(
        track=track,
        about=ABOUT.get(track.entries[0].sample.case.track, ""),
        headline=headline(track),
        levels=levels(track),
        differences=differences(track) if track.baseline else None,
        against=against(track) if track.baseline else "",
        by_budget=_inline(drawings.by_budget, f"{track.name}-b"),
        swept=tuple(dict.fromkeys(lines)),
        absent=absent(track) if swept else (),
        by_away=_inline(drawings.by_away, f"{track.name}-w"),
        away=tuple(away_grid(track, panels) for panels in time_away(track).values()),
        over_time=_inline(drawings.over_time, f"{track.name}-"),
        drawn=tuple(row.label for row in rows if row.label in curves),
        left_out=_left_out(track) if len(rows) < len(track.rows) else "",
        reading=_reading(track),
        files=drawings.files,
        cases=tuple(_case(track, case, seed, has, i < OPEN_CASES) for i, (case, seed) in enumerate(pairs)),
    )


def _left_out(track: TrackReport) -> str:
    budget = common_budget(track)
    where = "" if budget is None else f": {budget:g} past frames, or where it has no video there, its own"
    return f"of each method one budget is shown{where}; all others are in the tables and in the plots by budget"


def _reading(track: TrackReport) -> str:
    averaged = any(curve.cases > 1 for panel in track.panels for curve in panel.curves)
    banded = any(low is not None for panel in track.panels for curve in panel.curves for low in curve.low)
    parts = [
        "mean over cases, a curve ends where the first of its videos ends" if averaged else "",
        "band: pointwise 95 % interval of the mean, no test of a difference" if banded else "",
        "time zero: the switch from the given clip to the model" if track.timeline.switch else "",
        "coherence horizon: the share of all videos that hold (Kaplan-Meier), until 5 s before they end"
        if any(panel.metric.partition("@")[0] == HORIZON for panel in track.panels)
        else "",
        "ticks above: chunk borders" if track.timeline.ticks else "",
        "ticks below: the cache evicted, absorbed or compressed" if track.timeline.marked else "",
    ]
    return "; ".join(filter(None, parts))


def prompts(case: CaseRecord) -> str:
    """The prompt, and those that follow it."""
    later = (f"{'cut at' if s.cut else 'from'} {s.at:g} s: {s.prompt}" for s in case.schedule)
    return " · ".join([case.prompt, *later])


def _case(track: TrackReport, case: str, seed: int, has: Callable[[str], bool], opened: bool) -> CaseView:
    labels = {row.label for row in shown(track)}
    entries = [e for e in track.entries if (e.sample.case.id, e.sample.seed) == (case, seed)]
    entries = [e for e in entries if e.sample.method.label in labels]
    entries.sort(key=lambda e: e.sample.method.label != "real")
    players = [_player(entry, has) for entry in entries if not _is_transform(entry)]
    record = entries[0].sample.case
    given = max((e.sample.history_frames / e.sample.video.fps for e in entries if e.sample.video), default=0.0)
    facts = [f"seed {seed}", record.stratum, f"{given:.1f} s given" if given else ""]
    return CaseView(
        id=f"{track.name}-{case}-{seed}",
        title=case,
        prompt=prompts(record),
        facts=" · ".join(filter(None, facts)),
        players=tuple(players),
        seconds=max((player.seconds for player in players), default=0.0),
        given=given,
        grid=case_grid(track, case, seed),
        opened=opened,
    )


def _is_transform(entry: Entry) -> bool:
    """Reference rows that are views of another row's file have no pixels of their own."""
    video = entry.sample.video
    return video is not None and video.transform != "none"


def _player(entry: Entry, has: Callable[[str], bool]) -> Player:
    sample = entry.sample
    folder = f"samples/{sample.key}"
    video, sheet = (quote(path) if has(path) else "" for path in (f"{folder}/preview.mp4", f"{folder}/preview.jpg"))
    note = ""
    if sample.status != "ok":
        note = f"{sample.status.replace('_', ' ')}: {sample.reason}"
    elif not video:
        note = "no preview stored"
    ref = sample.video
    return Player(
        label=sample.method.label,
        video=video,
        sheet=sheet,
        note=note,
        seconds=ref.frames / ref.fps if ref else 0.0,
        ratio=f"{ref.width} / {ref.height}" if ref else "1 / 1",
        small=ref is None or ref.width <= SMALL,
    )


def _inline(drawings: Sequence[Drawing], prefix: str) -> tuple[tuple[str, Markup], ...]:
    """Titles and SVG for within the page: no prolog, ids of its own, the page's colours for ink and paper."""
    return tuple((d.title, Markup(_embed(d.inline, f"{prefix}{i}-"))) for i, d in enumerate(drawings))


def _embed(text: str, prefix: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace(INK, "currentColor").replace(FAINT, "var(--faint)").replace("fill: #ffffff", "fill: none")
