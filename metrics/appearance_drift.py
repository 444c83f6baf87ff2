"""How far the look of a video moves away from its first seconds, without any learned model."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.clock import Clock
from magbench.metrics.drift import declared, functionals
from magbench.metrics.resize import small
from magbench.records import Series

WINDOW = 2.0
"""Seconds per window; the first window is the reference."""
GRID = 4
"""Cells per side of the spatial layout."""
BINS = 64
"""Of the histogram of each Lab channel."""
DARK, BRIGHT = 5.0, 95.0
"""L* below and above which a pixel is in a tail of the exposure."""
SCALES = {"colour": 15.0, "tails": 0.2, "contrast": 3.0, "saturation": 4.0, "sharpness": 0.4}
"""Component to the distance that counts as 1: somewhat more than pans, zooms and things that enter do to a sound real
clip, so that no component drowns the others; docs/validation.md has the measurement."""
COMPONENTS = ("colour", "layout", *tuple(SCALES)[1:])

_RANGES = ((0.0, 100.0), (-110.0, 110.0), (-110.0, 110.0))


class AppearanceDrift(Metric):
    """Distance of each 2 s window to the first 2 s, of five components, and a sixth beside them.

    * `colour`: sum over L*, a*, b* of the earth mover's distance of their histograms, Delta E
    * `tails`: change of the shares of pixels with L* < 5 and with L* > 95
    * `contrast`, `saturation`: change of the standard deviation of L*, and of the mean chroma
    * `sharpness`: absolute log ratio of the mean gradient of luma, at full size
    * `layout`, not in the distance: mean Delta E of the cells of a 4x4 grid. It tells where the picture changed, but
      what moves changes it more than what decays does.

    Histograms as such compare badly: a shift by one bin looks like another picture in a plain grey scene, and like
    nothing in a colourful one; earth mover's distance is in units of colour instead. The window's distance is the
    root mean square of the five, each in units of `SCALES`: what decays in one way stands out more than what changes a
    little in all, as moving pictures do. `drift` is its mean over the last 15 % of the series, and so are the
    components. The first seconds are at distance 0 from themselves, so this is the whole way from start to end.

    Also sees what the prompt asks to change, and whatever the camera finds. Compare methods on the same case, and read
    it beside the `real` row. Blind to faults that keep colours in place: a face that becomes another of the same
    colours, or a loop.
    """

    name = "appearance_drift"
    version = 2
    title = "Colour, exposure, contrast and sharpness against the first two seconds"
    clock = "8 frames per second, windows of 2 s"
    reductions = (
        Declared("drift", "lower", "", 0),
        *declared("higher"),
        *(Declared(component, "lower", "", 0) for component in COMPONENTS),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Begin with an empty window."""
        self.info = info
        self._clock = Clock()
        self._first: float | None = None
        self._last = 0.0
        self._window = _Window()
        self._reference: _Window | None = None
        self._times: list[float] = []
        self._distances: list[dict[str, float]] = []
        return None

    def update(self, item: Clip) -> None:
        """Add frames to the window, and close it when it is full."""
        seen = self._clock.pick(item)
        if not len(seen):
            return
        lab, gradients = seen.view(thumbnails), seen.view(mean_gradient)
        for time, frame, gradient in zip(seen.times, lab, gradients, strict=True):
            self._first = time if self._first is None else self._first
            if time >= self._first + WINDOW - 0.005:
                self._close()
                self._first += WINDOW
            self._window.add(frame, gradient)
            self._last = time

    def _close(self) -> None:
        if self._reference is None:
            self._reference = self._window
        else:
            self._distances.append(self._window.distances(self._reference))
            self._times.append((self._first or 0.0) + WINDOW / 2)
        self._window = _Window()

    def finish(self) -> Scores | NotApplicable:
        """Reduce; a last window at least half full counts."""
        if self._window.frames and self._last - (self._first or 0.0) >= WINDOW / 2 - 0.13:
            self._close()
        if not self._distances:
            return NotApplicable(f"shorter than {1.5 * WINDOW:g} s: no window to compare with the first {WINDOW:g} s")
        series = {name: [distance[name] for distance in self._distances] for name in COMPONENTS}
        total = [float(np.sqrt(np.mean([(d[c] / scale) ** 2 for c, scale in SCALES.items()]))) for d in self._distances]
        tail = np.array(self._times) >= self._times[-1] - 0.15 * (self._times[-1] - self._times[0])
        return Scores(
            {
                "drift": float(np.array(total)[tail].mean()),
                **functionals(self._times, total, "higher"),
                **{name: float(np.array(values)[tail].mean()) for name, values in series.items()},
            },
            tuple(
                Series(name=name, times=tuple(self._times), values=tuple(values))
                for name, values in {"drift": total, **series}.items()
            ),
        )


@dataclass
class _Window:
    """Sums over the frames of one window."""

    frames: int = 0
    histograms: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))
    cells: NDArray[np.float64] = field(default_factory=lambda: np.zeros((GRID, GRID, 3)))
    scalars: NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))
    """Dark share, bright share, contrast, chroma, gradient."""

    def add(self, lab: NDArray[np.float32], gradient: float) -> None:
        """Add a frame given as Lab [h, w, 3] and its mean gradient."""
        self.frames += 1
        for channel, bounds in enumerate(_RANGES):
            counts, _ = np.histogram(lab[..., channel], BINS, bounds)
            self.histograms[channel] += counts / lab[..., 0].size
        self.cells += adaptive_avg_pool2d(torch.from_numpy(lab).permute(2, 0, 1), GRID).permute(1, 2, 0).numpy()
        light, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
        self.scalars += (light < DARK).mean(), (light > BRIGHT).mean(), light.std(), chroma.mean(), gradient

    def distances(self, reference: Self) -> dict[str, float]:
        """Distance to another window, per component."""
        moved = np.abs((self.histograms / self.frames - reference.histograms / reference.frames).cumsum(1)).sum(1)
        cells = self.cells / self.frames - reference.cells / reference.frames
        mine, theirs = self.scalars / self.frames, reference.scalars / reference.frames
        change = np.abs(mine - theirs)
        # A quarter grey level keeps the ratio of two flat pictures from exploding.
        sharpness = abs(float(np.log((mine[4] + 0.25) / (theirs[4] + 0.25))))
        return {
            "colour": float(sum(m * (high - low) / BINS for m, (low, high) in zip(moved, _RANGES, strict=True))),
            "layout": float(np.sqrt((cells**2).sum(-1)).mean()),
            "tails": float(change[0] + change[1]),
            "contrast": float(change[2]),
            "saturation": float(change[3]),
            "sharpness": sharpness,
        }


def thumbnails(clip: Clip) -> NDArray[np.float32]:
    """View: float32 [n, h, w, 3], CIE Lab (D65), at most 96 px on the short side."""
    return np.asarray(rgb2lab(clip.view(small).permute(0, 2, 3, 1).cpu().numpy()), np.float32)


def mean_gradient(clip: Clip) -> list[float]:
    """View: mean absolute difference of neighbouring pixels' luma, both axes added, in grey levels 0 to 255."""
    luma: Tensor = clip.frames.float() @ torch.tensor([0.299, 0.587, 0.114], device=clip.frames.device)
    across, down = luma.diff(dim=2).abs().mean((1, 2)), luma.diff(dim=1).abs().mean((1, 2))
    gradients: list[float] = (across + down).tolist()
    return gradients
