"""Training data of `mini`: worlds rendered from seeds that no suite uses."""

import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from magbench.data.mini_world import QUICK, CameraPath, Scene, World
from magbench.errors import ConfigError
from magbench.runners.mini.batches import TRAINED_SPAN
from magbench.runners.mini.vae import MiniVAE

log = logging.getLogger(__name__)

VAE_SEEDS = range(100_000, 200_000)
GENERATOR_SEEDS = range(200_000, 300_000)
HELD_OUT_SEEDS = range(500_000, 510_000)
"""For the numbers in the model card. Suites use seeds from 1,000,000."""


def training_world(seed: int) -> World:
    """The world of a training seed: a random sentence, and for `comes back` often a random path with rests.

    Half of the sentences say `comes back`: only those ask for memory.
    """
    dice = random.Random(f"magbench mini training {seed}")
    scene = Scene.draw(dice)
    if dice.random() < 0.3:
        scene = replace(scene, camera=f"pans {'left' if dice.random() < 0.5 else 'right'} and comes back")
    if "comes back" not in scene.camera or dice.random() < 0.4:
        return World(scene, seed)
    sign = 1 if "right" in scene.camera else -1

    def below(limit: int) -> int:
        return int(dice.random() * limit)

    path = CameraPath(sign * QUICK, below(25), 8 + below(13), below(13), 6 + below(15), 2 * below(28))
    return World(scene, seed, path)


def render_frames(seeds: range, frames: int) -> npt.NDArray[np.uint8]:
    """`frames` random frames from each of the worlds: uint8 [len(seeds) * frames, 64, 64, 3]."""
    out = []
    for seed in seeds:
        dice = random.Random(f"magbench mini frames {seed}")
        out.append(training_world(seed).clip([int(dice.random() * 200) for _ in range(frames)]))
    return np.concatenate(out)


@torch.inference_mode()
def encode_clips(vae: MiniVAE, seeds: range, frames: int) -> Tensor:
    """The first `frames` frames of each world as normalised latents: float16 [N, frames, 16, 8, 8]."""
    device = vae.shift.device
    latents = torch.empty(len(seeds), frames, 16, 8, 8, dtype=torch.float16)
    for i, seed in enumerate(seeds):
        with torch.autocast(device.type, torch.bfloat16):
            latents[i] = vae.encode(training_world(seed).clip(frames))
    return latents


def training_clips(vae: MiniVAE, file: Path, count: int) -> tuple[Tensor, list[World]]:
    """Encoded clips float16 [count, TRAINED_SPAN, 16, 8, 8] with their worlds; encoded once and kept in `file`.

    Raises:
        ConfigError: `file` holds another number of clips.
    """
    seeds = GENERATOR_SEEDS[:count]
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        latents = encode_clips(vae, seeds, TRAINED_SPAN)
        log.info("encoded %d clips, standard deviation %.3f", count, latents[::16].float().std())
        save_file({"latents": latents}, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    latents = load_file(file)["latents"]
    if len(latents) != count:
        raise ConfigError(f"{file} holds {len(latents)} clips, not {count}", "use a fresh --out folder")
    return latents, [training_world(seed) for seed in seeds]
