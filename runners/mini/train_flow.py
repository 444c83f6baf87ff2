"""The transformer stage of the recipe: flow matching with teacher forcing on encoded clips."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from magbench.data.mini_world import World
from magbench.errors import ConfigError
from magbench.runners.mini.batches import TRAINED_SPAN, draw_batch
from magbench.runners.mini.clips import GENERATOR_SEEDS, encode_clips, training_world
from magbench.runners.mini.teacher_forcing import flow_loss
from magbench.runners.mini.text import MiniText, token_ids
from magbench.runners.mini.training import Schedule, step_seed, train
from magbench.runners.mini.vae import MiniVAE
from magbench.runners.wan.configs import CONFIGS
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.transformer import CausalWanTransformer

log = logging.getLogger(__name__)


class MiniGenerator(nn.Module):
    """Transformer and text table, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = CausalWanTransformer(CONFIGS["mini"])
        self.text = MiniText(CONFIGS["mini"].text_dim)


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
    latents, worlds = _clips(vae, folder / "clips.safetensors", clips)
    ids = torch.tensor([token_ids(world.scene) for world in worlds])
    turns = torch.tensor([-1 if world.path.turn_frame is None else world.path.turn_frame for world in worlds])
    rope = Rope(generator.transformer.config.head_dim, 4, 4)

    def loss(step: int) -> Tensor:
        dice = torch.Generator().manual_seed(step_seed(seed, step))
        batch = draw_batch(turns, step, dice)
        clean = latents[batch.clips[:, None], batch.frames].float().to(device)
        with torch.autocast(device.type, torch.bfloat16):
            rows = generator.text(ids[batch.clips].to(device))
            return flow_loss(generator.transformer, rope, clean, rows, batch.shown, batch.chunks, dice, batch.layout)

    schedule = Schedule(steps, constant=0.6, seed=seed)
    matrices = [weight for weight in generator.transformer.blocks.parameters() if weight.ndim == 2]
    average = train(generator, loss, schedule, folder, matrices=matrices, stop_after=stop_after, exported=exported)
    generator.load_state_dict(average)
    return generator.eval()


def _clips(vae: MiniVAE, file: Path, count: int) -> tuple[Tensor, list[World]]:
    """Encoded clips with their worlds; the latents are kept in `file`, so that continuing does not encode again."""
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
