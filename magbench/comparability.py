"""Whether two runs can be put side by side, from their records alone."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from magbench.errors import IncompatibleRunsError
from magbench.jobs import CASE_IDENTITY
from magbench.records import CaseRecord, SampleRecord
from magbench.results import Results

MACHINE = ("machine", "system", "cpu", "cores", "gpus")
"""What of the hardware decides how long a chunk takes."""
SHOWN = 4
"""Names in a sentence before "and n more"."""
VIDEOS = "videos"
"""Method label of footage that no method of ours made: there every file is a case."""

Key = TypeVar("Key", bound=Hashable)
CaseKey = tuple[str, str]


@dataclass(frozen=True)
class Comparability:
    """What stands between two runs, as sentences."""

    blocking: tuple[str, ...] = ()
    """Why nothing can be compared; empty when something can."""
    differing: tuple[str, ...] = ()
    """What differs and blocks nothing, or not everything."""
    timing: tuple[str, ...] = ()
    """Why times and speeds can't be compared; sizes still can."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """`metric@profile` -> why its values can't be compared."""
    cases: Mapping[CaseKey, str] = field(default_factory=dict)
    """(track, case id) of a case that both have -> why it isn't the same one."""

    def require(self) -> None:
        """Refuse what can't be compared.

        Raises:
            IncompatibleRunsError: something is blocking.
        """
        if self.blocking:
            raise IncompatibleRunsError(
                f"the runs cannot be compared: {'; '.join(self.blocking)}",
                "run one of them again, with the suite, model and methods of the other",
            )


def comparability(a: Results, b: Results) -> Comparability:
    """Say whether two runs can be compared, and what differs. Reads no video and no file.

    Blocking: another kind of run, suite, suite version, model or model weights; no method, track or case in common.
    A metric of another version, profile or backbone blocks its own columns (`metrics`), a case of another content its
    own values (`cases`). Seeds, packages and methods' parameters may differ, which is said.

    Args:
        a: The old run.
        b: The new run.
    """
    metrics, cases = _metrics(a, b), _cases(a, b)
    return Comparability(
        tuple(_identity(a, b)) or tuple(_nothing_common(a, b, cases)),
        tuple(_differing(a, b, metrics, cases)),
        tuple(_timing(a, b)),
        metrics,
        cases,
    )


def label_of(sample: SampleRecord) -> str:
    """The method's label; files that were scored by themselves count as one method, so that they pair by name."""
    return VIDEOS if sample.method.policy == "file" else sample.method.label


def method_pairs(a: Results, b: Results) -> dict[str, str]:
    """Label in A -> label in B: the same one, or the only one where each run has one. Reference rows left out."""
    mine, other = _labels(a), _labels(b)
    if len(mine) == len(other) == 1:
        return dict(zip(mine, other, strict=True))
    return {label: label for label in other if label in mine}


def common_tracks(a: Results, b: Results) -> tuple[str, ...]:
    """Tracks that both have samples of, in the order in which the new run declares them."""
    mine = {sample.case.track for sample in a.samples}
    other = dict.fromkeys([*b.run.primary, *(sample.case.track for sample in b.samples)])
    return tuple(track for track in other if track in mine and any(s.case.track == track for s in b.samples))


def case_records(results: Results) -> dict[CaseKey, CaseRecord]:
    """(track, case id) -> the case, of all samples."""
    return {(sample.case.track, sample.case.id): sample.case for sample in results.samples}


def _labels(results: Results) -> dict[str, None]:
    found = dict.fromkeys(label_of(s) for s in results.samples if s.method.policy != "reference")
    declared = [label for label in results.run.methods if label in found]
    return dict.fromkeys([*declared, *sorted(found)])


def _identity(a: Results, b: Results) -> Iterable[str]:
    for results, name in ((a, "A"), (b, "B")):
        if not results.samples:
            yield f"{name} holds no sample"
    if a.run.kind != b.run.kind:
        yield f"kind of run: {_versus(a.run.kind, b.run.kind)}"
    if a.run.suite != b.run.suite:
        yield f"suite: {_versus(a.run.suite or 'none', b.run.suite or 'none')}"
    elif a.run.suite_version != b.run.suite_version:
        yield f"suite {a.run.suite}: version {_versus(a.run.suite_version, b.run.suite_version)}"
    if a.run.model != b.run.model:
        yield f"model: {_versus(a.run.model or 'none', b.run.model or 'none')}"
    elif changed := _changed(a.run.weights, b.run.weights):
        yield f"weights of model {a.run.model}: {_list(changed)} differ"


