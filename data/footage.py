"""What a clip shows, from small pictures of its frames: cuts, stillness, and whether it returns the way it came."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magbench.data.video import Frame

CELLS = 16
"""Cells of a small picture along each side, each the mean colour of its part of the frame."""
SAME = 1.0
"""Grey levels of mean difference below which two small pictures count as the same; codecs cost less."""
RETURNED = 0.25
"""Share of the way out by which mirrored frames may differ: some re-timed clips mirror to a frame or so only."""
CUT = 12.0
"""Least mean difference of neighbours at a cut, in grey levels."""
CUT_RATIO = 8.0
"""How many times the clip's median difference of neighbours a cut is."""


@dataclass(frozen=True)
class Footage:
    """A clip at a glance.

    Args:
        pictures: float32 [T, rows, columns, 3], mean colours of cells, 0..255; T at least 1.
        times: Of the frames, in seconds from the first.
    """

    pictures: NDArray[np.float32]
    times: tuple[float, ...]

    @classmethod
    def of(cls, video: Iterable[tuple[float, Frame]]) -> "Footage":
        """Look at every frame, keeping small pictures only."""
        times, pictures = zip(*((time, _picture(frame)) for time, frame in video), strict=True)
        return cls(np.stack(pictures), times)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.pictures)

    @property
    def mirror(self) -> int | None:
        """The m for which frames t and m - t are the same picture, for a clip that returns to its start; else None.

        A reversed copy behind a clip gives its last index, whether or not the turning point is there twice.
        """
        apart = self._apart(self.pictures, self.pictures[::-1])
        out = self._apart(self.pictures[:1], self.pictures[len(self) // 2 : len(self) // 2 + 1])[0]
        return len(self) - 1 if apart.max() <= max(SAME, RETURNED * out) else None

    @property
    def cuts(self) -> tuple[int, ...]:
        """First frames of new shots, so far as a jump of the whole picture shows them."""
        jumps = self._apart(self.pictures[:-1], self.pictures[1:])
        if not len(jumps):
            return ()
        return tuple(int(t) + 1 for t in np.flatnonzero(jumps > max(CUT, CUT_RATIO * float(np.median(jumps)))))

    @property
    def still(self) -> bool:
        """Whether no frame differs from the first."""
        return bool(self._apart(self.pictures[:1], self.pictures).max() <= SAME)

    def evenly_spaced(self, fps: float) -> bool:
        """Whether each frame comes within half a frame of its time at a fixed rate."""
        return all(abs(time - index / fps) <= 0.5 / fps for index, time in enumerate(self.times))

    @staticmethod
    def _apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
        apart: NDArray[np.float32] = np.abs(one - other).mean((1, 2, 3))
        return apart


def _picture(frame: Frame) -> NDArray[np.float32]:
    """Mean colours of a grid of equal cells; what the cells leave over at the right and at the bottom is not seen."""
    rows, columns = (min(CELLS, side) for side in frame.shape[:2])
    height, width = frame.shape[0] // rows, frame.shape[1] // columns
    cells = np.ascontiguousarray(frame[: rows * height, : columns * width]).reshape(rows, height, -1)
    bands = np.add.reduce(cells, 1, dtype=np.float32).reshape(rows, columns, width, 3)
    picture: NDArray[np.float32] = bands.mean(2) / height
    return picture
