"""Drives one metric over one video held in memory, as the engine would."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magbench.data.mini_world import FPS, CameraPath, Scene, World
from magbench.metrics.base import Clip, Extractor, Info, Metric, NotApplicable, Scores
from magbench.records import CaseRecord, MethodRecord, SampleRecord, TraceRecord, VideoRef

SCENE = Scene("clear", "meadow", "red", "blue", "tall", "pans right and comes back")
PATH = CameraPath(4.0, lead_in=12, arrive=18, dwell=4, leave=10, away=12)


@dataclass(frozen=True)
class Case:
    """A leave-and-return case of the mini world."""

    seed: int = 3
    path: CameraPath = PATH
    after: int = 30

    @property
    def world(self) -> World:
        return World(SCENE, self.seed, self.path)

    @property
    def history(self) -> int:
        return self.path.return_frame

    @property
    def frames(self) -> int:
        return self.history + self.after

    def sample(self, frames: Tensor, truth: Tensor | None, method: str = "reference", **case: Any) -> SampleRecord:
        """The record of a video of these frames."""
        return SampleRecord(
            key="one",
            case=CaseRecord(
                **{
                    "id": "one",
                    "track": "mag-bench",
                    "prompt": SCENE.sentence(),
                    "world_seed": self.seed,
                    "path": self.path.to_dict(),
                    "history_frames": self.history,
                    "frames": self.frames,
                    **case,
                }
            ),
            method=MethodRecord(
                label=method, policy=method, applicability="reference" if method == "reference" else "in-distribution"
            ),
            model="mini",
            seed=0,
            status="ok",
            video=ref(frames),
            truth=None if truth is None else ref(truth),
            history_frames=self.history,
        )

    def truth(self) -> Tensor:
        """The rendered truth, uint8 [T, 64, 64, 3]."""
        return torch.from_numpy(np.ascontiguousarray(self.world.clip(self.frames)))


def ref(frames: Tensor) -> VideoRef:
    return VideoRef(
        path="v.mkv", sha256="0", frames=len(frames), fps=FPS, width=frames.shape[2], height=frames.shape[1]
    )


class Told(Extractor):
    """A feature that is any function of a clip."""

    def __init__(self, tell: Callable[[Clip], Any]) -> None:
        self.tell = tell

    def __call__(self, clip: Clip) -> Any:
        return self.tell(clip)


def drive(
    metric: Metric,
    sample: SampleRecord,
    frames: Tensor,
    truth: Tensor | None = None,
    trace: Sequence[TraceRecord] = (),
    feature: Callable[[Clip], Any] | None = None,
    step: int = 7,
) -> Scores | NotApplicable:
    """Start, update in clips of at most `step` frames split at the history's end, finish."""
    info = Info(sample, FPS, len(frames), frames.shape[2], frames.shape[1], trace)
    if refused := metric.start(info):
        return refused
    extractors = {path: Told(feature) for path in metric.needs.features} if feature else {}
    history = sample.history_frames
    cuts = sorted({*range(0, len(frames), step), min(history, len(frames))} - {len(frames)})
    for first, last in pairwise([*cuts, len(frames)]):
        times = tuple(t / FPS for t in range(first, last))
        beside = None
        if truth is not None and first < len(truth):
            shown = truth[first : min(last, len(truth))]
            beside = Clip(first, times[: len(shown)], shown, None, extractors)
        if metric.needs.history or first >= history:
            metric.update(Clip(first, times, frames[first:last], beside, extractors))
    return metric.finish()


def values(answer: Scores | NotApplicable) -> dict[str, float]:
    """The reductions that are numbers."""
    if isinstance(answer, NotApplicable):
        raise ValueError(answer.reason)
    return {name: value for name, value in answer.values.items() if not isinstance(value, NotApplicable)}


def reasons(answer: Scores | NotApplicable) -> dict[str, str]:
    """Why the other reductions are none."""
    if isinstance(answer, NotApplicable):
        raise ValueError(answer.reason)
    return {name: value.reason for name, value in answer.values.items() if isinstance(value, NotApplicable)}
