"""What a metric is: it declares itself, reads clips in order, and answers with numbers or with the reason why not."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from magbench.records import Direction, SampleRecord, Series, TraceRecord

View = TypeVar("View")


@dataclass(frozen=True)
class NotApplicable:
    """There is no such number for this video, and that is no error."""

    reason: str
    hint: str = ""
    """How to make it applicable, e.g. which weights to put where."""


@dataclass(frozen=True)
class Declared:
    """A reduction that a metric may report."""

    name: str
    direction: Direction = "none"
    unit: str = ""
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True)
class Needs:
    """What the engine has to bring."""

    frames: bool = True
    truth: bool = False
    """The ground truth on the same clock, as `Clip.truth`."""
    trace: bool = False
    history: bool = False
    """Also hand over the given frames; their clips have `first < info.sample.history_frames`."""
    features: tuple[str, ...] = ()
    """Import paths `module:factory` of the learned features; see `Extractor`."""


@dataclass(frozen=True)
class Scores:
    """A metric's answer: the reductions it declared, headline first, and its series."""

    values: Mapping[str, float | NotApplicable]
    series: tuple[Series, ...] = ()
    warnings: tuple[str, ...] = ()
    """What to know about these numbers, e.g. a prompt that the encoder cut short."""


@dataclass(frozen=True)
class Info:
    """What is known of a video before its first frame is decoded."""

    sample: SampleRecord
    fps: float
    """Frames per second."""
    frames: int
    """Announced by the container; what can be decoded may be less."""
    width: int
    height: int
    trace: Sequence[TraceRecord] = ()


class Extractor(ABC):
    """A learned feature of frames. A factory `(device) -> Extractor` loads it, or raises `MissingWeightsError`."""

    weights_sha256: str = ""
    """Of the weights file(s); goes into the record, so that a stored score counts only for the same weights."""

    @abstractmethod
    def __call__(self, clip: "Clip") -> Any:
        """The features of the clip's frames, computed without gradients; the frame is the first dimension."""


@dataclass(eq=False)
class Clip:
    """Consecutive frames, with whatever has been derived from them so far.

    A clip never straddles the border between given and generated frames. Views and features are
    computed once per clip, by the first metric that asks, and shared; nobody may write to them.
    """

    first: int
    """Index of the first frame in the video."""
    times: tuple[float, ...]
    """Seconds from the start of the video, one per frame."""
    frames: Tensor
    """uint8 [n, height, width, 3], RGB."""
    truth: "Clip | None" = None
    """The truth's frames nearest in time to the first `len(truth)` frames here; None where the truth has ended."""
    extractors: Mapping[str, Extractor] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.times)

    def view(self, make: Callable[["Clip"], View]) -> View:
        """`make(self)`, computed at most once per clip."""
        if make not in self._cache:
            with torch.no_grad():
                self._cache[make] = make(self)
        found: View = self._cache[make]
        return found

    def pick(self, indices: tuple[int, ...]) -> "Clip":
        """Some of the frames, counted from the clip's own start, as a clip without truth; made at most once."""
        key = ("pick", indices)
        if key not in self._cache:
            times = tuple(self.times[i] for i in indices)
            self._cache[key] = Clip(self.first, times, self.frames[list(indices)], extractors=self.extractors)
        picked: Clip = self._cache[key]
        return picked

    def feature(self, path: str) -> Any:
        """The learned feature declared in `Needs.features`, computed at most once per clip."""
        return self.view(self.extractors[path])


def rgb(clip: Clip) -> Tensor:
    """View: float32 [n, 3, height, width] in [0, 1]."""
    return clip.frames.permute(0, 3, 1, 2).contiguous().float().div_(255)


class Metric(ABC):
    """One metric, one video: a new instance scores each video.

    The engine calls `start` once, `update` for each clip in order, `finish` once. A metric keeps
    what its memory class allows: `constant` (nothing per frame but the numbers of its series),
    `frame` (at most 4 KB per frame) or `pairs` (blocks of features under its own `memory_cap`).
    The engine weighs it; see `magbench.metrics.memory`.
    """

    name: ClassVar[str]
    profile: ClassVar[str] = "default"
    version: ClassVar[int] = 1
    """Raised whenever the same video would get another number."""
    title: ClassVar[str]
    """One line for lists and tables."""
    clock: ClassVar[str] = "every frame"
    """Which frames or pairs are looked at."""
    needs: ClassVar[Needs] = Needs()
    memory: ClassVar[Literal["constant", "frame", "pairs"]] = "constant"
    memory_cap: ClassVar[int] = 0
    """Most bytes that a metric of class `pairs` holds."""
    reductions: ClassVar[tuple[Declared, ...]]
    """Everything `finish` may report, headline first."""
    licence: ClassVar[str] = ""
    """Of the learned weights behind it, if any."""

    def start(self, info: Info) -> NotApplicable | None:
        """Prepare for a video, or say at once why it can't be scored."""
        self.info = info
        return None

    def update(self, item: Clip) -> None:  # noqa: B027  (metrics without frames never get a clip)
        """Take the next frames."""

    @abstractmethod
    def finish(self) -> Scores | NotApplicable:
        """Answer, after the last frame."""
