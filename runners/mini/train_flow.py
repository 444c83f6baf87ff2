"""The transformer stage of the recipe: flow matching with teacher forcing on encoded clips."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from magbench.data.mini_world import World
from magbench.runners.mini.batches import draw_batch
from magbench.runners.mini.teacher_forcing import flow_loss
from magbench.runners.mini.text import MiniText, token_ids
from magbench.runners.mini.training import Schedule, step_seed, train
from magbench.runners.wan.configs import CONFIGS
from magbench.runners.wan.rope import Rope
from magbench.runners.wan.transformer import CausalWanTransformer


class MiniGenerator(nn.Module):
    """Transformer and text table, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = CausalWanTransformer(CONFIGS["mini"])
        self.text = MiniText(CONFIGS["mini"].text_dim)


def train_flow(
    latents: Tensor,
    worlds: Sequence[World],
    folder: Path,
    steps: int,
    seed: int,
    device: torch.device,
    *,
    stop_after: int | None = None,
    exported: Callable[[dict[str, Tensor], int], None] | None = None,
) -> MiniGenerator:
    """Train (or continue) the transformer in `folder` on encoded clips of worlds; returns it with averaged weights."""
    torch.manual_seed(seed)
    generator = MiniGenerator()
    generator.transformer.init_weights()
    generator.to(device)
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
