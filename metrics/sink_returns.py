"""Whether a video jumps back to its first frames."""

import numpy as np
from numpy.typing import NDArray

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.clock import Clock
from magbench.metrics.cuts import wanted
from magbench.metrics.tiles import Tiles, apart, tiles
from magbench.records import Series

OPENING = 1.0
"""Seconds at the start to which a video may return: what sinks hold."""
WITHIN = 2
"""Frames of the clock, 1/4 s, within which the jump happens."""
LEFT = 4.0
"""Delta E that a video must have been from its opening to be able to come back."""
NEAR, DROP = 0.3, 0.5
"""How close a return ends, and how far it jumps, as shares of how far the video had gone."""
STANDS_OUT = 3.0
"""Times the usual change of the picture within 1/4 s that the jump is."""


class SinkReturns(Metric):
    """Jumps back to the opening: what a cache does to a video when the sink outweighs all that is recent.

    A frame's distance is that of its 8x8 Lab tiles to the nearest frame of the first second, root mean square in Delta
    E. How far the video had gone is the 90th percentile of the distances. A return is a drop of the distance by more
    than half of that within 1/4 s, down to less than 30 % of it, and more than 3 times what the picture usually changes
    in 1/4 s. So a camera that comes home smoothly is none.

    * `per_minute`: returns per minute of video, without those within 1/2 s of a cut that the prompt's schedule asks for
    * `nearest`: least distance in the last third as a share of how far the video had gone; says nothing of jumps

    Not applicable to the continuation of a given clip, whose way back is the task. Blind where the video never leaves
    its opening by more than 4 Delta E (it counts as no return), and to a return that keeps other colours.
    """

    name = "sink_returns"
    title = "Jumps back to the first frames per minute"
    clock = "8 frames per second"
    reductions = (Declared("per_minute", "lower", "/min", 0), Declared("nearest", "none", "", 0, 1))

    def start(self, info: Info) -> NotApplicable | None:
        """Not for given clips."""
        self.info = info
        self._clock = Clock()
        self._times: list[float] = []
        self._recent: list[Tiles] = []
        self._opening: list[Tiles] = []
        self._distances: list[float] = []
        self._changes: list[float] = []
        if info.sample.history_frames:
            return NotApplicable("the video continues a given clip, and is meant to come back")
        return None

    def update(self, item: Clip) -> None:
        """Take each frame's distance to the opening."""
        seen = self._clock.pick(item)
        if not len(seen):
            return
        for time, picture in zip(seen.times, seen.view(tiles), strict=True):
            if not self._times or time < self._times[0] + OPENING - 0.005:
                self._opening.append(picture)
            self._recent = [*self._recent[-WITHIN:], picture]
            self._times.append(time)
            self._distances.append(float(apart(np.stack(self._opening), picture).min()))
            self._changes.append(float(apart(self._recent[0], picture)))

    def finish(self) -> Scores | NotApplicable:
        """Count."""
        if len(self._times) <= len(self._opening):
            return NotApplicable(f"not longer than the {OPENING:g} s to which it could return")
        times, distances = np.array(self._times), np.array(self._distances)
        away = float(np.percentile(distances[len(self._opening) :], 90))
        found = [
            time
            for time in times[returns(distances, np.array(self._changes), away)]
            if not wanted(self.info.sample, self.info.fps, time)
        ]
        seconds = times[-1] - times[0] + float(np.median(np.diff(times)))
        late = distances[times >= times[-1] - (times[-1] - times[0]) / 3]
        never = NotApplicable(f"the video never is more than {LEFT:g} Delta E from its opening")
        return Scores(
            {
                "per_minute": 60 * len(found) / seconds,
                "nearest": min(1.0, float(late.min()) / away) if away >= LEFT else never,
            },
            (Series(name="distance", times=tuple(self._times), values=tuple(self._distances)),),
        )


def returns(distances: NDArray[np.float64], changes: NDArray[np.float64], away: float) -> list[int]:
    """Frames at which the video is back in its opening, at a jump.

    Args:
        distances: [n], to the opening, of frames on the clock.
        changes: [n], of the picture since 1/4 s before.
        away: How far the video had gone.
    """
    if away < LEFT:
        return []
    usual = float(np.median(changes))
    found: list[int] = []
    for index in range(WITHIN, len(distances)):
        drop = distances[index - WITHIN] - distances[index]
        jump = drop > DROP * away and drop > STANDS_OUT * usual and distances[index] < NEAR * away
        if jump and not (found and index - found[-1] <= WITHIN):
            found.append(index)
    return found
