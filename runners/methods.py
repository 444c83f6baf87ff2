"""What a user can name after `--method`. Importing this file, and listing methods, imports no torch."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from magbench.errors import ConfigError
from magbench.registry import Registry, did_you_mean
from magbench.runners.differences import DIFFERENCES, Difference
from magbench.runners.user_policies import code_of, documentation, policy_in_file, telling, vetted

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
    group="magbench.policies",
)
"""`CachePolicy` classes by name; installed packages add theirs through the entry-point group."""

BUDGET = "budget"
"""In a method's name, `budget=9` stands for the parameters that the policy spends it on."""
WRITE_BACK = "write_back"
"""In a method's name, `write_back=truth` has the cache written from the ground truth, whatever the policy."""
WriteBack = Literal["generated", "truth"]


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


class PlugIn(Method):
    """A policy of an installed package."""

    def load(self) -> "type[CachePolicy]":
        """See `Method.load`.

        Raises:
            ConfigError: it cannot be imported, or is no cache policy.
        """
        with telling(f"{self.name} of {self.source} cannot be imported"):
            return vetted(super().load(), self.name)


@dataclass(frozen=True)
class PolicyFile(Method):
    """A policy in a file of the user; its name is `path.py:Class`."""

    policy: "type[CachePolicy]"

    def load(self) -> "type[CachePolicy]":
        """See `Method.load`."""
        return self.policy

    @property
    def path(self) -> str:
        """The file, as the user sees it."""
        return self.name.rpartition(":")[0]


@dataclass(frozen=True)
class BoundMethod:
    """A method with all its parameters decided."""

    label: str
    """Canonical spelling: the name, then, sorted, every parameter that differs from the method's default."""
    method: Method
    policy: "CachePolicy"
    family: str
    """The label without what a budget has decided: rows of a family differ in their budget only."""
    write_back: WriteBack = "generated"
    """What the clean pass sees of a generated chunk, for a policy without such a parameter of its own."""
    refused: int | None = None
    """The budget that it was given and can't have; its policy is then that of its defaults."""
    refusal: str = ""
    """Why."""

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters, defaults resolved."""
        own = {} if self.write_back == "generated" else {WRITE_BACK: self.write_back}
        return asdict(self.policy) | own

    @property
    def writes_truth(self) -> bool:
        """Whether the cache is written from the ground truth: MAG-Bench's "ground truth comparison"."""
        return self.policy.writes_truth or self.write_back == "truth"

    @property
    def code_sha256(self) -> str:
        """Of the file that defines the policy; empty for those of magbench."""
        code = code_of(type(self.policy))
        return hashlib.sha256(code).hexdigest() if code else ""


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


def all_methods() -> dict[str, Method]:
    """Ours, then the installed plug-ins; imports none of them."""
    plug_ins = [
        PlugIn(point.name, point.dist.metadata["Summary"] or "", f"plug-in {point.dist.name} {point.dist.version}")
        for point in POLICIES.plug_ins()
        if point.dist and point.name not in METHODS
    ]
    return {**METHODS, **{method.name: method for method in plug_ins}}


def split_spec(spec: str) -> tuple[str, str | None]:
    """`name:parameters` or `path.py:Class:parameters` to name and parameters; None when there are none."""
    match = re.fullmatch(r"([^:]*\.py(?::\w*)?|[^:]*)(?::(.*))?", spec, re.DOTALL)
    name, text = match.groups() if match else (spec, None)
    return name, text


def find_method(name: str) -> Method:
    """The method called `name`, which may be `path.py:Class`.

    Raises:
        ConfigError: No such method, the hint names the closest one; or the file has no such policy.
    """
    path, _, cls = name.partition(":")
    if path.endswith(".py"):
        path = str(Path(path))
        policy = policy_in_file(path, cls)
        summary = documentation(policy).partition("\n\n")[0].replace("\n", " ")
        return PolicyFile(f"{path}:{cls}", summary, path, policy)
    if name in METHODS:
        return METHODS[name]
    known = all_methods()
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"unknown method {name!r}.", f"{hint}; a policy of your own: ./file.py:Class")
    return known[name]


class BudgetError(ConfigError):
    """A policy can't have the budget it was given."""


