"""Tiny pictures, for metrics that ask whether two frames show the same view."""

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab
from torch.nn.functional import adaptive_avg_pool2d

from magbench.metrics.base import Clip
from magbench.metrics.resize import planes

SIDE = 8
"""Tiles per side."""

Tiles = NDArray[np.float32]
"""[..., 8, 8, 3], CIE Lab."""


def tiles(clip: Clip) -> Tiles:
    """View: float32 [n, 8, 8, 3], the Lab colours (D65) of the mean RGB of each tile."""
    means = adaptive_avg_pool2d(clip.view(planes), SIDE) / 255
    return np.asarray(rgb2lab(means.permute(0, 2, 3, 1).cpu().numpy()), np.float32)


def apart(first: Tiles, second: Tiles) -> NDArray[np.float32]:
    """Root mean square over the tiles of their Delta E.

    Args:
        first: [..., 8, 8, 3].
        second: The same shape, or one that broadcasts.

    Returns:
        [...].
    """
    return np.asarray(np.sqrt(((first - second) ** 2).sum(-1).mean((-1, -2))))
