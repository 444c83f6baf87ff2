"""Several budgets in one run: who is compared and ranked with whom, what is drawn, and what stands for the rest."""

import csv
import io
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from magbench import stats
from magbench.reports import csvs, grids, plots, sweep
from magbench.reports.aggregate import build_report
from tests.synthetic_run import OWN, make_entries, make_sweep, run_record, sweep_record

END, ANCHOR = "appearance_drift@default/end", "subject_consistency@mini/anchor_end"
ENTRIES = make_sweep()


@pytest.fixture(scope="module")
def track():
    return build_report(sweep_record(), ENTRIES).tracks[0]


def row(track, label):
    return next(found for found in track.rows if found.label == label)


def by_case(label, metric="appearance_drift", reduction="end"):
    return {
        sample.case.id: found.value
        for sample, metrics, _ in ENTRIES
        if sample.method.label == label
        for record in metrics
        if record.metric == metric
        for found in record.reductions
        if found.name == reduction
    }


def test_blocks_are_budgets_then_unmatched_then_references(track):
    blocks = [{found.label for found in members} for _, members in groupby(track.rows, lambda r: r.block)]
    assert blocks == [
        {"mag:budget=2"},
        {"fifo:window=9", "memrope:window=9", "mag:window=9"},
        {"fifo", "memrope", "mag:window=12"},
        {"fifo:window=15", "memrope:window=15", "mag:window=15"},
        {"fifo:window=21", "memrope:window=21", "mag:window=21"},
        {"mag"},
        {"full"},
        {"real", "static", "shuffled"},
    ]
    assert [line[0].text for line in grids.headline(track).groups[2]] == ["mag:window=12", "memrope", "fifo"]


def test_ranks_are_those_among_methods_of_the_same_budget(track):
    labels = ("fifo", "memrope", "mag:window=12")
    alone = stats.rank_intervals({label: {k: -v for k, v in by_case(label).items()} for label in labels})
    assert {label: row(track, label).rank for label in labels} == alone
    assert alone["mag:window=12"] == (1, 2) and alone["fifo"] == (2, 3)
    assert row(track, "mag").rank is None
    legend = grids.headline(track).legend
    assert any("rank a–b" in line and "among methods of the same budget" in line for line in legend)


def test_one_budget_for_all_is_ranked_as_before():
    found = build_report(run_record(), make_entries(10)).tracks[0]
    assert not any("of the same budget" in line for line in grids.headline(found).legend)


def test_an_unmatched_row_is_compared_but_not_ranked(track):
    full = row(track, "full")
    assert (full.rank, full.unranked) == (None, "unmatched: sees all past frames whatever the budget")
    assert full.cells[END].mark == "+"
    item = next(line[0] for group in grids.headline(track).groups for line in group if line[0].text == "full")
    assert item.detail == "unmatched, transfer"


def test_an_unmatched_budget_is_said():
    entries = [
        (s.model_copy(update={"method": s.method.model_copy(update={"matched": False, "budget_frames": 18})}), m, t)
        if s.method.label == "full"
        else (s, m, t)
        for s, m, t in make_entries(1)
    ]
    found = row(build_report(run_record(), entries).tracks[0], "full")
    assert found.unranked == "unmatched: sees 18 past frames whatever the budget"


@pytest.mark.parametrize(
    ("label", "against"),
    [("memrope", "fifo"), ("mag:window=21", "fifo:window=21"), ("fifo:window=9", ""), ("fifo", "fifo:window=9"),
     ("mag", "fifo:window=9"), ("full", "fifo:window=9"), ("real", "")],
)  # fmt: skip
def test_each_row_is_compared_with_the_baseline_at_its_budget(track, label, against):
    found = row(track, label)
    assert found.against == against
    difference = found.cells[END].difference
    if not against:
        assert difference is None
        return
    mine, other = by_case(label), by_case(against)
    assert difference.value == pytest.approx(np.mean([mine[case] - other[case] for case in mine.keys() & other]))
    assert f"{label} − {against}" in [lines[0] for lines in grids.differences(track).header]
    lines = csv.DictReader(io.StringIO(csvs.table_csv(track)))
    assert {x["baseline"] for x in lines if (x["method"], x["reduction"]) == (label, "end")} == {against}


def test_the_legend_says_what_each_row_is_compared_with(track):
    said = "against fifo at the same budget (where there is none, and fifo itself: fifo:window=9), paired by case"
    assert any(line.startswith(said) for line in grids.headline(track).legend)


def test_a_refused_budget_has_its_reason_once(track):
    grid = grids.headline(track)
    (line,) = next(group for group in grid.groups if group[0][0].text == "mag:budget=2")
    assert [note for note in grid.notes if "can't use" in note] == ["mag can't use a budget of 2 frames."]
    assert grid.notes[line[0].notes[0] - 1] == "mag can't use a budget of 2 frames."
    assert {item.text for item in line[1:]} == {"n/a", "–"}
    assert not any(item.notes for item in line[1:])
    assert "mag:budget=2" not in str(grids.differences(track).header)


