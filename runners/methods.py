"""What a user can name after `--method`. Importing this file, and listing methods, imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from magbench.errors import ConfigError
from magbench.registry import Registry, did_you_mean
from magbench.runners.differences import DIFFERENCES, Difference

if TYPE_CHECKING:
    from magbench.runners.policies.base import CachePolicy

POLICIES = Registry(
    "policy",
    {
        "full": "magbench.runners.policies.full:Full",
        "fifo": "magbench.runners.policies.fifo:Fifo",
        "longlive": "magbench.runners.policies.longlive:LongLive",
        "longlive-infinity": "magbench.runners.policies.longlive_infinity:LongLiveInfinity",
        "memrope": "magbench.runners.policies.memrope:MemRope",
        "infinity-rope": "magbench.runners.policies.infinity_rope:InfinityRope",
        "deep-sink": "magbench.runners.policies.deep_sink:DeepSink",
        "deep-forcing": "magbench.runners.policies.deep_forcing:DeepForcing",
        "mag": "magbench.runners.policies.mag:Mag",
        "rolling-forcing": "magbench.runners.policies.rolling_forcing:RollingForcing",
        "causvid": "magbench.runners.policies.causvid:CausVid",
    },
)
"""`CachePolicy` classes by name."""

BUDGET = "budget"
"""In a method's name, `budget=9` stands for the parameters that the policy spends it on."""


@dataclass(frozen=True)
class Method:
    """One entry of `magbench list methods`."""

    name: str
    """Its own, and that of its policy."""
    summary: str
    source: str
    """Paper and released code."""

    def load(self) -> "type[CachePolicy]":
        """The policy class; imports torch."""
        policy: type[CachePolicy] = POLICIES[self.name]
        return policy

    def defaults(self) -> dict[str, Any]:
        """Parameter names and defaults; imports torch."""
        return {field.name: field.default for field in fields(self.load())}

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Where release and paper differ."""
        return DIFFERENCES.get(self.name, ())


@dataclass(frozen=True)
class BoundMethod:
    """A method with all its parameters decided."""

    label: str
    """Canonical spelling: the name, then, sorted, every parameter that differs from the method's default."""
    method: Method
    policy: "CachePolicy"
    family: str
    """The label without what a budget has decided: rows of a family differ in their budget only."""
    refusal: str = ""
    """Why it can't have the budget it was given; its policy is then that of its defaults."""

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, defaults resolved."""
        return asdict(self.policy)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="full",
            summary="every past frame at its own time index; the cache grows with the video",
            source="Self-Forcing without a window (arXiv 2506.08009, guandeh17/Self-Forcing)",
        ),
        Method(
            name="fifo",
            summary="sliding window over the newest frames at their own time indices, optionally behind a sink",
            source="Self-Forcing with local_attn_size (arXiv 2506.08009, guandeh17/Self-Forcing)",
        ),
        Method(
            name="longlive",
            summary="frame sink and short window, encoded again when the prompt changes",
            source="LongLive v1 (arXiv 2509.22622, NVlabs/LongLive branch v1.0)",
        ),
        Method(
            name="longlive-infinity",
            summary="frame sink and short window at slot positions",
            source="LongLive v1, use_infinite_attention (arXiv 2509.22622, NVlabs/LongLive branch v1.0)",
        ),
        Method(
            name="memrope",
            summary="sink, a long and a short moving average of evicted frames, newest frames, at slot positions",
            source="MemRoPE (arXiv 2603.12513, YoungRaeKimm/MemRoPE)",
        ),
        Method(
            name="infinity-rope",
            summary="sink and short window at slot positions, flushed at a new prompt, moved away at a cut",
            source="Infinity-RoPE (yesiltepe-hidir/infinity-rope)",
        ),
        Method(
            name="deep-sink",
            summary="half or more of the window is sink, and moves along in time",
            source="Deep Forcing without compression (release commit ea9961a)",
        ),
        Method(
            name="deep-forcing",
            summary="deep sink, and of the frames in between the tokens that recent queries ask for most",
            source="Deep Forcing: deep sink and participative compression (release commit ea9961a)",
        ),
        Method(
            name="mag",
            summary="the last frame of each chunk, its keys written by a memory network; a ring of them and a sink",
            source="MAG (arXiv 2512.18741, Xilluill/MAG)",
        ),
        Method(
            name="rolling-forcing",
            summary="chunks of rising noise denoised together behind an anchor and the newest clean frames",
            source="Rolling Forcing (TencentARC/RollingForcing)",
        ),
        Method(
            name="causvid",
            summary="rollouts of 21 frames, each beginning with the end of the last; nothing is carried over",
            source="CausVid (arXiv 2412.07772, tianweiy/CausVid)",
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


class BudgetError(ConfigError):
    """A policy can't have the budget it was given."""


