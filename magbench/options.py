"""Options of commands: one spelling on the command line, in the environment and in Python.

Each field here is `--field-name`, `MAGBENCH_FIELD_NAME` and `field_name=`.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from magbench.errors import ConfigError
from magbench.registry import did_you_mean

GeneratedTrack = Literal["long-horizon", "mag-bench"]
Existing = Literal["skip", "redo", "redo-failed", "error"]
FaultyClips = Literal["refuse", "leave-out"]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Options(BaseModel):
    """Base of the option models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Check the values.

        Raises:
            ConfigError: an option is unknown or its value can't be used; the first one is named.
        """
        if unknown := [name for name in values if name not in cls.model_fields]:
            raise ConfigError(f"unknown option {unknown[0]!r}", did_you_mean(unknown[0], cls.model_fields))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            reason = first["msg"].removeprefix("Value error, ")
            if first["type"] == "missing":
                hint = "see magbench list methods" if name == "method" else None
                raise ConfigError(f"option --{name} is needed", hint) from error
            given = f" {first['input']!r}"
            raise ConfigError(f"option --{name.replace('_', '-')}{given}: {reason}") from error


OWN = "own"
"""The budget that a method has when none is given."""


def _budgets(value: Any) -> Any:
    """Read `6,9,own`, a number, or a sequence of them."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    parts = [part.strip() if isinstance(part, str) else part for part in parts]
    found = [int(part) if isinstance(part, str) and part.isascii() and part.isdecimal() else part for part in parts]
    if any(isinstance(part, bool) or (part != OWN and (not isinstance(part, int) or part < 1)) for part in found):
        raise ValueError("expected frames, 1 or more, or a list of them such as 6,9,12,own")
    return tuple(dict.fromkeys(found))


class RunOptions(Options):
    """Options of `magbench run`."""

    method: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        description="Method to run, e.g. memrope or memrope:sink=1,window=12. Repeatable. `all`: every method."
    )
    suite: str = Field("mini", description="Suite by name, or the path of a suite's YAML file.")
    track: Annotated[tuple[GeneratedTrack, ...], BeforeValidator(_listed)] = Field(
        (), description="Only this track. Repeatable."
    )
    model: str | None = Field(None, description="Model instead of the suite's.")
    prompts: Path | None = Field(
        None, description="Text file, one prompt per line, instead of the suite's long-horizon cases; no other track."
    )
    clips: Path | None = Field(
        None,
        description="Clips to continue as MAG-Bench does, instead of a suite: their CSV file, or their folder.",
    )
    clips_root: Path | None = Field(
        None, description="Folder that the paths in the CSV file of --clips are relative to. Default: the file's own."
    )
    caption: Literal["use", "none"] = Field(
        "use", description="Whether clips are continued with their captions or with the empty prompt."
    )
    faulty_clips: FaultyClips = Field("refuse", description="What to do when some clips can't be used.")
    seconds: Annotated[float, Field(gt=0, le=86400)] | None = Field(
        None, description="Length of long-horizon videos, rounded up to whole chunks."
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="Seeds instead of the suite's, e.g. 0-3 or 0,2,5."
    )
    budget: Annotated[tuple[int | str, ...] | None, BeforeValidator(_budgets)] = Field(
        None, description="Past frames every method may attend to, instead of the suite's; 6,9,12,own sweeps several."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1 ... auto: cuda where there is one.")
    dtype: Literal["float32", "bfloat16"] | None = Field(None, description="Numeric type instead of the model's.")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Worker processes; 0 works in this process. Default: one per core, one on a GPU."
    )
    existing: Existing = Field("skip", description="What to do with samples that are there already.")
    no_baselines: bool = Field(False, description="Leave out the suite's baselines.")
    offline: bool = Field(False, description="Before anything is computed, fail if weights of a metric are missing.")
    out: Path | None = Field(None, description="Run folder. Default: runs/SUITE-METHODS.")

    @field_validator("seeds", mode="before")
    @classmethod
    def _ranges(cls, value: Any) -> Any:
        """Read `0-3,7`."""
        if not isinstance(value, str):
            return value
        seeds: list[int] = []
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if match is None:
                raise ValueError("expected numbers and ranges such as 0-3 or 0,2,5")
            first = int(match[1])
            last = int(match[2] or first)
            if last < first or last - first > 9999:
                raise ValueError(f"the range {part.strip()} is empty or too long")
            seeds += range(first, last + 1)
        return tuple(dict.fromkeys(seeds))


