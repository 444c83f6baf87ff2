"""A suite: what to generate and how to judge it, as one versioned YAML file.

```yaml
name: mini
version: 1
model: mini
title: one line for `magbench list suites`
baselines: [fifo, "memrope:memory=none"]   # run beside whatever the user names
budget: 12                                 # past frames every method may attend to; left out: each method's own
tracks:
  long-horizon:
    frames: 120                            # latent frames, for cases that don't say
    seeds: [0]
    references: [real, static, shuffled]
    metrics: [ssim_consecutive@default, appearance_drift@default]
    primary: [appearance_drift@default/drift]      # at most three, each `metric@profile/reduction`
    horizons: ["appearance_drift@default/drift > 2"]   # when a video is lost; see `magbench.horizon`
    cases:
      - {id: meadow, prompt: "...", world_seed: 7, stratum: easy}
      - {id: night, prompt: "...", world_seed: 8, schedule: [{at: 9.5, prompt: "...", cut: true}]}   # other prompts
  mag-bench:
    cases:
      - {id: back-1x, prompt: "...", world_seed: 7, path: {...}, history_frames: 36, frames: 60, truth_sha256: ...}
```
"""

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from magbench import horizon
from magbench.errors import ConfigError
from magbench.records import CaseRecord, Record, Schedule, Track
from magbench.registry import did_you_mean

Reference = Literal["real", "static", "shuffled"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$")]
MetricName = Annotated[str, Field(pattern=r"^[a-z0-9_]+@[a-z0-9._-]+$")]
Endpoint = Annotated[str, Field(pattern=r"^[a-z0-9_]+@[a-z0-9._-]+/\S+$")]
Horizon = Annotated[str, AfterValidator(lambda text: str(horizon.parse(text)))]

TRACKS: tuple[Track, ...] = ("long-horizon", "mag-bench")


class CaseSpec(Record):
    """One case as the YAML says it; see `CaseRecord` for the fields."""

    id: Id
    prompt: str = ""
    world_seed: int | None = None
    path: dict[str, Any] | None = None
    history_frames: Annotated[int, Field(ge=0)] = 0
    frames: Annotated[int, Field(gt=0)] | None = None
    """Latent frames in all, history included; None takes the track's."""
    schedule: Schedule = ()
    truth_sha256: str | None = None
    stratum: str = ""
    closed_path: bool = False


class ClipSpec(CaseSpec):
    """A case whose truth is a video file; made from a list of clips, never read from YAML."""

    clip: str
    clip_sha256: str
    mirror: int | None = None


class TrackSpec(Record):
    """One track: its cases, its lengths, its metrics."""

    frames: Annotated[int, Field(gt=0)] | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    references: tuple[Reference, ...] = ("real", "static", "shuffled")
    metrics: tuple[MetricName, ...] = ()
    primary: Annotated[tuple[Endpoint, ...], Field(max_length=3)] = ()
    horizons: tuple[Horizon, ...] = ()
    cases: Annotated[tuple[CaseSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [case.id for case in self.cases]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise ValueError(f"case ids used twice: {', '.join(twice)}")
        for case in self.cases:
            frames = case.frames or self.frames
            if frames is None:
                raise ValueError(f"case {case.id!r} has no frames, nor has its track")
            if case.history_frames >= frames:
                raise ValueError(f"case {case.id!r}: history_frames {case.history_frames} leaves nothing of {frames}")
        if lost := [name for name in self.primary if name.partition("/")[0] not in self.metrics]:
            raise ValueError(f"primary endpoint {lost[0]!r} is of no metric of the track")
        if lost := [text for text in self.horizons if horizon.parse(text).metric not in self.metrics]:
            raise ValueError(f"horizon {lost[0]!r} is of no metric of the track")
        return self


class Suite(Record):
    """A whole suite. Immutable once released: a change is a new version."""

    name: Id
    version: Annotated[int, Field(ge=1)]
    model: str
    title: str = ""
    baselines: tuple[str, ...] = ()
    budget: Annotated[int, Field(gt=0)] | None = None
    tracks: dict[Track, TrackSpec]

    def cases(self, track: Track) -> tuple[CaseRecord, ...]:
        """The track's cases with its defaults filled in, in the order of the file."""
        spec = self.tracks[track]
        return tuple(
            CaseRecord(**{**case.model_dump(), "track": track, "frames": case.frames or spec.frames})
            for case in spec.cases
        )

    def with_tracks(self, names: tuple[Track, ...]) -> Self:
        """The same suite with these tracks only.

        Raises:
            ConfigError: the suite has no such track.
        """
        for name in names:
            if name not in self.tracks:
                raise ConfigError(f"suite {self.name!r} has no track {name!r}", did_you_mean(name, self.tracks))
        return self.model_copy(update={"tracks": {n: t for n, t in self.tracks.items() if n in names}})

    def with_long_horizon(self, **changes: Any) -> Self:
        """The same suite with fields of its long-horizon track replaced."""
        tracks: dict[Track, TrackSpec] = dict(self.tracks)
        tracks["long-horizon"] = tracks["long-horizon"].model_copy(update=changes)
        return self.model_copy(update={"tracks": tracks})


def suite_names() -> tuple[str, ...]:
    """Names of the suites that come with the package."""
    folder = resources.files("magbench.data") / "suites"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_suite(name: str) -> Suite:
    """Read a suite by name, or from a YAML file by path.

    Args:
        name: One of `suite_names()`, or a path that ends in .yaml or .yml.

    Raises:
        ConfigError: unknown name, unreadable file, or a file that isn't a suite.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read suite file {name!r}: {error}") from error
    elif name in suite_names():
        text = (resources.files("magbench.data") / "suites" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"unknown suite {name!r}", did_you_mean(name, suite_names()))
    return parse_suite(text, name)


def parse_suite(text: str, source: str) -> Suite:
    """Build a suite from YAML text.

    Args:
        text: The YAML.
        source: Where it came from, for messages.

    Raises:
        ConfigError: not YAML, or a field is missing, unknown or out of range; the first such field is named.
    """
    try:
        return Suite.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"suite {source!r} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"suite {source!r}: {where}: {first['msg']}") from error


def prompt_cases(file: Path) -> tuple[CaseSpec, ...]:
    """One case per line of a text file; blank lines and lines that start with `#` are left out.

    The case id is made from the prompt's words, not from its line number, so that adding a line changes no other case.

    Raises:
        ConfigError: the file cannot be read, holds no prompt, or holds one twice.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read prompts file '{file}': {error}") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ConfigError(f"prompts file '{file}' holds no prompt", "write one prompt per line")
    if twice := [p for p in prompts if prompts.count(p) > 1]:
        raise ConfigError(f"prompts file '{file}' holds the same prompt twice: {twice[0]!r}", "vary --seeds instead")
    return tuple(CaseSpec(id=_prompt_id(prompt), prompt=prompt) for prompt in prompts)


def _prompt_id(prompt: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "prompt"
    return f"{words}-{hashlib.sha256(prompt.encode()).hexdigest()[:6]}"
