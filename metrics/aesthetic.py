"""How pleasing the frames look to LAION's aesthetic predictor, and whether they get worse."""

from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.clock import Clock
from magbench.metrics.drift import declared, functionals
from magbench.metrics.laion import TOWER
from magbench.records import Series

RATE = 2.0
"""Frames per second: the rating changes slowly, and a pass of ViT-L/14 is expensive."""


class Aesthetic(Metric):
    """Predicted rating of the frames by LAION's linear head on CLIP ViT-L/14, divided by 10 as VBench does.

    `rating` is the mean over two frames per second, the rest the drift of that series: it falls where colours
    oversaturate or detail dissolves. A frozen video keeps its rating. Says nothing of motion or of the prompt.
    """

    name = "aesthetic"
    title = "Predicted aesthetic rating of the frames (LAION on CLIP ViT-L/14), and its drift"
    clock = "2 frames per second"
    needs = Needs(features=(TOWER, "magbench.metrics.laion:laion_linear"))
    reductions = (Declared("rating", "higher"), *declared("lower"))
    licence = "MIT"

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        super().start(info)
        self._clock = Clock(RATE)
        self._times: list[float] = []
        self._ratings: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Rate the frames on the clock."""
        seen = self._clock.pick(item)
        if len(seen):
            self._times += seen.times
            self._ratings += seen.feature(self.needs.features[-1]).tolist()

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        if not self._ratings:
            return NotApplicable("there are no generated frames to rate")
        rating = sum(self._ratings) / len(self._ratings)
        return Scores(
            {"rating": rating, **functionals(self._times, self._ratings, "lower")},
            (Series(name="rating", times=tuple(self._times), values=tuple(self._ratings)),),
        )
