"""`magbench weights`: what the learned metrics need, and the only command that downloads anything. Imports no torch."""

from collections.abc import Callable, Iterable

import click

from magbench.cli import console
from magbench.errors import ConfigError, MagbenchError
from magbench.metrics.weights import cache_folder, fetch, find, lookup, manifest, needed_by, state, verify


@click.group("weights", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, download or check the weights of learned metrics. No other command ever downloads anything."""
    if ctx.invoked_subcommand is None:
        console.say(ctx.get_help())


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_weights(as_json: bool) -> int:
    """List weights: size, licence, what they are for, and whether they are here and have been checked."""
    rows = []
    for name, entry in manifest().items():
        found, size = state(name)
        here = f"{size / 1e6:.0f} of " if found == "partial" else ""
        rows.append(
            {
                "name": name,
                "state": found,
                "size": f"{here}{entry.megabytes} MB",
                "licence": entry.licence,
                "for": ", ".join(entry.metrics),
                "title": entry.title,
            }
        )
    if as_json:
        console.dump(rows)
    else:
        console.rows(list(rows[0]), [list(row.values()) for row in rows])
        console.note(f"in {cache_folder()}; MAGBENCH_CACHE chooses another folder")
    return 0


@command.command("fetch")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All but those that forbid commercial use.")
@click.option("--for", "metrics", multiple=True, metavar="METRIC", help="What this metric needs. Repeatable.")
@click.option("--offline", is_flag=True, envvar="MAGBENCH_OFFLINE", help="Download nothing: only say what is missing.")
def fetch_weights(names: tuple[str, ...], everything: bool, metrics: tuple[str, ...], offline: bool) -> int:
    """Download weights and check them. A download that was cut off goes on where it stopped."""
    chosen = dict.fromkeys([*_checked(names), *needed_by(_profiles(metrics))])
    if everything:
        restricted = [name for name, entry in manifest().items() if entry.non_commercial and name not in chosen]
        chosen |= dict.fromkeys(name for name in manifest() if name not in restricted)
        for name in restricted:
            console.note(f"left out, since its licence forbids commercial use: {name} ({manifest()[name].licence})")
    if not chosen:
        if metrics:
            console.say(f"{', '.join(metrics)}: no weights needed")
            return 0
        raise ConfigError("nothing to fetch", "name weights of magbench weights list, or give --all or --for METRIC")
    return _each(chosen, _fetch_offline if offline else _fetch)


@command.command("verify")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def verify_weights(names: tuple[str, ...]) -> int:
    """Read weights again and compare their SHA-256; without names, all that are here."""
    chosen = _checked(names) or [n for n in manifest() if state(n)[0] in ("verified", "unverified")]
    if not chosen:
        console.say(f"no weights are in {cache_folder()}")
    return _each(chosen, lambda name: console.say(f"{name}: genuine, sha256 {verify(name)[1]}"))


def _profiles(metrics: tuple[str, ...]) -> list[str]:
    if not metrics:
        return []
    from magbench.runners.scoring import metric_names

    return [profile for name in metrics for profile in metric_names(name)]


def _checked(names: tuple[str, ...]) -> list[str]:
    for name in names:
        lookup(name)
    return list(names)


def _each(names: Iterable[str], step: Callable[[str], None]) -> int:
    """Take a step for each name, whatever becomes of the others; 4 when any failed, else 0."""
    failed = False
    for name in names:
        try:
            step(name)
        except MagbenchError as error:
            console.error(error.message, error.hint)
            failed = True
    return 4 if failed else 0


def _fetch(name: str) -> None:
    entry = manifest()[name]
    if entry.non_commercial:
        console.warn(f"{name} may not be used commercially: its licence is {entry.licence}")
    with console.Bytes(name) as bar:
        path = fetch(name, bar.observe, lambda: console.note(f"{name}: another process is fetching it; waiting"))
    console.say(f"{name}: here and genuine, {path}")


def _fetch_offline(name: str) -> None:
    console.say(f"{name}: here and genuine, {find(name)[0]}")
