"""`magbench validate`."""

from pathlib import Path
from typing import Any

import click

from magbench.cli import console
from magbench.cli.options import given, options_of
from magbench.errors import ConfigError
from magbench.options import ValidateOptions


@click.command("validate")
@click.argument("paths", metavar="[CLIPS...|RUN]", nargs=-1, type=click.Path(path_type=Path))
@options_of(ValidateOptions)
def command(paths: tuple[Path, ...], **values: Any) -> int:
    """Check the metrics themselves: do they see what they claim to see, and do they agree with people?

    Damages of graded strength (identity, exposure, colour, blur, noise, freezing, loops, seams, flicker) are planted
    into clean clips, rendered ones unless CLIPS are given, and scored. The matrix of claims and findings is printed and
    written as validation.md, .csv and .json.

    With --human, the agreement of a RUN's metrics with people's choices between pairs of its videos is printed instead.
    The CSV has the columns first, second (sample keys, or names of given videos) and choice (first, second, tie), and
    may have aspect, annotator and case; or it is what a page of `magbench study` saved, and --key names its key.csv.

    Exit code 3 if a claim fails.
    """
    options = ValidateOptions.parse(given(values))
    if options.human:
        return _human(paths, options)
    if options.key:
        raise ConfigError("option --key needs --human", "name the CSV of choices with --human")
    return _planted(paths, options)


def _planted(paths: tuple[Path, ...], options: ValidateOptions) -> int:
    from magbench.reports.tables import footnotes, terminal
    from magbench.reports.validation import findings_csv, matrix, page, strengths
    from magbench.runners.validation import prepare_validation, run_validation
    from magbench.store import write_json

    prepared = prepare_validation(paths, options)
    root, count = prepared.setup.root, prepared.clips
    console.note(f"{count} clips to damage and score, into {root}, {prepared.workers} workers")
    try:
        with console.Progress(count, count) as progress:
            record = run_validation(prepared, progress.observe)
    except KeyboardInterrupt:
        console.error("interrupted; everything finished is kept", "repeat the command: it goes on where it stopped")
        return 130
    write_json(root / "validation.json", record.model_dump(mode="json"))
    console.write(root / "validation.md", page(record))
    console.write(root / "validation.csv", findings_csv(record.findings))
    for grid in (matrix(record), strengths(record)):
        console.say()
        console.show(terminal(grid, console.width()))
        for line in footnotes(grid):
            console.say(line)
    console.say(f"table: {root / 'validation.md'}")
    return 3 if record.count("fails") else 0


def _human(paths: tuple[Path, ...], options: ValidateOptions) -> int:
    from magbench.agreement import agreement, read_choices
    from magbench.api import load
    from magbench.reports.agreement import agreement_csv, grids
    from magbench.reports.tables import footnotes, markdown, terminal
    from magbench.store import make_folder

    if len(paths) != 1:
        raise ConfigError("--human needs the run whose videos people compared", "magbench validate RUN --human CSV")
    choices = read_choices(options.human, options.key)
    found = agreement(load(paths[0]), choices, options.metrics)
    made = grids(found)
    for grid in made:
        console.say()
        console.show(terminal(grid, console.width()))
        for line in footnotes(grid):
            console.say(line)
    if options.out:
        make_folder(options.out)
        console.write(options.out / "agreement.md", "\n".join(map(markdown, made)))
        console.write(options.out / "agreement.csv", agreement_csv(found))
        console.say(f"table: {options.out / 'agreement.md'}")
    return 0
