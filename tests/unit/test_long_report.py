"""Reports of long videos: a section for each length, plots of bounded size, and a label past the release's tables."""

import csv
import io

import numpy as np
import pytest

from magbench.records import SampleRecord
from magbench.reports import grids
from magbench.reports.aggregate import build_report
from magbench.reports.csvs import curves_csv
from magbench.reports.curves import DRAWN_POINTS, TICKS, Curve, Panel
from magbench.reports.page import Drawings, render
from magbench.reports.plots import drift_figure, plotting, styles, svg
from magbench.reports.results import quality
from tests.synthetic_run import CHUNK, FPS, PRIMARY, Made, make_metrics, make_sample, run_record, traces

LENGTHS = {0: 480, 1: 480, 2: 1920, 3: 9600}
"""Frames of each case."""
END = "appearance_drift@default/end"


def lengthened(index: int, label: str) -> Made:
    """A sample as `make_sample` gives it, of another length."""
    sample, frames = make_sample("long-horizon", index + 8, label)[0], LENGTHS[index]
    assert sample.video is not None
    ends = {"released_frames": 1024 if label == "fifo" else None}
    sample = sample.model_copy(
        update={
            "case": sample.case.model_copy(update={"frames": frames}),
            "method": sample.method.model_copy(update=ends),
            "video": sample.video.model_copy(update={"frames": frames}),
            "timing": sample.timing.model_copy(update={"chunk_borders": tuple(range(CHUNK, frames, CHUNK))}),
        }
    )
    return sample, make_metrics("long-horizon", index, label, 0, frames), traces(label, frames, 0)


MADE = [lengthened(index, label) for index in LENGTHS for label in ("memrope", "fifo", "real")]
RUN = run_record(methods=("memrope", "fifo"), primary={"long-horizon": PRIMARY["long-horizon"]}, suite="long")


@pytest.fixture(scope="module")
def report():
    return build_report(RUN, MADE)


def test_lengths_are_not_averaged(report) -> None:
    assert [track.name for track in report.tracks] == [f"long-horizon-{n}s" for n in (60, 240, 1200)]
    assert [track.cases for track in report.tracks] == [2, 1, 1]
    for track, frames in zip(report.tracks, (480, 1920, 9600), strict=True):
        assert [column.key for column in track.columns if column.primary] == list(PRIMARY["long-horizon"])
        assert {entry.sample.case.frames for entry in track.entries} == {frames}
        values = [
            reduction.value
            for sample, metrics, _ in MADE
            if sample.method.label == "fifo" and sample.case.frames == frames
            for record in metrics
            for reduction in record.reductions
            if f"{record.name}/{reduction.name}" == END
        ]
        row = next(row for row in track.rows if row.label == "fifo")
        assert row.cells[END].estimate.value == pytest.approx(np.mean(values))


def test_lengths_without_a_video_are_told_apart_by_latents() -> None:
    failed = [
        (s.model_copy(update={"status": "error", "reason": "x", "video": None}), [], [])
        if s.case.frames > 480
        else made
        for made in MADE
        for s in [made[0]]
    ]
    names = [track.name for track in build_report(RUN, failed).tracks]
    assert names == [f"long-horizon-{n}-latents" for n in (480, 1920, 9600)]


def test_one_length_is_one_section() -> None:
    report = build_report(RUN, [made for made in MADE if made[0].case.frames == 480])
    assert [track.name for track in report.tracks] == ["long-horizon"]


def test_past_the_tables_a_row_is_labelled(report) -> None:
    assert [{row.label: row.extended for row in track.methods} for track in report.tracks] == [
        {"memrope": 0, "fifo": 0},
        {"memrope": 0, "fifo": 1},
        {"memrope": 0, "fifo": 1},
    ]
    short, _, long = (grids.headline(track) for track in report.tracks)
    assert "extended" not in str(short)
    labels = {line[0].text: line[0] for group in long.groups for line in group}
    assert labels["fifo"].detail.endswith("extended") and "extended" not in labels["memrope"].detail
    assert any("beyond the release's table of 1024 latent frames" in note for note in long.notes)


def test_old_records_have_no_such_label() -> None:
    old = MADE[1][0].model_dump()
    del old["method"]["released_frames"]
    assert not SampleRecord.model_validate(old).extended


def test_a_long_curve_is_drawn_as_means_of_neighbours() -> None:
    values = np.arange(2.0 * DRAWN_POINTS + 1)
    nothing = (None, *values[1:])
    curve = Curve("a", False, tuple(values / FPS), tuple(values), nothing, tuple(values), 9)
    drawn = Panel("m@default", "s", "", "time", (curve,)).drawable()
    assert (drawn.bin, drawn.title) == (3, "m@default · s, means of 3")
    (line,) = drawn.curves
    assert line.mean[:2] == (1.0, 4.0) and line.mean[-1] == pytest.approx(values[-2:].mean())
    assert line.times == pytest.approx([mean / FPS for mean in line.mean])
    assert line.low[0] is None and line.low[1] == 4.0 and line.high == line.mean
    short = Panel("m@default", "s", "", "time", (Curve("a", False, (0.0,), (1.0,), (None,), (None,), 1),))
    assert short.drawable() == short


def test_files_hold_every_point_and_plots_few(report) -> None:
    rows = list(csv.DictReader(io.StringIO(curves_csv(report))))
    assert max(float(row["seconds"]) for row in rows) == pytest.approx((9600 - 1) / FPS, abs=0.01)
    long = report.tracks[-1]
    longest = max(len(curve.times) for panel in long.panels for curve in panel.curves)
    assert longest > 5 * DRAWN_POINTS
    assert len(long.timeline.chunk_borders) > TICKS and long.timeline.ticks == ()
    look = styles(report)
    with plotting():
        text = svg(drift_figure([long.panels[0].drawable()], long.timeline, look))
        shorter = svg(drift_figure([report.tracks[1].panels[0].drawable()], long.timeline, look))
    assert "chunk borders" not in text
    assert len(text) < 1.2 * len(shorter) < 200_000


def test_the_page_has_a_section_for_each_length(report) -> None:
    drawings = {track.name: Drawings((), (), ()) for track in report.tracks}
    page = render(report, drawings, styles(report), (), lambda _: False)
    for name in ("60s", "240s", "1200s"):
        assert f'<section id="long-horizon-{name}">' in page
    assert page.count("much longer than the cache") == 3
    found = quality(report)["tracks"]
    assert [row["extended"] for row in found["long-horizon-240s"]["rows"] if row["label"] == "fifo"] == [1]
