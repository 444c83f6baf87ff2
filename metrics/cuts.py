"""Hard cuts that nobody asked for."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.tiles import Tiles, tiles
from magbench.records import SampleRecord, Series

JUMP = 12.0
"""Delta E that a cut leaves unexplained: of 120 cuts between worlds of `mini` the least left 17, of neighbours in their
truths the most 10."""
STANDS_OUT = 2.5
"""Times the median jump around it that a cut has."""
AROUND = 1.0
"""Seconds on each side that this median looks at."""
DECLARED = 0.5
"""Seconds on each side of a cut in the prompt's schedule within which a cut is wanted."""


class Cuts(Metric):
    """From one frame to the next the picture is another one.

    A frame's jump is what its 8x8 Lab tiles have that those of the frame before don't explain by a gain and an offset
    per channel, or the other way round, whichever is more; mean Delta E. So exposure and colour may step without a cut.
    It is the least of three: frame to frame, from the frame before the last, and to the next frame; a flash of one
    frame is no cut. A cut has a jump of 12 and 2.5 times the median within 1 s, which fast motion has not, nor a new
    object.

    * `per_minute`: cuts per minute of video, without those within 1/2 s of a cut that the prompt's schedule asks for

    Blind to dissolves, and to cuts between views whose large areas look alike.
    """

    name = "cuts"
    title = "Hard cuts per minute that no prompt asks for"
    reductions = (Declared("per_minute", "lower", "/min", 0),)

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        self.info = info
        self._last: deque[tuple[float, Tiles]] = deque(maxlen=4)
        self._frames = 0
        self._first = 0.0
        self._times: list[float] = []
        self._jumps: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Take the jump to each frame, once the one after it is known."""
        for time, picture in zip(item.times, item.view(tiles), strict=True):
            self._first = time if not self._frames else self._first
            self._frames += 1
            self._last.append((time, picture))
            if self._frames > 2:
                self._jump(len(self._last) - 2)

    def _jump(self, at: int) -> None:
        pictures = [picture for _, picture in self._last]
        pairs = [(at - 1, at), (at - 2, at), (at - 1, at + 1)]
        self._times.append(self._last[at][0])
        self._jumps.append(min(unexplained(pictures[a], pictures[b]) for a, b in pairs if a >= 0 and b < len(pictures)))

    def finish(self) -> Scores | NotApplicable:
        """Count."""
        if self._frames < 2:
            return NotApplicable("fewer than two frames: nothing to cut between")
        self._jump(len(self._last) - 1)
        times, jumps = np.array(self._times), np.array(self._jumps)
        cuts = [time for time in times[stand_out(times, jumps)] if not wanted(self.info.sample, self.info.fps, time)]
        seconds = times[-1] - self._first + 1 / self.info.fps
        return Scores(
            {"per_minute": 60 * len(cuts) / float(seconds)},
            (Series(name="jump", times=tuple(self._times), values=tuple(self._jumps)),),
        )


def unexplained(first: Tiles, second: Tiles) -> float:
    """What a gain above 0 and an offset per channel leave of either picture, given the other: mean Delta E of tiles.

    Args:
        first: [8, 8, 3].
        second: [8, 8, 3].
    """
    a, b = (x.reshape(-1, 3).astype(np.float64) for x in (first, second))
    a, b = a - a.mean(0), b - b.mean(0)
    both = np.maximum((a * b).sum(0), 0)
    left = [x - y * (both / np.maximum((y**2).sum(0), 1e-9)) for x, y in ((a, b), (b, a))]
    return float(max(np.linalg.norm(rest, axis=1).mean() for rest in left))


def stand_out(times: NDArray[np.float64], jumps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which jumps are cuts; of two next to each other the larger."""
    starts, stops = np.searchsorted(times, times - AROUND, "left"), np.searchsorted(times, times + AROUND, "right")
    usual = np.array([np.median(jumps[start:stop]) for start, stop in zip(starts, stops, strict=True)])
    padded = np.concatenate([[-1.0], jumps, [-1.0]])
    peak = (jumps > padded[:-2]) & (jumps >= padded[2:])
    return np.asarray(peak & (jumps >= JUMP) & (jumps >= STANDS_OUT * usual))


def wanted(sample: SampleRecord, fps: float, time: float) -> bool:
    """Whether the prompt's schedule asks for a cut at this time, in seconds from the start of the video."""
    borders = zip(sample.case.schedule, sample.timing.switch_borders, strict=False)
    return any(switch.cut and abs(time - border / fps) <= DECLARED for switch, border in borders)
