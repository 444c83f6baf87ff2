"""What a gate lets pass, as one YAML file.

```yaml
fingerprint:
  require: true                # false: a change of arithmetic, or no fingerprint, is said and does not count
  tolerance: 0.001             # in units of the latents' root mean square; left out: that of the numeric type
margins:                       # how much worse a primary endpoint may be; the larger of the two counts
  landmark_recall@mini/recall: {absolute: 0.05}
  retention@default/aligned_psnr: {absolute: 0.5, relative: 0.02}       # relative to the baseline's mean
acknowledged:                  # regressions that are meant
  - method: memrope
    endpoint: landmark_recall@mini/recall       # or `fingerprint`
    reason: half the cache, on purpose
    until: 2027-01-31          # the last day on which it counts
```
"""

from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from magbench.errors import ConfigError
from magbench.records import Record
from magbench.registry import did_you_mean
from magbench.suite import Endpoint

FINGERPRINT = "fingerprint"
"""Names the fingerprint where an endpoint is expected."""
FORMAT = "the format is in docs/gate.md"


def _number(value: Any) -> float:
    if isinstance(value, str) and value.strip().endswith("%"):
        raise ValueError(f"{value!r} is not a number; write 0.05 for 5 %")
    try:
        return float(str(value) if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is not a number") from None


def _day(value: Any) -> Any:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{_shown(value)} is not a day; write it as 2027-01-31") from None


Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
Day = Annotated[date, BeforeValidator(_day)]
Target = Annotated[str, Field(pattern=rf"^({FINGERPRINT}|[a-z0-9_]+@[a-z0-9._-]+/\S+)$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]


class Margin(Record):
    """How much worse an endpoint may be: the larger of the two, at least one given."""

    absolute: Positive | None = None
    """In the endpoint's unit."""
    relative: Positive | None = None
    """A share of the absolute value of the baseline's mean."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.absolute is None and self.relative is None:
            raise ValueError("a margin needs `absolute` or `relative`")
        return self

    def over(self, baseline_mean: float) -> float:
        """The margin in the endpoint's unit."""
        return max(self.absolute or 0.0, (self.relative or 0.0) * abs(baseline_mean))


class FingerprintRule(Record):
    """What the fingerprint part asks for."""

    require: bool = True
    tolerance: Positive | None = None
    """In units of the root mean square of a chunk's latents; None takes that of the numeric type."""


class Acknowledged(Record):
    """A regression that is meant."""

    method: Text
    """Its label in the run that is gated."""
    endpoint: Target
    reason: Text
    until: Day
    """The last day on which it counts."""


class GatePolicy(Record):
    """A whole gate.yaml."""

    fingerprint: FingerprintRule = FingerprintRule()
    margins: Annotated[dict[Endpoint, Margin], Field(min_length=1)]
    acknowledged: tuple[Acknowledged, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        for (method, endpoint), count in Counter((a.method, a.endpoint) for a in self.acknowledged).items():
            if count > 1:
                raise ValueError(f"{endpoint} of {method} is acknowledged {count} times; keep one")
        return self


def load_policy(path: Path | None = None) -> GatePolicy:
    """Read a gate.yaml.

    Args:
        path: The file; None takes the one that ships with magbench, made for the suites `mini-gate` and `mini`.

    Raises:
        ConfigError: it cannot be read, or a key is missing, unknown, given twice or out of range; the first is named.
    """
    if path is None:
        text = (resources.files("magbench.data") / "gate.yaml").read_text(encoding="utf-8")
        return parse_policy(text, "data/gate.yaml of magbench")
    try:
        return parse_policy(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the gate policy '{path}': {reason}", "give its path with --policy") from error


def parse_policy(text: str, source: str) -> GatePolicy:
    """Build a policy from YAML text; otherwise as `load_policy`.

    Args:
        text: The YAML.
        source: Where it came from, for messages.
    """
    try:
        values = yaml.load(text, Loader=_Strict)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"'{source}' is not YAML: {' '.join(str(error).split())}", FORMAT) from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"'{source}' holds no keys", f"it needs margins; {FORMAT}")
    try:
        return GatePolicy.model_validate(values)
    except ValidationError as error:
        message, hint = _sentence(error)
        raise ConfigError(f"'{source}': {message}", hint) from error


class _Strict(yaml.SafeLoader):
    """YAML in which a key given twice is a mistake, not an override."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise yaml.constructor.ConstructorError(problem=f"key {twice[0]!r} twice", problem_mark=node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)

_KEYS: dict[str, type[Record]] = {"fingerprint": FingerprintRule, "margins": Margin, "acknowledged": Acknowledged}
_WORDS = {
    "greater_than": "must be greater than 0",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
    "too_short": "must name at least one primary endpoint",
    "tuple_type": "must be a list",
    "dict_type": "must hold keys",
    "model_type": "must hold keys",
}


def _sentence(error: ValidationError) -> tuple[str, str]:
    """The first mistake and the next step."""
    first = error.errors(include_url=False)[0]
    kind, place = first["type"], [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(place)
    if kind == "extra_forbidden":
        where = f" in {'.'.join(place[:-1])}" if place[1:] else ""
        known = _KEYS[place[0]].model_fields if place[1:] else GatePolicy.model_fields
        return f"unknown key {place[-1]!r}{where}", did_you_mean(place[-1], known)
    if kind == "missing":
        return f"{'.'.join(place[:-1]) or 'the file'} has no key {place[-1]!r}", FORMAT
    if "[key]" in first["loc"] or "endpoint" in place:
        name = _shown(first["input"])
        return f"{key}: {name} is no endpoint", "write metric@profile/reduction, e.g. landmark_recall@mini/recall"
    if kind == "value_error":
        return ": ".join(filter(None, (key, first["msg"].removeprefix("Value error, ")))), FORMAT
    return f"{key} {_WORDS.get(kind, 'cannot be used')}, not {_shown(first['input'])}", FORMAT


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
