"""`magbench validate`: damages are planted into clean clips, and the metrics are asked."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from magbench import __version__, provenance
from magbench.data.damage import DAMAGES, LASTING, Dose, changed_psnr
from magbench.data.mini_case import CHUNK
from magbench.data.mini_world import COLOURS, FPS, HATS, Scene, World
from magbench.data.video import Frame, open_video, probe, sha256_file, video_ref, write_video
from magbench.errors import ConfigError, MagbenchError
from magbench.metrics import METRICS
from magbench.metrics.engine import score
from magbench.names import digest, slug
from magbench.options import ValidateOptions
from magbench.records import CaseRecord, MethodRecord, MetricRecord, SampleRecord, Timing
from magbench.runners.execute import Emit, Event
from magbench.runners.pool import Death, Pool, WorkerSpec
from magbench.runners.scoring import find_videos, metric_names
from magbench.store import make_folder, read_record, write_json
from magbench.validation import CLEAN, Measured, ValidationRecord, ValidationSpec, conclude, load_spec

FIRST_SEED = 7_000_000
"""World seeds of the rendered clips; no suite and no training uses them."""
SIDE = 240
"""Short side in pixels to which given clips are scaled down."""
GIVEN_BORDERS = (9, 12, 4)
"""Pixel frames of the first chunk, of each further one and of a latent frame, where seams of given clips are planted:
Wan's."""
QUICK = {"clean": 4, "damaged": 1, "onsets": (0.25,)}
TAIL = 0.15
"""Share of the clip, at its end, in which a damage is measured."""


class _Killed(MagbenchError):
    """A worker is gone; memory may have run out."""

    exit_code = 1


@dataclass(frozen=True)
class Source:
    """A clean clip: rendered from a seed, or a given file."""

    id: str
    seed: int = 0
    file: Path | None = None
    content: str = ""
    """Hash of the given file."""


@dataclass(frozen=True)
class Task:
    """One clip under one damage with one onset, at all strengths."""

    source: Source
    damage: str
    onset: float
    endpoints: tuple[str, ...]

    @property
    def key(self) -> str:
        """A file name."""
        return f"{self.source.id}.{self.damage}.{self.onset:g}"


@dataclass(frozen=True)
class ValidationSetup:
    """What a worker has to know."""

    root: Path
    spec: ValidationSpec


@dataclass(frozen=True)
class PreparedValidation:
    """All that validating needs."""

    setup: ValidationSetup
    tasks: tuple[Task, ...]
    wanted: dict[str, tuple[str, ...]]
    """Endpoint to the damages to look at."""
    left_out: dict[str, str]
    unclaimed: tuple[str, ...]
    workers: int

    @property
    def clips(self) -> int:
        """Clips to score."""
        return sum(len(strengths(self.setup.spec, task)) for task in self.tasks)


def prepare_validation(paths: Sequence[Path], options: ValidateOptions) -> PreparedValidation:
    """Decide everything before anything is written.

    Args:
        paths: Clean clips and folders of them; none renders the mini world's.
        options: As given.

    Raises:
        ConfigError: there is no such metric or video, or the folder holds something else.
        VideoError: a given clip can't be read, or is too short.
    """
    spec = load_spec(options.claims)
    if options.quick:
        spec = spec.model_copy(update=QUICK)
    sources = tuple(map(_given, find_videos(paths))) if paths else tuple(map(_rendered, range(spec.clean)))
    if paths:
        spec = spec.model_copy(update={"clean": len(sources), "damaged": len(sources)})
    if len({source.id for source in sources}) < len(sources):
        raise ConfigError("two of the clips have the same content", "give each clip once")
    chosen = tuple(dict.fromkeys(name for given in options.metrics for name in metric_names(given)))
    left_out = {"identity": "only a rendered clip has another subject to change into"} if paths else {}
    damages = [damage for damage in spec.damages if damage not in left_out]
    wanted = {
        endpoint: tuple(d for d in damages if d in claims.damages)
        for endpoint, claims in spec.claims.items()
        if not chosen or _metric(endpoint) in chosen
    }
    claimed = {_metric(endpoint) for endpoint in spec.claims}
    wanted |= {f"{name}/{METRICS[name].reductions[0].name}": tuple(damages) for name in chosen if name not in claimed}
    root = options.out or Path("runs") / ("validate-mini" if not paths else f"validate-{sources[0].id}")
    if root.is_dir() and any(root.iterdir()) and not (root / "measured").is_dir():
        raise ConfigError(f"'{root}' is not empty and holds no validation", "choose another folder with --out")
    tasks = [Task(source, CLEAN, 0.0, tuple(wanted)) for source in sources]
    for damage in damages:
        endpoints = tuple(endpoint for endpoint, those in wanted.items() if damage in those)
        tasks += [Task(s, damage, o, endpoints) for s, o in _turns(sources[: spec.damaged], spec.onsets) if endpoints]
    return PreparedValidation(
        ValidationSetup(root, spec),
        tuple(tasks),
        wanted,
        left_out,
        tuple(name for name in METRICS if name not in claimed),
        provenance.cores() if options.workers is None else options.workers,
    )


