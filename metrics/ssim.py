"""SSIM of two frames (Wang et al. 2004)."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; frames must not be smaller."""
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
TILE = 64
"""Rows or columns filtered by one matrix product: a Gaussian of 11 in a product over the whole side would be mostly
zeros."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What SSIM needs of one frame by itself, so that it is computed once for both pairs that a frame is in."""

    centred: Tensor
    """float32 [3, height, width] in [-0.5, 0.5]."""
    mean: Tensor
    """Local mean of `centred`, float32 [3, height - 10, width - 10]."""
    variance: Tensor
    """Local variance, same shape."""


@torch.no_grad()
def moments(frame: Tensor) -> Moments:
    """The moments of an RGB frame, [height, width, 3] in 0..255, both sides at least 11, on any device."""
    centred = frame.permute(2, 0, 1).float().div(255).sub_(0.5).contiguous()
    mean = _local_mean(centred)
    return Moments(centred, mean, _local_mean(centred.square()).addcmul_(mean, mean, value=-1))


@torch.no_grad()
def similarity(first: Moments, second: Moments) -> float:
    """Structural similarity of two frames of one size; exactly 1 for identical frames."""
    if torch.equal(first.centred, second.centred):
        return 1.0
    covariance = _local_mean(first.centred * second.centred).addcmul_(first.mean, second.mean, value=-1)
    one, other = first.mean + 0.5, second.mean + 0.5
    above = (one * other).mul_(2).add_(C1).mul_(covariance.mul_(2).add_(C2))
    below = one.square_().add_(other.square_()).add_(C1).mul_((first.variance + second.variance).add_(C2))
    return float(above.div_(below).mean(dtype=torch.float64))


def ssim(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Structural similarity of two RGB frames.

    Gaussian window 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, valid region only, mean over the
    channels. Equals scikit-image with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`, pytorch-msssim,
    and torchmetrics' map with 5 pixels cropped from each side, to 1e-5.

    Args:
        first: [height, width, 3] in 0..255, uint8 or floating point, both sides at least 11.
        second: Same shape.

    Returns:
        A number in [-1, 1]; exactly 1 for identical frames.
    """
    one, other = (moments(torch.from_numpy(np.ascontiguousarray(frame))) for frame in (first, second))
    return similarity(one, other)


def _local_mean(x: Tensor) -> Tensor:
    """Gaussian means of [3, h, w] wherever the window fits: [3, h - 10, w - 10]."""
    band, edge = _band(x.device), SSIM_WINDOW - 1

    def tiles(length: int) -> list[tuple[Tensor, slice]]:
        starts = range(0, length - edge, TILE)
        sizes = [min(TILE, length - edge - start) for start in starts]
        return [(band[:n, : n + edge], slice(at, at + n + edge)) for at, n in zip(starts, sizes, strict=True)]

    x = torch.cat([weights @ x[:, rows] for weights, rows in tiles(x.shape[1])], 1)
    return torch.cat([x[:, :, columns] @ weights.T for weights, columns in tiles(x.shape[2])], 2)


@cache
def _band(device: torch.device) -> Tensor:
    """float32 [TILE, TILE + 10]: the Gaussian in each row, one place further right than in the row above."""
    window = torch.exp(-0.5 * (torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2).div(SIGMA).square())
    band = torch.zeros(TILE, TILE + SSIM_WINDOW - 1, dtype=torch.float64)
    for row in range(TILE):
        band[row, row : row + SSIM_WINDOW] = window / window.sum()
    return band.float().to(device)
