"""`magbench why`."""

from typing import Any

import click

from magbench.cli import console
from magbench.cli.options import given, options_of
from magbench.options import WhyOptions


@click.command("why")
@options_of(WhyOptions)
def command(**values: Any) -> int:
    """Look into caches: what they keep, how old it is, how much it is looked at, and what one sees at their borders.

    Rolls out a few cases of a suite with diagnostics on, and writes one figure, `plots/why.svg` and `.png`, the table
    that is printed, and all numbers, `why.json`. Times are not measured: diagnostics cost some.
    """
    options = WhyOptions.parse(given(values))
    from magbench.api import carry_out_why
    from magbench.reports.tables import footnotes, terminal
    from magbench.reports.why import why_grid, why_rows
    from magbench.runners.why import prepare_why

    prepared = prepare_why(options)
    jobs, root = len(prepared.plan.jobs), prepared.setup.root
    console.note(f"suite {prepared.record.suite}, {jobs} videos on {prepared.setup.device}, into {root}")
    with console.Progress(jobs, jobs) as progress:
        found = carry_out_why(prepared, progress.observe)
    grid = why_grid(why_rows(found), prepared.record)
    console.say()
    console.show(terminal(grid, console.width()))
    for line in footnotes(grid):
        console.say(line)
    failed = [method for method in found.methods if method.state == "error"]
    for method in failed:
        console.error(f"{method.method.label}: {method.reason}", method.hint or None)
    console.say(f"table: {root / 'tables' / 'why.md'}")
    console.say(f"figure: {root / 'plots' / 'why.svg'}")
    return 4 if failed else 0