def _nothing_common(a: Results, b: Results, blocked: Mapping[CaseKey, str]) -> Iterable[str]:
    if not method_pairs(a, b):
        yield f"no method in common: A has {_list(_labels(a))}; B has {_list(_labels(b))}"
    if not common_tracks(a, b):
        tracks = [sorted({s.case.track for s in results.samples}) for results in (a, b)]
        yield f"no track in common: A has {_list(tracks[0])}; B has {_list(tracks[1])}"
        return
    common = case_records(a).keys() & case_records(b).keys()
    if not common:
        yield "no case in common"
    elif common <= blocked.keys():
        yield f"no case is the same in both: {_first(blocked)}"


def _differing(a: Results, b: Results, metrics: Mapping[str, str], cases: Mapping[CaseKey, str]) -> Iterable[str]:
    if a.root.resolve() == b.root.resolve():
        yield "A and B are the same folder"
    for results, name in ((a, "A"), (b, "B")):
        if results.run.status != "complete":
            yield f"{name} is not complete (status {results.run.status}, {len(results.samples)} samples)"
        if failed := results.count("error"):
            yield f"{name} has {failed} failed sample{'s' if failed != 1 else ''}"
    yield from _methods(a, b)
    for what, mine, other in (
        ("track", {s.case.track for s in a.samples}, {s.case.track for s in b.samples}),
        ("case", _case_names(a, common_tracks(a, b)), _case_names(b, common_tracks(a, b))),
    ):
        for name, only in (("A", mine - other), ("B", other - mine)):
            if only:
                yield f"{what}{'s' if len(only) != 1 else ''} only in {name}: {_list(sorted(only))}"
    if cases:
        yield f"{len(cases)} case{'s' if len(cases) != 1 else ''} left out: {_first(cases)}"
    for metric, reason in metrics.items():
        yield f"{metric} is not comparable: {reason}"
    for track in common_tracks(a, b):
        seeds = [sorted({s.seed for s in r.samples if s.case.track == track}) for r in (a, b)]
        if seeds[0] != seeds[1]:
            yield f"{track}: seeds {_versus(_list(seeds[0]), _list(seeds[1]))}, averaged within a case"
        if a.run.primary.get(track, ()) != b.run.primary.get(track, ()):
            yield f"{track}: other primary endpoints; those of B hold"
    for what in ("dtype", "sampler"):
        if a.run.resolved.get(what) != b.run.resolved.get(what):
            yield f"{what}: {_versus(a.run.resolved.get(what), b.run.resolved.get(what))}"
    if changed := _changed(a.run.versions, b.run.versions):
        yield f"packages: {_list([_one(key, a.run.versions, b.run.versions) for key in changed], 99)}"
    commits = [
        (r.run.git.get("commit", "")[:9] or "no commit") + (" with changes" if r.run.git.get("dirty") == "true" else "")
        for r in (a, b)
    ]
    if commits[0] != commits[1]:
        yield f"code: {_versus(*commits)}"


def _methods(a: Results, b: Results) -> Iterable[str]:
    pairs = method_pairs(a, b)
    for left, right in pairs.items():
        if left != right:
            yield f"the only method of each run, whatever its name: {_versus(left, right)}"
    for name, only in (("A", _labels(a).keys() - pairs.keys()), ("B", _labels(b).keys() - set(pairs.values()))):
        if only:
            yield f"method{'s' if len(only) != 1 else ''} only in {name}: {_list(sorted(only))}"
    mine = {label_of(s): s.method for s in a.samples}
    other = {label_of(s): s.method for s in b.samples}
    for left, right in pairs.items():
        old, new = ({**m.parameters, "budget_frames": m.budget_frames} for m in (mine[left], other[right]))
        if left == right and (changed := _changed(old, new)):
            yield f"{left} has other parameters: {_list([_one(key, old, new) for key in changed])}"
        if left == right and mine[left].code_sha256 != other[right].code_sha256:
            yield f"{left} has other code"


