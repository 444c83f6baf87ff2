"""The gate: what passes, what doesn't, and what it says about it."""

import shutil
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from magbench import load
from magbench.baseline import save_baseline
from magbench.comparison import compare
from magbench.errors import ConfigError, StoreError
from magbench.gate import EXIT_CODES, ORDER, Check, Outcome, Verdict, acknowledge, judge, overall
from magbench.gate_checks import non_inferior, turned
from magbench.gate_policy import Margin, load_policy, parse_policy
from magbench.records import FingerprintRecord, MetricRecord, Reduction, SampleRecord
from magbench.stats import Difference, paired_difference
from magbench.store import RunStore
from magbench.suite import load_suite
from tests.gate_runs import DRIFT, POLICY, PSNR, RECALL, TRACK, Change, fingerprint, make, policy, shifted

TODAY = date(2026, 6, 15)
QUALITY = (RECALL, PSNR, DRIFT)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return make(tmp_path_factory.mktemp("gate") / "baseline")


def gate(run: RunStore, baseline: RunStore, more: str = "", strict: bool = False) -> Outcome:
    return judge(run, baseline, policy(more), TODAY, strict)


def verdicts(outcome: Outcome) -> dict[str, Verdict | None]:
    return {item.endpoint: item.verdict for item in outcome.checks}


# ---------------------------------------------------------------- the policy file

M = "margins: {a@b/c: {absolute: 0.1}}\n"
ENTRY = "{method: m, endpoint: a@b/c, reason: r, until: 2027-01-31}"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "'g.yaml' holds no keys", "it needs margins"),
        ("margins: [", "'g.yaml' is not YAML: while parsing", "docs/gate.md"),
        ("[" * 5000, "'g.yaml' is not YAML: maximum recursion", "docs/gate.md"),
        ("fingerprint: {}", "the file has no key 'margins'", "docs/gate.md"),
        ("margins: {}", "margins must name at least one primary endpoint", "docs/gate.md"),
        (M + "fingerprnt: {}", "unknown key 'fingerprnt'", "did you mean 'fingerprint'"),
        (M + "fingerprint: {requir: true}", "unknown key 'requir' in fingerprint", "did you mean 'require'"),
        (M + "fingerprint: {require: maybe}", "fingerprint.require must be true or false, not 'maybe'", "docs"),
        (M + "fingerprint: {tolerance: 0}", "fingerprint.tolerance must be greater than 0, not 0", "docs"),
        (M + "fingerprint: {tolerance: yes}", "fingerprint.tolerance: True is not a number", "docs"),
        ("margins: {recall: {absolute: 1}}", "'recall' is no endpoint", "write metric@profile/reduction"),
        ("margins: {a@b/c: {absolute: 5%}}", "'5%' is not a number; write 0.05 for 5 %", "docs"),
        ("margins: {a@b/c: {absolute: -1}}", "margins.a@b/c.absolute must be greater than 0, not -1", "docs"),
        ("margins: {a@b/c: {absolute: .inf}}", "margins.a@b/c.absolute must be a finite number", "docs"),
        ("margins: {a@b/c: {}}", "margins.a@b/c: a margin needs `absolute` or `relative`", "docs"),
        ("margins: {a@b/c: {absolut: 1}}", "unknown key 'absolut' in margins.a@b/c", "did you mean 'absolute'"),
        ("margins: {a@b/c: 3}", "margins.a@b/c must hold keys, not 3", "docs"),
        (M + M, "key 'margins' twice", "docs"),
        ("margins: {a@b/c: {absolute: 1}, a@b/c: {absolute: 2}}", "key 'a@b/c' twice", "docs"),
        (M + "acknowledged: {method: m}", "acknowledged must be a list", "docs"),
        (M + "acknowledged: [{method: m}]", "acknowledged.0 has no key 'endpoint'", "docs"),
        (M + f"acknowledged: [{ENTRY.replace('r,', '!!str ,')}]", "acknowledged.0.reason must not be empty", "docs"),
        (M + f"acknowledged: [{ENTRY.replace('a@b/c', 'recall')}]", "'recall' is no endpoint", "write metric"),
        (M + f"acknowledged: [{ENTRY.replace('2027-01-31', 'soon')}]", "'soon' is not a day", "docs"),
        (M + f"acknowledged: [{ENTRY.replace('2027-01-31', '20270131')}]", "20270131 is not a day", "docs"),
        (
            M + f"acknowledged: [{ENTRY.replace('2027-01-31', '2027-02-30')}]",
            "is not YAML: day is out of range",
            "docs",
        ),
        (M + f"acknowledged: [{ENTRY}, {ENTRY}]", "a@b/c of m is acknowledged 2 times; keep one", "docs"),
    ],
)
def test_a_mistake_in_the_policy_is_one_sentence(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=r"g\.yaml") as caught:
        parse_policy(text, "g.yaml")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "\n" not in caught.value.message
    assert "pydantic" not in caught.value.message


