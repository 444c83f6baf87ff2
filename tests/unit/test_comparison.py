"""Two runs side by side: what blocks, what differs, and what every mark means."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import magbench
from magbench.comparability import comparability
from magbench.comparison import Comparison, Row, compare
from magbench.errors import ConfigError, IncompatibleRunsError
from magbench.records import CaseRecord, MethodRecord, MetricRecord, Reduction, RunRecord, SampleRecord, VideoRef
from magbench.reports.comparison import as_json, as_markdown, grids, legend, notices, summary
from magbench.results import Results
from magbench.stats import TOO_FEW_TO_TEST
from tests.synthetic_run import make_run

ROOT = Path(__file__).resolve().parents[2]
TRACK = "long-horizon"
UP, DOWN, LEVEL, SPEED = "good@mini/up", "good@mini/down", "level@default/mean", "efficiency@default/fps"
SHAPES = {UP: ("higher", ""), DOWN: ("lower", "s"), LEVEL: ("none", ""), SPEED: ("higher", "/s")}
Values = Mapping[str, list[float | str | None]]
"""Column -> per case: a value, the reason of an error, or None where the reduction isn't there."""


def run_record(**changes: Any) -> RunRecord:
    fields = {
        "magbench_version": "0.1.0",
        "kind": "run",
        "suite": "mini",
        "suite_version": 1,
        "model": "mini",
        "status": "complete",
        "primary": {TRACK: (UP, DOWN)},
        "versions": {"torch": "2.6.0"},
        "hardware": {"cpu": "an ordinary one", "cores": "2", "memory_gib": "7.5"},
        "weights": {"vae": "a" * 64, "transformer": "b" * 64},
    }
    return RunRecord(**{**fields, **changes})


def make(methods: Mapping[str, Values], seeds: tuple[int, ...] = (0,), root: str = "a", **run: Any) -> Results:
    """A run in memory: every method has the same value for all seeds, plus the seed."""
    samples, metrics = [], {}
    for label, columns in methods.items():
        for index in range(len(next(iter(columns.values())))):
            for seed in seeds:
                key = f"{label}.{index}.{seed}"
                samples.append(
                    SampleRecord(
                        key=key,
                        case=CaseRecord(id=f"case-{index:02d}", track=TRACK, prompt=f"number {index}", frames=24),
                        method=MethodRecord(label=label, policy=label, applicability="in-distribution"),
                        model="mini",
                        seed=seed,
                        status="ok",
                        truth=VideoRef(path="t.mkv", sha256=f"{index}", frames=24, fps=8, width=64, height=64),
                    )
                )
                metrics[key] = tuple(records({name: column[index] for name, column in columns.items()}, seed))
    return Results(Path(root), run_record(methods=tuple(methods), **run), tuple(samples), metrics)


def records(values: Mapping[str, float | str | None], seed: int) -> list[MetricRecord]:
    by_metric: dict[str, list[Reduction]] = {}
    for key, value in values.items():
        name, _, reduction = key.partition("/")
        direction, unit = SHAPES[key]
        shape = {"name": reduction, "direction": direction, "unit": unit}
        found = by_metric.setdefault(name, [])
        if isinstance(value, str):
            found.append(Reduction(**shape, state="error", reason=value))
        elif value is not None:
            found.append(Reduction(**shape, state="value", value=value + seed))
    made = []
    for name, reductions in by_metric.items():
        metric, _, profile = name.partition("@")
        common = {"metric": metric, "profile": profile, "version": 1, "video_sha256": "v"}
        made.append(
            MetricRecord(**common, state="value", reductions=tuple(reductions))
            if reductions
            else MetricRecord(**common, state="not_applicable", reason="no weights")
        )
    return made


def change_samples(results: Results, **update: Any) -> Results:
    return replace(results, samples=tuple(s.model_copy(update=update) for s in results.samples))


def change_cases(results: Results, only: str = "", **update: Any) -> Results:
    samples = [
        s.model_copy(update={"case": s.case.model_copy(update=update)}) if only in ("", s.case.id) else s
        for s in results.samples
    ]
    return replace(results, samples=tuple(samples))


def change_metrics(results: Results, **update: Any) -> Results:
    metrics = {key: tuple(m.model_copy(update=update) for m in found) for key, found in results.metrics.items()}
    return replace(results, metrics=metrics)


def rows(comparison: Comparison, method: int = 0) -> dict[str, Row]:
    return {row.column.key: row for row in comparison.tracks[0].methods[method].rows}


BASE = [0.1 * i for i in range(12)]


