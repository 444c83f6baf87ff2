"""Jobs to samples: generate, write, score. Runs in worker processes; see `pool`."""

import hashlib
import inspect
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from magbench import provenance
from magbench.data.contact_sheet import make_contact_sheet
from magbench.data.mini_world import Frame
from magbench.data.video import open_video, video_ref, write_video
from magbench.errors import MagbenchError, StoreError
from magbench.jobs import Group, Job, Plan
from magbench.metrics.engine import is_current, score
from magbench.names import digest, slug
from magbench.records import CaseRecord, SampleRecord, Timing, TraceRecord, Track, VideoRef
from magbench.runners.generate import Generator
from magbench.runners.methods import parse_method
from magbench.runners.models import ModelInfo, find_model
from magbench.runners.pool import Death, Pool, WorkerSpec
from magbench.runners.reel import Reel
from magbench.runners.references import transformed, truth_frames, truth_of
from magbench.runners.user_policies import code_of, described, fault, hold
from magbench.schedule import switch_frames
from magbench.store import RunStore

VIDEO, PREVIEW, SHEET = "video.mkv", "preview.mp4", "preview.jpg"
UPDATE_EVENTS = frozenset({"compress", "flush", "cut", "recache"})
"""Trace events that re-arrange a cache. Evicting and averaging are routine: they happen at every border."""
REAL_PER_TASK = 4
DECODE_FRAMES = 48
"""Latent frames decoded at a time."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Progress."""

    kind: Literal["video", "score", "task"]
    """`video` and `score` advance by `amount` samples; `task` says that a batch is done."""
    label: str
    track: str
    amount: float


Emit = Callable[[object], None]


@dataclass(frozen=True)
class Setup:
    """What a worker has to know.

    Args:
        root: The run folder.
        model: Name of the model.
        device: Torch device of model and metrics.
        dtype: Numeric type of the rollout.
        metrics: Names per track.
        files: Path and content of the users' policy files.
    """

    root: Path
    model: str
    device: str
    dtype: str
    metrics: dict[Track, tuple[str, ...]]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Task:
    """Jobs of one row and track, and the keys of the real videos they refer to."""

    jobs: tuple[Job, ...]
    real: tuple[str | None, ...]


def execute(plan: Plan, setup: Setup, workers: int, observe: Callable[[Event], None]) -> None:
    """Make and score every sample of the plan that isn't there, in any order.

    Args:
        plan: All jobs; complete samples are left alone.
        setup: For the workers.
        workers: Processes; 0 works in this one.
        observe: Gets progress.

    Raises:
        StoreError: the run folder cannot be written; what is finished stays.
    """
    store = RunStore.open(setup.root)

    def task(jobs: Sequence[Job]) -> Task:
        return Task(tuple(jobs), tuple(plan.real_key(job) for job in jobs))

    def receive(message: object) -> None:
        if isinstance(message, Event):
            observe(message)
        elif isinstance(message, Death):
            _bury(store, message, observe)

    real = plan.references("real")
    first = [task(real[i : i + REAL_PER_TASK]) for i in range(0, len(real), REAL_PER_TASK)]
    groups = sorted(plan.groups(), key=lambda group: -group.jobs[0].case.frames)
    views = [job for label in ("static", "shuffled") for job in plan.references(label)]
    rest = [task(group.jobs) for group in groups]
    rest += [task(views[i : i + REAL_PER_TASK]) for i in range(0, len(views), REAL_PER_TASK)]
    with Pool(WorkerSpec("magbench.runners.execute:Worker", setup), min(workers, len(first) + len(rest))) as pool:
        pool.run(first, receive)
        pool.run(rest, receive)


def _bury(store: RunStore, death: Death, observe: Callable[[Event], None]) -> None:
    """Record what a killed worker left undone."""
    name = signal.Signals(death.signal).name
    for job in death.task.jobs:
        if not store.has(job.key):
            hint = "memory may have run out: try fewer --workers, then --existing redo-failed"
            store.write_sample(_failed(job, f"the worker process was killed by {name}", hint))
        observe(Event("score", job.method.label, job.case.track, 1))


def _failed(job: Job, reason: str, hint: str, status: Literal["error", "not_applicable"] = "error") -> SampleRecord:
    return job.record(
        status=status,
        reason=reason,
        hint=hint,
    )


