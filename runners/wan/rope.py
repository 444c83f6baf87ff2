"""Three-axis rotary embedding (time, row, column) of Wan2.1, at any time index.

Tables are made in fp64, once per index, and the rotation runs in fp32, so an index of 10^5 is as exact as index 0, and
no table ends at frame 1024.
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
        self.widths = axis_widths(head_dim)
        self._grid = lru_cache(maxsize=8)(self._build_grid)
        self._axis = lru_cache(maxsize=8)(_axis)

    def grid(self, frames: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """Table of whole frames shown at the time indices `frames`: complex64 [len(frames) * rows * cols, 1, d/2]."""
        return self._grid(frames, torch.device(device))

    def tokens(self, frames: Tensor, cells: Tensor) -> Tensor:
        """Table of single tokens.

        Args:
            frames: int64 [T] or [B, T], time index of each token, 0 or more.
            cells: int64 like `frames`, row * cols + column of each token.

        Returns:
            complex64 [T, 1, d/2] or [B, T, 1, d/2].
        """
        last = int(frames.max()) if frames.numel() else 0
        lengths = (1 << last.bit_length(), self.rows, self.cols)
        positions = (frames, cells // self.cols, cells % self.cols)
        parts = [
            self._axis(width, length, frames.device)[position]
            for width, length, position in zip(self.widths, lengths, positions, strict=True)
        ]
        return torch.cat(parts, dim=-1).unsqueeze(-2)

    def _build_grid(self, frames: tuple[int, ...], device: torch.device) -> Tensor:
        lengths = (1 << max(frames, default=0).bit_length(), self.rows, self.cols)
        axes = zip(self.widths, lengths, strict=True)
        times, rows, cols = (self._axis(width, length, device) for width, length in axes)
        parts = times[list(frames)][:, None, None], rows[:, None], cols
        grid = (len(frames), self.rows, self.cols, -1)
        return torch.cat([part.expand(grid) for part in parts], dim=-1).flatten(0, 2).unsqueeze(1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate adjacent pairs of `x` [B, T, heads, d] by a `Rope` table, in fp32; returns the dtype of `x`."""
    pairs = torch.view_as_complex(torch.unflatten(x.float(), -1, (-1, 2)))
    return torch.view_as_real(pairs * table).flatten(-2).to(x.dtype)


def _axis(width: int, length: int, device: torch.device) -> Tensor:
    """Turns of one axis at the indices 0 to `length` - 1: complex64 [length, width]."""
    frequencies = torch.pow(10000.0, -torch.arange(width, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.complex(angles.cos(), angles.sin()).to(device, torch.complex64)
