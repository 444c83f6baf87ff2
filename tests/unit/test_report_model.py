"""Records to the report: aggregation, states, comparison, ranks, curves."""

import subprocess
import sys

import numpy as np
import pytest

from magbench import stats
from magbench.errors import ConfigError
from magbench.records import MetricRecord, Reduction, Series
from magbench.reports.aggregate import build_report
from magbench.reports.model import Use
from tests.synthetic_run import FPS, METHODS, make_entries, run_record

ENTRIES = make_entries()
END = "appearance_drift@default/end"


@pytest.fixture(scope="module")
def report():
    return build_report(run_record(), ENTRIES)


def track(report, name):
    return next(t for t in report.tracks if t.name == name)


def row(found, label):
    return next(r for r in found.rows if r.label == label)


def values_by_hand(label, metric, reduction, name="long-horizon"):
    return {
        s.case.id: r.value
        for s, metrics, _ in ENTRIES
        if s.method.label == label and s.case.track == name
        for m in metrics
        if m.name == metric
        for r in m.reductions
        if r.name == reduction and r.value is not None
    }


def test_cells_are_means_over_cases(report):
    cell = row(track(report, "long-horizon"), "memrope").cells[END]
    by_hand = values_by_hand("memrope", "appearance_drift@default", "end")
    assert cell.estimate.value == pytest.approx(np.mean(list(by_hand.values())))
    assert (cell.estimate.n, cell.samples, cell.expected, cell.reasons) == (12, 12, 12, ())


def test_a_failed_sample_is_counted_not_dropped(report):
    cell = row(track(report, "long-horizon"), "fifo").cells[END]
    assert (cell.state, cell.samples, cell.expected) == ("value", 11, 12)
    assert cell.reasons == ("error: out of memory at chunk 7 (1 of 12 samples)",)
    failure = next(f for f in track(report, "long-horizon").failures if f.label == "fifo")
    assert (failure.case, failure.status, failure.hint) == ("lon-03", "error", "try --workers 1")


def test_a_missing_sample_and_an_unscored_one_are_errors():
    entries = [e for e in make_entries(2) if (e[0].method.label, e[0].case.id) != ("memrope", "lon-01")]
    entries = [(s, [] if s.method.label == "full" else m, t) for s, m, t in entries]
    found = track(build_report(run_record(), entries), "long-horizon")
    assert row(found, "memrope").cells[END].reasons == (
        "error: no such sample yet, the run is incomplete (1 of 2 samples)",
    )
    unscored = row(found, "full").cells[END]
    assert (unscored.state, unscored.reasons) == ("error", ("error: not scored yet (2 of 2 samples)",))


def test_a_metric_nobody_has_keeps_its_column_and_its_hint(report):
    found = track(report, "long-horizon")
    cell = row(found, "memrope").cells["lpips_consecutive@default"]
    assert (cell.state, cell.estimate) == ("not_applicable", None)
    assert cell.reasons[0].startswith("not applicable: no weights: AlexNet")
    assert [m.metric for m in found.missing] == ["lpips_consecutive@default"]
    assert "weights fetch" in found.missing[0].hint


def test_not_applicable_method_says_why_in_every_cell(report):
    full = row(track(report, "mag-bench"), "full")
    assert {cell.state for cell in full.cells.values()} == {"not_applicable"}
    assert all("trained span" in cell.reasons[0] for cell in full.cells.values())


def test_differences_are_paired_by_case_and_only_where_both_exist(report):
    cell = row(track(report, "long-horizon"), "fifo").cells[END]
    mine = values_by_hand("fifo", "appearance_drift@default", "end")
    base = values_by_hand("memrope", "appearance_drift@default", "end")
    assert cell.difference.value == pytest.approx(np.mean([mine[c] - base[c] for c in mine]))
    assert cell.difference.n == 11


def test_marks_follow_direction_and_holm(report):
    found = track(report, "long-horizon")
    assert row(found, "fifo").cells[END].mark == "-"
    assert row(found, "fifo").cells["motion@default/magnitude"].mark == "(≠)"
    assert row(found, "memrope").cells[END].mark == ""
    primary = [c.key for c in found.columns if c.primary]
    tested = [row(found, m).cells[k] for m in METHODS[1:] for k in primary]
    assert [c.p_adjusted for c in tested] == pytest.approx(stats.holm([c.difference.p for c in tested]))
    assert row(found, "fifo").cells["motion@default/magnitude"].p_adjusted is None


def test_better_is_up_for_a_metric_where_higher_is_better():
    report = build_report(run_record(), ENTRIES, baseline="fifo")
    cells = row(track(report, "mag-bench"), "memrope").cells
    assert cells["landmark_recall@mini/recall"].mark == "+"
    assert cells["appearance_drift@default/end"].mark == "(+)"
    assert cells["appearance_drift@default/end"].difference.value < 0


