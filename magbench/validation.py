"""Do metrics see what they claim to see? Claims and planted damages to findings. Imports no torch.

Per damage, clip and onset a metric gives one number for the clean clip and one per strength.

* `rho`: Spearman's rank correlation of strength (0 for the clean clip) and number, median over clips and onsets; 0
  where the number never changes.
* `change`: the largest over strengths of the median over clips and onsets of |number - clean number|, in standard
  deviations of the number over the clean clips.
* `auc`: at the weakest visible strength, the probability that a damaged clip's number lies on the claimed side of a
  clean clip's, ties counting half.

`rises` holds from `rho` >= 0.95 on, `falls` up to -0.95, `blind` where `change` < 1 or nothing changes at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import yaml
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from magbench.errors import ConfigError
from magbench.records import Record
from magbench.suite import Endpoint

SEEN = 0.95
"""Rank correlation from which a metric sees a damage."""
MIN_LEVELS = 5
"""Fewest strengths with a number behind a rank correlation."""
CLEAN = "clean"
"""Stands for the damage of a clip that has none."""

Claim = Literal["rises", "falls", "blind", "none"]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strengths(Record):
    """Of one damage."""

    weakest: Positive
    strongest: Positive

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.weakest >= self.strongest:
            raise ValueError(f"the weakest strength {self.weakest:g} is not below the strongest, {self.strongest:g}")
        return self

    def levels(self, count: int) -> tuple[float, ...]:
        """`count` strengths in equal ratios."""
        return tuple(np.geomspace(self.weakest, self.strongest, count).tolist())


class Visible(Record):
    """From where on a level of a damage counts as visible."""

    psnr: Positive
    """dB, at most; over the pixels that the damage changes in the last 15 % of the clip."""
    seconds: Positive
    """At least, for damages whose strength is how long they last."""


class Claims(Record):
    """What one reduction of a metric does under damages."""

    rises: tuple[str, ...] = ()
    falls: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    """Looked at, and nothing claimed."""

    def of(self, damage: str) -> Claim:
        """What it claims about a damage."""
        found: list[Claim] = [c for c in ("rises", "falls", "blind") if damage in getattr(self, c)]
        return found[0] if found else "none"

    @property
    def damages(self) -> tuple[str, ...]:
        """All it is looked at under."""
        return self.rises + self.falls + self.blind + self.open


class ValidationSpec(Record):
    """A whole validation.yaml."""

    version: int
    seconds: Positive
    clean: Annotated[int, Field(ge=2)]
    damaged: Annotated[int, Field(ge=1)]
    onsets: Annotated[tuple[Share, ...], Field(min_length=1)]
    levels: Annotated[int, Field(ge=MIN_LEVELS)]
    visible: Visible
    damages: Annotated[dict[str, Strengths], Field(min_length=1)]
    claims: dict[Endpoint, Claims]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for endpoint, claims in self.claims.items():
            for damage in claims.damages:
                if damage not in self.damages:
                    raise ValueError(f"{endpoint} names the unknown damage {damage!r}")
                if claims.damages.count(damage) > 1:
                    raise ValueError(f"{endpoint} names twice the damage {damage!r}")
        return self


def load_spec(path: Path | None = None) -> ValidationSpec:
    """Read a validation.yaml; None takes the one that ships with magbench.

    Raises:
        ConfigError: it can't be read or used.
    """
    source = path or resources.files("magbench.data") / "validation.yaml"
    try:
        return ValidationSpec.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the claims '{source}': {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"'{source}': {where}: {first['msg'].removeprefix('Value error, ')}") from error


class Measured(Record):
    """What metrics say of one clip under one damage with one onset, or of the clean clip."""

    clip: str
    damage: str
    onset: FiniteFloat
    identity: str
    """Hash of the clip and all that was done to it."""
    versions: dict[str, int]
    """Metric to its version."""
    strengths: tuple[FiniteFloat, ...]
    psnr: tuple[FiniteFloat | None, ...]
    """Per strength, dB over the pixels that differ from the clean clip; None where none does."""
    values: dict[str, tuple[FiniteFloat | None, ...]]
    """Endpoint to one number per strength."""
    reasons: dict[str, str]
    """Why an endpoint lacks a number."""


class Finding(Record):
    """What one reduction of a metric does under one damage."""

    endpoint: str
    damage: str
    claim: Claim
    verdict: Literal["holds", "fails", "not measured", "no claim"]
    reason: str = ""
    """Why it was not measured."""
    rho: FiniteFloat | None = None
    change: FiniteFloat | None = None
    """None where the clean clips are all alike, or there is but one."""
    auc: FiniteFloat | None = None
    series: int = 0
    """Clips times onsets behind it."""


class Level(Record):
    """One strength of a damage."""

    strength: FiniteFloat
    psnr: FiniteFloat | None
    """Median over clips and onsets; None where no pixel changes in most of them."""
    visible: bool


class ValidationRecord(Record):
    """validation.json: what was planted, and what the metrics made of it."""

    schema_version: Literal[1] = 1
    magbench_version: str
    spec: ValidationSpec
    versions: dict[str, int]
    """Metric to its version."""
    clips: tuple[str, ...]
    left_out: dict[str, str]
    """Damages that these clips can't have, and why."""
    levels: dict[str, tuple[Level, ...]]
    findings: tuple[Finding, ...]
    measured: tuple[Measured, ...]
    """Every number behind them."""
    unclaimed: tuple[str, ...] = ()
    """Metrics that claim nothing."""

    def count(self, verdict: str) -> int:
        """Findings of a verdict."""
        return sum(found.verdict == verdict for found in self.findings)