def _turns(sources: Sequence[Source], onsets: Sequence[float]) -> Iterator[tuple[Source, float]]:
    """Each clip with one onset in turn; with fewer clips than onsets, each with all."""
    for index, source in enumerate(sources):
        for onset in onsets if len(sources) < len(onsets) else [onsets[index % len(onsets)]]:
            yield source, onset


def _rendered(index: int) -> Source:
    return Source(f"world-{index:02d}", seed=FIRST_SEED + index)


def _given(file: Path) -> Source:
    found = probe(file)
    if found.frames < 5 * found.fps:
        raise ConfigError(f"{file}: {found.frames / found.fps:.1f} s are too short to damage", "give 5 s or more")
    content = sha256_file(file)
    return Source(f"{slug(file.stem)}-{content[:8]}", file=file, content=content)


def strengths(spec: ValidationSpec, task: Task) -> tuple[float, ...]:
    """Of a task's damage."""
    return (0.0,) if task.damage == CLEAN else spec.damages[task.damage].levels(spec.levels)


def identity(spec: ValidationSpec, task: Task) -> str:
    """Hash of a task's clips."""
    seen = [__version__, spec.seconds, strengths(spec, task), task.source.seed, task.source.content, task.onset]
    return digest({"damage": task.damage, "seen": seen})


def lacking(spec: ValidationSpec, task: Task, known: Measured | None) -> tuple[str, ...]:
    """The endpoints of a task that aren't measured yet, or by another version of their metric."""
    if known is None or known.identity != identity(spec, task):
        return task.endpoints
    return tuple(
        endpoint
        for endpoint in task.endpoints
        if endpoint not in known.values or known.versions.get(_metric(endpoint)) != METRICS[_metric(endpoint)].version
    )


def run_validation(prepared: PreparedValidation, observe: Callable[[Event], None]) -> ValidationRecord:
    """Measure what isn't measured, and conclude.

    Raises:
        StoreError: the folder can't be written; what is finished stays, and the same call continues.
        VideoError: a clip can't be read to its end.
    """
    setup = prepared.setup
    make_folder(setup.root / "clips")
    todo = []
    for task in prepared.tasks:
        if lacking(setup.spec, task, read_record(_file(setup.root, task), Measured)):
            todo.append(task)
        else:
            for kind in ("video", "score"):
                observe(Event(kind, task.damage, task.source.id, len(strengths(setup.spec, task))))

    def receive(message: object) -> None:
        if isinstance(message, Event):
            observe(message)
        elif isinstance(message, Death):
            raise _Killed(
                f"the worker on {message.task.key} was killed by signal {message.signal}",
                "repeat the command, with fewer --workers",
            )

    with Pool(WorkerSpec("magbench.runners.validation:Worker", setup), min(prepared.workers, len(todo))) as pool:
        pool.run(todo, receive)
    read = (read_record(_file(setup.root, task), Measured) for task in prepared.tasks)
    measured = tuple(one for one in read if one)
    levels, findings = conclude(setup.spec, prepared.wanted, measured)
    names = dict.fromkeys(_metric(endpoint) for endpoint in prepared.wanted)
    return ValidationRecord(
        magbench_version=__version__,
        spec=setup.spec,
        versions={name: METRICS[name].version for name in names},
        clips=tuple(dict.fromkeys(task.source.id for task in prepared.tasks)),
        left_out=prepared.left_out,
        levels=levels,
        findings=findings,
        measured=measured,
        unclaimed=prepared.unclaimed,
    )


def _file(root: Path, task: Task) -> Path:
    return root / "measured" / f"{task.key}.json"


