"""Weights of learned metrics: what there is, where it lies, whether it is genuine. Nothing is fetched here."""

import os
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from magbench.data.video import sha256_file
from magbench.errors import ConfigError, MissingWeightsError
from magbench.records import Record
from magbench.registry import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor


class Weights(Record):
    """One weights file, as `data/weights.yaml` lists it."""

    title: str
    file: str
    """Name in the cache folder."""
    url: str
    megabytes: int
    """Size of the download, in millions of bytes."""
    sha256: str | None
    """Of the whole file, or its leading digits where the publisher gives no more; None where nothing is published."""
    licence: str


@cache
def manifest() -> dict[str, Weights]:
    """All weights files that learned metrics use, by name."""
    text = resources.files("magbench.data").joinpath("weights.yaml").read_text(encoding="utf-8")
    return {name: Weights(**entry) for name, entry in yaml.safe_load(text).items()}


def cache_folder() -> Path:
    """Where weights lie: `$MAGBENCH_CACHE/weights`, else below the platform's own cache folder."""
    if chosen := os.environ.get("MAGBENCH_CACHE"):
        return Path(chosen).expanduser() / "weights"
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or home) / "magbench" / "weights"


def find(name: str) -> tuple[Path, str]:
    """A weights file in the cache folder, checked.

    Args:
        name: A name of the manifest.

    Returns:
        Its path and the hex SHA-256 of its bytes.

    Raises:
        ConfigError: there is no such name.
        MissingWeightsError: the file isn't there, or isn't the one that was published.
    """
    if name not in manifest():
        raise ConfigError(f"unknown weights {name!r}", did_you_mean(name, manifest()))
    entry = manifest()[name]
    path = cache_folder() / entry.file
    get = f"get {entry.url} ({entry.megabytes} MB, {entry.licence}) and put it at {path}"
    if not path.is_file():
        raise MissingWeightsError(f"the weights {name} are not here: no file {path}", get)
    found = sha256_file(path)
    if entry.sha256 and not found.startswith(entry.sha256):
        raise MissingWeightsError(f"{path} is not the published file: its SHA-256 is {found}", f"delete it, then {get}")
    return path, found


def load_state(path: Path) -> "dict[str, Tensor]":
    """Tensors of a `.safetensors` file or a torch state dict, on the CPU; code inside the file is never run.

    Raises:
        MissingWeightsError: the file holds something else.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise MissingWeightsError(f"{path} cannot be read as weights: {error}", "delete it and get it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise MissingWeightsError(f"{path} is not a state dict", "delete it and get it again")
    return state
