"""Drift plots: what is drawn, where, and that nothing global changes."""

import io
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from magbench.reports import plots
from magbench.reports.aggregate import build_report
from magbench.reports.curves import Curve, Panel, Timeline
from tests.synthetic_run import make_entries, run_record

FLAT = Timeline(False, (0.5,), {})


@pytest.fixture(scope="module")
def report():
    return build_report(run_record(), make_entries())


def panel(*curves, axis="time"):
    return Panel("m@default", "s", "", axis, curves)


def curve(label, values, reference=False):
    nothing = (None,) * len(values)
    return Curve(label, reference, tuple(np.arange(len(values)) / 2), tuple(values), nothing, nothing, 1)


def looks(*labels):
    return {label: plots.Style(plots.PALETTE[i], plots.SOLID, 1.0) for i, label in enumerate(labels)}


def test_each_method_keeps_its_look_in_all_tracks(report):
    look = plots.styles(report)
    assert [look[label].color for label in report.labels] == list(plots.PALETTE[:4])
    assert len({(s.color, s.dash) for s in look.values()}) == 7


def test_curves_and_bands_are_those_of_the_panel(report):
    track = report.tracks[0]
    shown = next(p for p in track.panels if p.metric == "appearance_drift@default")
    with plots.plotting():
        figure = plots.drift_figure([shown], track.timeline, plots.styles(report))
    (ax,) = figure.axes
    drawn = {line.get_color(): line.get_xydata() for line in ax.get_lines()}
    for c in shown.curves:
        expected = np.column_stack([c.times, c.mean])
        assert np.allclose(drawn[plots.styles(report)[c.label].color], expected)
    methods = [c for c in shown.curves if not c.reference]
    bands = [c for c in ax.collections if type(c).__name__ == "FillBetweenPolyCollection"]
    assert len(bands) == len(methods)


def test_borders_events_and_switch_are_marked(report):
    track = report.tracks[1]
    shown = next(p for p in track.panels if p.metric == "retention@default")
    with plots.plotting():
        figure = plots.drift_figure([shown], track.timeline, plots.styles(report))
    (ax,) = figure.axes
    ticks = [sorted({p.vertices[0][0] for p in c.get_paths()}) for c in ax.collections if hasattr(c, "get_segments")]
    inside = [t for t in track.timeline.chunk_borders if 0 <= t <= 23 / 8]
    assert [t for t in ticks[0] if t >= 0] == pytest.approx(inside)
    assert [t for t in ticks[1] if t >= 0] == pytest.approx(
        [t for t in track.timeline.events["memrope"] if 0 <= t <= 23 / 8]
    )
    assert ax.get_xlabel() == "seconds after the switch"
    assert any(line.get_xdata() == [0, 0] for line in ax.get_lines() if len(line.get_xdata()) == 2)


def test_a_far_reference_does_not_squeeze_the_methods():
    shown = panel(curve("a", [1.0, 1.1]), curve("shuffled", [50.0, 51.0], reference=True))
    with plots.plotting():
        figure = plots.drift_figure([shown], FLAT, looks("a", "shuffled"))
    (ax,) = figure.axes
    assert ax.get_ylim()[1] < 2
    assert "off scale: shuffled" in [t.get_text() for t in ax.texts]


def test_constant_and_single_point_curves_can_be_drawn():
    with plots.plotting():
        for values in ([0.0, 0.0], [3.0]):
            assert plots.svg(plots.drift_figure([panel(curve("a", values))], FLAT, looks("a"))).startswith("<?xml")


def test_labels_are_text_not_mathematics_or_markup():
    nasty = "$\\frac{<script>&_^"
    with plots.plotting():
        text = plots.svg(plots.drift_figure([panel(curve(nasty, [1.0, 2.0]))], FLAT, looks(nasty)))
    assert "$\\frac{&lt;script&gt;&amp;_^" in text
    assert "<script" not in text


def test_same_data_same_bytes_and_no_date(report):
    def draw():
        with plots.plotting():
            figure = plots.drift_figure(report.tracks[0].panels[:2], report.tracks[0].timeline, plots.styles(report))
            return plots.svg(figure), plots.png(figure)

    first, second = draw(), draw()
    assert first == second
    assert "<dc:date>" not in first[0]
    assert not re.search(r"Matplotlib|20\d\d-", first[0].split("<g", 1)[1])


def test_png_has_paper_width(report):
    with plots.plotting():
        image = Image.open(io.BytesIO(plots.png(plots.cost_figure(report.tracks[0], plots.styles(report)))))
    assert image.width == round(plots.WIDTH * 200)


def test_cost_is_drawn_per_chunk(report):
    with plots.plotting():
        figure = plots.cost_figure(report.tracks[0], plots.styles(report))
    memory, time = figure.axes
    full = next(x for x in memory.get_lines() if x.get_color() == plots.styles(report)["full"].color)
    assert full.get_ydata()[-1] == pytest.approx(117 * 16 * 128 * 4 * 2 * 4 / 2**20)
    assert len(time.get_lines()) == 4


def test_no_trace_no_cost_figure(report):
    untraced = [(s, m, []) for s, m, _ in make_entries(1)]
    found = build_report(run_record(), untraced)
    assert plots.cost_figure(found.tracks[0], plots.styles(found)) is None


def test_settings_are_restored():
    before = dict(matplotlib.rcParams)
    with plots.plotting():
        assert matplotlib.rcParams["svg.hashsalt"] == "magbench"
    assert dict(matplotlib.rcParams) == before


def test_long_labels_get_their_own_legend_rows():
    assert plots._legend_columns(["memrope", "fifo"]) == 3
    assert plots._legend_columns(["self-forcing-30s-case02-forcingkv"]) == 1
