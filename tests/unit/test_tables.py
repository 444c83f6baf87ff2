"""The table writers: what they say, and that hostile text stays text."""

import csv
import io
import re

import pytest
from rich.console import Console

from magbench.records import Reduction
from magbench.reports import csvs, grids, tables
from magbench.reports.aggregate import build_report
from magbench.reports.grids import Grid, Item
from tests.synthetic_run import HOSTILE, make_entries, make_sweep, run_record, sweep_record

NASTY = Grid(
    title=HOSTILE,
    header=(("method",), (HOSTILE, "@x")),
    groups=(((Item(HOSTILE), Item("-0.5", "[-1, 0]", "-", (1,))),),),
    notes=(f"reason: {HOSTILE}\nsecond line\x1b[31m",),
    legend=(),
)


@pytest.fixture(scope="module")
def report():
    return build_report(run_record(), make_entries())


def shown(grid, width=200):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(tables.terminal(grid, width))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.12345, "0.123"), (-1.5, "-1.500"), (18.994, "18.99"), (123.45, "123.5"), (99999.0, "99999"),
     (1e-5, "1.0e-05"), (2.5e7, "2.5e+07")],
)  # fmt: skip
def test_numbers(value, text):
    assert grids.number(value) == text


def test_signs():
    assert (grids.signed(0.5), grids.signed(-0.5), grids.signed(0.0)) == ("+0.500", "-0.500", "0")


def test_headline_grid_says_everything(report):
    grid = grids.headline(report.tracks[0])
    by_label = {line[0].text: line for group in grid.groups for line in group}
    fifo = by_label["fifo"][1]
    assert fifo.mark == "-"
    assert "out of memory at chunk 7 (1 of 12 samples)" in grid.notes[fifo.notes[0] - 1]
    assert re.fullmatch(r"\[0\.\d{3}, 0\.\d{3}\]", fifo.detail)
    assert [len(group) for group in grid.groups] == [4, 3]
    assert grid.header[1] == ("appearance_drift *", "@default", "end ↓")
    assert any("unranked" in note for note in grid.notes)
    assert by_label["full"][0].detail.endswith("transfer")
    assert by_label["memrope"][-1].text == "23.00"
    assert by_label["real"][-1].text == "–"


def test_headline_grid_has_the_cost_peak_above_mean(report):
    grid = grids.headline(report.tracks[0])
    header = [" ".join(lines) for lines in grid.header]
    assert header[-5:] == ["past frames", "keys × passes", "K/V MiB", "state MiB", "speed frames/s"]
    rows = {line[0].text: {name: (i.text, i.detail) for name, i in zip(header, line, strict=True)}
            for group in grid.groups for line in group}  # fmt: skip
    assert rows["full"]["past frames"] == ("117", "(58.5)")
    assert rows["full"]["keys × passes"] == ("1320", "(676.5)")
    assert rows["memrope"]["K/V MiB"] == ("0.75", "(0.703)")
    assert rows["memrope"]["state MiB"] == ("0.016", "(0.016)")
    assert (rows["fifo"]["state MiB"], rows["real"]["state MiB"]) == (("0", ""), ("–", ""))


def test_a_second_network_is_a_column_of_its_own():
    track = build_report(sweep_record(), make_sweep(cases=1)).tracks[0]
    grid = grids.headline(track)
    at = grid.header.index(("network", "MiB"))
    assert {line[at].text for group in grid.groups for line in group if line[0].text.startswith("mag:w")} == {"5"}
    assert any("weights of a second network" in line for line in grid.legend)


def test_a_sweep_is_readable_at_100_columns():
    text = shown(grids.headline(build_report(sweep_record(), make_sweep(cases=10)).tracks[0]), 100)
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert re.search(r"past +keys × +K/V +state *\n", text)
    assert "too wide for here, see the files: motion, ssim_consecutive, network, speed" in text


def test_too_few_cases_is_said():
    track = build_report(run_record(), make_entries(8)).tracks[0]
    assert any("too few cases to test" in line for line in grids.headline(track).legend)
    assert any("descriptive only" in line for line in grids.headline(track).legend)
    assert any("too few cases to test (8, fewer than 10)" in note for note in grids.differences(track).notes)


def test_drift_functionals_stand_beside_their_nulls():
    """Where a functional is shown, so are `real` and `static`, and what the reader must know of it."""
    entries = []
    for sample, metrics, trace in make_entries(2):
        drift = Reduction(name="start_end@15%", state="value", value=0.1)
        metrics = [m.model_copy(update={"reductions": (*m.reductions, drift)}) if m.reductions else m for m in metrics]
        entries.append((sample, metrics, trace))
    track = build_report(run_record(), entries).tracks[0]
    grid = grids.levels(track)
    assert {("real",), ("static",)} <= set(grid.header)
    assert grid.legend[-1] == grids.NULLS
    row = next(
        line for group in grid.groups for line in group if line[0].text.startswith("appearance_drift@default/start")
    )
    assert [item.text for item, head in zip(row, grid.header, strict=True) if head in (("real",), ("static",))] == [
        "0.100"
    ] * 2
    assert grids.NULLS not in grids.levels(build_report(run_record(), make_entries(2)).tracks[0]).legend


