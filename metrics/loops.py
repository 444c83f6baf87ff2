"""Whether a video repeats itself."""

import numpy as np
from numpy.typing import NDArray

from magbench.metrics.base import Clip, Declared, Info, Metric, NotApplicable, Scores
from magbench.metrics.clock import RATE, Clock
from magbench.metrics.tiles import Tiles, tiles
from magbench.records import Series

SHORTEST, LONGEST = 2.0, 30.0
"""Seconds of the periods that count."""
SAME = 0.1
"""Most that two rounds may differ by, as a share of what two random frames of them do (YIN's threshold)."""
LIVELY = 1.0
"""Delta E: with less spread over two rounds the picture stands still, and anything repeats."""


class Loops(Metric):
    """Rounds of 2 to 30 s that come again at once: self-similarity along lines off the diagonal.

    Frames on the clock are held against those one lag earlier, as 8x8 tiles in Lab. At a time t a lag fits when the
    last lag's worth of frames and the one before differ by less than 10 % of what two random frames of both do, in mean
    square (the normalised difference function of YIN, de Cheveigne & Kawahara 2002, with the spread of the two rounds
    as the norm). The period there is the best of the first lags that fit, so a gait of half a second is none of 4 s.

    * `share`: share of the clock's frames that belong to a second or later round
    * `period`: the median period of those, not applicable where there is none

    A steady pan is no loop, since it ends elsewhere; nor a camera that comes back once the way it went, since it shows
    the same views in the opposite order; nor a frozen video (see `motion`). A camera that goes to and fro evenly, or a
    scene with a period of its own such as a carousel, is one: read it beside `real`. Blind to cycles below 2 s and
    above 30 s, to a scene that returns after something else, and to repetition of parts smaller than a tile.
    """

    name = "loops"
    title = "Share of the video that repeats the seconds before"
    clock = "8 frames per second"
    memory = "frame"
    reductions = (Declared("share", "lower", "", 0, 1), Declared("period", "none", "s", SHORTEST, LONGEST))

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        self.info = info
        self._clock = Clock()
        self._times: list[float] = []
        self._tiles: list[Tiles] = []
        return None

    def update(self, item: Clip) -> None:
        """Keep the tiles of the frames on the clock."""
        seen = self._clock.pick(item)
        if len(seen):
            self._times += seen.times
            self._tiles.append(seen.view(tiles))

    def finish(self) -> Scores | NotApplicable:
        """Look for rounds."""
        step = float(np.median(np.diff(self._times))) if len(self._times) > 1 else 1 / RATE
        shortest = round(SHORTEST / step)
        if len(self._times) < 2 * shortest:
            return NotApplicable(f"shorter than two rounds of {SHORTEST:g} s")
        pictures = np.concatenate(self._tiles).reshape(len(self._times), -1)
        lags = periods(pictures, round(LONGEST / step))
        repeated = np.zeros(len(lags), bool)
        for end in np.flatnonzero(lags >= shortest):
            repeated[end - lags[end] + 1 : end + 1] = True
        found = lags[lags >= shortest] * step
        period = float(np.median(found)) if len(found) else NotApplicable("nothing repeats")
        return Scores(
            {"share": float(repeated.mean()), "period": period},
            (Series(name="repeats", times=tuple(self._times), values=tuple(repeated.astype(float).tolist())),),
        )


def periods(pictures: NDArray[np.float32], longest: int) -> NDArray[np.int64]:
    """The lag after which the last frames came again, for each frame that a repeated round ends with.

    Where a stretch of neighbouring lags fits, it is the best before the fit worsens; of several stretches the first.

    Args:
        pictures: float32 [n, features], in Delta E.
        longest: Largest lag to try, in frames.

    Returns:
        [n], in frames; 0 where no lag fits.
    """
    centred = pictures.astype(np.float64) - pictures.mean(0)
    count = len(pictures)
    sums, squares = (np.vstack([np.zeros(x.shape[1]), x.cumsum(0)]) for x in (centred, (centred**2).sum(1)[:, None]))
    tile_count = pictures.shape[1] / 3
    found, least, falling = np.zeros(count, np.int64), np.full(count, np.inf), np.zeros(count, bool)
    for lag in range(1, min(longest, count // 2) + 1):
        ends = np.arange(2 * lag, count + 1)
        mean = (sums[ends] - sums[ends - 2 * lag]) / (2 * lag)
        spread = (squares[ends, 0] - squares[ends - 2 * lag, 0]) / (2 * lag) - (mean**2).sum(1)
        moved = np.concatenate([[0.0], ((pictures[lag:] - pictures[:-lag]) ** 2).sum(1, dtype=np.float64).cumsum()])
        between = (moved[ends - lag] - moved[ends - 2 * lag]) / lag
        differ = np.full(count, np.inf)
        differ[ends - 1] = np.where(spread > LIVELY**2 * tile_count, between / np.maximum(2 * spread, 1e-9), np.inf)
        falling = (differ < SAME) & ((found == 0) | (falling & (differ < least)))
        found[falling], least[falling] = lag, differ[falling]
    return found
