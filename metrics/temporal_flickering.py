"""Flicker: brightness and colour that come and go from frame to frame."""

from collections import deque
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.consecutive import Pairs
from magbench.metrics.resize import planes
from magbench.records import Series

GRID = 4
"""Cells per side."""
PULSE = 0.25
"""Seconds: one latent frame of a VAE that turns it into 4 pixel frames at 16 fps."""


class TemporalFlickering(Metric):
    """How far the colour of a cell of a 4x4 grid goes off and comes back, in grey levels (0 to 255).

    Each frame's cell mean, per channel, is held against the median of itself and its neighbours in time: what goes on
    in one direction is motion, a fade or a cut and counts 0, what goes up and down again counts by how far it came
    back. The mean over cells and channels is the frame's value, and the mean over frames is the video's.

    * `flicker`: neighbours are the frames before and after
    * `pulse`: neighbours are the frames 1/4 s before and after, for a decoder or a cache whose step is longer than a
      frame. More motion reaches it, a gait for instance.

    Not on the fixed gap of other metrics: flicker lives between neighbouring frames, and a clock slower than the video
    would step over it. So compare it at one frame rate. Blind to what is smaller than a cell and averages out in it,
    such as boiling texture or noise, to flicker slower than half a second up and down, and to shapes that flicker
    without their colours. Motion that changes a cell faster than the flicker hides it, and motion itself counts where a
    cell's colour turns back, little in an even pan: compare on the same case, and read it beside `real`.
    """

    name = "temporal_flickering"
    title = "Colour of picture parts that goes off and comes back, in grey levels"
    clock = "each frame with its neighbours, and with those 1/4 s away"
    reductions = (Declared("flicker", "lower", "", 0, 255), Declared("pulse", "lower", "", 0, 255))

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        self.info = info
        self._frames = 0
        self._turns = {"flicker": _Turns(None), "pulse": _Turns(PULSE)}
        return None

    def update(self, item: Clip) -> None:
        """Take the cells of the frames."""
        self._frames += len(item)
        for turns in self._turns.values():
            turns.add(item, list(item.view(cells)))

    def finish(self) -> Scores | NotApplicable:
        """Average."""
        if self._frames < 3:
            return NotApplicable(f"{self._frames} frame{'s' * (self._frames != 1)}: flicker takes three")
        values: dict[str, float | NotApplicable] = {}
        series = []
        for name, turns in self._turns.items():
            if turns.values:
                values[name] = sum(turns.values) / len(turns.values)
                series.append(Series(name=name, times=tuple(turns.times), values=tuple(turns.values)))
            else:
                values[name] = NotApplicable(f"no three frames are {PULSE:g} s apart")
        return Scores(values, tuple(series))


class _Turns:
    """Distance of each frame's cells to the median over the frame before, itself and the frame after."""

    def __init__(self, gap: float | None) -> None:
        self.times: list[float] = []
        self.values: list[float] = []
        self._pairs = Pairs[Tensor](gap)
        self._open: deque[tuple[int, float, Tensor, Tensor]] = deque()
        """Frames whose frame before is known and whose frame after isn't: index, time, cells, cells before."""

    def add(self, clip: Clip, found: list[Tensor]) -> None:
        for pair in self._pairs.add(clip.first, clip.times, found):
            while self._open and self._open[0][0] <= pair.index_before:
                index, time, now, before = self._open.popleft()
                if index == pair.index_before:
                    middle = torch.stack((before, now, pair.now)).median(0).values
                    self.times.append(time)
                    self.values.append(float((now - middle).abs().mean()))
            self._open.append((pair.index, pair.time, pair.now, pair.before))


def cells(clip: Clip) -> Tensor:
    """View: float32 [n, 3, 4, 4], mean colours in grey levels 0 to 255."""
    return adaptive_avg_pool2d(clip.view(planes), GRID).cpu()


class TemporalFlickeringVBench(Metric):
    """VBench's `temporal_flickering` (Huang et al. 2024): 1 - mean absolute difference of neighbouring frames / 255.

    Every frame at its own size, all pixels and channels alike, mean over the pairs of a video. VBench looks at videos
    of static scenes only, and leaves out those that move; without that choice the number is one of motion more than of
    flicker, and a frozen video has the best one. It has no direction here for that reason. VBench decodes with OpenCV,
    whose colour conversion may differ by a grey level.
    """

    name = "temporal_flickering"
    profile: ClassVar[str] = "vbench-0.1.5"
    title = "VBench: one minus the mean absolute difference of neighbouring frames"
    clock = "each frame with the one before"
    reductions = (Declared("score", "none", "", 0, 1),)

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        self.info = info
        self._last: Tensor | None = None
        self._times: list[float] = []
        self._values: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Compare each frame with the one before."""
        for time, frame in zip(item.times, item.frames, strict=True):
            if self._last is not None:
                self._times.append(time)
                moved = int((frame.short() - self._last.short()).abs().sum())
                self._values.append(1 - moved / (255 * frame.numel()))
            self._last = frame

    def finish(self) -> Scores | NotApplicable:
        """Average."""
        if not self._values:
            return NotApplicable("fewer than two frames: nothing to compare")
        series = Series(name="score", times=tuple(self._times), values=tuple(self._values))
        return Scores({"score": sum(self._values) / len(self._values)}, (series,))
