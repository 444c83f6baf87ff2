"""The transformer stage of the recipe: flow matching with teacher forcing on encoded clips.

Three kinds of batches, so that every cache of a rollout is something training has shown: short clips from text alone
(the first chunks); windows of 21 or 24 frames, contiguous, or sink + recent shown at contiguous indices, or sink +
recent at their own indices; and long clips up to the trained span, mostly of cameras that return to where they were.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from magbench.data.mini_world import Scene
from magbench.errors import ConfigError
from magbench.runners.mini.clips import GENERATOR_SEEDS, encode_clips, training_world
from magbench.runners.mini.teacher_forcing import flow_loss
from magbench.runners.mini.text import MiniText, token_ids
from magbench.runners.mini.training import Schedule, step_seed, train
from magbench.runners.mini.vae import MiniVAE
from magbench.runners.wan.configs import CHUNK_FRAMES, CONFIGS
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.transformer import CausalWanTransformer

log = logging.getLogger(__name__)

TRAINED_SPAN = 129
"""Latent frames of the longest clip: a `full` cache is in distribution up to here."""
SINK = 3
LAYOUT_FROM = 1300
"""Step from which training leans on high noise and on first chunks: with only relative positions, what is up and what
is down in a frame of pure noise is the last thing the transformer learns."""
_STARTS, _START_CLIPS = 0.2, 160
_SHORT, _WINDOW = 0.4, 0.4
_RETURNING = 0.7
_LONG_CHUNKS = 16


class MiniGenerator(nn.Module):
    """Transformer and text table, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = CausalWanTransformer(CONFIGS["mini"])
        self.text = MiniText(CONFIGS["mini"].text_dim)


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Args:
        clips: Indices of the clips, [B].
        frames: Which of their frames, [B, F].
        shown: The time index at which each frame is shown.
        chunks: Indices of the chunks to denoise.
        layout: Share of the noise levels drawn where the layout is decided.
    """

    clips: Tensor
    frames: Tensor
    shown: tuple[int, ...]
    chunks: list[int]
    layout: float = 0.0


def draw_batch(returning: Tensor, step: int, generator: torch.Generator) -> Batch:
    """Draw one batch; `returning` bool [N] marks the clips whose camera comes back."""
    if step < LAYOUT_FROM:
        return _draw_clips(returning, generator)
    if float(torch.rand((), generator=generator)) < _STARTS:
        clips = torch.randint(len(returning), (_START_CLIPS,), generator=generator)
        first = torch.randint(TRAINED_SPAN - CHUNK_FRAMES + 1, (_START_CLIPS, 1), generator=generator)
        return Batch(clips, first + torch.arange(CHUNK_FRAMES), tuple(range(CHUNK_FRAMES)), [0], layout=0.5)
    return replace(_draw_clips(returning, generator), layout=0.25)


def _draw_clips(returning: Tensor, generator: torch.Generator) -> Batch:

    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    def window(length: int, size: int) -> Tensor:
        return below(TRAINED_SPAN - length + 1, size, 1) + torch.arange(length)

    count = len(returning)
    kind = float(torch.rand((), generator=generator))
    if kind < _SHORT:
        return Batch(below(count, 48), window(6, 48), tuple(range(6)), [0, 1])
    if kind < _SHORT + _WINDOW:
        length = 21 + CHUNK_FRAMES * int(below(2))
        clips, chunks, shown = below(count, 16), list(range(length // CHUNK_FRAMES)), tuple(range(length))
        mode, recent = int(below(3)), length - SINK
        if mode == 0:
            return Batch(clips, window(length, 16), shown, chunks)
        late = SINK + below(TRAINED_SPAN - recent - SINK + 1, 16 if mode == 1 else 1, 1) + torch.arange(recent)
        frames = torch.cat([torch.arange(SINK).expand(16, -1), late.expand(16, -1)], 1)
        return Batch(clips, frames, shown if mode == 1 else tuple(frames[0].tolist()), chunks)
    length, size = ((TRAINED_SPAN, 4), (84, 6), (48, 10))[int(below(3))]
    pool = returning.nonzero()[:, 0] if float(torch.rand((), generator=generator)) < _RETURNING else torch.arange(count)
    chunks = torch.randperm(length // CHUNK_FRAMES, generator=generator)[:_LONG_CHUNKS].sort().values.tolist()
    return Batch(pool[below(len(pool), size)], window(length, size), tuple(range(length)), chunks)


def train_flow(
    vae: MiniVAE,
    folder: Path,
    steps: int,
    clips: int,
    seed: int,
    device: torch.device,
    *,
    stop_after: int | None = None,
    exported: Callable[[dict[str, Tensor], int], None] | None = None,
) -> MiniGenerator:
    """Train (or continue) the transformer in `folder` and return it with averaged weights."""
    torch.manual_seed(seed)
    generator = MiniGenerator()
    generator.transformer.init_weights()
    generator.to(device)
    latents, scenes = _clips(vae, folder / "clips.safetensors", clips)
    ids = torch.tensor([token_ids(scene) for scene in scenes])
    returning = torch.tensor(["comes back" in scene.camera for scene in scenes])
    rope = Rope(generator.transformer.config.head_dim, 4, 4)

    def loss(step: int) -> Tensor:
        dice = torch.Generator().manual_seed(step_seed(seed, step))
        batch = draw_batch(returning, step, dice)
        clean = latents[batch.clips[:, None], batch.frames].float().to(device)
        with torch.autocast(device.type, torch.bfloat16):
            rows = generator.text(ids[batch.clips].to(device))
            return flow_loss(generator.transformer, rope, clean, rows, batch.shown, batch.chunks, dice, batch.layout)

    schedule = Schedule(steps, seed=seed)
    average = train(generator, loss, schedule, folder, stop_after=stop_after, exported=exported)
    generator.load_state_dict(average)
    return generator.eval()


def _clips(vae: MiniVAE, file: Path, count: int) -> tuple[Tensor, list[Scene]]:
    """Encoded clips with their scenes; the latents are kept in `file`, so that continuing does not encode again."""
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
    return latents, [training_world(seed).scene for seed in seeds]
