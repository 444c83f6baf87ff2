"""`magbench.run`, `score`, `why` and `load`: what the command line does, from Python."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magbench import provenance
from magbench.errors import ConfigError
from magbench.jobs import Plan, of_other_code, refuse_mixture
from magbench.options import Existing, FingerprintOptions, RunOptions, ScoreOptions, WhyOptions
from magbench.records import FingerprintRecord, RunRecord, WhyRecord
from magbench.results import Results, read
from magbench.store import RunStore

if TYPE_CHECKING:
    from magbench.runners.execute import Event
    from magbench.runners.prepare import Prepared
    from magbench.runners.scoring import PreparedScore

Observer = Callable[["Event"], None]


def load(folder: str | os.PathLike[str]) -> Results:
    """Read a run folder; its videos need not be there.

    Raises:
        ConfigError: it is none.
    """
    return read(RunStore.open(Path(folder)), videos=False)


def run(**options: Any) -> Results:
    """Generate, score and report; the options are those of `RunOptions`.

    Workers are processes of their own: a script that calls this needs `if __name__ == "__main__":`, or `workers=0`.

    Returns:
        All samples of the run folder; failed ones have status `error` and a reason.

    Raises:
        ConfigError: an option can't be used.
        StoreError: the run folder can't be written. What is finished stays; the same call continues.
    """
    from magbench.runners.prepare import prepare

    parsed = RunOptions.parse(options)
    return carry_out(prepare(parsed), parsed.existing, lambda event: None)


def score(*paths: str | os.PathLike[str], **options: Any) -> Results:
    """Score videos, or a run again; the options are those of `ScoreOptions`. Otherwise as `run`.

    Args:
        paths: Video files, folders of videos, or one run folder; none with `manifest=`.
        options: See above.
    """
    from magbench.runners.scoring import prepare_score

    prepared = prepare_score([Path(path) for path in paths], ScoreOptions.parse(options))
    return carry_out_score(prepared, lambda event: None)


def carry_out(prepared: "Prepared", existing: Existing, observe: Observer) -> Results:
    """Run what has been prepared.

    Args:
        prepared: By `runners.prepare.prepare`.
        existing: What to do with samples that are there.
        observe: Gets progress.

    Raises:
        ConfigError: the folder holds another run.
        StoreError: the folder can't be written.
    """
    from magbench.runners.execute import execute
    from magbench.runners.fingerprint import fingerprint_plan
    from magbench.runners.user_policies import hold

    store = enter(prepared.setup.root, prepared.record)
    settle(store, prepared.plan, existing)

    def work() -> None:
        execute(prepared.plan, prepared.setup, prepared.workers, observe)
        fingerprint_plan(store, prepared.plan, prepared.setup, again=existing == "redo")

    hold(prepared.setup.files)
    try:
        return finish(store, work)
    finally:
        hold({})


def fingerprint(**options: Any) -> dict[str, FingerprintRecord]:
    """Take the fingerprint of methods; the options are those of `FingerprintOptions`.

    Returns:
        By method label, also those that the folder held before. A method that failed has state `error` and a reason.

    Raises:
        ConfigError: an option can't be used, or the folder holds something else.
        MissingWeightsError: the model's weights are not here.
        StoreError: the folder can't be written.
    """
    from magbench.runners.fingerprint import prepare_fingerprint

    prepared = prepare_fingerprint(FingerprintOptions.parse(options))
    store = enter(prepared.root, prepared.record)
    for record in prepared.take():
        store.write_fingerprint(record)
    found = store.fingerprints()
    _close(store, "complete" if all(record.state == "value" for record in found.values()) else "incomplete")
    return found


def why(**options: Any) -> WhyRecord:
    """Look into what caches keep and what is looked at; the options are those of `WhyOptions`. Workers as in `run`.

    Returns:
        What `why.json` holds; a method that failed has state `error` and a reason.

    Raises:
        ConfigError: an option can't be used, or the folder holds something else.
        MissingWeightsError: the model's weights are not here.
        StoreError: the folder can't be written.
    """
    from magbench.runners.why import prepare_why

    return carry_out_why(prepare_why(WhyOptions.parse(options)), lambda event: None)


def carry_out_why(prepared: "Prepared", observe: Observer) -> WhyRecord:
    """Look into what `runners.why.prepare_why` prepared; the folder then holds this and nothing older."""
    from magbench import reports
    from magbench.runners.user_policies import hold
    from magbench.runners.why import diagnose

    store = enter(prepared.setup.root, prepared.record)
    try:
        record = diagnose(prepared, observe)
    finally:
        hold({})
    store.write_why(record)
    reports.build_why(store, record)
    _close(store, "incomplete" if any(one.state == "error" for one in record.methods) else "complete")
    return record


def carry_out_score(prepared: "PreparedScore", observe: Observer) -> Results:
    """Score what `runners.scoring.prepare_score` found; otherwise as `carry_out`."""
    from magbench.runners.scoring import run_score

    if prepared.record.kind == "score":
        store = enter(prepared.root, prepared.record)
        wanted = {key for task in prepared.tasks for key in task.keys}
        for sample in store.samples():
            if sample.key not in wanted:
                store.discard(sample.key)
        return finish(store, lambda: run_score(prepared, store, observe))
    store = RunStore.open(prepared.root)
    over = store.run.status in ("complete", "incomplete")
    return finish(store, lambda: run_score(prepared, store, observe), over)


def enter(root: Path, record: RunRecord) -> RunStore:
    """Open or make the run folder.

    Raises:
        ConfigError: it holds a run of another kind, suite or model, or is a folder of something else.
        StoreError: it can't be written.
    """
    if RunStore.exists(root):
        old = RunStore.open(root).run
        for what in ("kind", "suite", "suite_version", "model"):
            before, now = getattr(old, what), getattr(record, what)
            if before != now:
                raise ConfigError(
                    f"'{root}' holds a run with {what.replace('_', ' ')} {before!r}, this one has {now!r}",
                    "choose another folder with --out",
                )
        if record.kind == "score" and old.arguments.get("paths") != record.arguments["paths"]:
            raise ConfigError(f"'{root}' holds scores of other videos", "choose another folder with --out")
        record = _continued(record, old)
    elif RunStore.is_foreign(root):
        raise ConfigError(f"'{root}' is not empty and not a run folder", "choose another folder with --out")
    return RunStore.create(root, record)


def settle(store: RunStore, plan: Plan, existing: Existing) -> None:
    """Discard what is to be made again, and remove the plan's rows that are of other code than now.

    Raises:
        ConfigError: `existing` is `error` and something is there, or the folder holds samples of other settings.
    """
    stored = store.samples()
    rows = {job.method.label for job in plan.jobs}
    outdated = {sample.key for sample in of_other_code(plan, stored) if sample.method.label in rows}
    refuse_mixture(plan, [sample for sample in stored if sample.key not in outdated])
    planned = {job.key for job in plan.jobs}
    there = [sample for sample in stored if sample.key in planned | outdated]
    if existing == "error" and there:
        raise ConfigError(
            f"'{store.root}' already holds {len(there)} of the {len(planned)} samples",
            "--existing skip continues, --existing redo starts over, --out takes another folder",
        )
    for sample in there:
        if sample.key in outdated:
            store.remove(sample.key)
        elif existing == "redo" or (existing == "redo-failed" and sample.status == "error"):
            store.discard(sample.key)


def finish(store: RunStore, work: Callable[[], None], whole: bool = True) -> Results:
    """Do the work, build the report, and leave the outcome in `run.json`, also when interrupted.

    Args:
        store: The run.
        work: What to do.
        whole: Whether every sample of the run has been tried once the work is done.
    """
    from magbench import reports

    try:
        work()
    except KeyboardInterrupt:
        _close(store, "interrupted")
        raise
    results = read(store)
    failed = results.count("error") or results.metric_errors() or results.unscored()
    _close(store, "complete" if whole and not failed else "incomplete")
    reports.build(store)
    return replace(results, run=store.run)


def _close(store: RunStore, status: str) -> None:
    update = {"status": status, "finished": provenance.now()}
    store.write_run(RunRecord.model_validate({**store.run.model_dump(), **update}))


def _continued(record: RunRecord, old: RunRecord) -> RunRecord:
    """The record of a run that goes on, possibly with other methods or tracks than before."""
    update: dict[str, object] = {"started": old.started}
    if record.kind in ("run", "fingerprint"):
        update["methods"] = tuple(dict.fromkeys([*record.methods, *old.methods]))
    if record.kind == "run":
        metrics = {**old.resolved.get("metrics", {}), **record.resolved["metrics"]}
        update["primary"] = {**old.primary, **record.primary}
        update["horizons"] = {**old.horizons, **record.horizons}
        update["resolved"] = {**record.resolved, "metrics": metrics}
    return record.model_copy(update=update)
