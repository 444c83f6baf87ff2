"""`magbench score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magbench.cli import console
from magbench.cli.options import EMPTY, given, options_of
from magbench.cli.tables import show_failures, show_missing, show_tables, show_warnings
from magbench.errors import ConfigError
from magbench.options import ScoreOptions

if TYPE_CHECKING:
    from magbench.runners.scoring import PreparedScore


@click.command("score")
@click.argument("paths", metavar="[VIDEOS|RUN]...", nargs=-1, type=click.Path())
@options_of(ScoreOptions)
@click.option("--dry-run", is_flag=True, help="Show what would be scored and what was made of names; write nothing.")
@click.option(
    "--save-manifest", metavar="FILE", help="Write what was made of names as a manifest, to correct and give back."
)
def command(paths: tuple[str, ...], dry_run: bool, save_manifest: str | None, **values: Any) -> int:
    """Score anybody's videos (files, folders, or a manifest), or a run again.

    Videos are read where they are, never copied or changed. Of a run, only what is missing or outdated is computed.
    Rows of a manifest that share an id are the same case: methods are then compared on it, as in `magbench run`.
    """
    options = ScoreOptions.parse(given(values))
    from magbench import reports
    from magbench.api import carry_out_score
    from magbench.runners.scoring import prepare_score
    from magbench.store import RunStore

    if "" in paths:
        raise ConfigError("a path is empty", EMPTY)
    prepared = prepare_score([Path(path) for path in paths], options)
    _announce(prepared)
    if save_manifest is not None:
        _save(prepared, save_manifest)
    if dry_run:
        _preview(prepared)
        return 0
    count = len(prepared.tasks)
    console.note(f"scoring {count} videos into {prepared.root}, {prepared.workers} workers")
    try:
        with console.Progress(count, count) as progress:
            results = carry_out_score(prepared, progress.observe)
    except KeyboardInterrupt:
        console.error("interrupted; everything finished is kept", f"continue with: {prepared.record.command}")
        return 130
    show_tables(reports.load(RunStore.open(prepared.root)))
    show_missing(results)
    show_warnings(results)
    code = show_failures(results)
    console.say(f"report: {results.report}")
    return code


def _announce(prepared: "PreparedScore") -> None:
    """Say what was not understood, and why."""
    for file, reason in prepared.left_out:
        console.warn(f"left out: {str(file)!r}: {reason}")
    for text in prepared.notes:
        console.warn(text)


def _preview(prepared: "PreparedScore") -> None:
    given = [task.given for task in prepared.tasks if task.given]
    samples = [(task.key, "", "", "", task.label) for task in prepared.tasks if not task.given]
    videos = [(str(one.file), one.case.id, one.case.prompt, str(one.seed), one.method.label) for one in given]
    console.rows(("file", "id", "prompt", "seed", "method"), [*videos, *samples])


def _save(prepared: "PreparedScore", name: str) -> None:
    from magbench.data.manifest import manifest_text

    if not prepared.rows:
        raise ConfigError("--save-manifest needs names to read", "give --layout, or write the manifest by hand")
    file = Path(name)
    console.write(file, manifest_text(prepared.rows, file.resolve().parent))
    console.note(f"manifest: {file}, {len(prepared.rows)} rows")