def test_unknown_baseline_is_refused():
    with pytest.raises(ConfigError, match="no method 'memrop'"):
        build_report(run_record(), make_entries(1), baseline="memrop")


def test_rows_are_sorted_by_the_first_primary_endpoint_references_last(report):
    found = track(report, "mag-bench")
    assert [r.label for r in found.rows] == [
        "memrope", "memrope:memory=none", "fifo", "full", "real", "static", "shuffled"
    ]  # fmt: skip
    assert [r.rank for r in found.rows] == [(1, 1), (2, 2), (3, 3), None, None, None, None]


def test_a_rank_is_an_interval_where_the_data_decide_nothing(report):
    ranks = {r.label: r.rank for r in track(report, "long-horizon").methods}
    assert ranks["memrope"] == ranks["full"] == (1, 2)
    assert ranks["fifo"] == (3, 3)


def test_too_few_cases_give_no_marks_and_no_ranks():
    found = track(build_report(run_record(), make_entries(9)), "long-horizon")
    cells = [cell for r in found.methods for cell in r.cells.values()]
    assert {cell.mark for cell in cells} == {""}
    assert {r.rank for r in found.methods} == {None}
    notes = {cell.difference.note for cell in cells if cell.difference}
    assert notes == {"too few cases to test"}


def test_little_motion_is_listed_but_unranked(report):
    found = row(track(report, "long-horizon"), "memrope:memory=none")
    assert found.rank is None
    assert found.unranked == "unranked: its motion is 27 % of the real row's, below half"


def test_a_frozen_method_is_unranked():
    entries = []
    for sample, metrics, trace in make_entries(2):
        if sample.method.label == "memrope":
            still = Reduction(name="freeze_share", state="value", value=0.75, direction="lower")
            metrics = [
                m.model_copy(update={"reductions": (m.reductions[0], still)}) if m.metric == "motion" else m
                for m in metrics
            ]
        entries.append((sample, metrics, trace))
    found = row(track(build_report(run_record(), entries), "long-horizon"), "memrope")
    assert found.unranked == "unranked: frozen for 75 % of the time"


def test_headline_is_short_primary_first(report):
    keys = [c.key for c in track(report, "mag-bench").headline]
    assert keys[:2] == ["landmark_recall@mini/recall", "retention@default/aligned_psnr@unheld"]
    assert "motion@default/magnitude" in keys
    assert len(keys) == 5
    assert "ssim_consecutive@default/spike_rate" in [c.key for c in track(report, "long-horizon").headline]
    assert not any(k.startswith("efficiency") for k in keys)


def test_cost_is_measured_from_the_traces(report):
    found = track(report, "long-horizon")
    full, fifo, memrope = (row(found, label).cost for label in ("full", "fifo", "memrope"))
    assert (full.past_frames.peak, full.past_frames.mean) == (117, 58.5)
    assert (fifo.past_frames.peak, fifo.past_frames.mean) == (12, (0 + 3 + 6 + 9 + 36 * 12) / 40)
    assert fifo.keys_passes.peak == 11 * 15
    assert fifo.keys_passes.mean == pytest.approx(11 * (fifo.past_frames.mean + 3))
    assert memrope.cache_bytes.peak == 12 * 16 * 128 * 4 * 2 * 4
    assert memrope.state_bytes == Use(16384, 16384)
    assert (fifo.state_bytes.peak, fifo.network_bytes) == (0, 0)
    assert row(found, "real").cost is None


def test_cost_is_that_of_generated_chunks_and_weighs_cases_alike(report):
    found = row(track(report, "mag-bench"), "memrope").cost
    assert found.past_frames == Use(12, 12)
    entries = make_entries(2)
    sample, metrics, trace = entries[1]
    recache = trace[-1].model_copy(update={"kind": "recache", "keys_passes": 15.0, "cache_bytes": 9 << 20})
    entries[1] = (sample, metrics, [*trace[:-1], recache, trace[-1]])
    assert sample.method.label == "fifo" and sample.case.id == "lon-00"
    again = sample.model_copy(update={"key": "again", "seed": 1})
    entries.append((again, metrics, trace))
    found = row(track(build_report(run_record(), entries), "long-horizon"), "fifo").cost
    plain = 11 * ((3 + 6 + 9 + 36 * 12) / 40 + 3)
    assert found.keys_passes.peak == 11 * 15 + 15
    assert found.keys_passes.mean == pytest.approx(((plain + 15 / 40 + plain) / 2 + plain) / 2)
    assert found.cache_bytes.peak == 9 << 20