def test_terminal_leaves_out_columns_by_name_never_silently(report):
    grid = grids.headline(report.tracks[1])
    wide, narrow = shown(grid, 220), shown(grid, 110)
    assert "magnitude" in wide and "too wide" not in wide
    assert "magnitude" not in narrow
    assert re.search(r"too wide for here, see the files: .*motion", narrow, re.DOTALL)
    assert "recall" in narrow and max(map(len, narrow.splitlines())) <= 110


def test_terminal_prints_markup_as_text():
    grid = Grid("t", (("method",), ("x",)), (((Item("[red]m[/red]"), Item("1", "[0, 2]")),),), (), ())
    assert "[red]m[/red]" in shown(grid) and "[0, 2]" in shown(grid)
    assert "\x1b" not in "".join(tables.footnotes(NASTY))
    evil = "a\x1b[31m\nb"
    grid = Grid(evil, (("method",), (evil,)), (((Item(evil), Item(evil, evil)),),), (), ())
    assert "\x1b" not in shown(grid) and shown(grid).count("a[31m b") == 5


def test_markdown_has_one_line_per_row_and_no_live_markup():
    text = tables.markdown(NASTY)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line) for line in lines]
    assert [len(c) for c in cells] == [4, 4, 4]
    assert "<script" not in text
    assert not re.search(r"(?<!\\)[`$]", text)
    assert "second line\\[31m" in text and "\x1b" not in text


def test_latex_escapes_everything():
    text = tables.latex(NASTY)
    body = text.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
    assert body.count("{") == body.count("}")
    assert "\\input{" not in text and "\\textbackslash{}input" in text
    assert not re.search(r"(?<!\\)[#%&_]", text.split("\n", 1)[1].replace(" & ", " "))
    assert re.findall(r"(?<!\\)\$[^$]*\$", text.replace(r"\$", "")) == ["$-$", "$-$"]
    assert "<" not in text and "\\textsuperscript{- 1}" in text


def test_latex_rows_match_the_header(report):
    for grid in (grids.headline(report.tracks[0]), grids.levels(report.tracks[1]), grids.differences(report.tracks[0])):
        text = tables.latex(grid)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(grid.header) - 1}
        assert all(ord(c) < 128 for c in text)


def test_differences_grid(report):
    grid = grids.differences(report.tracks[0])
    line = next(line for line in grid.groups[0] if line[0].text.startswith("appearance_drift@default/end"))
    fifo = line[1 + [h[0] for h in grid.header[1:]].index("fifo − memrope")]
    assert fifo.text.startswith("+0.1") and fifo.mark == "-"
    assert "pₐ=" in fifo.detail and "MDE" in fifo.detail


def test_csv_has_full_precision_and_every_cell(report):
    track = report.tracks[0]
    lines = list(csv.DictReader(io.StringIO(csvs.table_csv(track))))
    assert len(lines) == len(track.rows) * len(track.columns)
    line = next(x for x in lines if x["method"] == "fifo" and x["reduction"] == "end")
    cell = next(r for r in track.rows if r.label == "fifo").cells["appearance_drift@default/end"]
    assert float(line["value"]) == cell.estimate.value
    assert float(line["p_holm"]) == cell.p_adjusted
    assert (line["samples"], line["expected"], line["mark"]) == ("11", "12", "-")
    missing = next(x for x in lines if x["metric"] == "lpips_consecutive")
    assert (missing["state"], missing["value"]) == ("not_applicable", "")
    assert "no weights" in missing["reasons"]


def test_samples_csv_lists_failures_too(report):
    lines = list(csv.DictReader(io.StringIO(csvs.samples_csv(report))))
    failed = [x for x in lines if x["method"] == "fifo" and x["case"] == "lon-03"]
    assert failed and {(x["state"], x["reason"]) for x in failed} == {("error", "out of memory at chunk 7")}


def test_csv_defuses_formulas():
    assert csvs._field("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert csvs._field("-") == "-"
    assert csvs._field(-0.5) == -0.5


def test_curves_csv_has_one_line_per_point(report):
    lines = csvs.curves_csv(report).splitlines()
    points = sum(len(c.times) for t in report.tracks for p in t.panels for c in p.curves)
    assert len(lines) == 1 + points


def test_a_label_with_many_parameters_is_broken_between_them():
    label = "deep-forcing:keep=7,sink=2,window=9"
    text = shown(Grid("t", (("method",), ("x",)), (((Item(label, "rank 1"), Item("0.5")),),), (), ()), 100)
    assert [line.strip() for line in text.splitlines()[-3:]] == [
        "deep-forcing:keep=7,sink=2,   0.5", "window=9", "rank 1"
    ]  # fmt: skip


def test_a_long_label_does_not_push_the_numbers_out():
    label = f"a walker {'very ' * 60}slowly\n"
    wide = Grid("t", (("method",), ("metric", "x")), (((Item(label), Item("0.5")),),), (), (), optional=(1,))
    text = shown(wide, 100)
    assert "0.5" in text
    assert re.search(r"a walker very .*….* slowly +0\.5", text)
