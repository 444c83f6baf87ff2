"""The questions that a gate asks of a run and its baseline: `magbench.gate` puts them together.

Quality is a test of non-inferiority per primary endpoint and method. The difference baseline -> run is paired by case
and turned so that more is better; its 95 % interval is held against the margin of the policy (`magbench.gate_policy`):
wholly above -margin passes, wholly below is a regression, anything else is inconclusive.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from magbench.comparability import Comparability, label_of, method_pairs
from magbench.comparison import Row, compared
from magbench.errors import ConfigError
from magbench.fingerprint import NOT_COMPARABLE, check
from magbench.gate_policy import FINGERPRINT, FingerprintRule, GatePolicy, Margin
from magbench.records import Direction, FingerprintRecord, Record
from magbench.registry import did_you_mean
from magbench.reports.grids import number, signed
from magbench.results import Results
from magbench.stats import MIN_CASES_TEST, Difference, cases_to_decide
from magbench.store import RunStore

RUNS = "runs"
"""The part of what concerns all methods."""
Verdict = Literal["PASS", "IMPROVED", "INCONCLUSIVE", "INCOMPLETE", "NOT_COMPARABLE", "REGRESSION"]


class Check(Record):
    """One question that the gate asks."""

    part: str
    """`fingerprint`, a track, or `RUNS`."""
    method: str = ""
    """Its label in the run; in the baseline where the run doesn't have it. Empty: all methods."""
    endpoint: str = ""
    """`metric@profile/reduction`, or `fingerprint`; empty for part `RUNS`."""
    verdict: Verdict | None
    """None: nothing to decide, which `text` explains."""
    text: str
    """Why, in one sentence."""
    details: tuple[str, ...] = ()
    """More sentences."""
    acknowledged: str = ""
    """Reason and last day of the acknowledgement because of which this regression does not count."""
    direction: Direction = "none"
    unit: str = ""
    baseline: float | None = None
    """Mean over the cases that both have."""
    run: float | None = None
    better_by: float | None = None
    """Mean paired difference, turned so that more is better."""
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    cases: int | None = None
    cases_needed: int | None = None
    """About how many cases would decide; None where it is decided, or where more cases would hardly help."""

    @property
    def counts(self) -> bool:
        """Whether it has a say in the verdict of the gate."""
        return self.verdict is not None and not self.acknowledged


def fingerprint_checks(
    baseline: RunStore, run: RunStore, results: tuple[Results, Results], rule: FingerprintRule
) -> Iterator[Check]:
    """Hold the fingerprint of every method of the baseline against that of the run.

    Args:
        baseline: The old run.
        run: The new one.
        results: What the two hold, in this order.
        rule: What the policy asks for.
    """
    before, now = baseline.fingerprints(), run.fingerprints()
    mine, other = _labels(results[0], before), _labels(results[1], now)
    pairs = {mine[0]: other[0]} if len(mine) == len(other) == 1 else {label: label for label in mine}
    for a, b in pairs.items():
        verdict, sentences = _fingerprint(before.get(a), now.get(b), rule)
        if verdict not in ("PASS", None) and not rule.require:
            verdict, sentences = None, (f"not required: {sentences[0]}", *sentences[1:])
        text, *details = sentences
        yield Check(
            part=FINGERPRINT, method=b, endpoint=FINGERPRINT, verdict=verdict, text=text, details=tuple(details)
        )


def _labels(results: Results, prints: Iterable[str]) -> list[str]:
    methods = [label_of(sample) for sample in results.samples if sample.method.policy != "reference"]
    return list(dict.fromkeys([*methods, *prints]))


def _fingerprint(
    old: FingerprintRecord | None, new: FingerprintRecord | None, rule: FingerprintRule
) -> tuple[Verdict | None, tuple[str, ...]]:
    if new is None:
        return "INCOMPLETE", ("the run has no fingerprint; `magbench run` and `magbench fingerprint` take one",)
    if old is None:
        return "INCOMPLETE", ("the baseline has no fingerprint; save a baseline of a run that has one",)
    if old.state == new.state == "not_applicable":
        return None, (f"not applicable before and now: {new.reason}",)
    for record, where in ((new, "run"), (old, "baseline")):
        if record.state != "value":
            return "INCOMPLETE", (f"{record.state.replace('_', ' ')} in the {where}: {record.reason}",)
    sentences = check(old, new, rule.tolerance)
    if not sentences:
        return "PASS", (f"the same in all {len(new.chunks)} chunks",)
    if sentences[0].startswith(NOT_COMPARABLE):
        return "NOT_COMPARABLE", tuple(sentence.removeprefix(NOT_COMPARABLE) for sentence in sentences)
    return "REGRESSION", sentences


