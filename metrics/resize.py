"""How frames are brought to the size that a metric reads: small ones by area, a backbone's by short side and crop."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import interpolate

from magbench.metrics.base import Clip

SMALL = 96
"""Pixels of the short side of small frames."""


def planes(clip: Clip) -> Tensor:
    """View: float32 [n, 3, height, width] in [0, 255]."""
    return clip.frames.permute(0, 3, 1, 2).float()


def small(clip: Clip) -> Tensor:
    """View: float32 [n, 3, height, width] in [0, 1], at most `SMALL` px on the short side, by averaging areas."""
    frames = clip.view(planes).div(255)
    short = min(frames.shape[2:])
    if short <= SMALL:
        return frames
    return interpolate(frames, size=[round(side * SMALL / short) for side in frames.shape[2:]], mode="area")


def short_side(images: Tensor, size: int, mode: Literal["bilinear", "bicubic"], antialias: bool) -> Tensor:
    """Resize so that the short side is `size`; the other is cut to whole pixels.

    Bicubic values may leave the range of the input: nothing is clamped.

    Args:
        images: float32 [n, 3, height, width].
        size: Pixels.
        mode: How pixels are interpolated.
        antialias: Whether a smaller picture is low-passed first.
    """
    short = min(images.shape[2:])
    shape = [int(size * side / short) for side in images.shape[2:]]
    return interpolate(images, size=shape, mode=mode, antialias=antialias, align_corners=False)


def centre(images: Tensor, size: int) -> Tensor:
    """The middle `size` x `size` pixels of float32 [n, 3, height, width], both sides at least that."""
    top, left = (round((side - size) / 2) for side in images.shape[2:])
    return images[..., top : top + size, left : left + size]
