"""`magbench score`: anybody's videos, or a run again."""

import hashlib
import os
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from magbench import __version__, provenance
from magbench.data.video import sha256_file, video_ref
from magbench.errors import ConfigError, StoreError, VideoError
from magbench.jobs import reference_method
from magbench.metrics import METRICS
from magbench.names import slug
from magbench.options import ScoreOptions
from magbench.records import CaseRecord, MethodRecord, RunRecord, SampleRecord, VideoRef
from magbench.registry import did_you_mean
from magbench.runners.execute import Emit, Event, blame, score_sample, write_previews
from magbench.runners.pool import Death, Pool, WorkerSpec
from magbench.store import RunStore

SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".y4m")
"""Files of a folder that count as videos; a file named by itself always does."""
OPT_IN = ("@vbench-0.1.5", "@vbench-long")
"""Profiles for comparison with published tables, which may cost hours."""
VIEWS = ("static", "shuffled")
RESERVED = frozenset({"real", *VIEWS})
"""Labels of reference rows, which no file may take."""
Status = Literal["ok", "error", "not_applicable"]


@dataclass(frozen=True)
class ScoreTask:
    """What belongs to one video, or to one sample of a run."""

    key: str
    label: str
    track: str
    file: Path | None = None
    """The user's file; None for a sample of a run."""

    def view(self, label: str) -> str:
        """Key of a reference row made from the file."""
        return f"{self.key}.{label}"

    @property
    def keys(self) -> tuple[str, ...]:
        """All samples of the task."""
        return (self.key, *(self.view(label) for label in VIEWS)) if self.file else (self.key,)


@dataclass(frozen=True)
class PreparedScore:
    """All that scoring needs."""

    root: Path
    record: RunRecord
    tasks: tuple[ScoreTask, ...]
    metrics: dict[str, tuple[str, ...]]
    """Per track."""
    workers: int


@dataclass(frozen=True)
class ScoreSetup:
    """What a scoring worker has to know."""

    root: Path
    metrics: dict[str, tuple[str, ...]]


def prepare_score(paths: Sequence[Path], options: ScoreOptions) -> PreparedScore:
    """Decide what to score before anything is written.

    Args:
        paths: One run folder, or video files and folders of them.
        options: As given.

    Raises:
        ConfigError: nothing to score, or an unknown metric.
    """
    metrics = tuple(dict.fromkeys(name for given in options.metrics for name in metric_names(given)))
    workers = provenance.cores() if options.workers is None else options.workers
    if len(paths) == 1 and RunStore.exists(paths[0]):
        return _prepare_run(paths[0], options, metrics, workers)
    files = find_videos(paths)
    tasks = tuple(
        ScoreTask(f"{slug(label)}.{_path_digest(file)}", label, "videos", file) for label, file in _labelled(files)
    )
    metrics = metrics or tuple(name for name in METRICS if name.endswith("@default"))
    root = options.out or Path("runs") / f"score-{slug(_name(paths))}"
    shown = [os.fsencode(path.resolve()).decode("utf-8", "replace") for path in paths]
    words = ["magbench", "score", *map(os.fspath, paths)]
    for name, value in options.model_dump(mode="json", exclude_defaults=True).items():
        for item in value if isinstance(value, list) else [value]:
            words += ["--" + name, str(item)]
    record = RunRecord(
        magbench_version=__version__,
        kind="score",
        methods=tuple(task.label for task in tasks),
        arguments={"paths": shown, **options.model_dump(mode="json", exclude_unset=True)},
        resolved={"metrics": {"videos": metrics}, "videos": len(tasks)},
        command=os.fsencode(shlex.join(words)).decode("utf-8", "replace"),
        started=provenance.now(),
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        git=provenance.git(),
    )
    return PreparedScore(root, record, tasks, {"videos": metrics}, workers)


def _prepare_run(root: Path, options: ScoreOptions, metrics: tuple[str, ...], workers: int) -> PreparedScore:
    if options.out is not None and options.out.resolve() != root.resolve():
        raise ConfigError(f"'{root}' is a run folder, which is scored in place", "leave out --out")
    store = RunStore.open(root)
    samples = store.samples()
    if not samples:
        raise ConfigError(f"run folder '{root}' holds no finished sample", f"finish it first: {store.run.command}")
    own: dict[str, list[str]] = store.run.resolved.get("metrics", {})
    tracks = {sample.case.track for sample in samples}
    chosen = {str(track): metrics or tuple(own.get(track, ())) for track in tracks}
    tasks = tuple(ScoreTask(s.key, s.method.label, s.case.track) for s in samples)
    return PreparedScore(root, store.run, tasks, chosen, workers)


