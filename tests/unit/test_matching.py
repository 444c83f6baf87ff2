"""All pairs by one matrix product, against loops and against the lpips package."""

import itertools
from functools import cache
from itertools import product

import lpips
import pytest
import torch
from pytorch_msssim import ssim as reference_ssim
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models import alexnet

from magbench.metrics.backbones import AlexNetLPIPS, lpips_heads
from magbench.metrics.matching import (
    Backbone,
    Layers,
    capped,
    cell_weights,
    mean_ssim,
    monotone,
    pairwise,
    pixels,
    psnr,
    released_scores,
    vectors,
)


def as_frames(signed: Tensor) -> Tensor:
    """[N, 3, H, W] in [−1, 1] to [N, H, W, 3] in 0..255, not rounded."""
    return (signed + 1).mul(127.5).permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def clips() -> tuple[Tensor, Tensor]:
    """Generated (4 frames) and truth (5), [N, 3, 72, 90] in [−1, 1]; generated i is near truth (3, 0, 0, 4)[i]."""
    dice = torch.Generator().manual_seed(5)
    base = torch.rand(1, 3, 72, 90, generator=dice)
    truth = (base + 0.3 * torch.randn(5, 3, 72, 90, generator=dice)).clamp(0, 1)
    generated = (truth[[3, 0, 0, 4]] + 0.02 * torch.randn(4, 3, 72, 90, generator=dice)).clamp(0, 1)
    return generated * 2 - 1, truth * 2 - 1


@cache
def package_and_ours(spatial: bool) -> tuple[lpips.LPIPS, Backbone]:
    """LPIPS-AlexNet of the package, its trunk random, and the same weights as our backbone."""
    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pretrained=True, pnet_rand=True, spatial=spatial, verbose=False).eval()
    trunk = alexnet()
    with torch.no_grad():
        for mine, theirs in zip(trunk.features.parameters(), network.net.parameters(), strict=True):
            mine.copy_(theirs)
    backbone = AlexNetLPIPS(trunk.state_dict(), lpips_heads(), "cpu")
    return network, lambda frames: backbone.layers(frames.permute(0, 3, 1, 2) / 127.5 - 1)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("size", [(72, 90), (67, 101), (127, 95), (64, 64)])
def test_pairs_equal_the_lpips_package(clips: tuple[Tensor, Tensor], size: tuple[int, int], spatial: bool) -> None:
    network, layers = package_and_ours(spatial)
    generated, truth = (interpolate(clip, size) for clip in clips)
    with torch.no_grad():
        expected = torch.stack([torch.stack([network(g[None], t[None]).mean() for t in truth]) for g in generated])
    found = pairwise(layers, as_frames(generated), as_frames(truth), size if spatial else None, batch=3)
    assert expected.max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_nearly_static_clip_needs_its_mean_subtracted() -> None:
    network, layers = package_and_ours(spatial=True)
    dice = torch.Generator().manual_seed(0)
    size = (319, 447)
    picture = interpolate(torch.rand(1, 3, 12, 16, generator=dice), size, mode="bicubic").clamp(0, 1)
    still = (picture + 0.001 * torch.randn(3, 3, *size, generator=dice)).clamp(0, 1) * 2 - 1
    with torch.no_grad():
        expected = network(still[:1], still[1:]).mean((1, 2, 3))
        one, others = vectors(layers(as_frames(still[:1])), size), vectors(layers(as_frames(still[1:])), size)
    assert expected.max() < 2e-5
    plain = one.square().sum(1) + others.square().sum(1) - 2 * (one @ others.T)[0]
    assert float((plain - expected).abs().max()) > 1e-5, "as large as the distances themselves"
    found = pairwise(layers, as_frames(still[:1]), as_frames(still[1:]), size)
    torch.testing.assert_close(found[0], expected, atol=1e-9, rtol=0)


