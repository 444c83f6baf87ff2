"""`magbench score`."""

from pathlib import Path
from typing import Any

import click

from magbench.cli import console
from magbench.cli.options import EMPTY, given, options_of
from magbench.cli.tables import show_failures, show_missing, show_tables, show_warnings
from magbench.errors import ConfigError
from magbench.options import ScoreOptions


@click.command("score")
@click.argument("paths", metavar="VIDEOS|RUN", nargs=-1, required=True, type=click.Path())
@options_of(ScoreOptions)
def command(paths: tuple[str, ...], **values: Any) -> int:
    """Score anybody's videos (files or folders), or a run again.

    Videos are read where they are, never copied or changed. Of a run, only what is missing or outdated is computed.
    """
    options = ScoreOptions.parse(given(values))
    from magbench import reports
    from magbench.api import carry_out_score
    from magbench.runners.scoring import prepare_score
    from magbench.store import RunStore

    if "" in paths:
        raise ConfigError("a path is empty", EMPTY)
    prepared = prepare_score([Path(path) for path in paths], options)
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
