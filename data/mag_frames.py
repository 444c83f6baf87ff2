"""Which frames of a clip MAG-Bench gives, and which it asks for.

The released numbers (Xilluill/MAG, `datasets/datasets.py`) are those of Wan: 16 frames per second, 4 pixel frames per
latent one, 3 latent frames per chunk. The same rule holds here for any model.
"""

import math
from dataclasses import dataclass

GIVEN = 0.75
"""Share of a clip's duration that is given, before it is rounded up to whole chunks."""


@dataclass(frozen=True)
class FrameRule:
    """How a model's chunks cut a clip.

    The first latent frame is one pixel frame, each later one `stride`, so that k chunks are
    `k * chunk * stride - (stride - 1)` pixel frames.
    """

    fps: float = 16
    """Frames per second."""
    stride: int = 4
    """Pixel frames per latent frame after the first."""
    chunk: int = 3
    """Latent frames generated together."""

    def used(self, total: int) -> int:
        """Pixel frames of a clip of `total` that whole chunks can use; the rest is cut off its end.

        Negative where there is none.
        """
        return self._pixels((total + self.stride - 1) // self._step)

    def switch(self, duration: float) -> int:
        """The first pixel frame that has to be generated: `GIVEN` of the duration, rounded up to whole chunks.

        Args:
            duration: Of the clip, in seconds; MAG-Bench takes it from its CSV, not from the file.
        """
        return self._pixels(math.ceil((int(duration * GIVEN * self.fps) + self.stride - 1) / self._step))

    def fits(self, total: int, duration: float) -> bool:
        """Whether a chunk is left to generate. The release stops with a failed assertion where none is."""
        return self.switch(duration) < self.used(total)

    def latents(self, pixels: int) -> int:
        """Latent frames of the first `pixels` pixel frames."""
        return (pixels + self.stride - 1) // self.stride

    @property
    def long_enough(self) -> int:
        """The least number of frames from which on every clip fits whose duration is its frames over `fps`."""
        return max(n for n in range(8 * self._step) if not self.fits(n, n / self.fps)) + 1

    @property
    def _step(self) -> int:
        return self.stride * self.chunk

    def _pixels(self, chunks: int) -> int:
        return chunks * self._step - (self.stride - 1)
