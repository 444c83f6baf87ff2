"""`magbench why`: short rollouts of a few cases with diagnostics on, and SSIM around the borders of their videos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from magbench.jobs import Group, Job
from magbench.metrics.base import NotApplicable, Scores
from magbench.metrics.consecutive import Consecutive, Pairs
from magbench.metrics.ssim import ssim
from magbench.metrics.ssim_consecutive import RECIPE
from magbench.options import RunOptions, WhyOptions
from magbench.records import (
    ChunkWhy,
    MethodRecord,
    MethodWhy,
    Reduction,
    State,
    TraceRecord,
    Track,
    VideoWhy,
    WhyRecord,
)
from magbench.runners.diagnostics import Diagnosis
from magbench.runners.execute import DECODE_FRAMES, Emit, Event, Setup, blame, measured_timing
from magbench.runners.generate import Generator
from magbench.runners.methods import parse_method
from magbench.runners.models import find_model
from magbench.runners.pool import Death, Pool, WorkerSpec
from magbench.runners.prepare import Prepared, prepare
from magbench.runners.user_policies import hold

TRACK: Track = "long-horizon"
EFFECTS = ("border_effect", "update_effect")


@dataclass(frozen=True)
class Outcome:
    """What became of a batch."""

    label: str
    """Of the method."""
    videos: tuple[VideoWhy, ...] = ()
    state: State = "value"
    reason: str = ""
    hint: str = ""


def prepare_why(options: WhyOptions) -> Prepared:
    """Decide everything before anything is written.

    Returns:
        As for a run of the long-horizon track, but with the first cases only and without baselines and references.

    Raises:
        ConfigError: an option, method or suite can't be used.
        MissingWeightsError: the model's weights are not here.
    """
    shared = options.model_dump(exclude={"cases"}, exclude_none=True)
    run = prepare(RunOptions.parse({**shared, "track": TRACK, "no_baselines": True}))
    wanted = {case.id for case in run.plan.suite.cases(TRACK)[: options.cases]}
    jobs = tuple(job for job in run.plan.jobs if job.case.id in wanted and job.method.policy != "reference")
    update = {
        "kind": "why",
        "primary": {},
        "arguments": options.model_dump(mode="json", exclude_unset=True),
        "resolved": {**run.record.resolved, "model": find_model(run.setup.model).title},
        "command": "",
    }
    return Prepared(
        replace(run.plan, jobs=jobs),
        replace(run.setup, root=options.out or Path("runs") / f"why-{run.setup.root.name}"),
        run.record.model_copy(update=update),
        run.workers,
    )


def diagnose(prepared: Prepared, observe: Callable[[Event], None]) -> WhyRecord:
    """Roll out and look.

    Returns:
        The methods in the order in which they were named. One that fails has state `error`.
    """
    outcomes: dict[str, list[Outcome]] = {}

    def receive(message: object) -> None:
        if isinstance(message, Death):
            label = message.task[0].method.label
            message = Outcome(label, state="error", reason="the worker process was killed", hint="try fewer --workers")
        if isinstance(message, Event):
            observe(message)
        elif isinstance(message, Outcome):
            outcomes.setdefault(message.label, []).append(message)

    tasks = [group.jobs for group in prepared.plan.groups()]
    with Pool(WorkerSpec("magbench.runners.why:Worker", prepared.setup), min(prepared.workers, len(tasks))) as pool:
        pool.run(tasks, receive)
    methods = {job.method.label: job.method for job in prepared.plan.jobs}
    return WhyRecord(methods=tuple(_join(methods[label], outcomes[label]) for label in prepared.record.methods))


def _join(method: MethodRecord, outcomes: Sequence[Outcome]) -> MethodWhy:
    videos = sorted((video for one in outcomes for video in one.videos), key=lambda video: (video.case, video.seed))
    failed = next((one for one in outcomes if one.state != "value"), None)
    if failed:
        return MethodWhy(method=method, state=failed.state, reason=failed.reason, hint=failed.hint)
    return MethodWhy(method=method, videos=tuple(videos))


class Worker:
    """Does one batch after the other."""

    def __init__(self, setup: Setup) -> None:
        hold(setup.files)
        self.info = find_model(setup.model)
        self.generator = Generator(self.info, setup.device, setup.dtype)

    def __call__(self, jobs: tuple[Job, ...], emit: Emit) -> None:
        """Emit progress, then an `Outcome`."""
        label = jobs[0].method.label
        reason = self.generator.refusal(jobs[0])
        if reason:
            emit(Event("video", label, TRACK, len(jobs)))
            outcome = Outcome(label, state="not_applicable", reason=reason)
        else:
            try:
                outcome = Outcome(label, self._videos(jobs, emit))
            except Exception as error:  # the boundary: one method's fault ends no run
                reason, hint = blame(error)
                outcome = Outcome(label, state="error", reason=reason, hint=hint)
        emit(outcome)
        emit(Event("score", label, TRACK, len(jobs)))
        emit(Event("task", label, TRACK, len(jobs)))

    def _videos(self, jobs: tuple[Job, ...], emit: Emit) -> tuple[VideoWhy, ...]:
        first, layers = jobs[0], self.generator.model.transformer.config.layers
        diagnosis = Diagnosis(parse_method(first.method.label).policy, layers)
        steps = []
        for step in self.generator.roll(Group(jobs).slots(job.key for job in jobs), diagnosis.attention):
            steps.append(step)
            share = step.latents.shape[1] / first.case.frames
            emit(Event("video", first.method.label, TRACK, len(jobs) * share))
        latents, trace = torch.cat([step.latents for step in steps], dim=1), [step.trace for step in steps]
        return tuple(self._video(job, latents[row], trace, diagnosis.chunks(row)) for row, job in enumerate(jobs))

    def _video(self, job: Job, latents: Tensor, trace: Sequence[TraceRecord], chunks: tuple[ChunkWhy, ...]) -> VideoWhy:
        """Add what SSIM says of the decoded video."""
        pairs, seen, first = Pairs[NDArray[np.uint8]](), Consecutive(), 0
        for block in torch.split(latents, DECODE_FRAMES):
            frames = self.generator.model.decode(block)
            times = [(first + index) / self.info.fps for index in range(len(frames))]
            found = pairs.add(first, times, list(frames))
            seen.add(len(frames), found, [ssim(pair.before, pair.now) for pair in found])
            first += len(frames)
        timing = measured_timing(self.info, job.case, trace)
        scores = seen.scores(RECIPE, timing)
        return VideoWhy(
            case=job.case.id,
            seed=job.seed,
            chunks=chunks,
            ssim=seen.medians(timing),
            effects=tuple(_effect(name, scores) for name in EFFECTS),
        )


def _effect(name: str, scores: Scores | NotApplicable) -> Reduction:
    value = scores.values[name] if isinstance(scores, Scores) else scores
    if isinstance(value, NotApplicable):
        return Reduction(name=name, state="not_applicable", reason=value.reason)
    return Reduction(name=name, state="value", value=value, direction="higher")