def _timing(a: Results, b: Results) -> Iterable[str]:
    for key in MACHINE:
        if a.run.hardware.get(key) != b.run.hardware.get(key):
            yield _one(key, a.run.hardware, b.run.hardware)
    if a.run.versions.get("torch") != b.run.versions.get("torch"):
        yield _one("torch", a.run.versions, b.run.versions)
    if a.run.resolved.get("device") != b.run.resolved.get("device"):
        yield _one("device", a.run.resolved, b.run.resolved)
    if a.run.arguments.get("workers") != b.run.arguments.get("workers"):
        yield _one("workers", {"workers": "default", **a.run.arguments}, {"workers": "default", **b.run.arguments})


def _metrics(a: Results, b: Results) -> dict[str, str]:
    mine, other = _identities(a), _identities(b)
    found = {}
    for name in sorted(mine.keys() | other.keys()):
        if name in mine and name in other:
            (old_versions, old_weights), (new_versions, new_weights) = mine[name], other[name]
            if old_versions != new_versions:
                found[name] = f"version {_versus(_and(old_versions), _and(new_versions))}"
            elif old_weights != new_weights:
                found[name] = (
                    f"weights {_versus(_and(sha[:9] for sha in old_weights), _and(sha[:9] for sha in new_weights))}"
                )
            continue
        metric = name.partition("@")[0]
        profiles = [
            sorted(n.partition("@")[2] for n in side if n.partition("@")[0] == metric) for side in (mine, other)
        ]
        if profiles[0] and profiles[1] and not set(profiles[0]) & set(profiles[1]):
            found[name] = f"profile {_versus(*map(_list, profiles))}"
    return found


def _identities(results: Results) -> dict[str, tuple[set[int], set[str]]]:
    """Metric -> its versions and weights, of the records that hold values."""
    found: dict[str, tuple[set[int], set[str]]] = {}
    for record in (record for records in results.metrics.values() for record in records if record.state == "value"):
        versions, weights = found.setdefault(record.name, (set(), set()))
        versions.add(record.version)
        weights.add(record.weights_sha256)
    return found


def _cases(a: Results, b: Results) -> dict[CaseKey, str]:
    mine, other = case_records(a), case_records(b)
    truths = _truths(a), _truths(b)
    found = {}
    for key in sorted(mine.keys() & other.keys()):
        old, new = mine[key], other[key]
        changed = [name for name in CASE_IDENTITY if getattr(old, name) != getattr(new, name)]
        if old.truth_sha256 and new.truth_sha256:
            same = old.truth_sha256 == new.truth_sha256
        else:
            same = all(truths[1].get(at, sha) == sha for at, sha in truths[0].items() if at[:2] == key)
        changed += [] if same else ["truth"]
        if changed:
            found[key] = f"another {_list(changed)}"
    return found


def _truths(results: Results) -> dict[tuple[str, str, int], str]:
    """(track, case, seed) -> hash of the truth's file, which stands in where the suite fixes no hash."""
    return {(s.case.track, s.case.id, s.seed): s.truth.sha256 for s in results.samples if s.truth}


def _case_names(results: Results, tracks: Iterable[str]) -> set[str]:
    return {f"{track}/{case}" for track, case in case_records(results) if track in set(tracks)}


def _first(found: Mapping[CaseKey, str]) -> str:
    (track, case), reason = next(iter(found.items()))
    return f"{track}/{case} has {reason}"


def _and(found: Iterable[object]) -> str:
    return " and ".join(sorted(str(item) or "none" for item in found))


def _changed(old: Mapping[Key, Any], new: Mapping[Key, Any]) -> list[Key]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _one(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return f"{key} {_versus(old.get(key, 'unknown'), new.get(key, 'unknown'))}"


def _versus(old: object, new: object) -> str:
    return f"{old} → {new}"


def _list(names: Iterable[object], shown: int = SHOWN) -> str:
    words = [str(name) for name in names]
    rest = f" and {len(words) - shown} more" if len(words) > shown else ""
    return (", ".join(words[:shown]) or "none") + rest
