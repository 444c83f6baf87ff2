"""The small convolutional VAE of `mini`: 64x64 RGB frames to 8x8 latents of 16 channels, frame by frame.

Latents are shifted and scaled to zero mean and unit variance per channel with statistics stored beside the weights,
so that the transformer sees the scale its noise schedule assumes. One latent is one frame: streaming needs no state.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 16
SPATIAL_FACTOR = 8
TRAINING_NOISE = 0.1
"""Standard deviation of the (fixed) posterior during training, in units of the encoder's output."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.silu(self.first(F.silu(self.norm(x)))))
        return out


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1))


class MiniVAE(nn.Module):
    """Encoder and decoder with a fixed-variance Gaussian posterior.

    Args:
        widths: Channels at 1/2, 1/4 and 1/8 resolution.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        low, mid, high = widths
        self.encoder = nn.Sequential(
            nn.Conv2d(3, low, 4, 2, 1),
            _Residual(low),
            nn.Conv2d(low, mid, 4, 2, 1),
            _Residual(mid),
            nn.Conv2d(mid, high, 4, 2, 1),
            _Residual(high),
            nn.Conv2d(high, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, high, 3, padding=1),
            _Residual(high),
            _Residual(high),
            _up(high, mid),
            _Residual(mid),
            _up(mid, low),
            _Residual(low),
            _up(low, low),
            nn.SiLU(),
            nn.Conv2d(low, 3, 3, padding=1),
        )
        self.register_buffer("shift", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("scale", torch.ones(LATENT_CHANNELS))

    def encode_mean(self, images: Tensor) -> Tensor:
        """Images [N, 3, 64, 64] in [-1, 1] to raw posterior means [N, 16, 8, 8], bounded by 3."""
        return 3 * torch.tanh(self.encoder(images) / 3)

    @torch.inference_mode()
    def encode(self, frames: Tensor | npt.NDArray[np.uint8], batch: int = 64) -> Tensor:
        """Frames uint8 [T, 64, 64, 3] to normalised latents float32 [T, 16, 8, 8]."""
        latents = [self.encode_mean(self._images(part)).float() for part in torch.split(torch.as_tensor(frames), batch)]
        return (torch.cat(latents) - self.shift[:, None, None]) / self.scale[:, None, None]

    @torch.inference_mode()
    def decode(self, latents: Tensor, batch: int = 64) -> npt.NDArray[np.uint8]:
        """Normalised latents [T, 16, 8, 8] to frames uint8 [T, 64, 64, 3]."""
        raw = latents.to(self.shift) * self.scale[:, None, None] + self.shift[:, None, None]
        images = torch.cat([self.decoder(part) for part in torch.split(raw, batch)]).float()
        frames = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        return np.asarray(frames.cpu().numpy())

    def training_loss(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Reconstruction loss of uint8 frames [N, 64, 64, 3] with posterior noise [N, 16, 8, 8] of unit variance.

        L1 + squared error + L1 of the image gradients (edges of small shapes), with a weak pull of the latents to 0.
        """
        images = self._images(frames)
        mean = self.encode_mean(images)
        out = self.decoder(mean + TRAINING_NOISE * noise.to(mean)).float()
        error = out - images
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        small = 0.002 * mean.float().square().mean()
        loss: Tensor = error.abs().mean() + error.square().mean() + 0.5 * edges + small
        return loss

    @torch.no_grad()
    def calibrate(self, frames: Tensor) -> None:
        """Set shift and scale from the latents of representative uint8 frames [N, 64, 64, 3]."""
        latents = torch.cat([self.encode_mean(self._images(part)).float() for part in torch.split(frames, 64)])
        self.shift.copy_(latents.mean((0, 2, 3)))
        self.scale.copy_(latents.std((0, 2, 3)))

    def _images(self, frames: Tensor) -> Tensor:
        images = frames.to(self.shift.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return images.contiguous(memory_format=torch.channels_last)
