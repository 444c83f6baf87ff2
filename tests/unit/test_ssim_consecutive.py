import numpy as np
import pytest
import torch
from pytorch_msssim import ssim as msssim_ssim
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from magbench.metrics.base import Scores
from magbench.metrics.ssim import ssim
from magbench.metrics.ssim_consecutive import SSIMConsecutive
from tests.unit.clips import Frames, numbers, pan, reason, run, texture


def _pair(height: int, width: int, damage: str) -> tuple[Frames, Frames]:
    first = texture(height, width)
    rng = np.random.default_rng(1)
    match damage:
        case "noise":
            second = np.clip(first + rng.normal(0, 15, first.shape), 0, 255)
        case "shift":
            second = np.roll(first, 2, axis=1)
        case _:
            second = np.full_like(first, 90)
    return first, second.astype(np.uint8)


@pytest.mark.parametrize("damage", ["noise", "shift", "flat"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (63, 101), (11, 11)])
def test_ssim_equals_two_independent_implementations(height: int, width: int, damage: str) -> None:
    first, second = _pair(height, width, damage)
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (first, second))
    _, image = structural_similarity_index_measure(
        a / 255, b / 255, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    assert ssim(first, second) == pytest.approx(image[..., 5:-5, 5:-5].mean().item(), abs=1e-5)
    assert ssim(first, second) == pytest.approx(msssim_ssim(a.float(), b.float(), data_range=255).item(), abs=1e-5)


@pytest.mark.parametrize("damage", ["noise", "shift", "flat"])
@pytest.mark.parametrize(("height", "width"), [(11, 75), (74, 11), (75, 139), (160, 202)])
def test_ssim_equals_scikit_image_in_double_precision_whatever_the_tiles(height: int, width: int, damage: str) -> None:
    first, second = _pair(height, width, damage)
    expected = structural_similarity(
        first / 255, second / 255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2,
    )  # fmt: skip
    assert ssim(first, second) == pytest.approx(expected, abs=1e-5)


def test_bright_flat_pictures_do_not_cancel() -> None:
    first = np.full((64, 77, 3), 250, np.uint8)
    second = np.clip(first + np.random.default_rng(0).normal(0, 3, first.shape), 0, 255).astype(np.uint8)
    expected = structural_similarity(
        first / 255, second / 255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2,
    )  # fmt: skip
    assert ssim(first, second) == pytest.approx(expected, abs=1e-5)


def test_identical_frames_are_exactly_one() -> None:
    assert ssim(texture(), texture()) == 1.0


def test_the_series_is_ssim_of_frames_an_eighth_of_a_second_apart() -> None:
    clip = pan(20, step=2)
    answer = run(SSIMConsecutive(), clip, fps=16)
    assert isinstance(answer, Scores)
    (series,) = answer.series
    assert series.times == pytest.approx([index / 16 for index in range(2, 20)])
    assert series.values == pytest.approx([ssim(clip[index - 2], clip[index]) for index in range(2, 20)])
    assert numbers(answer)["median"] == pytest.approx(np.median(series.values))


def test_the_level_of_a_pan_does_not_depend_on_the_frame_rate() -> None:
    at_8, at_16 = (numbers(run(SSIMConsecutive(), pan(20, step), fps=fps)) for step, fps in ((2, 8), (1, 16)))
    assert at_8["median"] == pytest.approx(at_16["median"], abs=0.01)


def test_a_held_frame_is_perfect_and_reversal_changes_nothing() -> None:
    held = run(SSIMConsecutive(), np.repeat(texture()[None], 20, 0))
    assert numbers(held)["median"] == 1.0
    assert "stands still" in reason(held, "spike_rate")
    clip = pan(20)
    forth, back = numbers(run(SSIMConsecutive(), clip)), numbers(run(SSIMConsecutive(), clip[::-1]))
    assert forth["median"] == pytest.approx(back["median"])


def test_shuffling_and_an_exposure_step_lower_what_they_should() -> None:
    clip = pan(60)
    stepped = clip.copy()
    stepped[30:] //= 2
    shuffled = clip[np.random.default_rng(0).permutation(60)]
    plain = numbers(run(SSIMConsecutive(), clip))
    assert numbers(run(SSIMConsecutive(), shuffled))["median"] < plain["median"] - 0.1
    assert plain["spike_rate"] == 0
    assert numbers(run(SSIMConsecutive(), stepped))["spike_rate"] == pytest.approx(1 / 59)


def test_small_frames_and_single_frames_are_not_applicable() -> None:
    assert "smaller than the window" in reason(run(SSIMConsecutive(), pan(5, height=10)))
    assert reason(run(SSIMConsecutive(), pan(1))) == "one frame: nothing to compare"
