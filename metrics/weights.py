"""Weights of learned metrics: what there is, where it lies, whether it is genuine. Only `fetch` touches the network.

Beside each file lies `FILE.json`, which says what its bytes hash to. Where the publisher gives no hash, that of the
first use is the one that counts from then on.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import Field, ValidationError

from magbench.cache import cache_root, remember
from magbench.errors import ConfigError, MissingWeightsError
from magbench.records import Record
from magbench.registry import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

SIZE_TOLERANCE = 0.1
"""How far a file's size may be from the manifest's, as a share of it, beside one million bytes."""


class Weights(Record):
    """One weights file, as `data/weights.yaml` lists it."""

    title: str
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name in the cache folder."""
    url: str
    megabytes: int
    """Size of the download, in millions of bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None
    """Of the whole file, or its leading digits where the publisher gives no more; None where nothing is published."""
    licence: str
    metrics: tuple[str, ...] = ()
    """`metric@profile` of each metric that can't do without."""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return re.search(r"\bNC\b|non-?commercial", self.licence, re.IGNORECASE) is not None


class Known(Record):
    """What a file in the cache folder hashed to when it was last looked at."""

    url: str
    sha256: str
    size: int
    mtime_ns: int


@cache
def manifest() -> dict[str, Weights]:
    """All weights files that learned metrics use, by name."""
    text = resources.files("magbench.data").joinpath("weights.yaml").read_text(encoding="utf-8")
    return {name: Weights(**entry) for name, entry in yaml.safe_load(text).items()}


def lookup(name: str) -> Weights:
    """The manifest's entry.

    Raises:
        ConfigError: there is none of this name; the hint names the closest one.
    """
    if name not in manifest():
        raise ConfigError(f"unknown weights {name!r}", did_you_mean(name, manifest()))
    return manifest()[name]


def cache_folder() -> Path:
    """Where weights lie: `$MAGBENCH_CACHE/weights`, else below the platform's own cache folder."""
    return cache_root() / "weights"


def find(name: str) -> tuple[Path, str]:
    """A weights file in the cache folder, checked.

    Args:
        name: A name of the manifest.

    Returns:
        Its path and the hex SHA-256 of its bytes.

    Raises:
        ConfigError: there is no such name.
        MissingWeightsError: the file isn't there, or isn't the one that was published or first used.
    """
    entry = lookup(name)
    path = cache_folder() / entry.file
    if not path.is_file():
        raise MissingWeightsError(f"the weights {name} are not here: no file {path}", _get(name))
    found = _sha256(path, *_stamp(path))
    _refuse_other(name, path, found, str(path), f"delete it, then {_get(name)}")
    _remember(name, path, found)
    return path, found


def verify(name: str) -> tuple[Path, str]:
    """As `find`, reading the file again whatever this process knows of it."""
    _sha256.cache_clear()
    return find(name)


State = Literal["missing", "partial", "unverified", "verified"]


def state(name: str) -> tuple[State, int]:
    """What lies in the cache folder, without reading it, and its bytes.

    `verified`: it has been hashed and found genuine, and neither its size nor its time have changed since.
    """
    entry = lookup(name)
    path = cache_folder() / entry.file
    part = path.with_name(path.name + ".part")
    if not path.is_file():
        return ("partial", part.stat().st_size) if part.is_file() else ("missing", 0)
    size, mtime_ns = _stamp(path)
    try:
        known = _known(path)
    except MissingWeightsError:
        return "unverified", size
    genuine = known and known.url == entry.url and known.sha256.startswith(entry.sha256 or "")
    same = known and (known.size, known.mtime_ns) == (size, mtime_ns)
    return ("verified" if genuine and same else "unverified"), size