def nominal_timing(model: ModelInfo, case: CaseRecord) -> Timing:
    """Borders of the generated part, in pixel frames; those up to the end of the given history don't count."""
    latents = range(case.history_frames + 1, case.frames)
    switches = switch_frames(case, model.fps, model.stride, model.chunk)
    return Timing(
        chunk_borders=tuple(model.pixel_frames(i) for i in latents if i % model.chunk == 0),
        latent_borders=tuple(model.pixel_frames(i) for i in latents if i % model.chunk),
        switch_borders=tuple(map(model.pixel_frames, switches)),
    )


def measured_timing(model: ModelInfo, case: CaseRecord, trace: Sequence[TraceRecord]) -> Timing:
    """As `nominal_timing`, with the borders at which the trace says that the cache was re-arranged.

    A chunk's events come before it; those of a re-cache behind the frames that it encodes again.
    """
    nominal = nominal_timing(model, case)
    updates = {
        model.pixel_frames(t.first_frame + (t.frames if t.kind == "recache" else 0))
        for t in trace
        if UPDATE_EVENTS.intersection(t.events)
    }
    return nominal.model_copy(update={"update_borders": tuple(b for b in nominal.chunk_borders if b in updates)})


class Worker:
    """Does one task after the other; loads the model when a task first needs it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        hold(setup.files)
        self.store = RunStore.open(setup.root)
        self.info = find_model(setup.model)
        self.generator = Generator(self.info, setup.device, setup.dtype)

    def __call__(self, task: Task, emit: Emit) -> None:
        """Make what is missing of the task, then score what isn't scored.

        Raises:
            StoreError: the run folder cannot be written.
        """
        label, track = task.jobs[0].method.label, task.jobs[0].case.track
        missing = [job for job in task.jobs if not self.store.has(job.key)]
        emit(Event("video", label, track, len(task.jobs) - len(missing)))
        if missing and missing[0].method.policy == "reference":
            self._refer(task, missing, emit)
        elif missing:
            self._generate(task, missing, emit)
        for job in task.jobs:
            score_sample(self.store, job.key, self.setup.metrics[job.case.track], self.setup.device)
            emit(Event("score", job.method.label, track, 1))
        emit(Event("task", label, track, len(task.jobs)))

    def _refer(self, task: Task, missing: Sequence[Job], emit: Emit) -> None:
        for job in missing:
            with _boundary(self.store, [job]):
                self._write_reference(job, task)
            emit(Event("video", job.method.label, job.case.track, 1))

    def _write_reference(self, job: Job, task: Task) -> None:
        timing = nominal_timing(self.info, job.case)
        history = self.info.pixel_frames(job.case.history_frames)
        if job.method.label == "real":
            pixels = self.info.pixel_frames(job.case.frames)
            self._write_video(job, lambda: truth_frames(job.case, job.seed, pixels), timing, (), None)
            return
        key = task.real[task.jobs.index(job)]
        real = self.store.sample(key) if key else None
        if real is None:
            self.store.write_sample(_failed(job, "there is no real video to derive it from", "", "not_applicable"))
        else:
            self.store.write_sample(transformed(job, real, timing, history))

    def _generate(self, task: Task, missing: Sequence[Job], emit: Emit) -> None:
        first = missing[0]
        reason = self.generator.refusal(first)
        if reason:
            for job in missing:
                self.store.write_sample(_failed(job, reason, "", "not_applicable"))
            emit(Event("video", first.method.label, first.case.track, len(missing)))
            return
        group, reel = Group(task.jobs), self._reel(task.jobs, {job.key for job in missing})

        def made(frames: int) -> None:
            emit(Event("video", first.method.label, first.case.track, len(missing) * frames / first.case.frames))

        made(reel.done)
        with _boundary(self.store, missing):
            for step in self.generator.roll(group.slots(reel.rows), reel=reel):
                made(step.latents.shape[1])
            for place, job in enumerate(task.jobs):
                if job in missing:
                    with _boundary(self.store, [job]):
                        self._write_generated(job, reel, task.real[place])
        if all((sample := self.store.sample(key)) and sample.status == "ok" for key in reel.rows):
            reel.clear()

    def _reel(self, jobs: Sequence[Job], missing: set[str]) -> Reel:
        """Where a batch's latents go; it has those that a process before this one left."""
        method, case, keys = jobs[0].method, jobs[0].case, [job.key for job in jobs]
        identity = {
            "jobs": keys,
            "device": torch.device(self.setup.device).type,
            "versions": provenance.versions(),
            "policy": hashlib.sha256(_source(type(parse_method(method.label).policy))).hexdigest(),
        }
        name = f"{slug(case.track)}.{slug(method.label)}.{digest({'jobs': keys})[:12]}"
        rows = {key: place for place, key in enumerate(keys) if key in missing}
        return Reel(self.store, name, digest(identity), rows, case.frames)

    def _write_generated(self, job: Job, reel: Reel, real: str | None) -> None:
        def blocks() -> Iterator[Tensor]:
            for latents in reel.latents(job.key):
                yield from torch.split(latents, DECODE_FRAMES)

        def frames() -> Iterator[Frame]:
            for decoded in self.generator.model.decode_stream(blocks()):
                yield from decoded

        trace = reel.trace()
        timing = measured_timing(self.info, job.case, trace)
        truth = truth_of(job, self.store.sample(real) if real else None)
        self._write_video(job, frames, timing, trace, truth)

    def _write_video(
        self,
        job: Job,
        frames: Callable[[], Iterator[Frame]],
        timing: Timing,
        trace: Sequence[TraceRecord],
        truth: VideoRef | None,
    ) -> None:
        """Write everything of a sample, its record last."""
        store, key, fps = self.store, job.key, self.info.fps
        history = self.info.pixel_frames(job.case.history_frames)
        video = store.publish(key, VIDEO, lambda path: write_video(path, frames(), fps, "lossless"))
        write_previews(store, key, video, history)
        if trace:
            store.write_trace(key, trace)
        reference = video_ref(video, relative_to=video.parent)
        is_truth = job.method.label == "real" and job.case.history_frames > 0
        store.write_sample(
            job.record(
                status="ok",
                video=reference,
                truth=reference if is_truth else truth,
                timing=timing,
                history_frames=history,
            )
        )