class ScoreOptions(Options):
    """Options of `magbench score`, beside the path."""

    manifest: Path | None = Field(
        None, description="JSON lines or CSV that names the videos and says what is known of them; instead of paths."
    )
    layout: Literal["vbench", "memrope", "self-forcing", "mag"] | None = Field(
        None, description="Read prompt, seed and method from file names as this generator writes them; one folder each."
    )
    prompts: Path | None = Field(
        None, description="With --layout: text file, one prompt per line, for names that hold a number or a cut prompt."
    )
    metrics: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="Only this metric, e.g. motion or motion@default. Repeatable."
    )
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Worker processes; 0 works in this process. Default: one per core."
    )
    offline: bool = Field(False, description="Before anything is computed, fail if weights of a metric are missing.")
    out: Path | None = Field(None, description="Run folder. Default: runs/score-NAME; a run is scored in place.")


def _size(value: Any) -> Any:
    """Read `832x480`."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([1-9]\d{0,4})\s*[xX]\s*([1-9]\d{0,4})\s*", value, re.ASCII)
    if match is None:
        raise ValueError("expected WIDTHxHEIGHT, e.g. 832x480")
    return int(match[1]), int(match[2])


class BuildMagOptions(Options):
    """Options of `magbench data build-mag`, beside the clips."""

    out: Path = Field(description="Folder for the new clips, their CSV file and manifest.json.")
    model: str | None = Field(None, description="Model that the clips are for: decides rate, size and shortest length.")
    seconds: Annotated[float, Field(gt=0, le=3600)] | None = Field(
        None, description="Length there and back, from each clip's start. Default: the whole clip, twice."
    )
    fps: Annotated[float, Field(gt=0, le=240)] | None = Field(
        None, description="Frames per second, nearest frames being taken. Default: the model's, else each clip's own."
    )
    size: Annotated[tuple[int, int] | None, BeforeValidator(_size)] = Field(
        None, description="WIDTHxHEIGHT, scaled to cover and cut. Default: the model's, else each clip's own."
    )
    faulty_clips: FaultyClips = Field("refuse", description="What to do when some clips can't be used.")


class FingerprintOptions(Options):
    """Options of `magbench fingerprint`."""

    method: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        description="Method to take the fingerprint of, e.g. memrope. Repeatable. `all`: every method."
    )
    model: str = Field("mini", description="Model to run on.")
    budget: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Past frames the methods may attend to, instead of each method's own."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1 ... auto: cuda where there is one.")
    dtype: Literal["float32", "bfloat16"] | None = Field(None, description="Numeric type instead of the model's.")
    out: Path = Field(description="Run folder to make or add to.")


class WhyOptions(Options):
    """Options of `magbench why`."""

    method: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        description="Method to look into, e.g. memrope or deep-forcing:budget=18. Repeatable. `all`: every method."
    )
    suite: str = Field("mini", description="Suite by name, or the path of a suite's YAML file.")
    model: str | None = Field(None, description="Model instead of the suite's.")
    cases: Annotated[int, Field(ge=1)] = Field(8, description="How many of its long-horizon cases, from the first on.")
    seconds: Annotated[float, Field(gt=0, le=86400)] = Field(
        15.0, description="Length of the videos, rounded up to whole chunks."
    )
    budget: Annotated[tuple[int | str, ...] | None, BeforeValidator(_budgets)] = Field(
        None, description="Past frames every method may attend to, instead of the suite's; 9,18 looks at both."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1 ... auto: cuda where there is one.")
    dtype: Literal["float32", "bfloat16"] | None = Field(None, description="Numeric type instead of the model's.")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Worker processes; 0 works in this process. Default: one per core, one on a GPU."
    )
    out: Path | None = Field(None, description="Folder to make. Default: runs/why-SUITE-METHODS.")


class ValidateOptions(Options):
    """Options of `magbench validate`, beside the clips or the run."""

    metrics: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="Only this metric, e.g. appearance_drift; one without claims gets all damages. Repeatable."
    )
    claims: Path | None = Field(
        None, description="YAML file of damages and claims instead of magbench's own, data/validation.yaml."
    )
    quick: bool = Field(False, description="Less than half of the work: fewer clips, one onset.")
    human: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = Field(
        (), description="CSV of people's choices between videos of RUN: measure agreement instead. Repeatable."
    )
    key: Path | None = Field(None, description="The key.csv of the blind study that the choices come from.")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Worker processes; 0 works in this process. Default: one per core."
    )
    out: Path | None = Field(None, description="Folder to make. Default: runs/validate-NAME.")


class StudyOptions(Options):
    """Options of `magbench study`, beside the run."""

    pairs: Annotated[int, Field(ge=1, le=9999)] = Field(40, description="How many pairs of videos to show.")
    method: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="Only this method of the run, by its label. Repeatable. Default: all."
    )
    track: GeneratedTrack | None = Field(None, description="Only this track.")
    question: str = Field("Which video is better?", description="What people are asked.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Draws pairs, sides and order.")
    out: Path | None = Field(None, description="Folder to make. Default: study-SEED in the run folder.")
