"""Prompts for long videos: ours, which come with the package, and published files, known by their hash."""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from magbench.cache import cache_root, remember
from magbench.errors import ConfigError
from magbench.records import Record

Split = Literal["dev", "test"]
Stratum = Literal["static camera", "moving camera", "several subjects", "scenery"]


class Prompt(Record):
    """One prompt of ours."""

    id: str
    split: Split
    """`dev` to develop on, `test` to report."""
    stratum: Stratum
    prompt: str
    closed_path: bool = False
    """The camera leaves a place and comes back to it."""


class KnownFile(Record):
    """A published prompt file, as `data/prompts/known.yaml` lists it."""

    title: str
    source: str
    file: str
    """The name it is published under."""
    prompts: int | None
    """How many it holds; None where that could not be checked."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None


class PromptFile(Record):
    """A user's prompt file, as `run.json` names it."""

    file: str
    sha256: str
    prompts: int
    known: str = ""
    """Its name in `known.yaml`."""
    note: str = ""
    """How it was recognised, or why it wasn't although it has the name of a known file."""


def own_prompts(split: Split | None = None) -> tuple[Prompt, ...]:
    """The prompts of `data/prompts/own.yaml`, of one half or all, in the order of the file."""
    text = (resources.files("magbench.data") / "prompts" / "own.yaml").read_text(encoding="utf-8")
    found = (Prompt(**{**entry, "prompt": entry["prompt"].strip()}) for entry in yaml.safe_load(text))
    return tuple(prompt for prompt in found if split in (None, prompt.split))


@cache
def known_files() -> dict[str, KnownFile]:
    """Published prompt files by name."""
    text = (resources.files("magbench.data") / "prompts" / "known.yaml").read_text(encoding="utf-8")
    return {name: KnownFile(**entry) for name, entry in yaml.safe_load(text).items()}


def recognise(path: Path, prompts: int) -> PromptFile:
    """Say which published file this is, if it is one.

    Where no hash is known, a file of the published name and number of prompts is taken for it at first use, and its
    hash kept in the cache folder; from then on only the same bytes are.

    Args:
        path: The file.
        prompts: How many prompts it holds.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read prompts file '{path}': {error}") from error
    unknown = PromptFile(file=str(path), sha256=sha256, prompts=prompts)
    for name, known in known_files().items():
        first = _first_used(name)
        expected = known.sha256 or first
        if sha256 == expected:
            how = "by its published hash" if known.sha256 else "by the hash of its first use"
            return unknown.model_copy(update={"known": name, "note": how})
        if path.name != known.file:
            continue
        if expected:
            return unknown.model_copy(update={"note": f"not {name}: that has the sha256 {expected}"})
        if known.prompts not in (None, prompts):
            return unknown.model_copy(update={"note": f"not {name}: that holds {known.prompts} prompts"})
        kept = remember(_record(name), sha256 + "\n")
        how = "by its name; its hash is now recorded" if kept else "by its name; its hash could not be recorded"
        return unknown.model_copy(update={"known": name, "note": how})
    return unknown


def _record(name: str) -> Path:
    return cache_root() / "prompts" / f"{name}.sha256"


def _first_used(name: str) -> str:
    try:
        return _record(name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
