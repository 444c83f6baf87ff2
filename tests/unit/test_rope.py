"""Rotary embedding against a direct complex-number computation in NumPy."""

import numpy as np
import pytest
import torch

from magbench.runners.wan.rope import Rope, axis_widths, rotate


def direct(x: np.ndarray, frame: int, row: int, col: int) -> np.ndarray:
    """One head [d] at one place, straight from the definition, in fp64."""
    half = len(x) // 2
    side = len(x) // 6
    widths = [half - 2 * side, side, side]
    angle = np.concatenate(
        [place * 10000.0 ** (-np.arange(w) / w) for place, w in zip((frame, row, col), widths, strict=True)]
    )
    turned = (x[0::2] + 1j * x[1::2]) * np.exp(1j * angle)
    out = np.empty_like(x)
    out[0::2], out[1::2] = turned.real, turned.imag
    return out


@pytest.mark.parametrize(
    ("width", "split"), [(12, (2, 2, 2)), (32, (6, 5, 5)), (64, (12, 10, 10)), (128, (22, 21, 21))]
)
def test_axis_widths(width: int, split: tuple[int, int, int]) -> None:
    assert axis_widths(width) == split


@pytest.mark.parametrize("width", [12, 64, 128])
@pytest.mark.parametrize("frames", [(0, 1, 2), (7, 3, 3), (100_000,)])
def test_grid_follows_the_definition(width: int, frames: tuple[int, ...]) -> None:
    rows, cols = 2, 3
    x = torch.randn(2, len(frames) * rows * cols, 2, width, generator=torch.Generator().manual_seed(0))
    out = rotate(x, Rope(width, rows, cols).grid(frames)).numpy()
    token = 0
    for frame in frames:
        for row in range(rows):
            for col in range(cols):
                expected = direct(x[1, token, 1].double().numpy(), frame, row, col)
                np.testing.assert_allclose(out[1, token, 1], expected, atol=1e-6)
                token += 1


def test_single_tokens_agree_with_whole_frames() -> None:
    rope = Rope(64, 2, 3)
    whole = rope.grid((4, 9))
    frames = torch.tensor([9, 4, 4])
    cells = torch.tensor([5, 0, 3])
    assert torch.equal(rope.tokens(frames, cells), whole[[11, 0, 3]])
    assert torch.equal(rope.tokens(torch.tensor([4] * 6 + [9] * 6), torch.arange(6).repeat(2)), whole)
    per_item = rope.tokens(torch.stack([frames, frames + 1]), torch.stack([cells, cells]))
    assert torch.equal(per_item[0], whole[[11, 0, 3]])
    assert torch.equal(per_item[1], rope.tokens(frames + 1, cells))


@pytest.mark.parametrize("frame", [0, 1023, 1024, 4095, 100_000])
def test_any_token_at_any_index(frame: int) -> None:
    """Tables end nowhere, and tokens asked for before do not change what comes after."""
    rope = Rope(12, 2, 3)
    x = torch.randn(1, 6, 2, 12, generator=torch.Generator().manual_seed(0))
    for frames in ([0] * 6, [frame] * 6, [frame, 0, frame, 7, 0, frame]):
        cells = torch.tensor([5, 1, 0, 3, 2, 4])
        out = rotate(x, rope.tokens(torch.tensor(frames), cells)).numpy()
        for token, (time, cell) in enumerate(zip(frames, cells.tolist(), strict=True)):
            expected = direct(x[0, token, 1].double().numpy(), time, cell // 3, cell % 3)
            np.testing.assert_allclose(out[0, token, 1], expected, atol=1e-6)


def test_no_tokens_have_an_empty_table() -> None:
    empty = torch.empty(2, 0, dtype=torch.int64)
    assert Rope(12, 2, 3).tokens(empty, empty).shape == (2, 0, 1, 6)


def test_only_the_distance_in_time_matters() -> None:
    rope = Rope(64, 1, 1)
    q, k = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(0))

    def score(query_frame: int, key_frame: int) -> torch.Tensor:
        return (rotate(q, rope.grid((query_frame,))) * rotate(k, rope.grid((key_frame,)))).sum()

    torch.testing.assert_close(score(5, 2), score(10_005, 10_002), atol=1e-4, rtol=0)
    assert (score(5, 2) - score(5, 1)).abs() > 1e-3


def test_dtype_is_kept_and_length_too() -> None:
    x = torch.randn(1, 6, 2, 64, generator=torch.Generator().manual_seed(0))
    table = Rope(64, 2, 3).grid((3,))
    assert rotate(x.bfloat16(), table).dtype == torch.bfloat16
    torch.testing.assert_close(rotate(x, table).norm(dim=-1), x.norm(dim=-1))