def parse_method(spec: str, budget: int | None = None) -> BoundMethod:
    """Read `memrope`, `memrope:sink=1,window=9`, `deep-forcing:budget=9` or `./mine.py:Mine:sink=1`; imports torch.

    Args:
        spec: What the user named.
        budget: Past frames a pass may see, which the policy spends as it does. Reference rows (`full`, `causvid`) keep
            what they have.

    Raises:
        ConfigError: Unknown method or parameter, a bad value, or a budget given twice.
        BudgetError: The policy can't have this budget.
    """
    name, text = split_spec(spec)
    method = find_method(name)
    defaults, given = method.defaults(), {} if text is None else _read_parameters(method, text)
    own = given.pop(BUDGET, None)
    if own is not None and budget is not None and own != budget:
        raise ConfigError(f"{spec!r} has a budget of its own, and {budget} frames were asked for.", "drop one of them")
    budget = budget if own is None else own
    named, known = dict(given), {WRITE_BACK: "generated", **defaults}
    write_back: WriteBack = "generated" if WRITE_BACK in defaults else given.pop(WRITE_BACK, "generated")
    policy, family = method.load(), _label(method.name, named, known)
    if budget is None:
        return BoundMethod(family, method, _make(method, {**defaults, **given}), family, write_back)
    if budget < 1:
        raise ConfigError(f"the budget is {budget} frames.", "use 1 or more")
    spent = _spend(method, budget, spec, given)
    bound = _make(method, {**defaults, **spent, **given})
    if policy.matched and bound.budget != budget:
        own = "its own grows with the video" if bound.budget is None else f"its own is {bound.budget}"
        raise BudgetError(
            f"{spec!r} cannot be given a budget of {budget} frames: {own}{' with ' * bool(spent)}{spelled(spent)}.",
            f"leave the budget out and set {', '.join(spent)}" if spent else "its class says in `spend` how to use one",
        )
    return BoundMethod(_label(method.name, {**spent, **named}, known), method, bound, family, write_back)


def bind(spec: str, budget: int | None) -> BoundMethod:
    """As `parse_method`, but a method that can't have the budget says why in `refusal` instead of raising."""
    try:
        return parse_method(spec, budget)
    except BudgetError as error:
        plain = parse_method(spec)
        joint = "," if ":" in plain.label else ":"
        reason = "; ".join(filter(None, (error.message.rstrip("."), error.hint)))
        return replace(plain, label=f"{plain.label}{joint}{BUDGET}={budget}", refused=budget, refusal=reason)


def _make(method: Method, parameters: Mapping[str, Any]) -> "CachePolicy":
    with telling(f"{method.name} cannot be made"):
        policy = method.load()(**parameters)
        frames: object = policy.budget
    if frames is not None and not isinstance(frames, int):
        raise ConfigError(f"the budget of {method.name} is {frames!r}.", "make it a whole number of frames, or None")
    return policy


def _spend(method: Method, budget: int, spec: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the budget sets.

    Raises:
        BudgetError: It can't be spent.
        ConfigError: The user has set the same.
    """
    try:
        with telling(f"{method.name} cannot spend a budget of {budget} frames"):
            spent = method.load().spend(budget)
        if unknown := [key for key in spent if key not in method.defaults()]:
            raise BudgetError(
                f"{method.name} has no parameter {unknown[0]!r} for a budget to set.",
                "its class says in `spend` which parameters a budget sets, or with `matched = False` that it sets none",
            )
        _make(method, {**spent, **{key: value for key, value in given.items() if key not in spent}})
    except ConfigError as error:
        raise BudgetError(error.message, error.hint) from error
    main = next(iter(spent), "")
    if main in given:
        raise ConfigError(
            f"{spec!r} sets {main}, and so does the budget of {budget} frames.",
            f"drop one of them; that budget is {spelled(spent)}",
        )
    return spent


def _label(name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    changed = {key: value for key, value in sorted(given.items()) if value != defaults[key]}
    return f"{name}:{spelled(changed)}" if changed else name


def spelled(parameters: Mapping[str, Any]) -> str:
    """Parameters as a user writes them: `adaptive=true,sink=1`."""
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in parameters.items()}
    return ",".join(f"{name}={text}" for name, text in texts.items())


def _read_parameters(method: Method, text: str) -> dict[str, Any]:
    hints = {WRITE_BACK: WriteBack, **get_type_hints(method.load()), BUDGET: int}
    known = list(dict.fromkeys([*method.defaults(), BUDGET, WRITE_BACK]))
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