def test_endpoints_are_means_against_the_past_frames_measured(track):
    first, second = sweep.endpoints(track)
    assert (first.column.key, second.column.key) == (END, ANCHOR)
    lines = {line.family: line for line in first.lines}
    assert set(lines) == {*OWN, "full"}
    assert [(p.past_frames, p.own) for p in lines["fifo"].points] == [(6, False), (9, True), (12, False), (18, False)]
    assert [(p.past_frames, p.own) for p in lines["mag"].points][-2:] == [(18, False), (23, True)]
    assert [p.past_frames for p in lines["full"].points] == [117] and not lines["full"].matched
    fifo = lines["fifo"].points[2].estimate
    assert fifo.value == pytest.approx(np.mean(list(by_case("fifo:window=15").values())))
    assert fifo.low < fifo.value < fifo.high
    assert first.references["static"] == pytest.approx(np.mean(list(by_case("static").values())))
    assert sweep.absent(track) == ("mag:budget=2: mag can't use a budget of 2 frames.",)


def test_without_several_budgets_there_is_nothing_to_draw_and_nothing_left_out():
    found = build_report(run_record(), make_entries(1)).tracks[0]
    assert sweep.endpoints(found) == ()
    assert sweep.shown(found) == found.rows


def test_a_large_sweep_shows_the_baselines_own_budget_over_time(track):
    assert {found.label for found in sweep.shown(track)} == {
        "fifo", "memrope", "mag:window=12", "full", "real", "static", "shuffled"
    }  # fmt: skip
    assert sweep.common_budget(track) == 9


@pytest.mark.parametrize(
    ("gone", "labels"),
    [
        ("mag:window=9 mag:window=12 mag:window=15 mag:window=21", "fifo memrope mag full"),
        ("memrope mag:window=12", "fifo:window=9 memrope:window=9 mag:window=9 full"),
        ("fifo", "fifo:window=9 memrope:window=9 mag:window=9 full"),
    ],
)
def test_the_budget_shown_is_one_that_most_methods_have_and_else_their_own(gone, labels):
    entries = [(s, m, [] if s.method.label in gone.split() else t) for s, m, t in make_sweep(cases=1)]
    found = build_report(sweep_record(), entries).tracks[0]
    assert {each.label for each in sweep.shown(found) if not each.reference} == set(labels.split())


def test_a_small_sweep_shows_all_its_rows():
    entries = [e for e in make_sweep(cases=1) if e[0].method.family == "fifo" or e[0].method.policy == "reference"]
    found = build_report(sweep_record(methods=("fifo",)), entries).tracks[0]
    assert len(found.methods) == 4
    assert sweep.shown(found) == found.rows
    look = plots.styles(build_report(sweep_record(), entries))
    dashes = {look[r.label].dash for r in found.methods}
    assert len(dashes) == 4 and len({look[r.label].color for r in found.methods}) == 1
    assert look["fifo"].dash == plots.SOLID


def test_families_keep_one_look_where_one_budget_stands_for_all(track):
    look = plots.styles(build_report(sweep_record(), ENTRIES))
    assert look["memrope:window=21"] == look["memrope"]
    assert len({(look[r.label].color, look[r.label].dash) for r in sweep.shown(track)}) == 7


def test_the_figure_has_every_point_its_interval_and_marks_the_own_budget(track):
    endpoint = sweep.endpoints(track)[0]
    look = plots.styles(build_report(sweep_record(), ENTRIES))
    with plots.plotting():
        figure = plots.budget_figure([endpoint], look)
    (ax,) = figure.axes
    for line in endpoint.lines:
        mine = [drawn for drawn in ax.get_lines() if drawn.get_color() == look[line.family].color]
        joined = next(drawn for drawn in mine if drawn.get_linestyle() != "None").get_xydata()
        assert joined[:, 1].tolist() == [point.estimate.value for point in line.points]
        assert joined[:, 0] == pytest.approx([point.past_frames for point in line.points], rel=0.03)
        hollow = [drawn for drawn in mine if drawn.get_markerfacecolor() == "white"]
        own = [point.estimate.value for point in line.points if point.own and line.matched]
        assert [value for drawn in hollow for value in drawn.get_ydata()] == own
    ends = sorted(tuple(path.vertices[:, 1]) for bars in ax.collections for path in bars.get_paths())
    assert ends == sorted((p.estimate.low, p.estimate.high) for line in endpoint.lines for p in line.points)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["6", "9", "12", "18", "23", "117"]
    levels = [drawn.get_ydata()[0] for drawn in ax.get_lines() if list(drawn.get_xdata()) == [0, 1]]
    assert levels == [endpoint.references[label] for label in ("real", "static")]
    assert [text.get_text() for text in ax.texts] == ["off scale: shuffled"]


def test_points_without_intervals_can_be_drawn(track):
    endpoint = sweep.endpoints(track)[0]
    bare = replace(endpoint.lines[0].points[0], estimate=stats.Estimate(1.0, 1))
    endpoint = replace(endpoint, lines=(replace(endpoint.lines[0], points=(bare,)),))
    with plots.plotting():
        text = plots.svg(plots.budget_figure([endpoint], plots.styles(build_report(sweep_record(), ENTRIES))))
    assert text.startswith("<?xml")
