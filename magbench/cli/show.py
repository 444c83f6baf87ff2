"""`magbench show NAME`."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import click

from magbench.cli import console
from magbench.cli.listing import extent
from magbench.errors import ConfigError, MissingWeightsError
from magbench.registry import did_you_mean


def _method(name: str) -> dict[str, Any]:
    from magbench.runners.description import describe

    return describe(name)


def _say_method(facts: dict[str, Any]) -> None:
    from magbench.runners.differences import Difference
    from magbench.runners.methods import spelled

    about = "about" if facts["about"] != facts["summary"] else "summary"
    console.facts({name: facts[name] for name in dict.fromkeys(["method", "summary", "source", about])})
    parameters, budget = facts["parameters"].items(), facts["budget"]
    _list("parameters:", {spelled({name: each["value"]}): _explained(each) for name, each in parameters})
    sets = {frames: spelled(each) for frames, each in budget["sets"].items()} | budget["refused"]
    _list(f"budget: {budget['about']}", {f"--budget {frames}": sets[frames] for frames in sorted(sets)})
    differences = enumerate((Difference(**each).lines() for each in facts["differences"]), 1)
    _list("paper and release:", {f"{number}.": lines for number, lines in differences})
    _list("on a model:", {name: f"{fit['is']}: {fit['reason']}" for name, fit in facts["applicability"].items()})
    console.facts({name: facts[name] for name in ("longer", "loop", "also holds", "written by", "at a new prompt")})


def _list(title: str, items: Mapping[str, str | tuple[str, ...]]) -> None:
    """A title, and below it names with a line or more for each."""
    margin = max(map(len, items), default=0) + 4
    if items or not title.endswith(":"):
        console.fold(title, 2)
    for name, lines in items.items():
        first, *others = (lines,) if isinstance(lines, str) else lines
        console.fold(f"  {name:<{margin - 2}}{first}".rstrip(), margin)
        for line in others:
            console.fold(f"{'':<{margin}}{line}", margin)


def _explained(parameter: dict[str, Any]) -> str:
    kind = parameter["type"]
    choices = "" if isinstance(kind, str) else f" One of {', '.join(map(str, kind))}."
    return f"{parameter['about']}{choices}".strip()


def _model(name: str) -> dict[str, Any]:
    from magbench.runners.models import MODELS

    model = MODELS[name]
    facts: dict[str, Any] = {
        "model": name,
        "summary": model.title,
        "fps": f"{model.fps:g}",
        "chunk": f"{model.chunk} latent frames",
        "dtype": model.dtype,
        "trained with": {
            ":".join([fit.policy, *(f"{name}={value}" for name, value in fit.where.items())]): fit.reason
            for fit in model.fits
            if fit.applicability == "in-distribution"
        },
    }
    try:
        facts["weights"] = model.weights_sha256()
        facts["sampler"] = model.sampler
        facts["trained span"] = f"{model.trained_frames} latent frames"
    except MissingWeightsError as error:
        facts["weights"] = f"missing: {error.message}; {error.hint}"
    return {**facts, "card": model.card()}


def _metric(name: str) -> dict[str, Any]:
    from magbench.metrics import METRICS

    profiles = [known for known in METRICS if name in (known, known.partition("@")[0])]
    return {known: _definition(METRICS[known]) for known in profiles}


def _definition(metric: Any) -> dict[str, Any]:
    needs = metric.needs
    wanted = [what for what in ("truth", "trace", "history") if getattr(needs, what)]
    return {
        "what": metric.title,
        "version": str(metric.version),
        "clock": metric.clock,
        "needs": ", ".join([*wanted, *needs.features]) or "the video alone",
        "licence": metric.licence or "Apache-2.0, ours",
        "reductions": {r.name: f"{_better(r.direction)}{r.unit and f', in {r.unit}'}" for r in metric.reductions},
        "definition": (metric.__doc__ or "").strip(),
    }


def _suite(name: str) -> dict[str, Any]:
    from magbench.suite import load_suite

    suite = load_suite(name)
    tracks: dict[str, Any] = {
        track: {
            "cases": ", ".join(case.id for case in spec.cases),
            "seeds": ", ".join(map(str, spec.seeds)),
            "latent frames": ", ".join(map(str, sorted({case.frames for case in suite.cases(track)}))),
            "metrics": ", ".join(spec.metrics),
            "primary endpoints": ", ".join(spec.primary),
            "coherence horizons": ", ".join(spec.horizons) or "none",
            "references": ", ".join(spec.references),
            "strata": ", ".join(
                f"{count} {name}" for name, count in Counter(c.stratum for c in spec.cases).items() if name
            ),
            "closed camera paths": ", ".join(case.id for case in spec.cases if case.closed_path),
            "prompts": {case.id: case.prompt for case in spec.cases},
        }
        for track, spec in suite.tracks.items()
    }
    return {
        "suite": f"{suite.name} version {suite.version}",
        "summary": suite.title,
        "model": suite.model,
        "a method makes": extent(suite),
        "baselines": ", ".join(suite.baselines),
        "budget": "each method's own" if suite.budget is None else f"{suite.budget} past frames",
        **tracks,
    }


def _say_suite(facts: dict[str, Any]) -> None:
    """Everything but the prompts, which would fill pages."""
    console.facts(
        {
            name: {k: v for k, v in value.items() if k != "prompts"} if isinstance(value, dict) else value
            for name, value in facts.items()
        }
    )


_SAY: dict[Any, Callable[[dict[str, Any]], None]] = {_method: _say_method, _suite: _say_suite}
"""What prints a description, where names and values below each other won't do."""


def _known() -> dict[Callable[[str], dict[str, Any]], list[str]]:
    """Names, by what describes them. A model and a suite may share one."""
    from magbench.metrics import METRICS
    from magbench.runners.methods import all_methods
    from magbench.runners.models import MODELS
    from magbench.suite import suite_names

    metrics = [part for name in METRICS for part in (name, name.partition("@")[0])]
    return {_method: list(all_methods()), _model: list(MODELS), _metric: metrics, _suite: list(suite_names())}


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> int:
    """Describe whatever has this name: a method (parameters may follow), model, metric or suite, or ./file.py:Class."""
    from magbench.runners.methods import split_spec
    from magbench.runners.models import ANNOUNCED, find_model

    known, method = _known(), split_spec(name)[0]
    found = {
        describe: describe(name)
        for describe, names in known.items()
        if name in names or (describe is _method and (method in names or ".py" in method))
    }
    if not found:
        if name in ANNOUNCED:
            find_model(name)  # raises, and says what is the matter with it
        names = {each for names in known.values() for each in names}
        raise ConfigError(f"nothing is called {name!r}", did_you_mean(name, names))
    if as_json:
        console.dump(list(found.values()))
        return 0
    for index, (describe, facts) in enumerate(found.items()):
        if index:
            console.say()
        _SAY.get(describe, console.facts)(facts)
    return 0


def _better(direction: str) -> str:
    return "no better direction" if direction == "none" else f"{direction} is better"