def metric_names(name: str) -> tuple[str, ...]:
    """`motion@default`, or all profiles of `motion`; those of `OPT_IN` only where there are no others.

    Raises:
        ConfigError: no such metric; the hint names the closest one.
    """
    known = tuple(METRICS)
    found = tuple(k for k in known if name in (k, k.partition("@")[0]))
    if not found:
        raise ConfigError(f"unknown metric {name!r}", did_you_mean(name, known))
    return tuple(k for k in found if not k.endswith(OPT_IN)) or found


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and all videos below the folders, sorted.

    Raises:
        ConfigError: a path isn't there, or there is no video.
    """
    files: list[Path] = []
    for path in paths:
        try:
            there, folder = path.exists(), path.is_dir()
        except OSError as error:
            raise ConfigError(f"cannot read '{path}': {os.strerror(error.errno or 0)}", "check the path") from error
        if folder:
            files += sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and _plain(f, path))
        elif there:
            files.append(path)
        else:
            raise ConfigError(f"there is no file or folder '{path}'", "give videos, a folder of them, or a run folder")
    if not files:
        raise ConfigError(
            f"no video in {', '.join(repr(str(p)) for p in paths)}",
            f"looked for {' '.join(SUFFIXES)}; any other file can be given by name",
        )
    return list(dict.fromkeys(files))


def _plain(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _labelled(files: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each file's stem, or more of its path where stems collide with each other or with a reference row."""
    for depth in range(1, max(len(f.resolve().parts) for f in files) + 1):
        labels = ["/".join(f.resolve().parts[-depth:]) for f in files]
        stems = Counter(f.stem for f in files)
        if depth == 1 and max(stems.values()) == 1 and not RESERVED & stems.keys():
            labels = list(stems)
        if len(set(labels)) == len(files) and not RESERVED & set(labels):
            break
    return [(os.fsencode(label).decode("utf-8", "replace"), file) for label, file in zip(labels, files, strict=True)]


def _name(paths: Sequence[Path]) -> str:
    first = paths[0].resolve()
    return first.name if len(paths) == 1 else f"{first.parent.name}-{len(paths)}"


def _path_digest(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:12]


def run_score(prepared: PreparedScore, store: RunStore, observe: Callable[[Event], None]) -> None:
    """Score everything that isn't scored.

    Raises:
        StoreError: the run folder cannot be written; what is finished stays.
    """

    def receive(message: object) -> None:
        if isinstance(message, Event):
            observe(message)
        elif isinstance(message, Death):
            _bury(store, message)
            observe(Event("score", message.task.label, message.task.track, 1))

    setup = ScoreSetup(store.root, prepared.metrics)
    spec = WorkerSpec("magbench.runners.scoring:ScoreWorker", setup)
    with Pool(spec, min(prepared.workers, len(prepared.tasks))) as pool:
        pool.run(prepared.tasks, receive)


def _bury(store: RunStore, death: Death) -> None:
    """Record a video whose worker was killed before it was taken in. Later, only scores are missing."""
    task: ScoreTask = death.task
    if task.file is not None and not store.has(task.key):
        method = MethodRecord(label=task.label, policy="file", applicability="external")
        name = signal.Signals(death.signal).name
        error = VideoError(f"the worker process was killed by {name}", "repeat the command, with fewer --workers")
        store.write_sample(_sample(task.key, task.label, method, None, "error", error))


class ScoreWorker:
    """Scores one video after the other."""

    def __init__(self, setup: ScoreSetup) -> None:
        self.setup = setup
        self.store = RunStore.open(setup.root)

    def __call__(self, task: ScoreTask, emit: Emit) -> None:
        """Take the video in, if it is a new one, and score it.

        Raises:
            StoreError: the run folder cannot be written.
        """
        if task.file is not None:
            self._take_in(task, task.file)
        emit(Event("video", task.label, task.track, 1))
        for key in task.keys:
            score_sample(self.store, key, self.setup.metrics[task.track])
        emit(Event("score", task.label, task.track, 1))
        emit(Event("task", task.label, task.track, 1))

    def _take_in(self, task: ScoreTask, file: Path) -> None:
        method = MethodRecord(label=task.label, policy="file", applicability="external")
        try:
            before = self.store.sample(task.key)
            if before and before.video and file.is_file() and before.video.sha256 == sha256_file(file):
                return
            for key in task.keys:
                self.store.discard(key)
            if not _encodable(file):
                raise VideoError(f"{task.label}: the file's name is not valid UTF-8", "rename the file")
            video = video_ref(file)
            write_previews(self.store, task.key, file)
        except StoreError:
            raise
        except Exception as caught:  # the per-sample boundary: one bad file must not stop the others
            error = VideoError(*blame(caught))
            for view in VIEWS:
                reason = VideoError("its video cannot be read")
                self.store.write_sample(
                    _sample(task.view(view), task.label, reference_method(view), None, "not_applicable", reason)
                )
            self.store.write_sample(_sample(task.key, task.label, method, None, "error", error))
            return
        for view in VIEWS:
            shown = VideoRef.model_validate({**video.model_dump(), "transform": view})
            self.store.write_sample(_sample(task.view(view), task.label, reference_method(view), shown, "ok"))
        self.store.write_sample(_sample(task.key, task.label, method, video, "ok"))


def _encodable(file: Path) -> bool:
    try:
        str(file.resolve()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _sample(
    key: str, case: str, method: MethodRecord, video: VideoRef | None, status: Status, error: VideoError | None = None
) -> SampleRecord:
    return SampleRecord(
        key=key,
        case=CaseRecord(id=case, track="videos"),
        method=method,
        model="",
        seed=0,
        status=status,
        reason=error.message if error else "",
        hint=(error.hint or "") if error else "",
        video=video,
    )
