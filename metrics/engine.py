"""Scores one video with many metrics: decoded once, in order, in chunks of bounded size.

Views and features are computed once per chunk and shared; see `magbench.metrics.base.Clip`.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from magbench.data.video import Frame, VideoReader, open_video
from magbench.errors import MagbenchError, MissingWeightsError, VideoError
from magbench.metrics import METRICS
from magbench.metrics.base import Clip, Declared, Extractor, Info, Metric, NotApplicable, Scores
from magbench.metrics.bf16 import SUFFIX, in_bfloat16
from magbench.metrics.consecutive import GAP
from magbench.metrics.memory import MemoryGuard
from magbench.records import MetricRecord, Reduction, SampleRecord, State, Timing, TraceRecord, VideoRef
from magbench.registry import load_object

CHUNK_BYTES = 8 * 2**20
"""Decoded RGB bytes handed over at a time."""
CHUNK_FRAMES = 64
"""Most frames handed over at a time."""
GAP_TOLERANCE = 0.02
"""Share by which the gap of consecutive frames may be off before it is said."""

_NOTHING = Scores({})
_log = logging.getLogger(__name__)


def default_metrics(sample: SampleRecord) -> tuple[str, ...]:
    """Names of the metrics that a sample gets unless told otherwise, sorted."""
    profiles = {"default", "mini"} if sample.model == "mini" else {"default"}
    return tuple(name for name in METRICS if name.partition("@")[2] in profiles)


def identity(sample: SampleRecord) -> str:
    """Hex SHA-256 of everything about a sample that its metrics can depend on.

    The video's bytes and transform, the truth's, the model's borders, and where generation starts.
    """

    def content(ref: VideoRef | None) -> object:
        return ref and {"sha256": ref.sha256, "transform": ref.transform, "hold_from": ref.hold_from}

    seen = {
        "video": content(sample.video),
        "truth": content(sample.truth),
        "timing": sample.timing.model_dump(mode="json"),
        "history_frames": sample.history_frames,
    }
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def score(
    sample: SampleRecord,
    folder: Path,
    trace: Sequence[TraceRecord],
    metrics: Sequence[str] | None = None,
    device: str = "cpu",
) -> list[MetricRecord]:
    """Score one sample.

    Args:
        sample: The sample; paths of its videos are relative to `folder`.
        folder: The sample's folder.
        trace: What the rollout measured; empty for videos from elsewhere.
        metrics: Names `metric@profile`; None takes `default_metrics`.
        device: Where pixels and features live, e.g. "cpu" or "cuda".

    Returns:
        One record per name, in order. What can't be scored is `not_applicable`, what fails is `error`; neither keeps
        the others from their numbers.

    Raises:
        ConfigError: there is no metric of that name.
    """
    names = default_metrics(sample) if metrics is None else tuple(metrics)
    runs = [_Run(METRICS[name], sample, trace, device) for name in names]
    if any(run.active and run.metric.needs.frames for run in runs):
        _stream(runs, sample, folder, trace, device)
    return [run.record() for run in runs]


def is_current(record: MetricRecord, sample: SampleRecord, device: str = "cpu") -> bool:
    """Whether a stored score still counts: no error, and same version, video and weights as now.

    Weights that are not here can't outdate a score that was made with them.
    """
    metric: type[Metric] = METRICS[record.name]
    if record.state == "error" or record.version != metric.version or record.video_sha256 != identity(sample):
        return False
    try:
        weights = "+".join(_extractor(path, device).weights_sha256 for path in metric.needs.features)
    except MissingWeightsError:
        return True
    return record.weights_sha256 == weights


class _Run:
    """One metric on its way through one video, and what has become of it."""

    def __init__(self, metric: type[Metric], sample: SampleRecord, trace: Sequence[TraceRecord], device: str) -> None:
        self.metric = metric()
        self.sample = sample
        self.outcome: Scores | NotApplicable | Exception | None = None
        self.extractors: dict[str, Extractor] = {}
        self.warnings: tuple[str, ...] = ()
        self.guard: MemoryGuard | None = None
        needs = self.metric.needs
        if sample.status != "ok":
            self.outcome = NotApplicable(f"the sample itself is {sample.status}: {sample.reason}", sample.hint)
        elif needs.frames and sample.video is None:
            self.outcome = NotApplicable("the sample has no video")
        elif needs.truth and sample.truth is None:
            self.outcome = NotApplicable("there is no ground truth for this case")
        elif needs.trace and not trace:
            self.outcome = NotApplicable("there is no trace of how the video was made")
        else:
            self._load(device)
            if self.active and not needs.frames:
                self.attempt(lambda: self.metric.start(Info(sample, 0.0, 0, 0, 0, trace)))

    def _load(self, device: str) -> None:
        try:
            self.extractors = {path: _extractor(path, device) for path in self.metric.needs.features}
        except MissingWeightsError as error:
            self.outcome = NotApplicable(error.message, error.hint or "")
        except Exception as error:
            self._failed(error)

    @property
    def active(self) -> bool:
        return self.outcome is None

    def start(self, info: Info) -> None:
        """Begin with a video."""
        self.attempt(partial(self.metric.start, info))
        self.guard = MemoryGuard(self.metric, info)

    def show(self, clip: Clip) -> None:
        """Show the next frames."""
        self.attempt(partial(self._update, clip))

    def _update(self, clip: Clip) -> None:
        self.metric.update(clip)
        if self.guard:
            self.guard.saw(clip.times)

    def _finish(self) -> Scores | NotApplicable:
        if self.guard:
            self.guard.weigh()
        return self.metric.finish()

    def attempt(self, step: Callable[[], Scores | NotApplicable | None]) -> None:
        """Take a step; if the metric breaks, only it breaks."""
        try:
            self.outcome = step()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, MagbenchError):
            _log.exception("%s@%s failed on %s", self.metric.name, self.metric.profile, self.sample.key)
        self.outcome = error
        self.metric = type(self.metric)()  # whatever it held is free again

    def record(self) -> MetricRecord:
        if self.active:
            self.attempt(self._finish)
        if isinstance(self.outcome, Scores):
            try:
                return self._make("value", scores=self.outcome)
            except Exception as error:
                self._failed(error)
        if isinstance(self.outcome, NotApplicable):
            return self._make("not_applicable", self.outcome.reason, self.outcome.hint)
        if isinstance(self.outcome, MagbenchError):
            return self._make("error", self.outcome.message, self.outcome.hint or "")
        return self._make("error", f"{type(self.outcome).__name__}: {self.outcome}", "run again with --debug")

    def _make(self, state: State, reason: str = "", hint: str = "", scores: Scores = _NOTHING) -> MetricRecord:
        metric = self.metric
        return MetricRecord(
            metric=metric.name,
            profile=metric.profile,
            version=metric.version,
            state=state,
            reason=reason,
            hint=hint,
            video_sha256=identity(self.sample),
            weights_sha256="+".join(extractor.weights_sha256 for extractor in self.extractors.values()),
            warnings=(*self.warnings, *scores.warnings),
            reductions=_reductions(metric, scores.values),
            series=scores.series,
        )


def _reductions(metric: Metric, values: Mapping[str, float | NotApplicable]) -> tuple[Reduction, ...]:
    declared = {reduction.name: reduction for reduction in metric.reductions}
    if unknown := set(values) - set(declared):
        raise ValueError(f"reductions not declared: {', '.join(sorted(unknown))}")
    return tuple(_reduction(declared[name], value) for name, value in values.items())


def _reduction(declared: Declared, value: float | NotApplicable) -> Reduction:
    state: State = "value"
    reason, number = "", None
    if isinstance(value, NotApplicable):
        state, reason = "not_applicable", value.reason
    elif math.isfinite(value):
        number = float(value)
    else:
        state, reason = "error", f"the result is {value}, not a finite number"
    return Reduction(
        name=declared.name,
        state=state,
        value=number,
        reason=reason,
        direction=declared.direction,
        unit=declared.unit,
    )


@cache
def _extractor(path: str, device: str) -> Extractor:
    factory, half, _ = path.partition(SUFFIX)
    extractor: Extractor = load_object(factory)(device)
    return in_bfloat16(extractor) if half else extractor


def _stream(
    runs: Sequence[_Run], sample: SampleRecord, folder: Path, trace: Sequence[TraceRecord], device: str
) -> None:
    """Show the video to every metric that is still in."""
    watching = [run for run in runs if run.active and run.metric.needs.frames]
    try:
        with ExitStack() as files:
            video = files.enter_context(_open(sample.video, folder))
            info = Info(sample, video.fps, video.frames, video.width, video.height, trace)
            for run in watching:
                run.start(info)
            active = [run for run in watching if run.active]
            extractors = {path: found for run in active for path, found in run.extractors.items()}
            truth = None
            if any(run.metric.needs.truth for run in active):
                truth = _Follower(files.enter_context(_open(sample.truth, folder)))
            chunks = _chunks(video, sample.history_frames)
            while active and (chunk := next(chunks, None)):
                clip = _clip(*chunk, truth, device, extractors)
                given = clip.first < sample.history_frames
                for run in active:
                    if run.metric.needs.history or not given:
                        run.show(clip)
                active = [run for run in active if run.active]
            warnings = (*video.warnings, *_rate_warning(video), *_key_frame_warning(video, sample.timing))
    except VideoError as error:
        for run in watching:
            run.outcome = run.outcome or error
    else:
        for run in watching:
            run.warnings = warnings


def _open(ref: VideoRef | None, folder: Path) -> VideoReader:
    if ref is None:
        raise VideoError("the sample has no video")
    return open_video(folder / ref.path, ref.transform, ref.hold_from)


def _chunks(video: VideoReader, history_frames: int) -> Iterator[tuple[int, list[float], list[Frame]]]:
    """(index of the first frame, times, frames), split at the end of the history."""
    size = min(CHUNK_FRAMES, max(1, CHUNK_BYTES // (3 * video.width * video.height)))
    first, times, frames = 0, list[float](), list[Frame]()
    for time, frame in video:
        times.append(time)
        frames.append(frame)
        if len(times) == size or first + len(times) == history_frames:
            yield first, times, frames
            first, times, frames = first + len(times), [], []
    if times:
        yield first, times, frames


def _clip(
    first: int,
    times: list[float],
    frames: list[Frame],
    truth: "_Follower | None",
    device: str,
    extractors: Mapping[str, Extractor],
) -> Clip:
    def make(times: list[float], frames: list[Frame], truth: Clip | None) -> Clip:
        return Clip(first, tuple(times), torch.from_numpy(np.stack(frames)).to(device), truth, extractors)

    followed = truth.at(times) if truth else []
    return make(times, frames, make(times[: len(followed)], followed, None) if followed else None)


class _Follower:
    """Reads a second video in lock-step: at each time, its nearest frame."""

    def __init__(self, video: VideoReader) -> None:
        self._frames = iter(video)
        self._half = 0.5 / video.fps
        self._now = self._next = next(self._frames, None)

    def at(self, times: Sequence[float]) -> list[Frame]:
        """Frames nearest to ascending times; fewer than asked when the video has ended."""
        found = []
        for time in times:
            while self._next and self._next[0] <= time + self._half:
                self._now, self._next = self._next, next(self._frames, None)
            if self._now is None or (self._next is None and time - self._now[0] > self._half):
                break
            found.append(self._now[1])
        return found


def _rate_warning(video: VideoReader) -> tuple[str, ...]:
    """Metrics of consecutive frames depend on the gap between them, and not every rate has frames 1/8 s apart."""
    gap = max(1, math.floor(GAP * video.fps + 0.5)) / video.fps
    if abs(gap / GAP - 1) <= GAP_TOLERANCE:
        return ()
    return (f"at {video.fps:.4g} fps pairs of frames lie {gap:.3g} s apart, not {GAP:g} s: levels don't compare",)


def _key_frame_warning(video: VideoReader, timing: Timing) -> tuple[str, ...]:
    """Key frames look different from their neighbours; at chunk borders that would pass for the model's own seams."""
    hits = set(video.key_frames) & set(timing.chunk_borders)
    if not hits or len(video.key_frames) == video.frames:
        return ()
    return (f"{len(hits)} of {len(timing.chunk_borders)} chunk borders coincide with key frames of the encoder",)