def test_difference_is_new_minus_old_and_marks_follow_the_direction() -> None:
    rise = [x + 0.5 + 0.01 * i for i, x in enumerate(BASE)]
    old = make({"memrope": {UP: BASE, DOWN: BASE, LEVEL: BASE}})
    new = make({"memrope": {UP: rise, DOWN: rise, LEVEL: rise}})
    found = rows(compare(old, new))
    assert list(found) == [UP, DOWN, LEVEL]
    d = found[UP].difference
    assert d is not None
    assert d.value == pytest.approx(0.5 + 0.01 * 5.5)
    assert d.p == pytest.approx(2 / 2**12)  # all twelve of one sign: the most extreme of 4096 flips, both tails
    assert found[UP].p_adjusted == found[DOWN].p_adjusted == pytest.approx(2 * 2 / 2**12)  # Holm, two endpoints
    assert found[LEVEL].p_adjusted is None
    assert [row.mark for row in found.values()] == ["+", "-", "≠"]
    assert [row.shown_mark for row in found.values()] == ["+", "-", "(≠)"]
    assert (found[UP].a.value, found[UP].b.value) == (pytest.approx(np.mean(BASE)), pytest.approx(np.mean(rise)))
    back = rows(compare(new, old))
    assert [row.mark for row in back.values()] == ["-", "+", "≠"]
    assert back[UP].difference.value == pytest.approx(-d.value)  # type: ignore[union-attr]


def test_noise_is_no_difference() -> None:
    noise = [x + (0.1 if i % 2 else -0.1) for i, x in enumerate(BASE)]
    found = rows(compare(make({"m": {UP: BASE, LEVEL: BASE}}), make({"m": {UP: noise, LEVEL: noise}})))
    assert (found[UP].mark, found[UP].shown_mark, found[LEVEL].shown_mark) == ("~", "~", "(~)")
    assert not found[UP].changed


def test_a_run_against_itself_is_the_same_everywhere() -> None:
    run = make({"m": {UP: BASE, DOWN: BASE, LEVEL: BASE, SPEED: BASE}, "n": {UP: BASE}})
    found = compare(run, run)
    for row in (row for track in found.tracks for method in track.methods for row in method.rows):
        if row.difference:
            assert (row.mark, row.changed, row.difference.value) == ("=", False, 0)
    d = rows(found)[UP].difference
    assert d is not None
    assert (d.low, d.high, d.p) == (0, 0, 1)
    assert grids(found) == []
    assert len(grids(found, everything=True)) == 2
    assert found.comparability.differing == ("A and B are the same folder",)


def test_equal_pairs_are_no_tests_for_holm() -> None:
    noisy = [x + 0.2 + 0.01 * i for i, x in enumerate(BASE)]
    old = make({"same": {UP: BASE, DOWN: BASE}, "mine": {UP: BASE, DOWN: BASE}})
    new = make({"same": {UP: BASE, DOWN: BASE}, "mine": {UP: noisy, DOWN: BASE}})
    row = rows(compare(old, new), 1)[UP]
    assert row.p_adjusted == row.difference.p == pytest.approx(2 / 2**12)  # type: ignore[union-attr]


def test_holm_counts_every_method_of_the_track() -> None:
    up = [x + 0.2 + 0.01 * i for i, x in enumerate(BASE)]
    old = make({name: {UP: BASE} for name in "abc"}, primary={TRACK: (UP,)})
    new = make({name: {UP: up} for name in "abc"}, primary={TRACK: (UP,)})
    found = [rows(compare(old, new), index)[UP].p_adjusted for index in range(3)]
    assert found == [pytest.approx(3 * 2 / 2**12)] * 3


def test_few_cases_give_a_difference_and_no_mark() -> None:
    few = BASE[:8]
    row = rows(compare(make({"m": {UP: few}}), make({"m": {UP: [x + 1 for x in few]}})))[UP]
    assert row.difference is not None
    assert (row.mark, row.p, row.reason) == ("", None, TOO_FEW_TO_TEST)
    assert row.difference.value == pytest.approx(1)


def test_values_that_went_and_came() -> None:
    gone: list[float | str | None] = ["no frames"] * 12
    old = make({"m": {UP: BASE, DOWN: gone, LEVEL: [None] * 12}})
    new = make({"m": {UP: gone, DOWN: BASE, LEVEL: [None] * 12}})
    found = rows(compare(old, new))
    assert [found[key].mark for key in (UP, DOWN)] == ["!", "*"]
    assert (found[UP].a.state, found[UP].b.state, found[UP].b.value) == ("value", "error", None)
    assert found[UP].b.reasons == ("error: no frames (12 of 12 samples)",)
    empty = found["level@default"]
    assert (empty.mark, empty.a.state, empty.a.reasons) == ("", "not_applicable", found["level@default"].b.reasons)
    assert "no weights" in empty.a.reasons[0]
    [grid] = grids(compare(old, new), everything=True)
    assert "A: not applicable: no weights (12 of 12 samples)" in grid.notes


