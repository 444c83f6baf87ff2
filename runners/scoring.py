"""`magbench score`: anybody's videos, as files or as a manifest knows them, or a run again."""

import hashlib
import os
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from magbench import __version__, horizon, provenance
from magbench.data.layouts import Understood, understand
from magbench.data.manifest import REFERENCES, ManifestRow, borders, read_manifest
from magbench.data.video import SUFFIXES, sha256_file, video_ref
from magbench.errors import ConfigError, StoreError, VideoError
from magbench.jobs import reference_method
from magbench.metrics import METRICS
from magbench.metrics.weights import require
from magbench.names import digest, slug
from magbench.options import ScoreOptions
from magbench.records import CaseRecord, MethodRecord, RunRecord, SampleRecord, Timing, VideoRef
from magbench.registry import did_you_mean
from magbench.runners.execute import Emit, Event, blame, score_sample, write_previews
from magbench.runners.pool import Death, Pool, WorkerSpec
from magbench.store import RunStore

OPT_IN = ("@bf16", "@vbench-0.1.5", "@vbench-long")
"""Profiles for who asks for them by name: other numbers than the default, or hours of work."""
VIEWS = ("static", "shuffled")
FILE, ROW = "file", "row"
"""Policies of videos that were only scored: a file that is a method and a case by itself, and a row of a manifest."""
Status = Literal["ok", "error", "not_applicable"]


@dataclass(frozen=True)
class Given:
    """A user's video, and what is known of it."""

    file: Path
    case: CaseRecord
    method: MethodRecord
    seed: int = 0
    chunk_borders: str | tuple[int, ...] = ()
    latent_borders: str | tuple[int, ...] = ()
    """As a manifest has them."""
    truth: Path | None = None
    history_frames: int = 0
    views: tuple[str, ...] = VIEWS
    """Labels of the reference rows to be made of it, or of its truth where there is one."""


@dataclass(frozen=True)
class ScoreTask:
    """What belongs to one video, or to one sample of a run."""

    key: str
    label: str
    track: str
    given: Given | None = None
    """The user's video; None for a sample of a run."""

    def view(self, label: str) -> str:
        """Key of a reference row."""
        return f"{self.key}.{label}"

    @property
    def keys(self) -> tuple[str, ...]:
        """All samples of the task."""
        return (self.key, *map(self.view, self.given.views if self.given else ()))