def quality_checks(old: Results, new: Results, found: Comparability, policy: GatePolicy) -> Iterator[Check]:
    """Test every primary endpoint of every method of the baseline.

    Args:
        old: The baseline.
        new: The run.
        found: How the two compare.
        policy: With a margin for every primary endpoint.

    Raises:
        ConfigError: a margin is missing.
    """
    for record, where in ((new.run, "run"), (old.run, "baseline")):
        if record.status not in ("complete", "incomplete"):
            text = f"the {where} is not over, its status is {record.status}"
            yield Check(part=RUNS, verdict="INCOMPLETE", text=text, details=(f"continue with: {record.command}",))
    if found.blocking:
        sentences = tuple(f"{sentence} (A: baseline, B: run)" for sentence in found.blocking)
        yield Check(part=RUNS, verdict="NOT_COMPARABLE", text=sentences[0], details=sentences[1:])
        return
    pairs = method_pairs(old, new)
    rows = {
        (track.name, method.a, row.column.key): row
        for track in compared(old, new, found).tracks
        for method in track.methods
        for row in method.rows
    }
    cases_before, cases_now = _cases(old), _cases(new)
    for (track, a), cases in cases_before.items():
        b = pairs.get(a, a)
        lost = cases - cases_now.get((track, b), set())
        changed = [case for case in cases if (track, case) in found.cases]
        for endpoint in dict.fromkeys([*new.run.primary.get(track, ()), *old.run.primary.get(track, ())]):
            margin = margin_of(policy, endpoint)
            item = Check(part=track, method=b, endpoint=endpoint, verdict="INCOMPLETE", text="")
            row = rows.get((track, a, endpoint))
            if (track, b) not in cases_now:
                yield _with(item, text="the baseline has this method on this track and the run does not")
            elif changed:
                text = f"{len(changed)} cases are other ones than in the baseline"
                yield _with(item, verdict="NOT_COMPARABLE", text=text)
            elif lost:
                yield _with(item, text=f"{len(lost)} of {len(cases)} cases of the baseline are missing in the run")
            elif row is None:
                yield _with(item, text="neither run has measured it")
            else:
                yield _judged(item, row, margin)


def _cases(results: Results) -> dict[tuple[str, str], set[str]]:
    """(Track, method) -> its cases; reference rows left out."""
    found: dict[tuple[str, str], set[str]] = {}
    for sample in results.samples:
        if sample.method.policy != "reference":
            found.setdefault((sample.case.track, label_of(sample)), set()).add(sample.case.id)
    return found


def _with(item: Check, **changes: object) -> Check:
    return item.model_copy(update=changes)


def _judged(item: Check, row: Row, margin: Margin) -> Check:
    """What one endpoint of one method says."""
    a, b, column = row.a, row.b, row.column
    item = _with(item, direction=column.direction, unit=column.unit, baseline=a.value, run=b.value)
    if row.mark == "x":
        return _with(item, verdict="NOT_COMPARABLE", text=row.reason)
    if a.state == b.state == "not_applicable":
        return _with(item, verdict=None, text="not applicable before and now", details=b.reasons)
    for side, where in ((b, "run"), (a, "baseline")):
        if side.state != "value":
            return _with(item, text=f"the {where} has no value", details=side.reasons)
        if failed := tuple(reason for reason in side.reasons if reason.startswith("error")):
            text = f"{side.expected - side.samples} of {side.expected} samples have no value in the {where}"
            return _with(item, text=text, details=failed)
    if row.lost:
        text = f"{row.lost} cases have a value in the baseline and none in the run"
        return _with(item, text=text, details=b.reasons)
    if column.direction == "none":
        return _with(item, verdict=None, text="neither more nor less of it is better")
    if row.difference is None or a.value is None:
        return _with(item, text=row.reason)
    better, limit = turned(row.difference, column.direction), margin.over(a.value)
    verdict, needed = non_inferior(better, limit)
    item = _with(item, verdict=verdict, better_by=better.value, low=better.low, high=better.high)
    item = _with(item, margin=limit, cases=better.n, cases_needed=needed)
    if better.low is None or better.high is None or verdict == "INCOMPLETE":
        return _with(item, text=f"{better.n} cases are too few to test, {MIN_CASES_TEST} are needed")
    text = f"better by {signed(better.value)} [{number(better.low)}, {number(better.high)}], margin {number(limit)}"
    more = f"about {needed} cases would decide" if needed else "so near the margin that more cases would hardly help"
    return _with(item, text=text, details=(f"{more}, these are {better.n}",) if verdict == "INCONCLUSIVE" else ())


def non_inferior(better: Difference, margin: float) -> tuple[Verdict, int | None]:
    """Hold an interval against a margin.

    Args:
        better: Paired difference, turned so that more is better.
        margin: How much worse it may be, above 0, same unit.

    Returns:
        The verdict, and for INCONCLUSIVE about how many cases would decide.
    """
    if better.low is None or better.high is None or better.p is None:
        return "INCOMPLETE", None
    if better.high < -margin:
        return "REGRESSION", None
    if better.low > margin:
        return "IMPROVED", None
    if better.low > -margin:
        return "PASS", None
    return "INCONCLUSIVE", cases_to_decide(better, margin)


def turned(difference: Difference, direction: Direction) -> Difference:
    """The difference with more = better."""
    if direction != "lower":
        return difference
    low, high = difference.low, difference.high
    flipped = (None if high is None else -high, None if low is None else -low)
    return replace(difference, value=-difference.value, low=flipped[0], high=flipped[1])


def margin_of(policy: GatePolicy, endpoint: str) -> Margin:
    """The margin of a primary endpoint.

    Raises:
        ConfigError: the policy has none.
    """
    if endpoint not in policy.margins:
        raise ConfigError(
            f"the gate policy has no margin for the primary endpoint {endpoint}",
            f"add it under margins in a file named with --policy; {did_you_mean(endpoint, policy.margins)}",
        )
    return policy.margins[endpoint]