def test_a_metric_that_only_one_run_has() -> None:
    found = rows(compare(make({"m": {UP: BASE}}), make({"m": {UP: BASE, LEVEL: BASE}})))
    assert (found[LEVEL].mark, found[LEVEL].a.state) == ("*", "missing")
    assert found[LEVEL].a.reasons == ("not measured in this run",)


def test_a_failed_sample_leaves_the_pair_out_and_is_counted() -> None:
    old = make({"m": {UP: BASE, LEVEL: BASE}})
    new = make({"m": {UP: [x + 1 + 0.01 * i for i, x in enumerate(BASE)], LEVEL: BASE}})
    failed = [s.model_copy(update={"status": "error", "reason": "out of memory"}) for s in new.samples[:1]]
    new = replace(new, samples=(*failed, *new.samples[1:]), metrics={**new.metrics, new.samples[0].key: ()})
    found = compare(old, new)
    row = rows(found)[UP]
    assert row.difference is not None
    assert (row.difference.n, row.lost, row.gained, row.mark) == (11, 1, 0, "+")
    assert row.b.reasons == ("error: out of memory (1 of 12 samples)",)
    assert row.a.value == pytest.approx(np.mean(BASE[1:])), "both means are over the cases of the difference"
    assert found.tracks[0].methods[0].lost == 1
    assert rows(found)[LEVEL].changed
    shown = [item[0].text for grid in grids(found) for group in grid.groups for item in group]
    assert shown == ["up ↑ *"], "a lost sample is said once, not in every exploratory row"
    assert any("out of memory" in note for grid in grids(found) for note in grid.notes)
    assert "B has 1 failed sample" in found.comparability.differing


def test_an_incomplete_run_says_so() -> None:
    old = make({"m": {UP: BASE}, "n": {UP: BASE}})
    new = make({"m": {UP: BASE}, "n": {UP: BASE}}, status="interrupted")
    new = replace(new, samples=new.samples[:-1])
    found = compare(old, new)
    assert "B is not complete (status interrupted, 23 samples)" in found.comparability.differing
    row = rows(found, 1)[UP]
    assert (row.lost, row.b.samples, row.b.expected) == (1, 11, 12)
    assert row.b.reasons == ("error: no such sample yet, the run is incomplete (1 of 12 samples)",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "mini-card"}, "suite: mini → mini-card"),
        ({"suite_version": 2}, "suite mini: version 1 → 2"),
        ({"model": "wan"}, "model: mini → wan"),
        ({"weights": {"vae": "a" * 64, "transformer": "c" * 64}}, "weights of model mini: transformer differ"),
        ({"weights": {"vae": "a" * 64}}, "weights of model mini: transformer differ"),
        ({"kind": "score"}, "kind of run: run → score"),
    ],
)
def test_another_suite_or_model_blocks_everything(change: dict[str, Any], message: str) -> None:
    a, b = make({"m": {UP: BASE}}), make({"m": {UP: BASE}}, **change)
    assert message in comparability(a, b).blocking
    with pytest.raises(IncompatibleRunsError, match=message) as error:
        compare(a, b)
    assert error.value.exit_code == 2


def test_nothing_in_common_blocks() -> None:
    a = make({"m": {UP: BASE}, "n": {UP: BASE}})
    methods = make({"o": {UP: BASE}, "p": {UP: BASE}})
    assert comparability(a, methods).blocking == ("no method in common: A has m, n; B has o, p",)
    assert comparability(a, replace(a, samples=())).blocking == ("B holds no sample",)
    other = replace(a, samples=change_cases(a, track="mag-bench").samples)
    assert comparability(a, other).blocking == ("no track in common: A has long-horizon; B has mag-bench",)
    renamed = replace(
        a, samples=tuple(s.model_copy(update={"case": s.case.model_copy(update={"id": "new"})}) for s in a.samples)
    )
    assert comparability(a, renamed).blocking == ("no case in common",)


