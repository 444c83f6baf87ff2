"""A slim copy of a run, to be committed and compared with: records, scores and fingerprints, no videos, no series."""

import os
import re
import shutil
from pathlib import Path
from secrets import token_hex

from magbench.errors import ConfigError, StoreError
from magbench.records import FingerprintRecord, MetricRecord, RunRecord, SampleRecord, Timing, VideoRef
from magbench.store import RunStore

MARK = "slim"
"""Key in `RunRecord.resolved` that says a folder is such a copy."""
KEPT_ARGUMENTS = (
    "method", "track", "seeds", "seconds", "budget", "model", "device", "dtype", "workers", "no_baselines",
)  # fmt: skip
"""Arguments of the run that the copy repeats: none that holds a path."""


def save_baseline(run: RunStore, out: Path) -> RunStore:
    """Write a slim copy of a run. `magbench.load`, `compare` and `gate` read it like the run.

    Reference rows and the curves of metrics are left out, and so is every path of the run: of the user's machine the
    copy tells versions and hardware only. An earlier copy is replaced as a whole.

    Args:
        run: A complete run, or a folder with fingerprints only.
        out: The folder to write. It may be absent, empty or an earlier copy.

    Raises:
        ConfigError: the run has holes, through which a regression would slip; or `out` holds something else.
        StoreError: the folder cannot be written.
    """
    if run.run.status != "complete":
        raise ConfigError(
            f"'{run.root}' cannot become a baseline: its status is {run.run.status}",
            f"finish it first: {run.run.command or 'repeat its command'}",
        )
    target = out.resolve()
    try:
        replaceable = _replaceable(target)
    except OSError as error:
        raise StoreError(f"cannot look into '{out}': {os.strerror(error.errno or 0)}", "name another folder") from error
    if not replaceable:
        raise ConfigError(f"'{out}' is not empty and not a baseline", "name another folder with --save-baseline")
    temporary, old = (target.parent / f".{target.name}-{token_hex(4)}" for _ in range(2))
    try:
        _copy(run, temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    except OSError as error:
        if old.exists():
            old.rename(target)
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write the baseline '{out}': {reason}", "name another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return RunStore.open(target)


def _replaceable(folder: Path) -> bool:
    if RunStore.exists(folder):
        return bool(RunStore.open(folder).run.resolved.get(MARK))
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _copy(run: RunStore, root: Path) -> None:
    samples = [sample for sample in run.records() if sample.method.policy != "reference"]
    copy = RunStore.create(root, _run(run.run))
    for sample in samples:
        for record in run.metrics(sample.key):
            copy.write_metric(sample.key, record.model_copy(update={"series": (), **_said(record)}))
        copy.write_sample(_sample(sample))
    for fingerprint in run.fingerprints().values():
        copy.write_fingerprint(fingerprint.model_copy(update=_said(fingerprint)))


def _said(record: MetricRecord | FingerprintRecord | SampleRecord) -> dict[str, str]:
    """Why there is no value, with a file's name in place of its path; hints tell where to put files, and stay out."""
    return {"reason": re.sub(r"(?<![\w.])~?/\S*/", "", record.reason), "hint": ""}


def _run(record: RunRecord) -> RunRecord:
    arguments = {name: value for name, value in record.arguments.items() if name in KEPT_ARGUMENTS}
    resolved = {**record.resolved, MARK: True}
    return record.model_copy(update={"command": "", "arguments": arguments, "resolved": resolved})


def _sample(record: SampleRecord) -> SampleRecord:
    """Without video and clock; of the truth its hash stays, which says whether a case is the same one."""
    truth: VideoRef | None = record.truth and record.truth.model_copy(update={"path": ""})
    return record.model_copy(update={"video": None, "truth": truth, "timing": Timing(), **_said(record)})
