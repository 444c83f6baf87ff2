"""What the backbones are shown, against torchvision's own preparation and against Pillow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Resize

from magbench.metrics.base import Clip
from magbench.metrics.clip import clip_input, clip_input_vbench
from magbench.metrics.hub_vit import dino_input_vbench, dinov2_input_vbench
from magbench.metrics.resize import planes

BICUBIC = InterpolationMode.BICUBIC
SIZES = [(480, 832), (64, 64), (301, 250), (224, 399)]


def noise(height: int, width: int) -> Clip:
    pixels = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Clip(0, (0.0, 0.125), pixels)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("view", "steps"),
    [
        (clip_input_vbench, [Resize(224, BICUBIC, antialias=False), CenterCrop(224)]),
        (dino_input_vbench, [Resize(224, InterpolationMode.BILINEAR, antialias=False)]),
        (dinov2_input_vbench, [Resize(256, BICUBIC), CenterCrop(224)]),
    ],
)
def test_parity_profiles_prepare_frames_as_torchvision_does(
    view: Callable[[Clip], Tensor], steps: list[Any], height: int, width: int
) -> None:
    clip = noise(height, width)
    expected = Compose(steps)(planes(clip)) / 255
    found = view(clip)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_dino_reads_a_wan_frame_at_224_x_388() -> None:
    assert dino_input_vbench(noise(480, 832)).shape == (2, 3, 224, 388)


def test_without_antialias_and_clamp_a_photograph_overshoots() -> None:
    """Extremes and distances of a 512 x 512 photograph, measured beforehand with the libraries themselves."""
    photograph = astronaut()
    clip = Clip(0, (0.0,), torch.from_numpy(photograph)[None])
    vbench, ours = clip_input_vbench(clip) * 255, clip_input(clip) * 255
    assert vbench.min().item() == pytest.approx(-15.8, abs=0.05)
    assert vbench.max().item() == pytest.approx(269.9, abs=0.05)
    assert 0 <= ours.min().item() <= ours.max().item() <= 255
    openai = np.asarray(Image.fromarray(photograph).resize((224, 224), Image.Resampling.BICUBIC))
    theirs = torch.from_numpy(openai.copy()).permute(2, 0, 1)[None].float()
    assert psnr(ours, theirs) > 55
    assert psnr(vbench, theirs) == pytest.approx(32, abs=0.1)


def psnr(one: Tensor, other: Tensor) -> float:
    return float(10 * np.log10(255**2 / (one - other).square().mean().item()))