@pytest.mark.parametrize(
    ("update", "word"),
    [
        ({"prompt": "other"}, "prompt"),
        ({"world_seed": 4}, "world_seed"),
        ({"path": {"speed": 1}}, "path"),
        ({"history_frames": 3}, "history_frames"),
        ({"frames": 30}, "frames"),
    ],
)
def test_a_case_of_another_content_is_left_out(update: dict[str, Any], word: str) -> None:
    a = make({"m": {UP: BASE}})
    b = change_cases(make({"m": {UP: [x + 1 for x in BASE]}}), "case-00", **update)
    found = comparability(a, b)
    assert found.cases == {(TRACK, "case-00"): f"another {word}"}
    assert found.blocking == ()
    comparison = compare(a, b)
    d = rows(comparison)[UP].difference
    assert d is not None
    assert (d.n, comparison.tracks[0].cases) == (11, 11)
    everywhere = comparability(a, change_cases(b, **update))
    assert everywhere.blocking == (f"no case is the same in both: {TRACK}/case-00 has another {word}",)


def test_another_truth_blocks_a_case_and_a_stratum_does_not() -> None:
    a, b = make({"m": {UP: BASE}}), make({"m": {UP: BASE}})
    truth = b.samples[0].truth
    assert truth is not None
    assert comparability(a, change_cases(b, stratum="hard")).cases == {}
    other = change_samples(b, truth=truth.model_copy(update={"sha256": "other"}))
    assert comparability(a, other).cases[TRACK, "case-01"] == "another truth"
    fixed = [change_cases(run, truth_sha256="same") for run in (a, other)]
    assert comparability(*fixed).cases == {}, "pixels agree, so the file's bytes don't matter"
    assert comparability(change_cases(a, truth_sha256="x"), fixed[1]).cases[TRACK, "case-00"] == "another truth"


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"version": 2}, "version 1 → 2"),
        ({"weights_sha256": "c" * 64}, f"weights none → {'c' * 9}"),
        ({"profile": "default"}, "profile mini → default"),
    ],
)
def test_a_changed_metric_blocks_its_own_columns(update: dict[str, Any], reason: str) -> None:
    a = make({"m": {UP: BASE, DOWN: BASE}})
    b = change_metrics(make({"m": {UP: BASE, DOWN: BASE}}), **update)
    assert comparability(a, b).metrics["good@mini"] == reason
    row = rows(compare(a, b))[UP]
    assert (row.mark, row.difference, row.reason) == ("x", None, reason)
    assert row.a.value == pytest.approx(np.mean(BASE)), "its own number is still told"


def test_another_machine_blocks_times_and_not_sizes() -> None:
    a = make({"m": {UP: BASE, SPEED: BASE}})
    b = make({"m": {UP: BASE, SPEED: BASE}}, hardware={"cpu": "a fast one", "cores": "2", "memory_gib": "8.0"})
    found = compare(a, b)
    assert found.comparability.timing == ("cpu an ordinary one → a fast one",)
    assert (rows(found)[SPEED].mark, rows(found)[UP].mark) == ("x", "=")
    for change in ({"versions": {"torch": "2.7.0"}}, {"resolved": {"device": "cuda:0"}}, {"arguments": {"workers": 4}}):
        assert len(comparability(a, make({"m": {UP: BASE}}, **change)).timing) == 1


def test_a_speed_is_never_tested() -> None:
    a = make({"m": {SPEED: [20.0] * 12}})
    slower = [row for speed in (19.0, 10.0) for row in rows(compare(a, make({"m": {SPEED: [speed] * 12}}))).values()]
    speeds = [row for row in slower if row.column.key == SPEED]
    assert [row.mark for row in speeds] == ["", ""]
    assert [row.p for row in speeds] == [None, None]
    assert [row.changed for row in speeds] == [False, True], "from a tenth up it is pointed at"


def test_seeds_may_differ_and_are_averaged() -> None:
    a, b = make({"m": {UP: BASE}}, seeds=(0,)), make({"m": {UP: BASE}}, seeds=(0, 1, 2))
    found = compare(a, b)
    assert f"{TRACK}: seeds 0 → 0, 1, 2, averaged within a case" in found.comparability.differing
    d = rows(found)[UP].difference
    assert d is not None
    assert (d.value, d.n) == (pytest.approx(1.0), 12)  # seeds add 0, 1, 2


def test_cases_and_methods_of_one_run_only_are_named() -> None:
    a = make({"m": {UP: BASE}, "n": {UP: BASE}})
    b = make({"m": {UP: BASE[:11]}, "o": {UP: BASE[:11]}})
    found = compare(a, b)
    assert {"method only in A: n", "method only in B: o", f"case only in A: {TRACK}/case-11"} <= set(
        found.comparability.differing
    )
    assert [method.label for method in found.tracks[0].methods] == ["m"]
    assert found.tracks[0].cases == 11