def test_numbers_and_days_may_be_written_as_people_write_them() -> None:
    text = "margins: {a@b/c: {absolute: 1e-3, relative: '0.05'}}\nacknowledged: [" + ENTRY.replace("2027", "'2027", 1)
    found = parse_policy(text.replace("01-31}", "01-31'}") + "]", "g.yaml")
    assert found.margins["a@b/c"] == Margin(absolute=0.001, relative=0.05)
    assert found.acknowledged[0].until == date(2027, 1, 31)


@pytest.mark.parametrize(
    ("margin", "mean", "expected"),
    [
        (Margin(absolute=0.5), 20.0, 0.5),
        (Margin(relative=0.1), 20.0, 2.0),
        (Margin(relative=0.1), -20.0, 2.0),
        (Margin(absolute=0.5, relative=0.1), 20.0, 2.0),
        (Margin(absolute=0.5, relative=0.1), 1.0, 0.5),
    ],
)
def test_the_larger_margin_counts(margin: Margin, mean: float, expected: float) -> None:
    assert margin.over(mean) == pytest.approx(expected)


def test_the_shipped_policy_has_a_margin_for_every_primary_endpoint_of_mini() -> None:
    tracks = load_suite("mini").tracks.values()
    assert set(load_policy().margins) == {endpoint for track in tracks for endpoint in track.primary}


def test_an_unreadable_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the gate policy '.*none.yaml': No such file"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load_policy(tmp_path / "bytes.yaml")


# ---------------------------------------------------------------- an interval against a margin


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.4, 0.3, "PASS"),
        (-0.5, 0.3, "INCONCLUSIVE"),  # touching is not above
        (-0.6, 0.3, "INCONCLUSIVE"),
        (-0.9, -0.5, "INCONCLUSIVE"),
        (-0.9, -0.6, "REGRESSION"),
        (-0.4, -0.1, "PASS"),  # worse for sure, but by less than the margin
        (0.1, 0.9, "PASS"),
        (0.5, 0.9, "PASS"),
        (0.6, 0.9, "IMPROVED"),
        (-0.9, 0.9, "INCONCLUSIVE"),
        (None, None, "INCOMPLETE"),
    ],
)
def test_an_interval_against_the_margin(low: float | None, high: float | None, verdict: str) -> None:
    d = Difference(0.0 if low is None else (low + (high or 0)) / 2, 16, low, high, None if low is None else 0.5)
    assert non_inferior(d, 0.5)[0] == verdict


def test_without_a_p_value_nothing_is_decided() -> None:
    assert non_inferior(Difference(0.0, 8, -0.1, 0.1, None, descriptive=True), 0.5) == ("INCOMPLETE", None)


def test_lower_is_better_turns_the_interval_round() -> None:
    d = Difference(0.2, 16, 0.1, 0.4, 0.01)
    assert turned(d, "higher") is d
    assert turned(d, "lower") == replace(d, value=-0.2, low=-0.4, high=-0.1)


