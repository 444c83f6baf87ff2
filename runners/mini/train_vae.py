"""The VAE stage of the recipe."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from magbench.runners.mini.clips import HELD_OUT_SEEDS, VAE_SEEDS, render_frames
from magbench.runners.mini.training import Schedule, step_seed, train
from magbench.runners.mini.vae import MiniVAE

log = logging.getLogger(__name__)

BATCH = 32


def train_vae(
    folder: Path, steps: int, worlds: int, seed: int, device: torch.device, stop_after: int | None = None
) -> MiniVAE:
    """Train (or continue) the VAE in `folder` and return it with averaged weights and calibrated latents."""
    torch.manual_seed(seed)
    vae = MiniVAE()
    vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    frames = torch.from_numpy(render_frames(VAE_SEEDS[:worlds], 20))

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step_seed(seed, step))
        batch = frames[torch.randint(len(frames), (BATCH,), generator=generator)]
        noise = torch.randn(BATCH, 16, 8, 8, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            return vae.training_loss(batch, noise)

    vae.load_state_dict(train(vae, loss, Schedule(steps, warmup=100, seed=seed), folder, stop_after=stop_after))
    vae.eval()
    vae.calibrate(frames[:: max(1, len(frames) // 2048)])
    log.info("VAE: held-out PSNR %.2f dB", held_out_psnr(vae))
    return vae


def held_out_psnr(vae: MiniVAE, worlds: int = 32) -> float:
    """PSNR in dB of the round trip over frames of held-out worlds (mean squared error pooled over all frames)."""
    frames = render_frames(HELD_OUT_SEEDS[:worlds], 8)
    error = (frames.astype("float64") - vae.decode(vae.encode(frames))) ** 2
    return float(10 * torch.tensor(255.0**2 / error.mean()).log10())
