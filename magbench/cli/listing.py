"""`magbench list`. Imports no torch: metric classes and policies stay unloaded."""

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from magbench.cli import console

if TYPE_CHECKING:
    from magbench.suite import Suite

Entries = list[dict[str, Any]]


def _methods() -> Entries:
    from magbench.runners.methods import all_methods

    return [{"name": m.name, "summary": m.summary, "source": m.source} for m in all_methods().values()]


def _models() -> Entries:
    from magbench.errors import MissingWeightsError
    from magbench.runners.models import MODELS

    def weights(name: str) -> str:
        try:
            MODELS[name].weights_sha256()
        except MissingWeightsError:
            return "missing"
        return "present"

    return [{"name": m.name, "summary": m.title, "weights": weights(m.name)} for m in MODELS.values()]


def _metrics() -> Entries:
    from magbench.metrics import METRICS

    return [{"name": name, "summary": _title(path)} for name, path in METRICS.paths().items()]


def _title(path: str) -> str:
    """A metric class's `title`, read from its source; empty when it has none of its own."""
    module, _, name = path.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for item in tree.body:
        if isinstance(item, ast.ClassDef) and item.name == name:
            for line in item.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "title":
                    return str(ast.literal_eval(line.value))
    return ""


def _suites() -> Entries:
    from magbench.suite import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [
        {
            "name": s.name,
            "summary": s.title,
            "version": str(s.version),
            "model": s.model,
            "cases": ", ".join(f"{len(spec.cases)} {track}" for track, spec in s.tracks.items()),
            "a method makes": extent(s),
        }
        for s in suites
    ]


def extent(suite: "Suite") -> str:
    """Videos, their length in all, and generated frames, for one method."""
    from magbench.runners.models import generated

    made = generated(suite)
    if made is None:
        return ""
    videos, frames, seconds = made
    length = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
    return f"{videos} videos, {length}, {frames:,} frames"


KINDS: dict[str, Callable[[], Entries]] = {
    "methods": _methods,
    "models": _models,
    "metrics": _metrics,
    "suites": _suites,
}


@click.command("list")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str, as_json: bool) -> int:
    """List methods, models, metrics or suites."""
    entries = KINDS[kind]()
    if as_json:
        console.dump(entries)
    else:
        headers = list(entries[0]) if entries else []
        console.rows(headers, [[entry[name] for name in headers] for entry in entries])
    return 0