@pytest.mark.parametrize(("shift", "noise"), [(0.0, 0.1), (-1.0, 0.1), (1.0, 0.1), (0.0, 2.0), (-0.4, 0.6)])
def test_verdict_agrees_with_a_t_interval(shift: float, noise: float) -> None:
    d = shift + noise * np.random.default_rng(3).normal(size=30)
    low, high = scipy_stats.t.interval(0.95, 29, d.mean(), d.std(ddof=1) / np.sqrt(30))
    far = min(abs(end - side) for end in (low, high) for side in (-0.5, 0.5)) > 0.05
    assert far, "the example must not hang on the last digit of an interval"
    expected = "REGRESSION" if high < -0.5 else "IMPROVED" if low > 0.5 else "PASS" if low > -0.5 else "INCONCLUSIVE"
    measured = paired_difference({str(i): x for i, x in enumerate(d)}, {str(i): 0.0 for i in range(30)})
    assert non_inferior(measured, 0.5)[0] == expected


# ---------------------------------------------------------------- all checks together


def item(verdict: Verdict | None, **fields: str) -> Check:
    return Check(**{"part": TRACK, "method": "m", "endpoint": RECALL, "text": "t", "verdict": verdict, **fields})


@pytest.mark.parametrize(("a", "b"), list(product(ORDER, ORDER)))
def test_the_last_in_order_is_the_verdict(a: Verdict, b: Verdict) -> None:
    order = ["PASS", "IMPROVED", "INCONCLUSIVE", "INCOMPLETE", "NOT_COMPARABLE", "REGRESSION"]
    assert overall([item(a), item(b), item(None)]) == order[max(order.index(a), order.index(b))]


def test_a_gate_that_checked_nothing_does_not_pass() -> None:
    assert overall([]) == "INCOMPLETE"
    assert overall([item(None)]) == "INCOMPLETE"
    assert overall([item("REGRESSION", acknowledged="meant"), item(None)]) == "PASS"


def test_exit_codes_are_those_of_the_contract() -> None:
    assert EXIT_CODES == {
        "PASS": 0, "IMPROVED": 0, "INCONCLUSIVE": 0, "NOT_COMPARABLE": 2, "REGRESSION": 3, "INCOMPLETE": 4,
    }  # fmt: skip


def entries(until: str, endpoint: str = RECALL, method: str = "m") -> str:
    return f"acknowledged: [{{method: {method}, endpoint: {endpoint}, reason: half the cache, until: {until}}}]"


def test_an_acknowledgement_holds_through_its_last_day() -> None:
    meant = policy(entries("2026-06-15")).acknowledged
    (found,), warnings = acknowledge([item("REGRESSION")], meant, TODAY)
    assert (found.acknowledged, found.counts, warnings) == ("half the cache (until 2026-06-15)", False, [])


def test_an_acknowledgement_that_is_over_counts_again_and_says_so() -> None:
    meant = policy(entries("2026-06-14")).acknowledged
    (found,), warnings = acknowledge([item("REGRESSION")], meant, TODAY)
    assert found.counts
    assert "acknowledged until 2026-06-14, which is over: half the cache" in found.details
    assert warnings == [f"m, {RECALL}: acknowledged until 2026-06-14, which is over: half the cache"]


@pytest.mark.parametrize(("until", "counts"), [("2026-06-15", False), ("2026-06-14", True)])
def test_an_acknowledgement_holds_on_every_track(until: str, counts: bool) -> None:
    tracks = [item("REGRESSION").model_copy(update={"part": part}) for part in ("long-horizon", "mag-bench")]
    found, warnings = acknowledge(tracks, policy(entries(until)).acknowledged, TODAY)
    assert [check.counts for check in found] == [counts, counts]
    assert len(warnings) == counts


@pytest.mark.parametrize(
    ("checks", "stale"),
    [
        ([item("PASS")], True),
        ([item("IMPROVED")], True),
        ([], True),
        ([item("REGRESSION", method="another")], True),
        ([item("INCONCLUSIVE")], False),
        ([item("INCOMPLETE")], False),
        ([item("NOT_COMPARABLE")], False),
    ],
)
def test_a_stale_acknowledgement_is_reported(checks: list[Check], stale: bool) -> None:
    found, warnings = acknowledge(checks, policy(entries("2027-01-01")).acknowledged, TODAY)
    assert not any(check.acknowledged for check in found)
    assert any("matches no regression" in text for text in warnings) is stale


