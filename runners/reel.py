"""The latents of a batch between the loop and the video files: in memory while they are few, else in parts on disk.

Parts lie in the run folder's `work/`, with the state of the rollout behind the last of them beside them. A part is
named after its content and the state names its parts, so that two processes at the same batch never mix theirs, and
what is damaged is found before it is used.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from magbench.errors import MagbenchError
from magbench.records import TraceRecord
from magbench.runners.rollout import Step
from magbench.store import RunStore

PART_FRAMES = 192
"""Latent frames between two parts: 24 s of mini's, 48 s of Wan's."""
STATE = "state.safetensors"
_PART = re.compile(r"part-\d{5}-[0-9a-f]{32}\.safetensors")

Packed = tuple[str, dict[str, Tensor]]
"""See `magbench.runners.state.pack`."""


class DamagedError(MagbenchError):
    """A file is not there, or not as it was written."""


@dataclass
class Reel:
    """Takes the chunks of a rollout in order, and gives them back row by row.

    Args:
        store: The run.
        name: Of the work folder, the same for the same group of jobs.
        identity: Everything that decides the latents. What another identity left in the folder is not believed.
        rows: What the batch makes: a place in the batch for each sample that is missing, by its key.
        frames: Latent frames when all is there.
    """

    store: RunStore
    name: str
    identity: str
    rows: Mapping[str, int]
    frames: int
    done: int = 0
    """Latent frames that are there."""
    saved: Packed | None = None
    """The state of the rollout behind them, when they are not from this process."""
    _parts: list[str] = field(default_factory=list)
    _latents: list[Tensor] = field(default_factory=list)
    _trace: list[TraceRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        with suppress(DamagedError, AttributeError, KeyError, TypeError, ValueError):
            self._take_up()

    @property
    def complete(self) -> bool:
        """Whether all is there."""
        return self.done == self.frames

    def add(self, step: Step, state: Callable[[], Packed | None]) -> None:
        """Take the next chunk.

        Args:
            step: It.
            state: The rollout behind it; None where it can't be taken up.

        Raises:
            StoreError: the run folder cannot be written.
        """
        self._latents.append(step.latents)
        self._trace.append(step.trace)
        self.done += step.latents.shape[1]
        full = step.latents.shape[1] and self.done % PART_FRAMES == 0 and self.frames - self.done >= PART_FRAMES
        if full or (self.complete and self._parts):
            self._write_part()
            self._write_state(None if self.complete else state())

    def latents(self, key: str) -> Iterator[Tensor]:
        """The latents of a sample, part after part, [F, C, H, W] each."""
        for name in self._parts:
            with _reading(self._path(name)) as file:
                yield file.get_tensor(key)
        if self._latents:
            yield torch.cat(self._latents, dim=1)[self.rows[key]]

    def trace(self) -> list[TraceRecord]:
        """The trace of the batch."""
        found: list[TraceRecord] = []
        for name in self._parts:
            with _reading(self._path(name)) as file:
                found += [TraceRecord.model_validate_json(line) for line in file.metadata()["trace"].splitlines()]
        return found + self._trace

    def clear(self) -> None:
        """Throw the folder away."""
        self.store.clear_work(self.name)

    def _write_part(self) -> None:
        whole = torch.cat(self._latents, dim=1).cpu()
        tensors = {key: whole[place].contiguous() for key, place in self.rows.items()}
        trace = "\n".join(record.model_dump_json() for record in self._trace)
        name = _part_name(len(self._parts), tensors, trace)
        self._publish(name, tensors, {"trace": trace})
        self._parts.append(name)
        self._latents, self._trace = [], []

    def _write_state(self, packed: Packed | None) -> None:
        if packed is None and not self.complete:
            return
        state, tensors = packed or ("", {})
        about = {"identity": self.identity, "rows": self.rows, "done": self.done, "parts": self._parts, "state": state}
        text = json.dumps(about)
        self._publish(STATE, tensors, {"about": text, "digest": _digest(tensors, text)})

    def _publish(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        self.store.publish_at(f"work/{self.name}/{name}", lambda path: save_file(tensors, path, metadata))

    def _path(self, name: str) -> Path:
        return self.store.work(self.name) / name

    def _take_up(self) -> None:
        """Go on behind what a process before this one has left.

        Raises:
            DamagedError: there is nothing, or nothing that can be used.
        """
        metadata, tensors = _read(self._path(STATE))
        if metadata.get("digest") != _digest(tensors, metadata.get("about", "")):
            raise DamagedError(f"'{self._path(STATE)}' is damaged")
        about: dict[str, Any] = json.loads(metadata["about"])
        if about["identity"] != self.identity or not self.rows.keys() <= about["rows"].keys():
            raise DamagedError(f"'{self._path(STATE)}' is of another batch")
        for name in about["parts"]:
            if not _PART.fullmatch(name):
                raise DamagedError(f"{name!r} is no part")
            part, latents = _read(self._path(name))
            if name != _part_name(int(name[5:10]), latents, part.get("trace", "")):
                raise DamagedError(f"'{self._path(name)}' is damaged")
        self.rows, self.done, self._parts = about["rows"], about["done"], about["parts"]
        self.saved = (about["state"], tensors) if about["state"] else None


def _part_name(index: int, tensors: Mapping[str, Tensor], trace: str) -> str:
    return f"part-{index:05d}-{_digest(tensors, trace)}.safetensors"


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with _reading(path) as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _reading(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise DamagedError(
            f"cannot read '{path}': {error}", "repeat the command with --existing redo-failed"
        ) from error


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """Of a text and tensors with their names, types and shapes: 32 hex digits."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
