"""The memory stage of the recipe: a copy of the generator learns to write a chunk into one frame's keys and values.

Source: MAG (Xilluill/MAG), stage 1, mask `history_compress`: the network denoises each chunk while it sees, of the
clean frames, only the third of every chunk up to and including this one, always with the empty prompt. The release
weighs the error by the squared noise level; here it is the flow loss that trained the generator.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from magbench.runners.mini.clips import HELD_OUT_SEEDS, training_world
from magbench.runners.mini.model import MiniModel
from magbench.runners.mini.teacher_forcing import by_frame, chunkwise, flow_loss
from magbench.runners.mini.training import Schedule, step_seed, train
from magbench.runners.wan.configs import CHUNK_FRAMES
from magbench.runners.wan.rope import Rope, rotate
from magbench.runners.wan.sampler import NoiseSource, Sampler, seeded_noise
from magbench.runners.wan.transformer import CausalWanTransformer, TextCache, attention

LENGTHS = ((48, 4), (84, 2))
"""Frames of a clip, clips of a batch."""
DENOISED = 16
"""Chunks of a clip that one step denoises."""
_FIRST = 24
"""First frame of a held-out clip: most cameras move by then."""


def third_frames(frames: Tensor, chunk: int) -> Tensor:
    """A cache of the third frame of each chunk: [B, F, ...] -> [B, chunk, ...]."""
    return frames[:, CHUNK_FRAMES - 1 : chunk * CHUNK_FRAMES : CHUNK_FRAMES]


def train_memory(
    model: MiniModel,
    latents: Tensor,
    folder: Path,
    steps: int,
    seed: int,
    device: torch.device,
    *,
    stop_after: int | None = None,
) -> CausalWanTransformer:
    """Train (or continue) the memory network in `folder` on encoded clips; returns it with averaged weights.

    It starts as the model's transformer, and only `blocks.*` are trained.
    """
    memory = deepcopy(model.transformer)
    memory.blocks.requires_grad_(True)
    rope = Rope(memory.config.head_dim, 4, 4)

    def loss(step: int) -> Tensor:
        dice = torch.Generator().manual_seed(step_seed(seed, step))
        length, size = LENGTHS[int(torch.randint(len(LENGTHS), (), generator=dice))]
        clips = torch.randint(len(latents), (size, 1), generator=dice)
        first = torch.randint(latents.shape[1] - length + 1, (size, 1), generator=dice)
        clean = latents[clips, first + torch.arange(length)].float().to(device)
        chunks = torch.randperm(length // CHUNK_FRAMES, generator=dice)[:DENOISED].sort()[0].tolist()
        rows = torch.zeros(size, 0, memory.config.text_dim, device=device)
        return flow_loss(memory, rope, clean, rows, range(length), chunks, dice, cached=third_frames, rebuild=True)

    schedule = Schedule(steps, rate=5e-4, warmup=50, average=0.99, seed=seed)
    memory.load_state_dict(train(memory, loss, schedule, folder, stop_after=stop_after))
    return memory.eval()


@dataclass(frozen=True)
class Network:
    """A transformer and the text it sees."""

    transformer: CausalWanTransformer
    text: TextCache


@torch.inference_mode()
def rebuild(writer: Network, reader: Network, sampler: Sampler, clean: Tensor, noise: NoiseSource) -> Tensor:
    """Denoise the last chunk of `clean` while seeing the third frames of all its chunks.

    Args:
        writer: Writes their keys and values, each chunk seeing the third frames before it.
        reader: Denoises.
        sampler: The reader's.
        clean: Normalised latents [B, F, 16, 8, 8], F a multiple of CHUNK_FRAMES.
        noise: The sampler's.

    Returns:
        Normalised latents [B, CHUNK_FRAMES, 16, 8, 8].
    """
    batch, frames = clean.shape[:2]
    rope = Rope(reader.transformer.config.head_dim, 4, 4)
    table = rope.grid(tuple(range(frames)), clean.device)
    cache: list[tuple[Tensor, Tensor]] = []

    def write(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (by_frame(x, rope) for x in (rotate(q, table), rotate(k, table), v))
        chunks = frames // CHUNK_FRAMES
        cache.append((third_frames(k, chunks).flatten(1, 2), third_frames(v, chunks).flatten(1, 2)))
        return chunkwise(q, k, v, range(chunks), third_frames)

    def read(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        own, (keys, values) = table[-q.shape[1] :], cache[layer]
        return attention(rotate(q, own), torch.cat([keys, rotate(k, own)], 1), torch.cat([values, v], 1))

    writer.transformer(clean, clean.new_zeros(batch, frames), writer.text, write)
    latents = noise(0, 0)
    for index, timestep in enumerate(sampler.timesteps):
        flow = reader.transformer(latents, latents.new_full((batch, CHUNK_FRAMES), timestep), reader.text, read)
        latents = sampler.step(index, latents, flow, partial(noise, 0, index + 1))
    return latents


def rebuilt_psnr(model: MiniModel, memory: CausalWanTransformer, chunks: int, worlds: int = 64) -> dict[str, float]:
    """PSNR in dB of the last of `chunks` chunks of held-out worlds, rebuilt from third frames (error pooled over all).

    Returns:
        By `<writer> to <reader>`, and `held`: the third frame three times, through the VAE.
    """
    unseen = [training_world(seed) for seed in HELD_OUT_SEEDS[:worlds]]
    clips = [world.clip(range(_FIRST, _FIRST + CHUNK_FRAMES * chunks)) for world in unseen]
    truth = np.stack([clip[-CHUNK_FRAMES:] for clip in clips]).astype(np.float64)
    clean = torch.stack([model.encode(clip) for clip in clips])
    noise = seeded_noise(range(worlds), (CHUNK_FRAMES, *clean.shape[2:]), clean.dtype, clean.device)
    generator = Network(model.transformer, model.text([world.scene.sentence() for world in unseen]))
    network = Network(memory, memory.encode_text(model.rows([""] * worlds)))
    rebuilt = {
        "generator to generator": rebuild(generator, generator, model.sampler, clean, noise),
        "memory to generator": rebuild(network, generator, model.sampler, clean, noise),
        "memory to memory": rebuild(network, network, model.sampler, clean, noise),
        "held": clean[:, -1:].expand(-1, CHUNK_FRAMES, -1, -1, -1),
    }
    errors = {name: (truth - model.decode(x.flatten(0, 1)).reshape(truth.shape)) ** 2 for name, x in rebuilt.items()}
    return {name: float(10 * np.log10(255**2 / error.mean())) for name, error in errors.items()}