def test_a_million_terms_keep_their_digits() -> None:
    dice = torch.Generator().manual_seed(0)
    generated, truth = torch.rand(2, 2, 480, 832, 3, generator=dice) * 255
    expected = torch.stack([((g.double() - truth.double()) / 127.5).square().mean((1, 2, 3)) for g in generated])
    torch.testing.assert_close(pairwise(pixels, generated, truth).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("band", [0, 1, 2, 5])
def test_the_monotone_path_is_the_best_of_all(band: int) -> None:
    """Against every path there is."""
    dice = torch.Generator().manual_seed(band)
    scores = torch.rand(6, 6, generator=dice)
    paths = [
        path
        for path in product(range(6), repeat=6)
        if (path[0], path[-1]) == (0, 5)
        and all(one <= other for one, other in itertools.pairwise(path))
        and all(abs(row - column) <= band for column, row in enumerate(path))
    ]
    best = max(paths, key=lambda path: sum(float(scores[row, column]) for column, row in enumerate(path)))
    assert monotone(scores, band) == list(best)
    assert monotone(torch.zeros(1, 1), band) == [0]


def corner(frames: Tensor) -> Layers:
    return [(frames.permute(0, 3, 1, 2)[..., :7, :4] / 255, torch.ones(3))]


def test_upsampling_first_makes_a_difference_where_sizes_do_not_divide() -> None:
    frames = torch.rand(2, 9, 10, 3, generator=torch.Generator().manual_seed(1)) * 255
    whole, cells = (float(pairwise(corner, frames, frames, size)[0, 1]) for size in ((9, 10), None))
    assert whole != pytest.approx(cells, rel=1e-3)
    assert float(pairwise(corner, frames, frames, (14, 8))[0, 1]) == pytest.approx(cells, rel=1e-5)


@pytest.mark.parametrize("max_bytes", [2**30, 1, 3 * 72 * 90 * 4 * 2])
def test_pairs_equal_a_double_loop_whatever_the_memory(clips: tuple[Tensor, Tensor], max_bytes: int) -> None:
    generated, truth = clips
    expected = torch.stack([torch.stack([(g - t).square().mean() for t in truth]) for g in generated])
    found = pairwise(pixels, as_frames(generated), as_frames(truth), batch=2, max_bytes=max_bytes)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_near_identical_frames_far_from_zero_keep_their_distance() -> None:
    truth = torch.full((2, 32, 32, 3), 250.0)
    found = pairwise(pixels, truth + 0.1275, truth)
    torch.testing.assert_close(found, torch.full((2, 2), 1e-6), atol=1e-8, rtol=0)


@pytest.mark.parametrize(("cells", "side"), [(4, 64), (7, 70), (3, 44), (5, 5), (1, 9)])
def test_cell_weights_are_the_share_of_each_cell_in_the_upsampled_mean(cells: int, side: int) -> None:
    values = torch.rand(cells, generator=torch.Generator().manual_seed(cells))
    upsample = torch.nn.Upsample(size=(side, side), mode="bilinear", align_corners=False)
    upsampled = upsample(values[None, None, :, None].expand(1, 1, cells, cells))
    torch.testing.assert_close(cell_weights(cells, side) @ values, upsampled.mean(), atol=1e-6, rtol=0)


def test_pixels_are_rgb_in_minus_one_to_one() -> None:
    frames = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    frames[0, 1, 2, 0] = 255
    [(images, weights)] = pixels(frames)
    assert images.shape == (1, 3, 2, 3)
    assert images[0, 0, 1, 2] == 1
    assert images.sum() == 1 - 17
    assert vectors([(images, weights)], None).shape == (1, 18)


def test_psnr_closed_form_and_identical_frames() -> None:
    black = torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    other = black.clone()
    other[0] = 255
    other[1] = 51
    decibels = psnr(black, other)
    torch.testing.assert_close(decibels[:2], torch.tensor([0.0, 13.979400086720377]).double())
    assert decibels[2].isinf()
    assert capped(decibels).tolist() == [*decibels[:2].tolist(), 60]


def test_mean_ssim_equals_pytorch_msssim(clips: tuple[Tensor, Tensor]) -> None:
    generated, truth = clips
    expected = reference_ssim((generated + 1) / 2, (truth[:4] + 1) / 2, data_range=1)
    assert mean_ssim(as_frames(generated), as_frames(truth[:4])) == pytest.approx(float(expected), abs=1e-5)


def test_released_distance_is_over_a_map_of_the_image_size() -> None:
    frames = torch.rand(2, 13, 13, 3, generator=torch.Generator().manual_seed(2)) * 255
    found = released_scores(corner, frames[:1], frames[1:]).distance
    assert found == pytest.approx(float(pairwise(corner, frames[:1], frames[1:], (13, 13))), rel=1e-6)
    assert found != pytest.approx(float(pairwise(corner, frames[:1], frames[1:])), rel=1e-3)


def test_best_match_finds_the_copies_and_pools_like_the_release(clips: tuple[Tensor, Tensor]) -> None:
    generated, truth = (as_frames(x) for x in clips)
    found = released_scores(pixels, generated, truth[[3, 0, 4]])
    assert found.indices == (0, 1, 1)
    found = released_scores(pixels, torch.cat([truth[:1], generated[:2]]), truth[:3])
    assert found.psnr == 100, "one identical frame sets the whole clip to the cap"
    with pytest.raises(ValueError, match="4 generated frames for 5 truth frames"):
        released_scores(pixels, generated, truth)
