"""Synthetic clips, and a metric run over them as the engine would."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from magbench.metrics.base import Clip, Extractor, Info, Metric, NotApplicable, Scores
from magbench.records import CaseRecord, MethodRecord, SampleRecord, Timing, TraceRecord, VideoRef

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, 3]."""


def texture(height: int = 48, width: int = 64, seed: int = 0) -> Frames:
    """A smooth random picture that repeats seamlessly, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.zeros((height, width, 3))
    for down, right, phase, *amplitudes in rng.uniform(0, 1, (40, 6)):
        turns = round(down * 4) * y / height + round(right * 8) * x / width + phase
        picture += np.cos(2 * np.pi * turns)[..., None] * amplitudes
    low, high = picture.min(), picture.max()
    return np.asarray((picture - low) / (high - low) * 255).round().astype(np.uint8)


def pan(frames: int, step: int = 1, height: int = 48, width: int = 64, seed: int = 0) -> Frames:
    """The texture moving left by `step` pixels per frame, round and round."""
    picture = texture(height, width, seed)
    return np.stack([np.roll(picture, -step * index, axis=1) for index in range(frames)])


def sample(frames: int = 0, fps: float = 8.0, timing: Timing | None = None, **fields: Any) -> SampleRecord:
    """A record of a video that is nowhere on disk."""
    return SampleRecord(
        **{
            "key": "clip",
            "case": CaseRecord(id="clip", track="videos"),
            "method": MethodRecord(label="any", policy="any", applicability="external"),
            "model": "any",
            "seed": 0,
            "status": "ok",
            "video": VideoRef(path="v.mkv", sha256="0", frames=frames, fps=fps, width=64, height=48),
            "timing": timing or Timing(),
            **fields,
        }
    )


class Told(Extractor):
    """A feature that is any function of a clip."""

    def __init__(self, tell: Callable[[Clip], Any]) -> None:
        self.tell = tell

    def __call__(self, clip: Clip) -> Any:
        return self.tell(clip)


def run(
    metric: Metric,
    frames: Frames,
    fps: float = 8.0,
    timing: Timing | None = None,
    feature: Callable[[Clip], Any] | None = None,
    trace: Sequence[TraceRecord] = (),
    chunk: int = 7,
    times: Sequence[float] | None = None,
) -> Scores | NotApplicable:
    """What a metric says of frames given in memory."""
    record = sample(len(frames), fps, timing)
    if refused := metric.start(Info(record, fps, len(frames), frames.shape[2], frames.shape[1], trace)):
        return refused
    extractors = {path: Told(feature) for path in metric.needs.features} if feature else {}
    at = tuple(index / fps for index in range(len(frames))) if times is None else tuple(times)
    for first in range(0, len(frames), chunk):
        part = slice(first, first + chunk)
        metric.update(Clip(first, at[part], torch.from_numpy(frames[part].copy()), None, extractors))
    return metric.finish()


def numbers(answer: Scores | NotApplicable) -> dict[str, float]:
    """The reductions that have a value."""
    if isinstance(answer, NotApplicable):
        raise ValueError(answer.reason)
    return {name: value for name, value in answer.values.items() if not isinstance(value, NotApplicable)}


def reason(answer: Scores | NotApplicable, name: str = "") -> str:
    """Why there is no such reduction, or no answer at all."""
    found = answer.values[name] if isinstance(answer, Scores) and name else answer
    if not isinstance(found, NotApplicable):
        raise ValueError(f"{name} is {found}")
    return found.reason
