"""From noise to a clean chunk: the noise schedule and the two samplers.

A sampler belongs to a model: distilled checkpoints take a few big steps with fresh noise in between, `mini` follows the
flow's ODE in small ones.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from magbench.errors import ConfigError

NoiseSource = Callable[[int, int], Tensor]
"""(chunk, step) -> noise [B, F, C, H, W]: step 0 starts the chunk, step i > 0 is added on the way to the i-th pass."""


@dataclass(frozen=True)
class Schedule:
    """Wan's 1000 noise levels: sigma = s*u / (1 + (s-1)*u) for u = 1, 0.999, ..., 0.001; timestep = 1000 * sigma."""

    shift: float

    @cached_property
    def sigmas(self) -> Tensor:
        """Noise levels, fp32 [1000], falling from 1."""
        u = torch.linspace(1, 0, 1001)[:-1]
        return self.shift * u / (1 + (self.shift - 1) * u)

    @cached_property
    def timesteps(self) -> Tensor:
        """Timesteps, fp32 [1000]."""
        return self.sigmas * 1000

    def sigma(self, timestep: float) -> float:
        """Noise level of the nearest timestep of the table, the first one on a tie."""
        return float(self.sigmas[(self.timesteps - timestep).abs().argmin()])

    def warp(self, step: int) -> float:
        """Timestep of a nominal step in 0..1000 of the unshifted schedule; 0 stays 0."""
        return float(self.timesteps[1000 - step]) if step else 0.0


def denoise(noisy: Tensor, flow: Tensor, sigma: float) -> Tensor:
    """The clean latents a flow points to, x0 = x - sigma * flow: fp32 inside, dtype of `flow`."""
    return (noisy.float() - sigma * flow.float()).to(flow.dtype)


def renoise(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Latents at noise level `sigma`, (1 - sigma) * x0 + sigma * noise: fp32 inside, dtype of `noise`."""
    return ((1 - sigma) * clean.float() + sigma * noise.float()).to(noise.dtype)


class Sampler(ABC):
    """The noisy passes of a chunk."""

    timesteps: Sequence[float]
    """Timestep of each noisy pass, in 0..1000."""

    @abstractmethod
    def clean(self, index: int, noisy: Tensor, flow: Tensor) -> Tensor:
        """The clean latents that pass `index` points to, given its input and output [B, F, C, H, W]."""

    @abstractmethod
    def step(self, index: int, noisy: Tensor, flow: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        """Latents for pass `index` + 1, or the clean latents after the last pass.

        Args:
            index: The pass that just ran.
            noisy: Its input [B, F, C, H, W].
            flow: Its output, same shape.
            fresh: Draws the noise to add before the next pass.
        """


@dataclass(frozen=True)
class FewStepSampler(Sampler):
    """Predict x0, add fresh noise, repeat: the sampler of the distilled checkpoints (Self-Forcing, LongLive, MemRoPE).

    `steps` are nominal steps in 1..1000, warped by `shift`, or timesteps as they are where not `warp` (CausVid).
    """

    steps: tuple[int, ...] = (1000, 750, 500, 250)
    shift: float = 5.0
    warp: bool = True

    @cached_property
    def timesteps(self) -> tuple[float, ...]:  # type: ignore[override]
        """Timestep of each noisy pass."""
        return tuple(Schedule(self.shift).warp(step) if self.warp else float(step) for step in self.steps)

    def clean(self, index: int, noisy: Tensor, flow: Tensor) -> Tensor:
        """See `Sampler.clean`."""
        return denoise(noisy, flow, self._sigmas[index])

    def step(self, index: int, noisy: Tensor, flow: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        """See `Sampler.step`."""
        clean = self.clean(index, noisy, flow)
        return clean if index + 1 == len(self.steps) else renoise(clean, fresh(), self._sigmas[index + 1])

    @cached_property
    def _sigmas(self) -> tuple[float, ...]:
        schedule = Schedule(self.shift)
        return tuple(schedule.sigma(timestep) for timestep in self.timesteps)


@dataclass(frozen=True)
class OdeSampler(Sampler):
    """Euler steps along the flow: x += (sigma' - sigma) * flow, over `steps` + 1 levels shifted by `shift`.

    Raises:
        ConfigError: Fewer than one step, or a shift that is not positive.
    """

    steps: int = 10
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.shift > 0:
            raise ConfigError(f"an ODE sampler needs steps >= 1 and shift > 0, not {self.steps} and {self.shift}.")

    @cached_property
    def timesteps(self) -> tuple[float, ...]:  # type: ignore[override]
        """Timestep of each noisy pass."""
        return tuple(1000 * sigma for sigma in self._sigmas[:-1])

    def clean(self, index: int, noisy: Tensor, flow: Tensor) -> Tensor:
        """See `Sampler.clean`."""
        return denoise(noisy, flow, self._sigmas[index])

    def step(self, index: int, noisy: Tensor, flow: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
        """See `Sampler.step`; draws no noise."""
        return (noisy.float() + (self._sigmas[index + 1] - self._sigmas[index]) * flow.float()).to(flow.dtype)

    @cached_property
    def _sigmas(self) -> tuple[float, ...]:
        levels = (1 - index / self.steps for index in range(self.steps + 1))
        return tuple(self.shift * u / (1 + (self.shift - 1) * u) for u in levels)


def seeded_noise(
    seeds: Sequence[int], shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> NoiseSource:
    """Noise that depends on (seed, chunk, step) only: not on the batch, the method, the length or the device.

    Args:
        seeds: One per sample of the batch.
        shape: Of one sample's chunk, (F, C, H, W).
        dtype: What is returned; draws are fp32 on the CPU.
        device: Where it is returned.
    """

    def draw(chunk: int, step: int) -> Tensor:
        rows = []
        for seed in seeds:
            digest = hashlib.blake2b(f"{seed}/{chunk}/{step}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
            rows.append(torch.randn(shape, generator=generator))
        return torch.stack(rows).to(device, dtype)

    return draw
