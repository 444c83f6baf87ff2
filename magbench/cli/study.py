"""`magbench study RUN`."""

from pathlib import Path
from typing import Any

import click

from magbench.cli import console
from magbench.cli.options import given, options_of
from magbench.options import StudyOptions


@click.command("study")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@options_of(StudyOptions)
def command(run: Path, **values: Any) -> int:
    """Make a blind pairwise study of a run's videos: a page to open in any browser, and the key to its pairs.

    Give the folder `page` to people; each saves a CSV of choices. Keep `key.csv` to yourself until then:
    magbench validate RUN --human CHOICES.csv --key key.csv
    """
    options = StudyOptions.parse(given(values))
    from magbench.reports.study import counts, draw, write_study
    from magbench.store import RunStore

    store = RunStore.open(run)
    study = draw(store.samples(), options)
    folder = options.out or store.root / f"study-{options.seed}"
    page = write_study(store, study, folder)
    if len(study.pairs) < options.pairs:
        console.warn(f"the run has only {len(study.pairs)} pairs")
    shown = ", ".join(f"{label} {count}" for label, count in sorted(counts(study).items()))
    console.say(f"{len(study.pairs)} pairs; videos of each method: {shown}")
    console.say(f"page: {page}")
    console.say(f"key: {folder / 'key.csv'}")
    return 0
