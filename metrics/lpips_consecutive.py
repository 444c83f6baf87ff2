"""LPIPS of frames 1/8 s apart, or of neighbours."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from magbench.metrics.base import Clip, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.bf16 import bf16
from magbench.metrics.consecutive import GAP, Consecutive, Pairs, Recipe

Maps = list[tuple[Tensor, Tensor]]
"""Per layer the normalised features [C, h, w] of one frame, and the channel weights [C]."""

_RECIPE = Recipe("lpips", "higher", dissimilarity=lambda x: x, effect=lambda x: np.log(np.maximum(x, 1e-5)), still=1e-5)


class LPIPSConsecutive(Metric):
    """LPIPS v0.1 AlexNet of each frame with the one 1/8 s before (Zhang et al. 2018), at the video's own size.

    Reductions: median, 95th percentile, spike rate on log LPIPS, border and update effect as differences of log LPIPS
    (positive: a jump); see `magbench.metrics.consecutive`. Blind to slow drift.
    """

    name = "lpips_consecutive"
    version = 2
    title = "Perceptual distance of frames 1/8 s apart; spikes and seams"
    clock = "each frame with the one 1/8 s before"
    needs = Needs(features=("magbench.metrics.backbones:lpips_alex",))
    reductions = _RECIPE.declared(0, float("inf"))
    licence = "BSD-2-Clause (heads), BSD-3-Clause (trunk)"
    min_side: ClassVar[int] = 31
    """Pixels that the backbone needs."""
    gap: ClassVar[float | None] = GAP
    """Seconds between the frames of a pair; None for neighbours."""

    def start(self, info: Info) -> NotApplicable | None:
        """Refuse frames too small for the backbone."""
        self.info = info
        self._pairs = Pairs[Maps](
            self.gap, keep=lambda maps: [(features.clone(), weights) for features, weights in maps]
        )
        self._collected = Consecutive()
        if min(info.width, info.height) < self.min_side:
            return NotApplicable(f"frames of {info.width}x{info.height} are too small, {self.min_side} px are needed")
        return None

    def update(self, item: Clip) -> None:
        """Compare."""
        layers: Maps = item.feature(self.needs.features[0])
        frames = [[(maps[i], weights) for maps, weights in layers] for i in range(len(item))]
        pairs = self._pairs.add(item.first, item.times, frames)
        self._collected.add(len(item), pairs, [distance(pair.before, pair.now) for pair in pairs])

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        return self._collected.scores(_RECIPE, self.info.sample.timing)


class LPIPSConsecutiveNative(LPIPSConsecutive):
    """`lpips_consecutive` of each frame with the one before it, whatever the frame rate: what others publish.

    The level depends on the frame rate, so compare it only where `gap` is the same.
    """

    profile = "native"
    title = "Perceptual distance of neighbouring frames; spikes and seams"
    clock = "each frame with the one before"
    gap = None


class LPIPSConsecutiveBF16(LPIPSConsecutive):
    """`lpips_consecutive` with AlexNet in bfloat16; normalised features and distances are float32."""

    title = "Perceptual distance of frames 1/8 s apart; AlexNet in bfloat16"
    profile, needs = "bf16", bf16(LPIPSConsecutive.needs)


def distance(first: Maps, second: Maps) -> float:
    """The LPIPS distance of two frames: over layers, the mean over cells of the weighted squared difference."""
    layers = zip(first, second, strict=True)
    return float(sum(((a - b).square().mean((1, 2)) @ weights).double() for (a, weights), (b, _) in layers))
