"""Retention against time away: strata of procedural cases, seconds within palindromic clips, figure, table, page."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from statistics import fmean

import numpy as np
import pytest

from magbench.records import CaseRecord
from magbench.reports import build, grids, plots
from magbench.reports.aggregate import build_report
from magbench.reports.time_away import AwayLine, time_away
from magbench.stats import mean_estimate
from tests.synthetic_run import FPS, make_entries, make_run, run_record

WINDOWS = (0.5, 1.0, 2.0, 4.0)
RECALL = "landmark_recall@mini/recall"


@cache
def entries(change: Callable[[CaseRecord], dict[str, object]], cases: int = 24):
    """The synthetic run's second track, its cases changed."""
    return [
        (sample.model_copy(update={"case": sample.case.model_copy(update=change(sample.case))}), metrics, trace)
        for sample, metrics, trace in make_entries(cases)
        if sample.case.track == "mag-bench"
    ]


def windows(case: CaseRecord) -> dict[str, object]:
    return {"stratum": f"away {WINDOWS[int(case.id[-2:]) % 4]:g} windows"}


def palindrome(case: CaseRecord) -> dict[str, object]:
    return {"mirror": case.frames - 1}


@cache
def report(change: Callable[[CaseRecord], dict[str, object]], cases: int = 24):
    return build_report(run_record(), entries(change, cases))


def track(change: Callable[[CaseRecord], dict[str, object]], cases: int = 24):
    return report(change, cases).tracks[-1]


def test_strata_are_means_over_their_cases() -> None:
    made = entries(windows)
    (recall, psnr) = time_away(track(windows))["windows"]
    assert (recall.title, psnr.value_unit, psnr.direction) == (RECALL, "dB", "higher")
    line = next(line for line in recall.lines if line.label == "memrope")
    assert [(point.away, point.name) for point in line.points] == [(w, f"{w:g}") for w in WINDOWS]
    for stratum, point in enumerate(line.points):
        mine = [
            reduction.value
            for sample, metrics, _ in made
            if sample.method.label == "memrope" and int(sample.case.id[-2:]) % 4 == stratum
            for record in metrics
            if record.metric == "landmark_recall"
            for reduction in record.reductions
            if reduction.name == "recall"
        ]
        assert len(mine) == 6 == point.estimate.n
        assert point.estimate == mean_estimate(mine)
    assert "full" not in {line.label for line in recall.lines}, "it has no videos on this track"
    assert [line.label for line in recall.lines if line.reference] == ["real", "static", "shuffled"]


def test_clips_are_followed_by_seconds_since_the_place_was_seen() -> None:
    """60 and 66 frames of 8 per second of which 24 are made: pictures come back after some 1.6 to 8.1 seconds."""
    made = entries(palindrome, cases=6)
    (panel,) = time_away(track(palindrome, 6))["seconds"]
    assert panel.title == "retention@default · aligned_psnr"
    line = next(line for line in panel.lines if line.label == "memrope")
    expected: dict[int, list[float]] = {}
    for sample, metrics, _ in made:
        if sample.method.label == "memrope":
            (psnr,) = (series for record in metrics if record.metric == "retention" for series in record.series)
            mirrors = [sample.case.mirror / FPS - time for time in psnr.times]
            bins = [int(time - mirror) for time, mirror in zip(psnr.times, mirrors, strict=True)]
            for start in set(bins):
                mine = [value for value, at in zip(psnr.values, bins, strict=True) if at == start]
                expected.setdefault(start, []).append(fmean(mine))
    assert [point.name for point in line.points] == [f"{start}–{start + 1}" for start in sorted(expected)]
    for point, (start, cases) in zip(line.points, sorted(expected.items()), strict=True):
        assert point.away == start + 0.5
        assert point.estimate.value == pytest.approx(fmean(cases))


def test_nothing_to_draw_where_all_are_away_alike() -> None:
    assert time_away(track(lambda case: {}, 4)) == {}
    assert time_away(track(lambda case: {"stratum": "away 2 windows"}, 4)) == {}


def test_table_says_what_is_missing() -> None:
    found = track(windows, 8)
    grid = grids.away_grid(found, time_away(found)["windows"])
    assert [line[0].text.rpartition(", ")[2] for line in grid.groups[0]] == [f"away {w:g}" for w in WINDOWS]
    assert grid.notes[0] == "no interval from 2 cases, fewer than 6"
    assert grid.header[0] == ("time away, windows",)


def test_the_figure_shows_the_means_with_bars() -> None:
    panels, look = time_away(track(windows))["windows"], plots.styles(report(windows))
    with plots.plotting():
        figure = plots.away_figure(panels, look)
        assert plots.svg(figure) == plots.svg(plots.away_figure(panels, look))
    for ax, panel in zip(figure.axes, panels, strict=True):
        drawn = {line.get_color(): line.get_ydata() for line in ax.get_lines()}
        for line in panel.lines:
            assert np.allclose(drawn[look[line.label].color], [point.estimate.value for point in line.points])
        assert len([c for c in ax.collections if hasattr(c, "get_segments")]) == 3, "one set of bars per method"
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["0.5", "1", "2", "4"]
    assert figure.axes[-1].get_xlabel() == "time away, windows"
    assert figure.axes[-1].get_xscale() == "log"


def test_a_perfect_reference_does_not_squeeze_the_methods() -> None:
    (panel,), look = time_away(track(palindrome, 6))["seconds"], plots.styles(report(palindrome, 6))

    def perfect(line: AwayLine) -> AwayLine:
        points = [replace(p, estimate=replace(p.estimate, value=60.0)) for p in line.points]
        return replace(line, points=tuple(points)) if line.label == "real" else line

    with plots.plotting():
        (ax,) = plots.away_figure([replace(panel, lines=tuple(map(perfect, panel.lines)))], look).axes
    assert ax.get_ylim()[1] < 30
    assert look["real"].color not in {line.get_color() for line in ax.get_lines()}
    assert "off scale: real" in [text.get_text() for text in ax.texts]
    assert ax.get_xscale() == "linear"


def test_page_and_files(tmp_path) -> None:
    store = make_run(tmp_path / "run", made=entries(windows, 4))
    paths = build(store)
    assert {"plots/away-mag-bench-windows.svg", "plots/away-mag-bench-windows.png"} <= set(paths)
    page = paths["report.html"].read_text()
    assert "<h3>By time away</h3>" in page and page.index("By time away") < page.index("<h3>Over time</h3>")
    assert "by time away" in paths["tables/mag-bench.md"].read_text()
