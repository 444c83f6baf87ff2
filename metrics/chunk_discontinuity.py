"""Forcing-KV's chunk discontinuity: how much the fastest frame pairs stand out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.consecutive import Pairs
from magbench.metrics.motion import flow_lengths, grey, stands_still
from magbench.records import Series

WARPS = 4
"""Iterations of the flow: its mean length changes by less than 3 % after them."""


class ChunkDiscontinuity(Metric):
    """Mean flow of the k fastest pairs of neighbouring frames over that of all, with k chunk borders.

    * `ratio`: at least 1, which is a video without spikes (Forcing-KV, arXiv 2605.09681)
    * `on_borders`: share of the k fastest pairs that lie across a chunk border, which the release doesn't look at. By
      chance it is k over the number of pairs. Where it isn't well above that, `ratio` speaks of the scene's own action.

    The release measures flow with RAFT at full size. This is iterative Lucas-Kanade at 48 px, so the numbers are not
    those of the paper. Any short fast action raises `ratio`; the border effect of `ssim_consecutive` has a control for
    that. Dear all the same: the flow of every pair.
    """

    name = "chunk_discontinuity"
    profile = "forcing-kv-ilk"
    title = "Flow of the fastest frame pairs over that of all, as many as there are chunk borders"
    clock = "each frame with the one before"
    reductions = (Declared("ratio", "lower", "", 1), Declared("on_borders", "none", "", 0, 1))

    def start(self, info: Info) -> NotApplicable | None:
        """Refuse videos whose chunk borders aren't known."""
        self.info = info
        self._pairs = Pairs[NDArray[np.float32]](None)
        self._places: list[int] = []
        self._times: list[float] = []
        self._flow: list[float] = []
        if not info.sample.timing.chunk_borders:
            return NotApplicable("the chunk borders of this video are not known, or it has none")
        return None

    def update(self, item: Clip) -> None:
        """Measure the flow of each pair."""
        for pair in self._pairs.add(item.first, item.times, list(item.view(half_grey))):
            self._places.append(pair.index)
            self._times.append(pair.time)
            self._flow.append(0.0 if stands_still(pair) else flow_lengths(pair, WARPS)[0])

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        borders = set(self.info.sample.timing.chunk_borders) & set(self._places)
        if not borders:
            return NotApplicable("no pair of frames lies across a chunk border")
        flow = np.array(self._flow)
        if not flow.any():
            return NotApplicable("nothing moves")
        fastest = np.argsort(-flow, kind="stable")[: len(borders)]
        return Scores(
            {
                "ratio": max(1.0, float(flow[fastest].mean() / flow.mean())),
                "on_borders": sum(self._places[at] in borders for at in fastest) / len(borders),
            },
            (Series(name="flow", times=tuple(self._times), values=tuple(self._flow), unit="/s"),),
        )


def half_grey(clip: Clip) -> NDArray[np.float32]:
    """View: float32 [n, h, w] in [0, 1], luma at half the size of `motion`'s, 48 px on the short side."""
    return np.asarray(avg_pool2d(torch.from_numpy(clip.view(grey)), 2).numpy())
