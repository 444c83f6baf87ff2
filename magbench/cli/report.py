"""`magbench report RUN`."""

from pathlib import Path

import click

from magbench.cli import console
from magbench.cli.tables import show_tables


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(runs: tuple[Path, ...]) -> int:
    """Rebuild tables, plots and page of a run from its samples, and print the table."""
    from magbench import reports
    from magbench.store import RunStore

    for root in runs:
        store = RunStore.open(root)
        report = reports.load(store)
        reports.build(store, report)
        show_tables(report)
        console.say(f"report: {store.root / 'report.html'}")
    return 0
