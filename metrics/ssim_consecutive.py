"""SSIM of frames 1/8 s apart, or of neighbours."""

from typing import ClassVar

from magbench.metrics.base import Clip, Info, Metric, NotApplicable, Scores
from magbench.metrics.consecutive import GAP, Consecutive, Pairs, Recipe
from magbench.metrics.ssim import SSIM_WINDOW, Moments, moments, similarity

RECIPE = Recipe("ssim", "lower", dissimilarity=lambda x: 1 - x, effect=lambda x: x, still=1e-4)


class SSIMConsecutive(Metric):
    """SSIM of each frame with the one 1/8 s before (Wang et al. 2004; see `magbench.metrics.ssim`).

    Reductions: median, 5th percentile, spike rate on log(1 - SSIM), border and update effect as differences of SSIM
    (negative: a dip); see `magbench.metrics.consecutive`. Blind to slow drift, and to anything that repeats smoothly.
    """

    name = "ssim_consecutive"
    version = 3
    title = "Structural similarity of frames 1/8 s apart; spikes and seams"
    clock = "each frame with the one 1/8 s before"
    reductions = RECIPE.declared(-1, 1)
    gap: ClassVar[float | None] = GAP
    """Seconds between the frames of a pair; None for neighbours."""

    def start(self, info: Info) -> NotApplicable | None:
        """Refuse frames smaller than the window."""
        self.info = info
        self._pairs = Pairs[Moments](self.gap)
        self._collected = Consecutive()
        if min(info.width, info.height) < SSIM_WINDOW:
            return NotApplicable(
                f"frames of {info.width}x{info.height} are smaller than the window of {SSIM_WINDOW}x{SSIM_WINDOW}"
            )
        return None

    def update(self, item: Clip) -> None:
        """Compare."""
        for index, (time, frame) in enumerate(zip(item.times, item.frames, strict=True), start=item.first):
            pairs = self._pairs.add(index, (time,), (moments(frame),))
            self._collected.add(1, pairs, [similarity(pair.before, pair.now) for pair in pairs])

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        return self._collected.scores(RECIPE, self.info.sample.timing)


class SSIMConsecutiveNative(SSIMConsecutive):
    """`ssim_consecutive` of each frame with the one before it, whatever the frame rate: what others publish.

    The level depends on the frame rate, so compare it only where `gap` is the same.
    """

    profile = "native"
    title = "Structural similarity of neighbouring frames; spikes and seams"
    clock = "each frame with the one before"
    gap = None