# ---------------------------------------------------------------- two runs


def test_the_same_scores_pass(baseline: RunStore, tmp_path: Path) -> None:
    outcome = gate(make(tmp_path / "run"), baseline)
    assert verdicts(outcome) == {"fingerprint": "PASS", **dict.fromkeys(QUALITY, "PASS")}
    assert (outcome.verdict, outcome.exit_code, outcome.warnings) == ("PASS", 0, ())


@pytest.mark.parametrize(
    ("change", "endpoint", "verdict", "code"),
    [
        (shifted(RECALL, -0.2), RECALL, "REGRESSION", 3),
        (shifted(PSNR, -3.0), PSNR, "REGRESSION", 3),
        (shifted(PSNR, -0.3), PSNR, "PASS", 0),
        (shifted(PSNR, +3.0), PSNR, "IMPROVED", 0),
        (shifted(DRIFT, +0.5), DRIFT, "REGRESSION", 3),
        (shifted(DRIFT, -0.5), DRIFT, "IMPROVED", 0),
        (shifted(PSNR, 0.0, noise=2.0), PSNR, "INCONCLUSIVE", 0),
    ],
)
def test_one_endpoint_moves(
    change: Change, endpoint: str, verdict: str, code: int, baseline: RunStore, tmp_path: Path
) -> None:
    outcome = gate(make(tmp_path / "run", change), baseline)
    expected = dict.fromkeys(("fingerprint", *QUALITY), "PASS") | {endpoint: verdict}
    assert verdicts(outcome) == expected
    assert (outcome.verdict, outcome.exit_code) == (verdict, code)


def test_numbers_of_a_regression(baseline: RunStore, tmp_path: Path) -> None:
    outcome = gate(make(tmp_path / "run", shifted(DRIFT, +0.5)), baseline)
    (found,) = [check for check in outcome.checks if check.endpoint == DRIFT]
    assert found.better_by == pytest.approx(-0.5)
    assert (found.low, found.high) == (pytest.approx(-0.5), pytest.approx(-0.5))
    assert (found.run or 0) - (found.baseline or 0) == pytest.approx(0.5)
    assert (found.margin, found.cases, found.direction) == (0.02, 12, "lower")


def test_inconclusive_says_how_many_cases_and_fails_when_strict(baseline: RunStore, tmp_path: Path) -> None:
    run = make(tmp_path / "run", shifted(PSNR, 0.0, noise=2.0))
    (found,) = [check for check in gate(run, baseline).checks if check.endpoint == PSNR]
    assert found.cases_needed is not None
    assert found.cases_needed > 12
    assert f"about {found.cases_needed} cases would decide, these are 12" in found.details[0]
    strict = gate(run, baseline, strict=True)
    assert (strict.verdict, strict.exit_code) == ("INCONCLUSIVE", 3)


def test_relative_margin_is_of_the_baselines_mean(baseline: RunStore, tmp_path: Path) -> None:
    run = make(tmp_path / "run", shifted(PSNR, -1.0))
    text = POLICY.replace("{absolute: 0.5}", "{relative: 0.1}")  # 10 % of about 20 dB
    assert judge(run, baseline, parse_policy(text, "g"), TODAY).verdict == "PASS"
    text = POLICY.replace("{absolute: 0.5}", "{relative: 0.01}")
    assert judge(run, baseline, parse_policy(text, "g"), TODAY).verdict == "REGRESSION"


def test_an_acknowledged_regression_passes_until_its_day(baseline: RunStore, tmp_path: Path) -> None:
    run = make(tmp_path / "run", shifted(PSNR, -3.0))
    assert gate(run, baseline, entries("2026-12-31", PSNR, "memrope")).exit_code == 0
    assert gate(run, baseline, entries("2026-01-31", PSNR, "memrope")).exit_code == 3
    assert gate(run, baseline, entries("2026-12-31", RECALL, "memrope")).exit_code == 3


