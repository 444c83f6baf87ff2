"""How frames are brought to the size that a backbone reads: short side first, then a centre crop."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import interpolate

from magbench.metrics.base import Clip


def planes(clip: Clip) -> Tensor:
    """A clip's frames, float32 [n, 3, height, width] in [0, 255]."""
    return clip.frames.permute(0, 3, 1, 2).float()


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
