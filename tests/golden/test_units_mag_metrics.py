"""The released MAG-Bench scorer on given clips: two stand-in backbones, and LPIPS-AlexNet with formula weights."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torchvision.models import alexnet

from magbench.metrics.backbones import AlexNetLPIPS, lpips_heads
from magbench.metrics.matching import Backbone, Layers, mean_ssim, pairwise, pixels, psnr, released_scores
from tests.golden.reader import FOLDER, meta
from tests.golden.reader import tensors as read_tensors

pytestmark = pytest.mark.skipif(
    not (FOLDER / "units_mag.safetensors").exists(), reason=f"{FOLDER} has no units_mag.safetensors"
)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return read_tensors("units_mag")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return meta("units_mag")


def frames(images01: Tensor) -> Tensor:
    return images01.float().permute(0, 2, 3, 1) * 255


def truth_of(tensors: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The release keeps the truth in bfloat16, also while it brings it to [0, 1]."""
    return frames((tensors["metrics/gt"].to(dtype) + 1) / 2)


def backbones(tensors: dict[str, Tensor]) -> dict[str, Backbone]:
    weight, bias = tensors["metrics/conv_weight"], tensors["metrics/conv_bias"]

    def conv(frames: Tensor) -> Layers:
        features = conv2d(frames.permute(0, 3, 1, 2) / 127.5 - 1, weight, bias, padding=1).relu()
        return [(features, torch.full((features.shape[1],), 1 / features.shape[1]))]

    return {"mse": pixels, "conv": conv}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["mse", "conv"])
def test_released_scores(tensors: dict[str, Tensor], golden: dict[str, Any], name: str, dtype: str) -> None:
    expected = golden["metrics"][f"{name}/{dtype}"]
    backbone = backbones(tensors)[name]
    generated = frames(tensors["metrics/output01"])
    truth = truth_of(tensors, torch.float32 if dtype == "f32" else torch.bfloat16)
    # bfloat16 rounds once more when the release maps [-1, 1] to [0, 1], so its LPIPS and its PSNR see different truths.
    matched = truth if dtype == "f32" else frames((tensors["metrics/gt"].bfloat16().float() + 1) / 2)
    found = released_scores(backbone, generated, matched)
    assert list(found.indices) == expected["indices"]
    assert found.distance == pytest.approx(expected["score"], abs=2e-6)
    best = truth[list(found.indices)]
    assert float(psnr(generated, best).mean()) == pytest.approx(expected["psnr"], abs=2e-5)
    assert mean_ssim(generated, best) == pytest.approx(expected["ssim"], abs=1e-5)
    same_time = pairwise(backbone, generated, matched, (truth.shape[1], truth.shape[2])).diagonal()
    assert float(same_time.mean()) == pytest.approx(expected["lpips_unmatched"], abs=2e-6)
    assert float(psnr(generated, truth).mean()) == pytest.approx(expected["psnr_unmatched"], abs=2e-5)
    assert mean_ssim(generated, truth) == pytest.approx(expected["ssim_unmatched"], abs=1e-5)
    if dtype == "f32":
        assert found.psnr == pytest.approx(expected["psnr"], abs=2e-5)
        assert found.ssim == pytest.approx(expected["ssim"], abs=1e-5)


def test_output_longer_than_the_truth_is_cut(tensors: dict[str, Tensor], golden: dict[str, Any]) -> None:
    expected = golden["metrics"]["mse/output_longer"]
    truth = truth_of(tensors, torch.float32)[: len(expected["indices"])]
    found = released_scores(pixels, frames(tensors["metrics/output01"]), truth)
    assert list(found.indices) == expected["indices"]
    assert found.distance == pytest.approx(expected["score"], abs=2e-6)


def test_output_shorter_than_the_truth_raises(tensors: dict[str, Tensor], golden: dict[str, Any]) -> None:
    assert "RuntimeError" in golden["metrics"]["mse/output_shorter"]["error"]
    truth = truth_of(tensors, torch.float32)
    with pytest.raises(ValueError, match="generated frames for"):
        released_scores(pixels, truth[:-1], truth)


def test_identical_frames_are_100_db(tensors: dict[str, Tensor], golden: dict[str, Any]) -> None:
    truth = truth_of(tensors, torch.float32)
    found = released_scores(pixels, truth, truth)
    assert (found.psnr, found.ssim) == (golden["metrics"]["identical"]["psnr"], golden["metrics"]["identical"]["ssim"])
    some = torch.cat([truth[:2], frames(tensors["metrics/output01"])[2:]])
    assert released_scores(pixels, some, truth).psnr == golden["metrics"]["some_frames_identical"]["psnr"]


def test_lpips_alexnet_with_formula_weights(tensors: dict[str, Tensor], golden: dict[str, Any]) -> None:
    net = alexnet()
    with torch.no_grad():
        for i, parameter in enumerate(net.features.parameters()):
            fan_in, scale = (parameter[0].numel(), 1.0) if parameter.ndim > 1 else (16, 0.1)
            angle = 0.7310585 * torch.arange(parameter.numel()).double() + 1.3 * i
            parameter.copy_((angle.sin() * (2 / fan_in) ** 0.5 * scale).view_as(parameter))
    backbone = AlexNetLPIPS(net.state_dict(), lpips_heads(), "cpu")
    count = torch.arange(2 * 3 * 64 * 64).double()
    one, two = (x.float().view(2, 3, 64, 64) for x in ((0.0137 * count).sin(), (0.0141 * count + 0.5).sin()))

    def layers(frames: Tensor) -> Layers:
        return backbone.layers(frames.permute(0, 3, 1, 2) / 127.5 - 1)

    found = pairwise(layers, frames((one + 1) / 2), frames((two + 1) / 2), (64, 64)).diagonal()
    expected = golden["lpips_alex_formula"]["mean"]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, tensors["lpips_alex_formula/spatial"].mean((1, 2, 3)), atol=1e-5, rtol=0)