def fetch(name: str, progress: Callable[[int, int], None], waiting: Callable[[], None]) -> Path:
    """Download a weights file, continuing where an earlier attempt was cut off, and check it.

    Args:
        name: A name of the manifest.
        progress: Gets bytes here and bytes in all, now and then.
        waiting: Called when another process is fetching the same file, before waiting for it.

    Raises:
        ConfigError: there is no such name.
        DownloadError: it can't be had; what has been fetched stays and is continued next time.
        MissingWeightsError: it isn't the file that was published or first used.
    """
    from magbench.download import download

    entry = lookup(name)
    path = cache_folder() / entry.file

    def check(size: int) -> None:
        if abs(size - entry.megabytes * 1e6) > max(1e6, SIZE_TOLERANCE * entry.megabytes * 1e6):
            raise MissingWeightsError(
                f"{entry.url} is {size / 1e6:.1f} MB, expected {entry.megabytes} MB: not the published file",
                "look for a newer magbench; nothing was downloaded",
            )

    def accept(part: Path) -> None:
        found = _sha256(part, *_stamp(part))
        _refuse_other(name, path, found, f"what {entry.url} sends", "nothing was kept; look for a newer magbench")

    download(entry.url, path, check, accept, progress, waiting)
    return find(name)[0]


def needed_by(metrics: Iterable[str]) -> tuple[str, ...]:
    """Names of the weights that these metrics, each `metric@profile`, can't do without, in the manifest's order."""
    wanted = set(metrics)
    return tuple(name for name, entry in manifest().items() if wanted & set(entry.metrics))


def require(metrics: Iterable[str]) -> None:
    """See to it that the weights of all these metrics are here and genuine, before anything is computed.

    Raises:
        MissingWeightsError: some are not; all of them are named, with what gets them.
    """
    wanted = set(metrics)
    lacking: dict[str, MissingWeightsError] = {}
    for name in needed_by(wanted):
        try:
            find(name)
        except MissingWeightsError as error:
            lacking[name] = error
    if lacking:
        raise MissingWeightsError(
            "offline, and weights are missing: "
            + "; ".join(_lack(name, error, wanted) for name, error in lacking.items()),
            f"where there is a network: magbench weights fetch {' '.join(lacking)}; then copy the files into "
            f"{cache_folder()}, or choose other metrics",
        )


def _lack(name: str, error: MissingWeightsError, wanted: set[str]) -> str:
    entry = manifest()[name]
    users = ", ".join(metric for metric in entry.metrics if metric in wanted)
    return f"{error.message} ({entry.megabytes} MB, for {users})"


def _get(name: str) -> str:
    entry = manifest()[name]
    return (
        f"magbench weights fetch {name} ({entry.megabytes} MB, {entry.licence}), "
        f"or put {entry.url} at {cache_folder() / entry.file}"
    )


def _refuse_other(name: str, path: Path, found: str, what: str, hint: str) -> None:
    """Refuse bytes that hash to something else than what was published, or what was used first."""
    entry, known = manifest()[name], _known(path)
    if entry.sha256 and not found.startswith(entry.sha256):
        raise MissingWeightsError(f"{what} is not the published file: its SHA-256 is {found}, not {entry.sha256}", hint)
    published = entry.sha256 and len(entry.sha256) == 64
    if not published and known and known.url == entry.url and known.sha256 != found:
        raise MissingWeightsError(
            f"{what} is not the file that was used first: its SHA-256 is {found}, not {known.sha256}",
            f"{hint}; or, if the change is meant, delete {_note(path)}",
        )


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hex SHA-256 of a file's bytes, computed once per process as long as its size and time stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _known(path: Path) -> Known | None:
    """What `FILE.json` says; None where there is none.

    Raises:
        MissingWeightsError: it can't be read, so nobody knows what to compare with.
    """
    try:
        return Known.model_validate_json(_note(path).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise MissingWeightsError(
            f"{_note(path)}, the record of {path.name}, cannot be read",
            "delete it; the file is then taken for genuine as it is",
        ) from error


def _remember(name: str, path: Path, sha256: str) -> None:
    """Write `FILE.json`, whole or not at all. In a cache folder that can't be written to there is none."""
    size, mtime_ns = _stamp(path)
    known = Known(url=manifest()[name].url, sha256=sha256, size=size, mtime_ns=mtime_ns)
    if known != _known(path):
        remember(_note(path), known.model_dump_json(indent=2) + "\n")


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