def _source(policy: type) -> bytes:
    return code_of(policy) or Path(inspect.getfile(policy)).read_bytes()


def write_previews(store: RunStore, key: str, video: Path, given: int = 0) -> None:
    """Write what pages show, `preview.mp4` and `preview.jpg`, from a video file.

    Raises:
        StoreError: a file cannot be written.
        VideoError: the video cannot be read.
    """

    def preview(path: Path) -> None:
        with open_video(video) as reader:
            write_video(path, (frame for _, frame in reader), reader.fps, "preview")

    store.publish(key, PREVIEW, preview)
    store.publish(key, SHEET, lambda path: make_contact_sheet(video, path, given=given))


def score_sample(store: RunStore, key: str, metrics: Sequence[str], device: str = "cpu") -> None:
    """Compute and store what is missing or outdated of a sample's metrics; samples without a video have none.

    Raises:
        StoreError: the run folder cannot be written.
    """
    sample = store.sample(key)
    if sample is None or sample.status != "ok":
        return
    stored = {record.name: record for record in store.metrics(key)}
    wanted = [name for name in metrics if name not in stored or not is_current(stored[name], sample, device)]
    if wanted:
        for record in score(sample, store.sample_dir(key), store.trace(key), wanted, device):
            store.write_metric(key, record)


@contextmanager
def _boundary(store: RunStore, jobs: Sequence[Job]) -> Iterator[None]:
    """The per-sample boundary: what goes wrong inside becomes the record of each job that isn't complete.

    A run folder that can't be written is no fault of the sample: StoreError goes through.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason, hint = blame(error)
        for job in jobs:
            if not store.has(job.key):
                store.write_sample(_failed(job, reason, hint))


def blame(error: Exception) -> tuple[str, str]:
    """Reason and hint for the record of a sample that failed; logs the traceback of what wasn't raised on purpose."""
    if isinstance(error, MagbenchError):
        return error.message, error.hint or ""
    _log.error("sample failed", exc_info=error)
    whose = "the policy" if fault(error) else "magbench"
    return described(error), f"this is a fault in {whose}; its traceback is above"