def conclude(
    spec: ValidationSpec, wanted: Mapping[str, Sequence[str]], measured: Iterable[Measured]
) -> tuple[dict[str, tuple[Level, ...]], tuple[Finding, ...]]:
    """The levels of each damage, and all findings.

    Args:
        spec: The claims.
        wanted: Endpoint to the damages to look at.
        measured: All there is, in any order.
    """
    found = sorted(measured, key=lambda one: (one.clip, one.damage, one.onset))
    clean = [one for one in found if one.damage == CLEAN]
    levels = {
        damage: _levels(spec, damage, those)
        for damage in spec.damages
        if (those := [one for one in found if one.damage == damage])
    }
    findings = []
    for endpoint, damages in wanted.items():
        for damage in damages:
            those = [one for one in found if one.damage == damage and endpoint in one.values]
            claim = spec.claims[endpoint].of(damage) if endpoint in spec.claims else "none"
            if those:
                findings.append(_finding(endpoint, damage, claim, clean, those, levels[damage]))
    return levels, tuple(findings)


def _levels(spec: ValidationSpec, damage: str, found: Sequence[Measured]) -> tuple[Level, ...]:
    lasting = all(value is None for one in found for value in one.psnr)
    levels = []
    for index, strength in enumerate(found[0].strengths):
        known = [one.psnr[index] for one in found]
        psnr = float(np.median([np.inf if value is None else value for value in known]))
        visible = strength >= spec.visible.seconds if lasting else psnr <= spec.visible.psnr
        levels.append(Level(strength=strength, psnr=psnr if np.isfinite(psnr) else None, visible=visible))
    return tuple(levels)


def _finding(
    endpoint: str,
    damage: str,
    claim: Claim,
    clean: Sequence[Measured],
    damaged: Sequence[Measured],
    levels: Sequence[Level],
) -> Finding:
    found = Finding(endpoint=endpoint, damage=damage, claim=claim, verdict="not measured")
    undamaged = {one.clip: one.values[endpoint][0] for one in clean if endpoint in one.values}
    spread_over = np.array([value for value in undamaged.values() if value is not None])
    rows = [_row(undamaged.get(one.clip), one.values[endpoint]) for one in damaged]
    rows = [row for row in rows if np.isfinite(row[0]) and np.isfinite(row).sum() > MIN_LEVELS]
    if len(rows) < (len(damaged) + 1) // 2:
        reasons = [one.reasons[endpoint] for one in (*clean, *damaged) if endpoint in one.reasons]
        return found.model_copy(update={"reason": reasons[0] if reasons else "too few numbers"})
    strengths = (0.0, *damaged[0].strengths)
    rho = float(np.median([spearman(strengths, row) for row in rows]))
    moved = max(float(np.median(column)) for i in range(1, len(strengths)) if len(column := _moved(rows, i)))
    spread = float(spread_over.std(ddof=1)) if len(spread_over) > 1 else None
    first = next((index for index, level in enumerate(levels, 1) if level.visible), None)
    auc = None
    if first is not None:
        at = np.array([row[first] for row in rows if np.isfinite(row[first])])
        side = -1 if (claim == "falls" or (claim != "rises" and rho < 0)) else 1
        auc = area(side * at, side * spread_over)
    numbers = {"rho": rho, "change": moved / spread if spread else None, "auc": auc, "series": len(rows)}
    if claim == "blind" and spread is None:
        return found.model_copy(update={**numbers, "reason": "one clean clip has no spread: give two"})
    holds = {"rises": rho >= SEEN, "falls": rho <= -SEEN, "blind": moved == 0 or moved < (spread or 0.0)}
    verdict = "no claim" if claim == "none" else "holds" if holds[claim] else "fails"
    return found.model_copy(update={**numbers, "verdict": verdict})


def _row(clean: float | None, values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in (clean, *values)])


def _moved(rows: Sequence[np.ndarray], index: int) -> np.ndarray:
    moved = np.array([abs(row[index] - row[0]) for row in rows])
    known: np.ndarray = moved[np.isfinite(moved)]
    return known


def spearman(strengths: Sequence[float], values: Sequence[float] | np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank; NaN pairs are left out; 0 where either never changes."""
    x, y = np.asarray(strengths, np.float64), np.asarray(values, np.float64)
    known = np.isfinite(y)
    a, b = _ranks(x[known]), _ranks(y[known])
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[:, None] > values).sum(1)
    ranks: np.ndarray = below + ((values[:, None] == values).sum(1) - 1) / 2
    return ranks


def area(above: np.ndarray, below: np.ndarray) -> float | None:
    """Share of pairs in which a value of `above` exceeds one of `below`, ties counting half; None without pairs."""
    if not len(above) or not len(below):
        return None
    return float((above[:, None] > below).mean() + 0.5 * (above[:, None] == below).mean())
