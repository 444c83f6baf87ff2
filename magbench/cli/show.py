"""`magbench show NAME`."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import click

from magbench.cli import console
from magbench.errors import ConfigError, MissingWeightsError
from magbench.registry import did_you_mean


def _method(name: str) -> dict[str, Any]:
    from magbench.runners.methods import parse_method
    from magbench.runners.models import MODELS

    bound = parse_method(name)
    method = bound.method
    return {
        "method": bound.label,
        "summary": method.summary,
        "source": method.source,
        "release and paper": {str(n): " / ".join(each.lines()) for n, each in enumerate(method.differences, 1)},
        "policy": " ".join((type(bound.policy).__doc__ or "").split()),
        "budget": "grows with the video" if bound.policy.budget is None else f"{bound.policy.budget} past frames",
        "parameters": {k: f"{v}  ({_document(type(bound.policy), k)})" for k, v in bound.parameters.items()},
        "applicability": {m.name: ": ".join(m.applicability(method.name, bound.parameters)) for m in MODELS.values()},
    }


def _document(policy: type, name: str) -> str:
    """The docstring under a field, read from the source."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(policy))).body[0]
    lines = body.body if isinstance(body, ast.ClassDef) else []
    for field, text in pairwise(lines):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id == name:
            found = text.value if isinstance(text, ast.Expr) else None
            return " ".join(str(found.value).split()) if isinstance(found, ast.Constant) else ""
    return ""


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
            "references": ", ".join(spec.references),
        }
        for track, spec in suite.tracks.items()
    }
    return {
        "suite": f"{suite.name} version {suite.version}",
        "summary": suite.title,
        "model": suite.model,
        "baselines": ", ".join(suite.baselines),
        "budget": "each method's own" if suite.budget is None else f"{suite.budget} past frames",
        **tracks,
    }


def _known() -> dict[Callable[[str], dict[str, Any]], list[str]]:
    """Names, by what describes them. A model and a suite may share one."""
    from magbench.metrics import METRICS
    from magbench.runners.methods import METHODS
    from magbench.runners.models import MODELS
    from magbench.suite import suite_names

    metrics = [part for name in METRICS for part in (name, name.partition("@")[0])]
    return {_method: list(METHODS), _model: list(MODELS), _metric: metrics, _suite: list(suite_names())}


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> int:
    """Describe whatever has this name: a method (parameters may follow), model, metric or suite."""
    known = _known()
    found = [describe(name) for describe, names in known.items() if name in names or _is_method(describe, name, names)]
    if not found:
        names = {each for names in known.values() for each in names}
        raise ConfigError(f"nothing is called {name!r}", did_you_mean(name, names))
    if as_json:
        console.dump(found)
        return 0
    for index, facts in enumerate(found):
        if index:
            console.say()
        console.facts(facts)
    return 0


def _is_method(describe: Callable[[str], dict[str, Any]], name: str, names: list[str]) -> bool:
    return describe is _method and name.partition(":")[0] in names


def _better(direction: str) -> str:
    return "no better direction" if direction == "none" else f"{direction} is better"
