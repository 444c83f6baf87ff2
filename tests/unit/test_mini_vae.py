"""The shipped VAE reconstructs frames of worlds it never saw."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from magbench.runners.mini.clips import HELD_OUT_SEEDS, render_frames
from magbench.runners.mini.model import load_mini
from magbench.runners.mini.vae import MiniVAE


@pytest.fixture(scope="module")
def vae() -> MiniVAE:
    return load_mini().vae


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_frames(HELD_OUT_SEEDS[:12], 3)


def test_round_trip_of_unseen_worlds_is_sharp(vae: MiniVAE, frames: np.ndarray) -> None:
    decoded = vae.decode(vae.encode(frames))
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    assert peak_signal_noise_ratio(frames, decoded) > 33


def test_latents_have_unit_scale_per_channel(vae: MiniVAE) -> None:
    latents = vae.encode(render_frames(HELD_OUT_SEEDS[20:60], 2))
    assert latents.shape == (80, 16, 8, 8)
    assert latents.mean((0, 2, 3)).abs().max() < 0.25
    assert 0.8 < latents.std((0, 2, 3)).min() <= latents.std((0, 2, 3)).max() < 1.2


def test_frames_are_encoded_and_decoded_one_by_one(vae: MiniVAE, frames: np.ndarray) -> None:
    whole = vae.encode(frames[:5])
    alone = torch.cat([vae.encode(frames[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-4)
    pixels = np.concatenate([vae.decode(whole[i : i + 1]) for i in range(5)])
    assert np.abs(pixels.astype(int) - vae.decode(whole).astype(int)).max() <= 1


def test_calibration_gives_unit_scale_to_any_encoder() -> None:
    torch.manual_seed(0)
    fresh = MiniVAE().eval()
    frames = torch.from_numpy(render_frames(HELD_OUT_SEEDS[60:70], 4))
    fresh.calibrate(frames)
    latents = fresh.encode(frames)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(16), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(16), rtol=1e-3, atol=0)
