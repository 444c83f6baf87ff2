"""What a user can name after `--method`. Importing this file, and listing methods, imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from magbench.errors import ConfigError
from magbench.registry import Registry, did_you_mean
from magbench.runners.wan.configs import CHUNK_FRAMES

if TYPE_CHECKING:
    from magbench.runners.policies.base import CachePolicy

POLICIES = Registry(
    "policy",
    {
        "full": "magbench.runners.policies.full:Full",
        "fifo": "magbench.runners.policies.fifo:Fifo",
        "memrope": "magbench.runners.policies.memrope:MemRope",
    },
)
"""`CachePolicy` classes by name."""


@dataclass(frozen=True)
class Method:
    """One entry of `magbench list methods`."""

    name: str
    policy: str
    """Name in `POLICIES`."""
    summary: str
    source: str
    """Paper and released code."""
    notes: str = ""
    """Where the release differs from its paper, and which one runs here."""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that differ from the policy's own defaults."""

    def load(self) -> "type[CachePolicy]":
        """The policy class; imports torch."""
        policy: type[CachePolicy] = POLICIES[self.policy]
        return policy

    def parameters(self) -> dict[str, Any]:
        """Parameter names and defaults, presets applied; imports torch."""
        return {f.name: self.preset.get(f.name, f.default) for f in fields(self.load())}


@dataclass(frozen=True)
class BoundMethod:
    """A method with all its parameters decided."""

    label: str
    """Canonical spelling: the name, then, sorted, every parameter that differs from the method's default."""
    method: Method
    policy: "CachePolicy"

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, defaults resolved."""
        return asdict(self.policy)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="full",
            policy="full",
            summary="every past frame at its own time index; the cache grows with the video",
            source="Self-Forcing without a window (arXiv 2506.08009, guandeh17/Self-Forcing)",
            notes="The release stops at 21 latent frames, the size of its buffer; here it goes on.",
        ),
        Method(
            name="fifo",
            policy="fifo",
            summary="sliding window over the newest frames at their own time indices, optionally behind a sink",
            source="Self-Forcing with local_attn_size (arXiv 2506.08009, guandeh17/Self-Forcing)",
        ),
        Method(
            name="longlive",
            policy="fifo",
            summary="frame sink and short window: fifo with sink=3",
            source="LongLive v1 (arXiv 2509.22622, NVlabs/LongLive branch v1.0)",
            notes="For sinks larger than a chunk the release keeps keys of a noisy pass; here they are clean.",
            preset={"sink": 3},
        ),
        Method(
            name="memrope",
            policy="memrope",
            summary="sink, a long and a short moving average of evicted frames, newest frames, at slot positions",
            source="MemRoPE (YoungRaeKimm/MemRoPE)",
            notes=(
                "As released: memories start at the first evicted mean (paper: zero), average over space too unless "
                "adaptive=true, and the frames whose slots they take are lost. Averages are kept in fp32 (release: "
                "bf16). memory=long and memory=short are ours; memory=none is LongLive's infinity mode."
            ),
        ),
    )
}
"""All methods by name."""


def find_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        ConfigError: No such method; the hint names the closest one.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}.", did_you_mean(name, METHODS))
    return METHODS[name]


def parse_method(spec: str, budget: int | None = None) -> BoundMethod:
    """Read `memrope` or `memrope:alpha_long=0.05,sink=1`; imports torch.

    Args:
        spec: What the user named.
        budget: Past frames a pass may see. Sets `window` to budget + chunk where the method has one; `full` has none
            and keeps growing.

    Raises:
        ConfigError: Unknown method or parameter, a bad value, or a budget beside a window.
    """
    name, colon, text = spec.partition(":")
    method = find_method(name)
    defaults = method.parameters()
    given = _read_parameters(method, text) if colon else {}
    if budget is not None and "window" in defaults:
        if "window" in given:
            raise ConfigError(
                f"{spec!r} sets window, and so does the budget of {budget} frames.",
                f"drop one of them: window is budget + {CHUNK_FRAMES}",
            )
        if budget < 0:
            raise ConfigError(f"the budget is {budget} frames.", "use 0 or more")
        given["window"] = budget + CHUNK_FRAMES
    policy = method.load()(**{**defaults, **given})
    if budget is not None and policy.budget not in (None, budget):
        raise ConfigError(
            f"{spec!r} cannot be given a budget of {budget} frames: its own is {policy.budget}.",
            "a policy whose budget can be chosen has a parameter named window",
        )
    changed = [f"{key}={_spell(value)}" for key, value in sorted(given.items()) if value != defaults[key]]
    return BoundMethod(":".join([name, ",".join(changed)] if changed else [name]), method, policy)


def _read_parameters(method: Method, text: str) -> dict[str, Any]:
    hints = get_type_hints(method.load())
    defaults = method.parameters()
    given: dict[str, Any] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ConfigError(
                f"{item!r} after {method.name!r} is no name=value.", f"write {method.name}:name=value,..."
            )
        if key not in defaults:
            raise ConfigError(f"{method.name} has no parameter {key!r}.", did_you_mean(key, defaults))
        if key in given:
            raise ConfigError(f"{key} of {method.name} is given twice.")
        given[key] = _convert(method.name, key, value, hints[key])
    return given


def _convert(method: str, key: str, value: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in get_args(kind)}
        expected = f"one of {', '.join(choices)}"
    elif kind is bool:
        choices = {"true": True, "false": False}
        expected = "true or false"
    else:
        if kind not in (int, float):
            raise ConfigError(f"{key} of {method} has a type that cannot be given in a name: {kind}.")
        expected = "a whole number" if kind is int else "a number"
        try:
            return kind(value)
        except ValueError:
            raise ConfigError(
                f"{key} of {method} must be {expected}, not {value!r}.", f"see magbench show {method}"
            ) from None
    if value not in choices:
        raise ConfigError(f"{key} of {method} must be {expected}, not {value!r}.", f"see magbench show {method}")
    return choices[value]


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