class Worker:
    """Does one task after the other."""

    def __init__(self, setup: ValidationSetup) -> None:
        self.setup = setup
        self.folder = setup.root / "clips"

    def __call__(self, task: Task, emit: Emit) -> None:
        """Damage and score one clip at all strengths, and write down what the metrics say."""
        spec, path = self.setup.spec, _file(self.setup.root, task)
        known = read_record(path, Measured)
        endpoints = lacking(spec, task, known)
        kept = known if known and known.identity == identity(spec, task) else None
        clean, levels = self._clean(task.source), strengths(spec, task)
        values: dict[str, list[float | None]] = {endpoint: [] for endpoint in endpoints}
        reasons = {e: reason for e, reason in kept.reasons.items() if e not in endpoints} if kept else {}
        noise: list[float | None] = []
        for index, strength in enumerate(levels):
            damaged = self.folder / f".{task.key}.{index}.mkv"
            try:
                file, psnr = clean, None
                if task.damage != CLEAN:
                    file, psnr = damaged, self._plant(task, clean, damaged, strength)
                emit(Event("video", task.damage, task.source.id, 1))
                records = _score(task.source, endpoints, file)
            finally:
                damaged.unlink(missing_ok=True)
            noise.append(psnr)
            for endpoint in endpoints:
                value, reason = _number(records[_metric(endpoint)], endpoint.partition("/")[2])
                values[endpoint].append(value)
                if value is None:
                    reasons.setdefault(endpoint, reason)
            emit(Event("score", task.damage, task.source.id, 1))
        measured = Measured(
            clip=task.source.id,
            damage=task.damage,
            onset=task.onset,
            identity=identity(spec, task),
            versions={
                **(kept.versions if kept else {}),
                **{_metric(endpoint): METRICS[_metric(endpoint)].version for endpoint in endpoints},
            },
            strengths=levels,
            psnr=tuple(noise),
            values={**(kept.values if kept else {}), **{e: tuple(row) for e, row in values.items()}},
            reasons=reasons,
        )
        write_json(path, measured.model_dump())
        emit(Event("task", task.source.id, task.damage, len(levels)))

    def _clean(self, source: Source) -> Path:
        """The clean clip as a lossless file, made once."""
        path = self.folder / f"{source.id}.mkv"
        if not path.is_file():
            part = self.folder / f".{source.id}.{random.getrandbits(32):08x}.mkv"
            frames, fps = _clip(source, self.setup.spec.seconds)
            try:
                write_video(part, frames, fps)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return path

    def _plant(self, task: Task, clean: Path, damaged: Path, strength: float) -> float | None:
        """Write the damaged clip. Returns how far it is from the clean one, in dB; see `changed_psnr`."""
        found = probe(clean)
        dose = Dose(
            strength=strength,
            onset=round(task.onset * found.frames),
            frames=found.frames,
            fps=found.fps,
            borders=_timing(task.source, found.frames).chunk_borders,
            other=None if task.source.file else partial(_other_walker, task.source.seed, found.frames),
        )
        tail: list[tuple[Frame, Frame]] = []
        with open_video(clean) as video, open_video(clean) as beside:
            planted = DAMAGES[task.damage]((frame for _, frame in video), dose)

            def watched() -> Iterator[Frame]:
                for t, ((_, before), after) in enumerate(zip(beside, planted, strict=True)):
                    if t >= (1 - TAIL) * found.frames:
                        tail.append((before, after))
                    yield after

            write_video(damaged, watched(), found.fps)
        return None if task.damage in LASTING else changed_psnr(tail)


def _score(source: Source, endpoints: Sequence[str], file: Path) -> dict[str, MetricRecord]:
    names = tuple(dict.fromkeys(map(_metric, endpoints)))
    return dict(zip(names, score(_sample(source, file), file.parent, (), names), strict=True))


def _clip(source: Source, seconds: float) -> tuple[Iterable[Frame], float]:
    """Frames and rate of a clean clip."""
    if source.file is None:
        world, count = World(_scene(source.seed), source.seed), round(seconds * FPS)
        return (world.frame(t) for t in range(count)), FPS
    video = open_video(source.file)

    def frames() -> Iterator[Frame]:
        with video:
            yield from map(_small, islice((frame for _, frame in video), round(seconds * video.fps)))

    return frames(), video.fps


def _small(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    scale = SIDE / min(height, width)
    if scale >= 1:
        return frame
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


def _scene(seed: int) -> Scene:
    return Scene.draw(random.Random(f"magbench validate {seed}"))


def _other_walker(seed: int, frames: int) -> Iterator[Frame]:
    """The same clip with another coat, hat colour and hat."""

    def following(words: Sequence[str], word: str) -> str:
        return words[(words.index(word) + 1) % len(words)]

    was = _scene(seed)
    becomes = Scene(
        was.sky,
        was.ground,
        following(COLOURS, was.body),
        following(COLOURS, was.hat_colour),
        following(HATS, was.hat_shape),
        was.camera,
    )
    world = World(becomes, seed)
    return (world.frame(t) for t in range(frames))


def _timing(source: Source, frames: int) -> Timing:
    first, chunk, latent = (CHUNK, CHUNK, 1) if source.file is None else GIVEN_BORDERS
    chunks = tuple(range(first, frames, chunk))
    return Timing(
        chunk_borders=chunks, latent_borders=tuple(b for b in range(1, frames, latent) if b not in set(chunks))
    )


def _sample(source: Source, file: Path) -> SampleRecord:
    video = video_ref(file, file.parent)
    rendered = source.file is None
    return SampleRecord(
        key=source.id,
        case=CaseRecord(
            id=source.id,
            track="long-horizon" if rendered else "videos",
            prompt=_scene(source.seed).sentence() if rendered else "",
            world_seed=source.seed if rendered else None,
            frames=video.frames if rendered else 0,
        ),
        method=MethodRecord(label="damaged", policy="file", applicability="external"),
        model="mini" if rendered else "",
        seed=0,
        status="ok",
        video=video,
        timing=_timing(source, video.frames),
    )


def _number(record: MetricRecord, reduction: str) -> tuple[float | None, str]:
    """The number, or why there is none."""
    if record.state != "value":
        return None, f"{record.reason}; {record.hint}" if record.hint else record.reason
    for found in record.reductions:
        if found.name == reduction:
            return found.value, found.reason
    return None, f"{record.name} has no reduction {reduction!r}"


def _metric(endpoint: str) -> str:
    return endpoint.partition("/")[0]
