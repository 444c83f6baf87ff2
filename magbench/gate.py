"""Does a run pass against a baseline: nothing changed in the arithmetic, nothing got worse than the margin."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Literal

from magbench.comparability import comparability
from magbench.errors import ConfigError
from magbench.gate_checks import RUNS, Check, Verdict, fingerprint_checks, quality_checks
from magbench.gate_policy import FINGERPRINT, Acknowledged, GatePolicy
from magbench.records import Record
from magbench.results import read
from magbench.store import RunStore

__all__ = ["EXIT_CODES", "ORDER", "RUNS", "Check", "Outcome", "Verdict", "acknowledge", "judge", "overall"]

ORDER: tuple[Verdict, ...] = ("PASS", "IMPROVED", "INCONCLUSIVE", "INCOMPLETE", "NOT_COMPARABLE", "REGRESSION")
"""The verdict of the gate is the last of these that any check has. A regression is certain whatever else is missing."""
EXIT_CODES: dict[Verdict, int] = {
    "PASS": 0, "IMPROVED": 0, "INCONCLUSIVE": 0, "INCOMPLETE": 4, "NOT_COMPARABLE": 2, "REGRESSION": 3,
}  # fmt: skip
STRICT_INCONCLUSIVE = 3


class Outcome(Record):
    """What a gate says."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    exit_code: int
    strict: bool
    run: str
    """Its folder, as given."""
    baseline: str
    policy: str
    """Its file, as given."""
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()
    """Acknowledgements that are over or stale, and parts that were not checked."""
    notices: tuple[str, ...] = ()
    """What differs between the two and blocks nothing; A is the baseline, B the run."""


def judge(
    run: RunStore, baseline: RunStore, policy: GatePolicy, today: date, strict: bool = False, source: str = ""
) -> Outcome:
    """Hold a run against a baseline. Reads records only, no video.

    Args:
        run: The new run, or a folder with fingerprints only.
        baseline: The old one, or a slim copy of it (`magbench.baseline`).
        policy: What may pass.
        today: The day on which acknowledgements are looked at.
        strict: An inconclusive outcome fails.
        source: Where the policy came from.

    Raises:
        ConfigError: the policy has no margin for a primary endpoint, or the two are the same folder.
    """
    if run.root.resolve() == baseline.root.resolve():
        raise ConfigError(f"'{run.root}' is both the run and its baseline", "name two folders")
    old, new = read(baseline, videos=False), read(run, videos=False)
    checks: list[Check] = []
    warnings: list[str] = []
    notices: tuple[str, ...] = ()
    found = comparability(old, new)
    kinds = {old.run.kind, new.run.kind}
    if "score" not in kinds:
        checks += fingerprint_checks(baseline, run, (old, new), policy.fingerprint)
    meant = policy.acknowledged
    if FINGERPRINT in kinds:
        warnings.append("quality was not checked: one of the two folders holds fingerprints only")
    else:
        checks += quality_checks(old, new, found, policy)
        notices = found.differing
    if found.blocking:
        meant = tuple(entry for entry in meant if entry.endpoint == FINGERPRINT)
    checks, waived = acknowledge(checks, meant, today)
    verdict = overall(checks)
    if not any(c.counts or c.acknowledged for c in checks):
        warnings.append("nothing could be checked: the two have no primary endpoint and no fingerprint to compare")
    code = STRICT_INCONCLUSIVE if strict and verdict == "INCONCLUSIVE" else EXIT_CODES[verdict]
    return Outcome(
        verdict=verdict,
        exit_code=code,
        strict=strict,
        run=str(run.root),
        baseline=str(baseline.root),
        policy=source,
        checks=tuple(checks),
        warnings=(*warnings, *waived),
        notices=notices,
    )


def overall(checks: Iterable[Check]) -> Verdict:
    """The verdict of all checks together: the last in `ORDER`; INCOMPLETE where there is nothing to go by."""
    every = list(checks)
    counted = [c.verdict for c in every if c.verdict is not None and c.counts]
    if counted:
        return max(counted, key=ORDER.index)
    return "PASS" if any(c.acknowledged for c in every) else "INCOMPLETE"


def acknowledge(
    checks: Iterable[Check], acknowledged: Sequence[Acknowledged], today: date
) -> tuple[list[Check], list[str]]:
    """Mark the regressions that are meant; say which acknowledgements are over and which match nothing any more."""
    by_name = {(a.method, a.endpoint): a for a in acknowledged}
    marked: list[Check] = []
    warnings: list[str] = []
    needed: set[tuple[str, str]] = set()
    for item in checks:
        name = item.method, item.endpoint
        entry = by_name.get(name)
        if entry and item.verdict == "REGRESSION":
            needed.add(name)
            if today <= entry.until:
                item = item.model_copy(update={"acknowledged": f"{entry.reason} (until {entry.until})"})
            else:
                over = f"acknowledged until {entry.until}, which is over: {entry.reason}"
                item = item.model_copy(update={"details": (*item.details, over)})
                warnings.append(f"{entry.method}, {entry.endpoint}: {over}")
        elif entry and item.verdict not in ("PASS", "IMPROVED"):
            needed.add(name)
        marked.append(item)
    warnings += [
        f"{a.method}, {a.endpoint}: the acknowledgement matches no regression, remove it from the policy"
        for name, a in by_name.items()
        if name not in needed
    ]
    return marked, list(dict.fromkeys(warnings))