def failed(case: int, status: str = "error") -> Change:
    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]]:
        if not sample.case.id.endswith(f"{case:02d}"):
            return sample, scores
        return sample.model_copy(update={"status": status, "reason": "out of memory", "video": None}), []

    return change


def unscored(case: int, state: str | None) -> Change:
    """The PSNR of one case is missing, or has no value."""

    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]]:
        if not sample.case.id.endswith(f"{case:02d}"):
            return sample, scores
        others = [record for record in scores if record.metric != "retention"]
        (old,) = [record for record in scores if record.metric == "retention"]
        if state is None:
            return sample, others
        update = {"state": state, "reason": "the picture is black", "reductions": (), "series": ()}
        return sample, [*others, old.model_copy(update=update)]

    return change


def dropped(case: int) -> Change:
    return lambda sample, scores: None if sample.case.id.endswith(f"{case:02d}") else (sample, scores)


@pytest.mark.parametrize(
    ("change", "endpoints", "text"),
    [
        (failed(3), QUALITY, "1 of 12 samples have no value in the run"),
        (dropped(3), QUALITY, "1 of 12 cases of the baseline are missing in the run"),
        (unscored(3, "error"), (PSNR,), "1 of 12 samples have no value in the run"),
        (unscored(3, None), (PSNR,), "1 of 12 samples have no value in the run"),
        (unscored(3, "not_applicable"), (PSNR,), "1 cases have a value in the baseline and none in the run"),
        (failed(3, "not_applicable"), QUALITY, "1 cases have a value in the baseline and none in the run"),
    ],
)
def test_a_hole_in_the_run_is_incomplete(
    change: Change, endpoints: tuple[str, ...], text: str, baseline: RunStore, tmp_path: Path
) -> None:
    outcome = gate(make(tmp_path / "run", change, status="incomplete"), baseline)
    assert {e for e, verdict in verdicts(outcome).items() if verdict == "INCOMPLETE"} == set(endpoints)
    assert {c.text for c in outcome.checks if c.verdict == "INCOMPLETE"} == {text}
    assert outcome.exit_code == 4


def test_a_hole_in_the_baseline_is_incomplete_too(tmp_path: Path) -> None:
    old = make(tmp_path / "old", unscored(3, "error"), status="incomplete")
    outcome = gate(make(tmp_path / "run"), old)
    assert verdicts(outcome)[PSNR] == "INCOMPLETE"


def test_not_applicable_on_both_sides_is_no_hole(tmp_path: Path) -> None:
    change = unscored(3, "not_applicable")
    outcome = gate(make(tmp_path / "run", change), make(tmp_path / "old", change))
    (found,) = [check for check in outcome.checks if check.endpoint == PSNR]
    assert (found.verdict, found.cases) == ("PASS", 11)


def test_an_endpoint_that_makes_no_sense_decides_nothing(tmp_path: Path) -> None:
    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]]:
        return unscored(int(sample.case.id[-2:]), "not_applicable")(sample, scores) or (sample, scores)

    outcome = gate(make(tmp_path / "run", change), make(tmp_path / "old", change))
    assert verdicts(outcome)[PSNR] is None
    assert outcome.verdict == "PASS"


@pytest.mark.parametrize("cases", [5, 9])
def test_too_few_cases_are_incomplete(cases: int, tmp_path: Path) -> None:
    outcome = gate(make(tmp_path / "run", cases=cases), make(tmp_path / "old", cases=cases))
    assert {verdicts(outcome)[endpoint] for endpoint in QUALITY} == {"INCOMPLETE"}
    assert outcome.checks[-1].text == f"{cases} cases are too few to test, 10 are needed"


def test_a_method_of_the_baseline_cannot_be_left_out(tmp_path: Path) -> None:
    old = make(tmp_path / "old", labels=("memrope", "memrope:memory=none"))
    outcome = gate(make(tmp_path / "run"), old)
    missing = [check for check in outcome.checks if check.verdict == "INCOMPLETE"]
    assert {check.method for check in missing} == {"memrope:memory=none"}
    assert len(missing) == 1 + len(QUALITY)
    assert gate(old, make(tmp_path / "run")).verdict == "PASS"  # a new method is only said
    assert any("only in B" in text for text in gate(old, make(tmp_path / "run")).notices)


