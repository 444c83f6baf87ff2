"""Which frames a metric looks at, in seconds rather than in frames."""

from collections.abc import Sequence

from magbench.metrics.base import Clip

RATE = 8.0
"""Frames per second that sampled metrics look at."""


class Clock:
    """Picks frames at a fixed rate: at 8 per second the first of each 1/8 s. Slower videos give every frame.

    Args:
        rate: Frames per second.
    """

    def __init__(self, rate: float = RATE) -> None:
        self._rate = rate
        self._start: float | None = None
        self._slot = -1

    def indices(self, times: Sequence[float]) -> tuple[int, ...]:
        """Positions, among further ascending times in seconds, of the frames to look at."""
        picked = []
        for index, time in enumerate(times):
            self._start = time if self._start is None else self._start
            slot = int((time - self._start) * self._rate + 0.04)  # containers round timestamps, by up to 5 ms
            if slot > self._slot:
                self._slot = slot
                picked.append(index)
        return tuple(picked)

    def pick(self, clip: Clip) -> Clip:
        """The frames of a clip to look at; the same object for every metric that asks."""
        return clip.pick(self.indices(clip.times))
