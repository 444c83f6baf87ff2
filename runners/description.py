"""All that there is to know about a method, as plain data."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from magbench.registry import load_object
from magbench.runners.budgets import Spending
from magbench.runners.differences import released_frames
from magbench.runners.methods import BoundMethod, bind, parse_method
from magbench.runners.models import MODELS
from magbench.runners.policies.base import CachePolicy, Geometry, LayerCache
from magbench.runners.user_policies import documentation, telling
from magbench.runners.wan.rope import Rope

BUDGETS = (6, 9, 12, 18)
"""Past frames for which it is said what they set."""


def describe(spec: str) -> dict[str, Any]:
    """A method with its parameters, budgets, differences between paper and release, and fit to each model.

    Args:
        spec: As after `--method`.

    Raises:
        ConfigError: there is no such method, or its parameters can't be used.
    """
    bound = parse_method(spec)
    method, policy, recached = bound.method, bound.policy, bound.policy.recache_frames
    return {
        "method": bound.label,
        "summary": method.summary,
        "source": method.source,
        "about": "\n\n".join(_paragraphs(documentation(type(policy)))),
        "parameters": _parameters(bound),
        "budget": _budget(bound),
        "differences": [asdict(difference) for difference in method.differences],
        "applicability": {
            model.name: dict(zip(("is", "reason"), model.applicability(method.name, bound.parameters), strict=True))
            for model in MODELS.values()
        },
        "longer": _longer(method.name),
        "loop": _loop(policy),
        "also holds": _state(bound),
        "written by": _writer(bound),
        "at a new prompt": f"the newest {recached} frames are encoded again" if recached else "",
    }


def _longer(method: str) -> str:
    """What becomes of videos longer than the release's tables; empty where its positions don't end."""
    frames = released_frames(method)
    told = f"past latent frame {frames} the release is not applicable; here it is extended, and labelled so"
    return "" if frames is None else told


def _loop(policy: CachePolicy) -> str:
    """The loop it runs in; empty for the common one."""
    loop = load_object(policy.rollout)
    return "" if policy.rollout == CachePolicy.rollout else f"{loop.__name__}. {_first(inspect.getmodule(loop))}"


def _writer(bound: BoundMethod) -> str:
    """What fills its cache; empty when that is the generator with what it has generated."""
    network = "a second network, which sees an empty prompt" if bound.policy.writer == "memory" else ""
    return ", ".join(filter(None, [network, "with the ground truth" if bound.writes_truth else ""]))


def _parameters(bound: BoundMethod) -> dict[str, Any]:
    kinds, documents = get_type_hints(type(bound.policy)), _documents(type(bound.policy))
    return {
        field.name: {
            "value": getattr(bound.policy, field.name),
            "default": field.default,
            "type": _kind(kinds[field.name]),
            "about": documents.get(field.name, ""),
        }
        for field in fields(bound.policy)
    }


def _kind(kind: Any) -> str | list[Any]:
    return list(get_args(kind)) if get_origin(kind) is Literal else str(kind.__name__)


def _documents(policy: type) -> dict[str, str]:
    """The docstrings under the fields of a class and of those it derives from, read from the source."""
    found: dict[str, str] = {}
    for cls in policy.__mro__[-2::-1]:
        if issubclass(cls, CachePolicy):
            definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
            for field, text in pairwise(getattr(definition, "body", ())):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    written = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                    found[field.target.id] = " ".join(str(text.value.value).split()) if written else ""
    return found


def _budget(bound: BoundMethod) -> dict[str, Any]:
    """In words, and what some budgets set, or why they can't be had."""
    policy, spending = bound.policy, Spending(bound.family)
    found = {"own": policy.budget, "matched": policy.matched, "smallest": spending.smallest, "about": str(spending)}
    given = {frames: bind(bound.family, frames) for frames in BUDGETS if spending.smallest is not None}
    sets = {
        n: {name: each.parameters[name] for name in policy.spend(n)} for n, each in given.items() if not each.refusal
    }
    return {**found, "sets": sets, "refused": {n: each.refusal for n, each in given.items() if each.refusal}}


def _state(bound: BoundMethod) -> str:
    """What a cache holds beside keys and values, in the words of its class; empty when nothing."""
    with telling(f"no cache of {bound.label} can be made"):
        cache = bound.policy.layer(Geometry(batch=1, heads=1, rope=Rope(12, 1, 1), dtype=torch.float32))
    return _first(type(cache).state_bytes) if _overrides(cache, LayerCache, "state_bytes") else ""


def _overrides(thing: object, base: type, name: str) -> bool:
    return inspect.getattr_static(type(thing), name) is not inspect.getattr_static(base, name)


def _first(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return next(_paragraphs(inspect.getdoc(thing) or ""), "")


def _paragraphs(text: str) -> Iterator[str]:
    return (" ".join(part.split()) for part in text.split("\n\n") if part.strip())