def test_one_method_each_is_paired_whatever_its_name(baseline: RunStore, tmp_path: Path) -> None:
    old = make(tmp_path / "old", labels=("memrope:memory=none",), prints=[fingerprint("memrope:memory=none")])
    outcome = gate(make(tmp_path / "run"), old)
    assert {check.method for check in outcome.checks} == {"memrope"}
    assert any("memrope:memory=none" in text for text in outcome.notices)


def test_a_baseline_that_is_not_over_is_incomplete(baseline: RunStore, tmp_path: Path) -> None:
    outcome = gate(baseline, make(tmp_path / "old", dropped(3), status="interrupted"))
    assert outcome.verdict == "INCOMPLETE"
    assert outcome.checks[1].text == "the baseline is not over, its status is interrupted"


@pytest.mark.parametrize("status", ["started", "interrupted"])
def test_a_run_that_is_not_over_is_incomplete(status: str, baseline: RunStore, tmp_path: Path) -> None:
    outcome = gate(make(tmp_path / "run", status=status), baseline)
    assert outcome.verdict == "INCOMPLETE"
    assert outcome.checks[1].text == f"the run is not over, its status is {status}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"suite_version": 2}, "version"),
        ({"suite": "other"}, "suite"),
        ({"model": "wan"}, "model"),
        ({"weights": {"mini": "cd" * 32}}, "weights"),
    ],
)
def test_another_suite_or_model_is_not_comparable(
    changes: dict[str, object], text: str, baseline: RunStore, tmp_path: Path
) -> None:
    outcome = gate(make(tmp_path / "run", shifted(PSNR, -3.0), **changes), baseline)
    assert (outcome.verdict, outcome.exit_code) == ("NOT_COMPARABLE", 2)
    assert text in outcome.checks[-1].text
    assert len(outcome.checks) == 2


def test_another_version_of_a_metric_is_not_comparable(baseline: RunStore, tmp_path: Path) -> None:
    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]]:
        return sample, [r.model_copy(update={"version": 2}) if r.metric == "retention" else r for r in scores]

    outcome = gate(make(tmp_path / "run", change), baseline)
    assert verdicts(outcome)[PSNR] == "NOT_COMPARABLE"
    assert outcome.exit_code == 2


def test_a_case_of_another_content_is_not_comparable(baseline: RunStore, tmp_path: Path) -> None:
    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]]:
        if not sample.case.id.endswith("03"):
            return sample, scores
        return sample.model_copy(update={"case": sample.case.model_copy(update={"prompt": "another"})}), scores

    outcome = gate(make(tmp_path / "run", change), baseline)
    assert {verdicts(outcome)[endpoint] for endpoint in QUALITY} == {"NOT_COMPARABLE"}


def test_a_regression_is_one_whatever_else_is_missing(baseline: RunStore, tmp_path: Path) -> None:
    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]] | None:
        return unscored(3, "error")(*(shifted(RECALL, -0.2)(sample, scores) or (sample, scores)))

    outcome = gate(make(tmp_path / "run", change), baseline)
    assert verdicts(outcome)[PSNR] == "INCOMPLETE"
    assert outcome.verdict == "REGRESSION"


