"""`magbench run`."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from magbench.cli import console
from magbench.cli.options import given, options_of
from magbench.cli.tables import show_failures, show_missing, show_tables
from magbench.jobs import of_other_code
from magbench.options import RunOptions
from magbench.store import RunStore

if TYPE_CHECKING:
    from magbench.runners.prepare import Prepared


@click.command("run")
@options_of(RunOptions)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
def command(dry_run: bool, **values: Any) -> int:
    """Generate videos with cache policies, score them, and compare.

    With no more than `--method memrope` it also runs the suite's baselines at the same budget. Repeat the same
    command to continue a run that was stopped.
    """
    options = RunOptions.parse(given(values))
    from magbench import reports
    from magbench.api import carry_out
    from magbench.errors import MagbenchError
    from magbench.runners.prepare import prepare

    if options.clips is not None:
        console.note(f"looking through the clips of '{options.clips}'")
    prepared = prepare(options)
    _announce(prepared)
    if dry_run:
        return 0
    jobs = len(prepared.plan.jobs)
    try:
        with console.Progress(jobs, jobs) as progress:
            results = carry_out(prepared, options.existing, progress.observe)
    except KeyboardInterrupt:
        console.error("interrupted; everything finished is kept", f"continue with: {prepared.record.command}")
        return 130
    except MagbenchError as error:
        if error.exit_code == 1:
            console.note(f"continue with: {prepared.record.command}")
        raise
    show_tables(reports.load(prepared.store()))
    show_missing(results)
    code = show_failures(results)
    console.say(f"report: {results.report}")
    if code:
        console.note(f"try the failed samples again: {prepared.record.command} --existing redo-failed")
    return code


def _announce(prepared: "Prepared") -> None:
    plan, record, setup = prepared.plan, prepared.record, prepared.setup
    for text in prepared.notes:
        console.warn(text)
    console.note(f"suite {record.suite} v{record.suite_version}, model {record.model}, {setup.device} {setup.dtype}")
    for track, spec in plan.suite.tracks.items():
        count = sum(job.case.track == track for job in plan.jobs)
        frames = sorted({case.frames for case in plan.suite.cases(track)})
        lengths = f"{frames[0]}" if len(frames) == 1 else f"{frames[0]}-{frames[-1]}"
        console.note(f"  {track}: {len(spec.cases)} cases of {lengths} latent frames, {count} samples")
    if prompts := record.resolved.get("prompts"):
        known = prompts["known"] and f", known as {prompts['known']}"
        note = prompts["note"] and f" ({prompts['note']})"
        console.note(f"  prompts: {prompts['file']}, sha256 {prompts['sha256'][:12]}{known}{note}")
    for job in {job.method.label: job for job in plan.jobs}.values():
        method = job.method
        if method.policy != "reference":
            budget = "grows" if method.budget_frames is None else f"{method.budget_frames:g} frames"
            ends, longest = method.released_frames, max(each.case.frames for each in plan.jobs)
            longer = f", extended past latent frame {ends}" if ends and longest > ends else ""
            console.note(f"  {method.label}: {method.applicability}, budget {budget}{longer}")
    console.note(f"into {setup.root}, {prepared.workers} workers")
    _announce_edits(prepared)


def _announce_edits(prepared: "Prepared") -> None:
    """Say what becomes of samples that a policy file made before it was edited."""
    root = prepared.setup.root
    stored = RunStore.open(root).samples() if RunStore.exists(root) else []
    rows = {job.method.label for job in prepared.plan.jobs}
    for label, count in Counter(sample.method.label for sample in of_other_code(prepared.plan, stored)).items():
        if label in rows:
            console.note(f"  {label} has been edited: samples of the old code will be replaced ({count})")
        else:
            console.warn(f"{label} has been edited since its samples were made: name it too, to replace them ({count})")
