"""How much moves, split into camera and the rest."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.registration import optical_flow_ilk

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.clock import Clock
from magbench.metrics.consecutive import Pair, Pairs
from magbench.metrics.resize import small
from magbench.records import Series

FLOW_EVERY = 0.5
"""Seconds between the pairs whose flow is measured; freezing is looked for in all of them."""
LONGEST = 0.25
"""Flow beyond this share of the diagonal is cut to it: what is further cannot be followed and comes out wild."""
STILL = 0.25
"""Mean change in grey levels (0 to 255) up to which the picture stands still: what encoding leaves of a held frame."""


class Motion(Metric):
    """Optical flow between frames 1/8 s apart, in frame diagonals per second (iterative Lucas-Kanade, scikit-image).

    * `magnitude`: mean length of the flow; `camera`: length of its median vector, which a pan gives; `residual`: mean
      length of what remains. Medians over the video, of two pairs per second: flow is dear, and motion changes slowly.
    * `freeze_share`: share of all pairs, eight per second, in which the picture stands still. A frozen video wins every
      consistency; here it shows. `freeze_longest`: seconds of the longest standstill.

    More motion isn't better, so only freezing has a direction. Blind to motion of untextured areas, and coarse for
    motion beyond a tenth of the frame in 1/8 s.
    """

    name = "motion"
    title = "Motion of camera and subjects; frozen share"
    clock = "8 frames per second; flow of 2 pairs per second"
    reductions = (
        Declared("magnitude", "none", "/s", 0),
        Declared("camera", "none", "/s", 0),
        Declared("residual", "none", "/s", 0),
        Declared("freeze_share", "lower", "", 0, 1),
        Declared("freeze_longest", "lower", "s", 0),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        self.info = info
        self._clock = Clock()
        self._pairs = Pairs[NDArray[np.float32]](keep=np.copy)
        self._frames = 0
        self._still: list[tuple[float, float, bool]] = []
        self._times: list[float] = []
        self._rows: list[tuple[float, float, float]] = []
        return None

    def update(self, item: Clip) -> None:
        """Look whether each pair moves, and measure the flow of some."""
        self._frames += len(item)
        seen = self._clock.pick(item)
        if not len(seen):
            return
        for pair in self._pairs.add(0, seen.times, list(seen.view(grey))):
            still = stands_still(pair)
            self._still.append((pair.time_before, pair.time, still))
            if not self._times or pair.time >= self._times[-1] + FLOW_EVERY - 0.005:
                self._times.append(pair.time)
                self._rows.append((0.0, 0.0, 0.0) if still else flow_lengths(pair))

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        if not self._rows:
            return NotApplicable("one frame: nothing moves" if self._frames == 1 else "no two frames are 1/8 s apart")
        magnitude, camera, residual = np.array(self._rows).T
        _, times, still = zip(*self._still, strict=True)
        return Scores(
            {
                "magnitude": float(np.median(magnitude)),
                "camera": float(np.median(camera)),
                "residual": float(np.median(residual)),
                "freeze_share": float(np.mean(still)),
                "freeze_longest": _longest(self._still),
            },
            (
                *(
                    Series(name=name, times=tuple(self._times), values=tuple(values.tolist()), unit="/s")
                    for name, values in (("magnitude", magnitude), ("camera", camera), ("residual", residual))
                ),
                Series(name="still", times=times, values=tuple(map(float, still))),
            ),
        )


def _longest(pairs: Sequence[tuple[float, float, bool]]) -> float:
    """Seconds of the longest run of still pairs, each given as time of its earlier frame, of its later, still."""
    longest, start = 0.0, None
    for before, now, still in pairs:
        start = (before if start is None else start) if still else None
        longest = longest if start is None else max(longest, now - start)
    return longest


def stands_still(pair: Pair[NDArray[np.float32]]) -> bool:
    """Whether nothing changed that encoding alone would not."""
    return float(np.abs(pair.now - pair.before).mean()) * 255 <= STILL


def flow_lengths(pair: Pair[NDArray[np.float32]], warps: int = 10) -> tuple[float, float, float]:
    """Mean length, length of the median, mean length of the rest, in diagonals per second, after so many iterations."""
    down, right = optical_flow_ilk(pair.before, pair.now, num_warp=warps)  # type: ignore[no-untyped-call]
    diagonal = np.hypot(*pair.now.shape)
    cut = np.minimum(1, LONGEST * diagonal / np.maximum(np.hypot(down, right), 1e-9))
    down, right = down * cut, right * cut
    scale = 1 / (diagonal * (pair.time - pair.time_before))
    middle_down, middle_right = np.median(down), np.median(right)
    rest = np.hypot(down - middle_down, right - middle_right)
    return (
        float(np.hypot(down, right).mean() * scale),
        float(np.hypot(middle_down, middle_right) * scale),
        float(rest.mean() * scale),
    )


def grey(clip: Clip) -> NDArray[np.float32]:
    """View: float32 [n, h, w] in [0, 1], BT.601 luma, at most 96 px on the short side."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    luma: NDArray[np.float32] = np.einsum("nchw,c->nhw", clip.view(small).cpu().numpy(), weights)
    return luma