def test_seeds_are_averaged_within_a_case():
    entries = []
    for sample, metrics, trace in make_entries(2):
        entries.append((sample, metrics, trace))
        if sample.status == "ok" and sample.case.id == "lon-00":
            again = sample.model_copy(update={"key": sample.key + "b", "seed": 1})
            entries.append((again, metrics, trace))
    found = track(build_report(run_record(), entries), "long-horizon")
    cell = row(found, "memrope").cells[END]
    plain = values_by_hand("memrope", "appearance_drift@default", "end")
    assert (cell.samples, cell.estimate.n) == (3, 2)
    assert cell.estimate.value == pytest.approx((plain["lon-00"] + plain["lon-01"]) / 2)


def panel(found, metric, series):
    return next(p for p in found.panels if (p.metric, p.series) == (metric, series))


def test_curves_are_means_and_start_at_the_switch(report):
    found = track(report, "mag-bench")
    curve = next(c for c in panel(found, "retention@default", "aligned_psnr").curves if c.label == "memrope")
    lines = [
        s.values
        for e, metrics, _ in ENTRIES
        if e.case.track == "mag-bench" and e.method.label == "memrope"
        for m in metrics
        if m.metric == "retention"
        for s in m.series
    ]
    assert found.timeline.switch
    assert curve.times == pytest.approx(np.arange(24) / FPS, abs=1e-3)
    assert curve.mean == pytest.approx(np.mean(lines, axis=0))
    assert all(low < mean < high for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True))


def test_a_curve_ends_where_its_shortest_video_ends():
    entries = make_entries(2)
    sample, metrics, trace = next(e for e in entries if e[0].method.label == "memrope")
    short = Series(name="distance", times=(0.0, 0.125, 0.25), values=(1.0, 1.0, 1.0))
    cut = [m.model_copy(update={"series": (short,)}) if m.metric == "appearance_drift" else m for m in metrics]
    entries[entries.index((sample, metrics, trace))] = (sample, cut, trace)
    found = track(build_report(run_record(), entries), "long-horizon")
    curve = next(c for c in panel(found, "appearance_drift@default", "distance").curves if c.label == "memrope")
    assert curve.times == (0.0, 0.125, 0.25)
    assert curve.low == (None, None, None)


def test_timeline_has_borders_and_the_caches_events(report):
    found = track(report, "mag-bench").timeline
    assert found.chunk_borders[:2] == (0.375, 0.75)
    assert found.events["fifo"] == ()
    traced = next(e for e in track(report, "mag-bench").entries if e.sample.method.label == "memrope").trace
    history = next(chunk.first_frame for chunk in traced if chunk.kind == "generate")
    expected = [(c.first_frame - history) / 8 for c in traced if c.events and c.kind == "generate"]
    assert list(found.events["memrope"]) == expected
    assert len(expected) > 2


def test_given_videos_are_rows_of_their_own():
    entries = []
    for index, label in ((0, "a"), (1, "b")):
        for sample, metrics, _ in make_entries(2):
            case = sample.case
            if case.track != "long-horizon" or case.id != f"lon-0{index}":
                continue
            if sample.method.label not in ("memrope", "static"):
                continue
            method = sample.method
            if method.label == "memrope":
                method = method.model_copy(update={"label": label, "policy": "file", "applicability": "external"})
            videos = case.model_copy(update={"track": "videos", "id": label})
            entries.append((sample.model_copy(update={"case": videos, "method": method}), metrics, []))
    report = build_report(run_record(kind="score", methods=("b", "a"), primary={}), entries)
    found = track(report, "videos")
    assert [r.label for r in found.rows] == ["b", "a", "static"]
    assert row(found, "a").cells[END].reasons == ()
    assert row(found, "a").cells[END].expected == 1
    assert row(found, "static").cells[END].expected == 2
    assert found.baseline == ""
    assert {c.label for p in found.panels for c in p.curves} == {"a", "b"}


def test_metric_of_another_version_without_the_reduction():
    entries = make_entries(2)
    sample, metrics, trace = entries[0]
    lone = MetricRecord(
        metric="appearance_drift",
        profile="default",
        version=2,
        state="value",
        video_sha256="",
        reductions=(Reduction(name="new", state="value", value=1.0),),
    )
    entries[0] = (sample, [lone, *metrics[1:]], trace)
    found = row(track(build_report(run_record(), entries), "long-horizon"), "memrope")
    assert found.cells[END].reasons == ("not applicable: not reported for this video (1 of 2 samples)",)


def test_empty_run():
    assert build_report(run_record(), []).tracks == ()


def test_reports_see_only_records_and_store_and_no_torch():
    code = (
        "import sys, magbench.reports, magbench.reports.write\n"
        "allowed = {'errors', 'horizon', 'names', 'records', 'reports', 'stats', 'store', 'traces'}\n"
        "found = {m.split('.')[1] for m in sys.modules if m.startswith('magbench.')}\n"
        "sys.exit(f'{found - allowed}' if found - allowed or 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
