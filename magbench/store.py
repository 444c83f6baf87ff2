"""The run folder: the only code that reads or writes it.

Every file appears whole or not at all (temporary file, fsync, atomic rename), and `sample.json` comes last: its
presence means that the sample is complete. A file that can't be read back counts as absent. Two processes on one
folder may do work twice, but never spoil each other's.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from magbench.errors import ConfigError, StoreError
from magbench.names import digest, slug
from magbench.records import FingerprintRecord, MetricRecord, Record, RunRecord, SampleRecord, TraceRecord, WhyRecord

AnyRecord = TypeVar("AnyRecord", bound=Record)

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=@+-]{0,199}")
_HINTS = {
    errno.ENOSPC: "free some space, then repeat the command: it goes on where it stopped",
    errno.EDQUOT: "free some space, then repeat the command: it goes on where it stopped",
    errno.ENOENT: "choose a folder you can write to with --out",
    errno.EROFS: "choose a folder you can write to with --out",
    errno.EACCES: "choose a folder you can write to with --out",
    errno.EPERM: "choose a folder you can write to with --out",
    errno.ENAMETOOLONG: "choose a shorter name with --out",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another --out",
    errno.EEXIST: "a file stands where a folder is needed: choose another --out",
}


class RunStore:
    """One run folder.

    Args:
        root: The folder.
        run: What `run.json` says.
    """

    def __init__(self, root: Path, run: RunRecord) -> None:
        self.root = root
        self.run = run

    @classmethod
    def create(cls, root: Path, run: RunRecord) -> "RunStore":
        """Make the folder (or take an existing one) and write its `run.json`.

        Raises:
            StoreError: the folder cannot be made or written to.
        """
        store = cls(root, run)
        with _telling(f"cannot make the run folder '{root}'"):
            root.mkdir(parents=True, exist_ok=True)
        store.write_run(run)
        return store

    @classmethod
    def open(cls, root: Path) -> "RunStore":
        """Open an existing run folder.

        Raises:
            ConfigError: there is no readable `run.json`.
            StoreError: the folder cannot be looked into.
        """
        with _telling(f"cannot open the run folder '{root}'"):
            there = root.is_dir()
        if not there:
            raise ConfigError(f"there is no run folder '{root}'", "magbench run makes one under runs/")
        run = _read(root / "run.json", RunRecord)
        if run is None:
            raise ConfigError(
                f"'{root}' is not a run folder: it has no readable run.json", "give the folder that holds run.json"
            )
        return cls(root, run)

    @staticmethod
    def exists(root: Path) -> bool:
        """Whether `root` is a run folder with a readable `run.json`."""
        return _read(root / "run.json", RunRecord) is not None

    @staticmethod
    def is_foreign(root: Path) -> bool:
        """Whether `root` holds files, hidden ones aside, and no readable `run.json`.

        Raises:
            StoreError: the folder cannot be looked into.
        """
        with _telling(f"cannot make the run folder '{root}'"):
            held = root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir())
        return held and not RunStore.exists(root)

    def write_run(self, run: RunRecord) -> None:
        """Replace `run.json`."""
        self.run = run
        write_json(self.root / "run.json", run.model_dump())

    def sample_dir(self, key: str) -> Path:
        """The sample's folder, which need not exist.

        Raises:
            StoreError: the key is not a plain file name.
        """
        return self.root / "samples" / _safe(key)

    def has(self, key: str) -> bool:
        """Whether the sample is complete: a readable record and, where it names a file of the run, that file."""
        return self.sample(key) is not None

    def sample(self, key: str) -> SampleRecord | None:
        """The sample's record, or None when it isn't complete."""
        folder = self.sample_dir(key)
        record = _read(folder / "sample.json", SampleRecord)
        if record is None or record.key != key:
            return None
        if record.video and not Path(record.video.path).is_absolute() and not (folder / record.video.path).is_file():
            return None
        return record

    def samples(self) -> list[SampleRecord]:
        """All complete samples, in key order."""
        return [record for key in self._keys() if (record := self.sample(key)) is not None]

    def records(self) -> list[SampleRecord]:
        """All readable sample records, in key order: those of `samples`, and those whose video is no longer there."""
        found = [(key, _read(self.sample_dir(key) / "sample.json", SampleRecord)) for key in self._keys()]
        return [record for key, record in found if record is not None and record.key == key]

    def _keys(self) -> list[str]:
        folder = self.root / "samples"
        return sorted(f.name for f in folder.iterdir() if _SAFE.fullmatch(f.name)) if folder.is_dir() else []

    def write_sample(self, record: SampleRecord) -> None:
        """Write the record that completes the sample; everything else of it must be there already."""
        write_json(self.sample_dir(record.key) / "sample.json", record.model_dump())

    def discard(self, key: str) -> None:
        """Make the sample incomplete, so that it will be made again, and forget what metrics said of it."""
        with _telling(f"cannot discard sample {key!r}"):
            (self.sample_dir(key) / "sample.json").unlink(missing_ok=True)
            for file in (self.sample_dir(key) / "metrics").glob("[!.]*.json"):
                file.unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Delete the sample with all its files."""
        self.discard(key)
        with _telling(f"cannot remove sample {key!r}"):
            shutil.rmtree(self.sample_dir(key))

    def publish(self, key: str, name: str, write: Callable[[Path], None]) -> Path:
        """Put a file into the sample's folder.

        Args:
            key: The sample.
            name: Plain file name.
            write: Fills the temporary path it is given, which has the same suffix as `name`.

        Raises:
            StoreError: the file cannot be written.
        """
        return _replace(self.sample_dir(key) / _safe(name), write)

    def publish_at(self, path: str, write: Callable[[Path], None]) -> Path:
        """Put a file elsewhere in the run folder, e.g. `tables/main.csv`; otherwise as `publish`."""
        target = self.root
        for part in path.split("/"):
            target = target / _safe(part)
        return _replace(target, write)

    def work(self, name: str) -> Path:
        """The folder of a task's half-done work, which need not exist; `publish_at` puts files there, below `work/`."""
        return self.root / "work" / _safe(name)

    def clear_work(self, name: str) -> None:
        """Delete it, and the folder of such folders with the last one."""
        shutil.rmtree(self.work(name), ignore_errors=True)
        with suppress(OSError):
            self.work(name).parent.rmdir()

    def write_trace(self, key: str, trace: Sequence[TraceRecord]) -> None:
        """Write the sample's trace, one line per chunk."""
        text = "".join(_dumps(record.model_dump(), indent=None) + "\n" for record in trace)
        self.publish(key, "trace.jsonl", lambda path: _write_text(path, text))

    def trace(self, key: str) -> list[TraceRecord]:
        """The sample's trace; empty when it has none.

        Raises:
            StoreError: the file is there but cannot be read.
        """
        path = self.sample_dir(key) / "trace.jsonl"
        if not path.is_file():
            return []
        try:
            return [TraceRecord.model_validate(_loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read '{path}': {error}", "run again with --existing redo") from error

    def write_metric(self, key: str, record: MetricRecord) -> None:
        """Write or replace what one metric says of the sample."""
        write_json(self.sample_dir(key) / "metrics" / _safe(f"{record.name}.json"), record.model_dump(), indent=None)

    def metrics(self, key: str) -> list[MetricRecord]:
        """What the metrics say of the sample, in name order."""
        folder = self.sample_dir(key) / "metrics"
        files = sorted(f for f in folder.glob("*.json") if _SAFE.fullmatch(f.name)) if folder.is_dir() else []
        return [record for f in files if (record := _read(f, MetricRecord)) is not None]

    def write_fingerprint(self, record: FingerprintRecord) -> None:
        """Write or replace the fingerprint of a method."""
        name = f"{slug(record.method)}.{digest({'method': record.method})[:8]}.json"
        write_json(self.root / "fingerprints" / _safe(name), record.model_dump())

    def fingerprints(self) -> dict[str, FingerprintRecord]:
        """The fingerprints of the run, by method label in order."""
        folder = self.root / "fingerprints"
        files = sorted(f for f in folder.glob("*.json") if _SAFE.fullmatch(f.name)) if folder.is_dir() else []
        found = [record for f in files if (record := _read(f, FingerprintRecord)) is not None]
        return {record.method: record for record in sorted(found, key=lambda record: record.method)}

    def write_why(self, record: WhyRecord) -> None:
        """Write or replace the diagnostics."""
        write_json(self.root / "why.json", record.model_dump(), indent=None)

    def why(self) -> WhyRecord | None:
        """The diagnostics, where the folder holds any."""
        return _read(self.root / "why.json", WhyRecord)


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write strict JSON atomically.

    Raises:
        StoreError: the file cannot be written.
        ValueError: the value holds NaN or an infinity.
    """
    text = _dumps(value, indent) + "\n"
    _replace(path, lambda temporary: _write_text(temporary, text))


def _dumps(value: Any, indent: int | None) -> str:
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)  # UTF-8 has no half characters


def _loads(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def make_folder(path: Path) -> None:
    """Make a folder, or take an existing one.

    Raises:
        StoreError: it cannot be made.
    """
    with _telling(f"cannot make the folder '{path}'"):
        path.mkdir(parents=True, exist_ok=True)


def read_record(path: Path, model: type[AnyRecord]) -> AnyRecord | None:
    """A record outside a run folder; None where there is none that can be read back."""
    return _read(path, model)


def _read(path: Path, model: type[AnyRecord]) -> AnyRecord | None:
    try:
        return model.model_validate(_loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


def _safe(name: str) -> str:
    if not _SAFE.fullmatch(name):
        raise StoreError(f"{name!r} cannot be a file name in a run folder")
    return name


def _replace(path: Path, write: Callable[[Path], None]) -> Path:
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    with _telling(f"cannot write '{path}'"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"{what}: {reason}", _HINTS.get(error.errno or 0)) from error