@dataclass(frozen=True)
class PreparedScore:
    """All that scoring needs."""

    root: Path
    record: RunRecord
    tasks: tuple[ScoreTask, ...]
    metrics: dict[str, tuple[str, ...]]
    """Per track."""
    workers: int
    rows: tuple[ManifestRow, ...] = ()
    """As a manifest or an importer gave them."""
    left_out: tuple[tuple[Path, str], ...] = ()
    """Files that the importer did not understand, and why."""
    notes: tuple[str, ...] = ()
    """What the importer could not know."""


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
        MissingWeightsError: offline, and weights of a metric are missing.
    """
    metrics = tuple(dict.fromkeys(name for given in options.metrics for name in metric_names(given)))
    workers = provenance.cores() if options.workers is None else options.workers
    if len(paths) == 1 and not options.layout and RunStore.exists(paths[0]):
        return _prepare_run(paths[0], options, metrics, workers)
    rows, understood = manifest_rows(paths, options)
    if rows:
        tasks = _row_tasks(rows)
    else:
        tasks = tuple(_file_task(label, file) for label, file in _labelled(find_videos(paths)))
    paths = [options.manifest] if options.manifest else paths
    metrics = metrics or tuple(name for name in METRICS if name.endswith("@default"))
    if options.offline:
        require(metrics)
    root = options.out or Path("runs") / f"score-{slug(_name(paths))}"
    left_out = {"left_out": [_text(file) for file, _ in understood.left_out]} if understood else {}
    shown = [_text(path.resolve()) for path in paths]
    words = [
        "magbench",
        "score",
        *(f"./{p}" if str(p).startswith("-") else str(p) for p in paths if not options.manifest),
    ]
    for name, value in options.model_dump(mode="json", exclude_defaults=True).items():
        for item in value if isinstance(value, list) else [value]:
            words += ["--" + name] if item is True else ["--" + name, str(item)]
    record = RunRecord(
        magbench_version=__version__,
        kind="score",
        methods=tuple(dict.fromkeys(task.label for task in tasks)),
        horizons={"videos": horizon.defaults(metrics)},
        arguments={"paths": shown, **options.model_dump(mode="json", exclude_unset=True)},
        resolved={"metrics": {"videos": metrics}, "videos": len(tasks)} | left_out,
        command=_text(shlex.join(words)),
        started=provenance.now(),
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        git=provenance.git(),
    )
    found = (understood.left_out, understood.notes) if understood else ((), ())
    return PreparedScore(root, record, tasks, {"videos": metrics}, workers, rows, *found)


def manifest_rows(paths: Sequence[Path], options: ScoreOptions) -> tuple[tuple[ManifestRow, ...], Understood | None]:
    """The rows of the manifest, or those that an importer makes of folders; none for plain videos.

    Raises:
        ConfigError: options that don't go together, faults of the manifest, or nothing understood.
    """
    if options.prompts and not options.layout:
        raise ConfigError("--prompts belongs to --layout", "in a manifest, prompts are a field of their own")
    if options.manifest:
        if paths or options.layout:
            raise ConfigError(
                "--manifest names the videos, so no path or --layout beside it", "leave out one or the other"
            )
        return read_manifest(options.manifest), None
    if not paths:
        raise ConfigError("there is nothing to score", "give videos, folders of them, a run folder, or --manifest FILE")
    if options.layout:
        understood = understand(options.layout, paths, options.prompts)
        return understood.rows, understood
    return (), None


def _row_tasks(rows: Iterable[ManifestRow]) -> tuple[ScoreTask, ...]:
    """A task per row. The first row of each id and seed makes the reference rows for all its methods."""
    tasks, pairs = [], set[tuple[str, int]]()
    for row in rows:
        views = () if (row.id, row.seed) in pairs else VIEWS if not row.truth else REFERENCES
        pairs.add((row.id, row.seed))
        given = Given(
            Path(row.path),
            CaseRecord(id=row.id, track="videos", prompt=row.prompt, schedule=row.schedule),
            MethodRecord(label=row.method, policy=ROW, applicability="external"),
            row.seed,
            row.chunk_borders,
            row.latent_borders,
            Path(row.truth) if row.truth else None,
            row.history_frames,
            views,
        )
        key = f"{slug(row.id)}.s{row.seed}.{slug(row.method)}.{digest(row.model_dump(mode='json'))[:12]}"
        tasks.append(ScoreTask(key, row.method, "videos", given))
    return tuple(tasks)


def _file_task(label: str, file: Path) -> ScoreTask:
    given = Given(
        file,
        CaseRecord(id=label, track="videos"),
        MethodRecord(label=label, policy=FILE, applicability="external"),
    )
    return ScoreTask(f"{slug(label)}.{_path_digest(file)}", label, "videos", given)


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
    if options.offline:
        require(chain.from_iterable(chosen.values()))
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
        if depth == 1 and max(stems.values()) == 1 and not stems.keys() & set(REFERENCES):
            labels = list(stems)
        if len(set(labels)) == len(files) and not set(labels) & set(REFERENCES):
            break
    return [(_text(label), file) for label, file in zip(labels, files, strict=True)]


def _text(path: str | Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


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
    if task.given is not None and not store.has(task.key):
        name = signal.Signals(death.signal).name
        error = VideoError(f"the worker process was killed by {name}", "repeat the command, with fewer --workers")
        store.write_sample(_sample(task.key, task.given, task.given.method, "error", error))


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
        if task.given is not None:
            self._take_in(task, task.given)
        emit(Event("video", task.label, task.track, 1))
        for key in task.keys:
            score_sample(self.store, key, self.setup.metrics[task.track])
        emit(Event("score", task.label, task.track, 1))
        emit(Event("task", task.label, task.track, 1))

    def _take_in(self, task: ScoreTask, given: Given) -> None:
        try:
            if self._is_taken_in(task.key, given):
                return
            for key in task.keys:
                self.store.discard(key)
            if not _encodable(given.file):
                raise VideoError(f"{task.label}: the file's name is not valid UTF-8", "rename the file")
            video = video_ref(given.file)
            truth = video_ref(given.truth) if given.truth else None
            timing = _timing(given, video)
            write_previews(self.store, task.key, given.file, given.history_frames)
        except StoreError:
            raise
        except Exception as caught:  # the per-sample boundary: one bad file must not stop the others
            error = VideoError(*blame(caught))
            for view in given.views:
                reason = VideoError("its video cannot be read")
                self.store.write_sample(
                    _sample(task.view(view), given, reference_method(view), "not_applicable", reason)
                )
            self.store.write_sample(_sample(task.key, given, given.method, "error", error))
            return
        known: dict[str, Any] = {"truth": truth, "timing": timing, "history_frames": given.history_frames}
        for view in given.views:
            hidden = {} if view == "real" else {"transform": view, "hold_from": given.history_frames}
            shown = VideoRef.model_validate({**(truth or video).model_dump(), **hidden})
            record = _sample(task.view(view), given, reference_method(view), "ok")
            self.store.write_sample(record.model_copy(update={"video": shown, **known}))
        record = _sample(task.key, given, given.method, "ok")
        self.store.write_sample(record.model_copy(update={"video": video, **known}))

    def _is_taken_in(self, key: str, given: Given) -> bool:
        """Whether the sample is there and made of the files as they are now."""
        before = self.store.sample(key)
        if before is None or before.status != "ok":
            return False
        pairs = ((before.video, given.file), (before.truth, given.truth))
        return all(file is None or _is_that(ref, file) for ref, file in pairs)


def _is_that(ref: VideoRef | None, file: Path) -> bool:
    return ref is not None and file.is_file() and ref.sha256 == sha256_file(file)


def _timing(given: Given, video: VideoRef) -> Timing:
    """The borders, with those from which another prompt holds: the first at or after its time.

    Raises:
        VideoError: a border or the end of the given frames lies beyond the video.
    """
    chunk, latent = (borders(one, video.frames) for one in (given.chunk_borders, given.latent_borders))
    what = {"history_frames": given.history_frames, "chunk_borders": max(chunk, default=0)}
    for name, value in (what | {"latent_borders": max(latent, default=0)}).items():
        if value >= video.frames:
            raise VideoError(
                f"{given.file}: has {video.frames} frames, and its {name} in the manifest reach {value}",
                f"correct {name}, which count pixel frames",
            )
    found = (next((b for b in chunk if b / video.fps >= s.at - 1e-6), None) for s in given.case.schedule)
    switches = tuple(dict.fromkeys(border for border in found if border is not None))
    inside = tuple(border for border in latent if border not in set(chunk))
    return Timing(chunk_borders=chunk, latent_borders=inside, switch_borders=switches)


def _encodable(file: Path) -> bool:
    try:
        str(file.resolve()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _sample(
    key: str, given: Given, method: MethodRecord, status: Status, error: VideoError | None = None
) -> SampleRecord:
    return SampleRecord(
        key=key,
        case=given.case,
        method=method,
        model="",
        seed=given.seed,
        status=status,
        reason=error.message if error else "",
        hint=(error.hint or "") if error else "",
    )
