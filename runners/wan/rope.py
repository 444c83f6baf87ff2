"""Three-axis rotary embedding (time, row, column) of Wan2.1, at any time index.

The angles are made in fp64 and the rotation runs in fp32, so an index of 10^5 is as exact as index 0, and no table
ends at frame 1024.
"""

from functools import lru_cache

import torch
from torch import Tensor


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Complex numbers of a head that turn with (time, row, column): 64 -> (12, 10, 10), 128 -> (22, 21, 21)."""
    side = head_dim // 6
    return head_dim // 2 - 2 * side, side, side


class Rope:
    """Rotation tables for heads of one width on one token grid.

    Args:
        head_dim: Width of a head.
        rows: Token rows of a latent frame.
        cols: Token columns of a latent frame.
    """

    def __init__(self, head_dim: int, rows: int, cols: int) -> None:
        self.head_dim, self.rows, self.cols = head_dim, rows, cols
        self._grid = lru_cache(maxsize=8)(self._build_grid)

    def grid(self, frames: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """Table of whole frames shown at the time indices `frames`: complex64 [len(frames) * rows * cols, 1, d/2]."""
        return self._grid(frames, torch.device(device))

    def tokens(self, frames: Tensor, cells: Tensor | None = None) -> Tensor:
        """Table of single tokens.

        Args:
            frames: int64 [T] or [B, T], time index of each token.
            cells: int64 like `frames`, row * cols + column of each token; None for whole frames in order.

        Returns:
            complex64 [T, 1, d/2] or [B, T, 1, d/2].
        """
        if cells is None:
            cells = torch.arange(frames.shape[-1], device=frames.device) % (self.rows * self.cols)
            cells = cells.expand_as(frames)
        positions = (frames, cells // self.cols, cells % self.cols)
        angles = [
            position.double()[..., None] * _frequencies(width).to(position.device)
            for position, width in zip(positions, axis_widths(self.head_dim), strict=True)
        ]
        angle = torch.cat(angles, dim=-1).unsqueeze(-2)
        return torch.complex(angle.cos(), angle.sin()).to(torch.complex64)

    def _build_grid(self, frames: tuple[int, ...], device: torch.device) -> Tensor:
        per_token = torch.tensor(frames, dtype=torch.int64).repeat_interleave(self.rows * self.cols)
        return self.tokens(per_token).to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent pairs of `x` [B, T, heads, d] by a `Rope` table, in fp32; returns the dtype of `x`."""
    pairs = torch.view_as_complex(torch.unflatten(x.float(), -1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def _frequencies(width: int) -> Tensor:
    return torch.pow(10000.0, -torch.arange(width, dtype=torch.float64) / width)