def test_an_endpoint_without_margin_stops_the_gate(baseline: RunStore, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(ConfigError, match=f"no margin for the primary endpoint {RECALL}") as caught:
        judge(run, baseline, parse_policy(POLICY.replace("landmark_recall", "landmark_recal"), "g"), TODAY)
    assert "did you mean 'landmark_recal@mini/recall'" in (caught.value.hint or "")


def test_a_run_is_no_baseline_of_itself(baseline: RunStore) -> None:
    with pytest.raises(ConfigError, match="is both the run and its baseline"):
        gate(RunStore.open(baseline.root), baseline)


def test_an_endpoint_without_a_better_side_decides_nothing(tmp_path: Path) -> None:
    endpoint = "subject_consistency@mini/mean"
    both = [make(tmp_path / name, primary=[endpoint]) for name in ("run", "old")]
    outcome = judge(*both, parse_policy(f"margins: {{{endpoint}: {{absolute: 1}}}}", "g"), TODAY)
    assert verdicts(outcome)[endpoint] is None


# ---------------------------------------------------------------- the fingerprint part

AWAY = FingerprintRecord.model_validate(
    {**fingerprint().model_dump(), "state": "not_applicable", "reason": "too long a history", "chunks": ()}
)
BROKEN = AWAY.model_copy(update={"state": "error", "reason": "shapes differ"})


@pytest.mark.parametrize(
    ("before", "now", "more", "verdict", "text"),
    [
        (fingerprint(), fingerprint(moved=1e-5), "", "PASS", "the same in all 2 chunks"),
        (fingerprint(), fingerprint(moved=0.1), "", "REGRESSION", "latents of chunk 1 moved"),
        (fingerprint(), fingerprint(moved=0.1), "fingerprint: {tolerance: 0.5}", "PASS", "the same"),
        (fingerprint(), fingerprint(moved=0.1), "fingerprint: {require: false}", None, "not required: latents"),
        (fingerprint(), fingerprint(parameters={"sink": 1}), "", "REGRESSION", "parameter sink"),
        (fingerprint(), fingerprint(weights_sha256="cd" * 32), "", "NOT_COMPARABLE", "weights sha256 was"),
        (fingerprint(), None, "", "INCOMPLETE", "the run has no fingerprint"),
        (None, fingerprint(), "", "INCOMPLETE", "the baseline has no fingerprint"),
        (fingerprint(), None, "fingerprint: {require: false}", None, "not required: the run has no fingerprint"),
        (AWAY, AWAY, "", None, "not applicable before and now: too long a history"),
        (fingerprint(), BROKEN, "", "INCOMPLETE", "error in the run: shapes differ"),
        (BROKEN, fingerprint(), "", "INCOMPLETE", "error in the baseline: shapes differ"),
        (fingerprint(), AWAY, "", "INCOMPLETE", "not applicable in the run"),
        (fingerprint(), fingerprint(moved=0.1), entries("2026-12-31", "fingerprint", "memrope"), "REGRESSION", "lat"),
    ],
)
def test_fingerprints(
    before: FingerprintRecord | None,
    now: FingerprintRecord | None,
    more: str,
    verdict: str | None,
    text: str,
    tmp_path: Path,
) -> None:
    old = make(tmp_path / "old", prints=[before] if before else [])
    outcome = gate(make(tmp_path / "run", prints=[now] if now else []), old, more)
    found = outcome.checks[0]
    assert (found.part, found.verdict) == ("fingerprint", verdict)
    assert found.text.startswith(text)
    harmless = verdict in ("PASS", None) or bool(found.acknowledged)
    assert outcome.verdict == ("PASS" if harmless else verdict)
    assert bool(found.acknowledged) == ("until" in more)


def test_a_folder_of_fingerprints_checks_these_alone(baseline: RunStore, tmp_path: Path) -> None:
    run = make(tmp_path / "run", cases=0, prints=[fingerprint()], kind="fingerprint", suite="", primary=())
    outcome = gate(run, baseline, entries("2026-12-31", PSNR, "memrope"))
    assert (outcome.verdict, [c.part for c in outcome.checks]) == ("PASS", ["fingerprint"])
    assert outcome.warnings == ("quality was not checked: one of the two folders holds fingerprints only",)


# ---------------------------------------------------------------- slim baselines


def test_a_slim_copy_judges_as_the_run_itself(baseline: RunStore, tmp_path: Path) -> None:
    slim = save_baseline(baseline, tmp_path / "slim")
    for name, change in (("same", shifted(PSNR, 0.0)), ("worse", shifted(PSNR, -3.0, noise=0.5))):
        run = make(tmp_path / name, change)
        full, copy = gate(run, baseline), gate(run, slim)
        assert copy.checks == full.checks
        assert copy.verdict == full.verdict
    rows = [[m.rows for m in track.methods] for track in compare(slim.root, tmp_path / "worse").tracks]
    assert rows == [[m.rows for m in track.methods] for track in compare(baseline.root, tmp_path / "worse").tracks]


def test_a_slim_copy_is_slim_and_tells_no_paths(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    run = make(
        tmp_path / "run",
        command=f"magbench run --out {home}",
        arguments={"out": home, "prompts": home, "suite": home, "method": ["memrope"], "workers": 2},
    )
    for sample in run.records():
        run.publish(sample.key, "video.mkv", lambda path: path.write_bytes(b"0" * 100_000) and None)
    missing = MetricRecord(
        metric="lpips", profile="alex", version=1, state="not_applicable", video_sha256="",
        reason=f"the weights alexnet are not here: no file {home}/alex.pth", hint=f"put it at {home}/alex.pth",
    )  # fmt: skip
    (key,) = (sample.key for sample in run.records() if sample.case.id.endswith("00") and "memrope" in sample.key)
    run.write_metric(key, missing)
    slim = save_baseline(run, tmp_path / "slim")
    files = [file for file in slim.root.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json"}
    assert sum(file.stat().st_size for file in files) < 150_000
    assert not any(home in file.read_text() or "video.mkv" in file.read_text() for file in files)
    (said,) = (record.reason for record in slim.metrics(key) if record.metric == "lpips")
    assert said == "the weights alexnet are not here: no file alex.pth"
    assert slim.run.arguments == {"method": ["memrope"], "workers": 2}
    assert {sample.method.label for sample in slim.records()} == {"memrope"}
    assert len(load(slim.root).samples) == 12


def test_a_slim_copy_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    slim = save_baseline(make(tmp_path / "old", cases=13), tmp_path / "slim")
    assert len(slim.records()) == 13
    assert len(save_baseline(make(tmp_path / "new"), tmp_path / "slim").records()) == 12
    assert len(save_baseline(RunStore.open(tmp_path / "slim"), tmp_path / "slim").records()) == 12  # of itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old", "slim"]


@pytest.mark.parametrize("status", ["started", "incomplete", "interrupted", "error"])
def test_a_run_with_holes_becomes_no_baseline(status: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot become a baseline: its status is {status}"):
        save_baseline(make(tmp_path / "run", status=status, cases=1), tmp_path / "slim")
    assert not (tmp_path / "slim").exists()


def test_nothing_but_an_older_copy_is_overwritten(baseline: RunStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    whole = make(tmp_path / "run", cases=1)
    for target in (tmp_path / "mine", tmp_path / "file", whole.root, tmp_path):
        with pytest.raises(ConfigError, match="is not empty and not a baseline"):
            save_baseline(baseline, target)
    assert (tmp_path / "mine" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "keep me"
    with pytest.raises(StoreError, match=r"cannot look into '.*aaa': File name too long"):
        save_baseline(baseline, tmp_path / ("a" * 300))


def test_a_failed_replacement_leaves_the_older_copy(
    baseline: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = save_baseline(baseline, tmp_path / "slim")
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if target == slim.root and len(list(path.rglob("sample.json"))) == 1:
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StoreError, match=r"cannot write the baseline '.*slim': No space left on device"):
        save_baseline(make(tmp_path / "run", cases=1), slim.root)
    assert len(slim.records()) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "slim"]


def test_a_hostile_metric_name_writes_nowhere_else(tmp_path: Path) -> None:
    run = make(tmp_path / "run", cases=1)
    (sample,) = (s for s in run.records() if s.method.label == "memrope")
    evil = MetricRecord(
        metric="../../../../evil", profile="x", version=1, state="value", video_sha256="",
        reductions=(Reduction(name="r", state="value", value=1.0),),
    )  # fmt: skip
    (run.sample_dir(sample.key) / "metrics" / "evil@x.json").write_text(evil.model_dump_json())
    with pytest.raises(StoreError, match="cannot be a file name"):
        save_baseline(run, tmp_path / "a" / "b" / "slim")
    assert not list(tmp_path.rglob("evil.json"))
    assert not (tmp_path / "a" / "b" / "slim").exists()
    shutil.rmtree(run.root)