def test_two_runs_of_one_method_are_paired_whatever_their_names() -> None:
    found = compare(make({"m": {UP: BASE}}), make({"m:sink=1": {UP: BASE}}))
    assert "the only method of each run, whatever its name: m → m:sink=1" in found.comparability.differing
    assert [method.label for method in found.tracks[0].methods] == ["m → m:sink=1"]


def test_other_parameters_of_one_method_are_said() -> None:
    a, b = make({"m": {UP: BASE}}), make({"m": {UP: BASE}})
    method = b.samples[0].method.model_copy(update={"parameters": {"alpha": 0.1}, "budget_frames": 9.0})
    said = comparability(a, change_samples(b, method=method)).differing
    assert "m has other parameters: budget_frames None → 9.0, alpha unknown → 0.1" in said


def test_scored_videos_pair_by_file() -> None:
    def scored(values: list[float]) -> Results:
        made = make({"m": {UP: list(values)}}, kind="score", suite="", model="", weights={}, primary={})
        external = [
            s.model_copy(update={"method": MethodRecord(label=s.case.id, policy="file", applicability="external")})
            for s in made.samples
        ]
        return replace(made, samples=tuple(external))

    found = compare(scored(BASE), scored([x + 1 + 0.01 * i for i, x in enumerate(BASE)]))
    row = rows(found)[UP]
    assert row.difference is not None
    assert (found.tracks[0].methods[0].label, row.difference.n, row.mark) == ("videos", 12, "+")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose videos are gone, with all states and hostile text."""
    root = tmp_path_factory.mktemp("runs") / "slim"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        make_run(root, cases=4)
    for video in root.rglob("*.mkv"):
        video.unlink()
    return root


def test_folders_without_videos_can_be_compared(folder: Path) -> None:
    found = magbench.compare(folder, str(folder))
    assert [track.name for track in found.tracks] == ["long-horizon", "mag-bench"]
    assert [method.label for method in found.tracks[0].methods] == ["memrope", "fifo", "memrope:memory=none", "full"]
    marks = {row.mark for track in found.tracks for method in track.methods for row in method.rows}
    assert marks == {"=", ""}
    assert magbench.compare(magbench.load(folder), folder) == found


def test_a_path_that_is_no_run(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run folder 'nowhere'"):
        compare("nowhere", folder)
    with pytest.raises(ConfigError, match=r"is not a run folder: it has no readable run\.json"):
        compare(folder, tmp_path)


def test_json_is_strict_and_whole(folder: Path) -> None:
    a = magbench.load(folder)
    b = replace(a, run=a.run.model_copy(update={"versions": {"torch": "9"}}))
    found = compare(a, b)
    data = json.loads(json.dumps(as_json(found), allow_nan=False))
    methods = data["tracks"]["mag-bench"]["methods"]
    assert data["comparable"] is True
    assert data["timing"] == ["torch 2.6.0 → 9"]
    assert [len(m["rows"]) for m in methods] == [len(m.rows) for m in found.tracks[1].methods]
    states = {row["a"]["state"] for method in methods for row in method["rows"]}
    assert states == {"value", "not_applicable", "error"}
    assert all(row["a"]["reasons"] for m in methods for row in m["rows"] if row["a"]["state"] != "value")


def test_markdown_survives_hostile_labels() -> None:
    evil = "<b>|x|</b>"
    up = [x + 1 + 0.01 * i for i, x in enumerate(BASE)]
    found = compare(make({evil: {UP: BASE}}), make({evil: {UP: up}}))
    text = as_markdown(found, ("runs/a|b", "runs/c"))
    assert "<b>" not in text
    assert r"runs/a\|b" in text
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ")}) == 1
    assert "**long-horizon: primary: 1 better**" in text


def test_words_for_every_mark() -> None:
    up = [x + 1 + 0.01 * i for i, x in enumerate(BASE)]
    found = compare(make({"m": {UP: BASE, DOWN: BASE}}), make({"m": {UP: up, DOWN: ["lost"] * 12}}))
    assert summary(found) == ["long-horizon: primary: 1 better, 1 a value in A only"]
    assert legend(found)[1] == "+ better, ! a value in A only"
    assert notices(found) == ["A and B are the same folder"]


def test_comparing_loads_no_torch(folder: Path) -> None:
    code = f"""
import sys
import magbench
found = magbench.compare({str(folder)!r}, {str(folder)!r})
from magbench.reports.comparison import as_json, as_markdown
as_json(found), as_markdown(found)
print(*(name for name in ("torch", "pandas", "matplotlib", "av") if name in sys.modules), len(found.tracks))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"]