def parse_method(spec: str, budget: int | None = None) -> BoundMethod:
    """Read `memrope`, `memrope:alpha_long=0.05,sink=1` or `deep-forcing:budget=9`; imports torch.

    Args:
        spec: What the user named.
        budget: Past frames a pass may see, which the policy spends as it does. Reference rows (`full`, `causvid`) keep
            what they have.

    Raises:
        ConfigError: Unknown method or parameter, a bad value, or a budget given twice.
        BudgetError: The policy can't have this budget.
    """
    name, _, text = spec.partition(":")
    method = find_method(name)
    defaults, given = method.defaults(), _read_parameters(method, text) if ":" in spec else {}
    own = given.pop(BUDGET, None)
    if own is not None and budget is not None and own != budget:
        raise ConfigError(f"{spec!r} has a budget of its own, and {budget} frames were asked for.", "drop one of them")
    budget = budget if own is None else own
    policy, family = method.load(), _label(name, given, defaults)
    if budget is None:
        return BoundMethod(family, method, policy(**{**defaults, **given}), family)
    if budget < 1:
        raise ConfigError(f"the budget is {budget} frames.", "use 1 or more")
    spent = _spend(policy, budget, spec, given)
    bound = policy(**{**defaults, **spent, **given})
    if policy.matched and bound.budget != budget:
        raise BudgetError(
            f"{spec!r} cannot be given a budget of {budget} frames: its own is {bound.budget}.",
            f"left out, a budget sets {', '.join(spent)}" if spent else "its class says in `spend` how to use one",
        )
    return BoundMethod(_label(name, {**spent, **given}, defaults), method, bound, family)


def bind(spec: str, budget: int | None) -> BoundMethod:
    """As `parse_method`, but a method that can't have the budget says why in `refusal` instead of raising."""
    try:
        return parse_method(spec, budget)
    except BudgetError as error:
        plain = parse_method(spec)
        joint = "," if ":" in plain.label else ":"
        reason = " ".join(filter(None, (error.message, error.hint)))
        return replace(plain, label=f"{plain.label}{joint}{BUDGET}={budget}", refusal=reason)


def _spend(policy: "type[CachePolicy]", budget: int, spec: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the budget sets.

    Raises:
        BudgetError: It can't be spent.
        ConfigError: The user has set the same.
    """
    try:
        spent = policy.spend(budget)
        policy(**{**spent, **{key: value for key, value in given.items() if key not in spent}})
    except ConfigError as error:
        raise BudgetError(error.message, error.hint) from error
    main = next(iter(spent), "")
    if main in given:
        raise ConfigError(
            f"{spec!r} sets {main}, and so does the budget of {budget} frames.",
            f"drop one of them; that budget is {main}={spent[main]}",
        )
    return spent


def _label(name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    changed = [f"{key}={_spell(value)}" for key, value in sorted(given.items()) if value != defaults[key]]
    return ":".join([name, ",".join(changed)] if changed else [name])


def _read_parameters(method: Method, text: str) -> dict[str, Any]:
    hints = {**get_type_hints(method.load()), BUDGET: int}
    known = [*method.defaults(), BUDGET]
    given: dict[str, Any] = {}
    for item in text.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ConfigError(
                f"{item!r} after {method.name!r} is no name=value.", f"write {method.name}:name=value,..."
            )
        if key not in known:
            raise ConfigError(f"{method.name} has no parameter {key!r}.", did_you_mean(key, known))
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
