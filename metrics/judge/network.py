"""The judge: a small network that reads frames of the mini world.

It shares nothing with the generator, neither weights nor training data nor its VAE, and it may refuse: every slot has
a reject class for a walker, hat, sky or ground that is not there or not readable.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from magbench.data.mini_world import COLOURS, GROUNDS, HATS, SHAPES, SIZE, SKIES

SLOTS: dict[str, tuple[str, ...]] = {
    "sky": SKIES,
    "ground": GROUNDS,
    "body": COLOURS,
    "hat_colour": COLOURS,
    "hat_shape": HATS,
}
REJECT = -1
CELL = 8
"""Width in pixels of the columns in which landmarks are read: one latent cell."""
COLUMNS = SIZE // CELL
WALKER_SLOTS = ("body", "hat_colour", "hat_shape")

Frames = Tensor | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """What the judge reads in N frames.

    Args:
        sky: Index into SKIES or REJECT, int64 [N]; likewise `ground`, `body`, `hat_colour`, `hat_shape`.
        ground: Index into GROUNDS.
        body: Index into COLOURS.
        hat_colour: Index into COLOURS.
        hat_shape: Index into HATS.
        probabilities: Per slot float32 [N, classes + 1], the last column being the reject class.
        presence: Probability that a readable landmark has its centre in a column of 8 pixels, float32 [N, 8].
        colour: Most probable landmark colour per column, index into COLOURS, int64 [N, 8].
        shape: Most probable landmark shape per column, index into SHAPES, int64 [N, 8].
    """

    sky: Tensor
    ground: Tensor
    body: Tensor
    hat_colour: Tensor
    hat_shape: Tensor
    probabilities: dict[str, Tensor]
    presence: Tensor
    colour: Tensor
    shape: Tensor

    def landmarks(self, frame: int, threshold: float = 0.5) -> list[tuple[int, int, int]]:
        """Landmarks of one frame as (column, colour, shape): columns above `threshold` and above both neighbours."""
        row = F.pad(self.presence[frame], (1, 1))
        peaks = (row[1:-1] >= threshold) & (row[1:-1] >= row[:-2]) & (row[1:-1] > row[2:])
        return [(c, int(self.colour[frame, c]), int(self.shape[frame, c])) for c in peaks.nonzero()[:, 0].tolist()]


class _Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, 4, 2, 1)
        self.norm = nn.GroupNorm(8, outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        out: Tensor = F.relu(x + self.conv(F.relu(self.norm(x))))
        return out


class Judge(nn.Module):
    """Three convolution stages; one attention-pooled head per slot, one column head for landmarks.

    Args:
        widths: Channels at 1/2, 1/4 and 1/8 resolution.
    """

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 80)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_Stage(i, o) for i, o in zip((3, *widths[:2]), widths, strict=True))
        width = widths[2]
        self.look = nn.Conv2d(width, len(SLOTS), 1)
        self.heads = nn.ModuleDict({slot: nn.Linear(width, len(words) + 1) for slot, words in SLOTS.items()})
        self.columns = nn.Sequential(
            nn.Conv2d(width, 128, (COLUMNS, 3), padding=(0, 1)),
            nn.ReLU(),
            nn.Conv2d(128, 1 + len(COLOURS) + len(SHAPES), 1),
        )

    def features(self, frames: Frames) -> list[Tensor]:
        """Feature maps of uint8 frames [N, 64, 64, 3] at 1/2, 1/4 and 1/8 resolution, each [N, C, H, W]."""
        device = self.look.weight.device
        x = torch.as_tensor(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, frames: Frames) -> tuple[dict[str, Tensor], Tensor]:
        """Logits per slot [N, classes + 1], and per column [N, 1 + colours + shapes, 8] with presence first."""
        deep = self.features(frames)[-1]
        pooled = self._pool(deep)
        slots = {slot: head(pooled[:, i]) for i, (slot, head) in enumerate(self.heads.items())}
        return slots, self.columns(deep).squeeze(2)

    @torch.inference_mode()
    def read(self, frames: Frames, batch: int = 128) -> Reading:
        """Read uint8 frames [N, 64, 64, 3]."""
        parts = [self(part) for part in torch.split(torch.as_tensor(frames), batch)]
        probabilities = {slot: torch.cat([slots[slot] for slots, _ in parts]).float().softmax(-1) for slot in SLOTS}
        columns = torch.cat([column for _, column in parts]).float()
        chosen = {slot: _choose(values) for slot, values in probabilities.items()}
        return Reading(
            **chosen,
            probabilities=probabilities,
            presence=columns[:, 0].sigmoid(),
            colour=columns[:, 1 : 1 + len(COLOURS)].argmax(1),
            shape=columns[:, 1 + len(COLOURS) :].argmax(1),
        )

    @torch.inference_mode()
    def embed(self, frames: Frames, batch: int = 128) -> Tensor:
        """Identity embedding of the walker, wherever it stands: unit vectors, float32 [N, 240]."""
        index = [list(SLOTS).index(slot) for slot in WALKER_SLOTS]
        parts = [self._pool(self.features(part)[-1])[:, index] for part in torch.split(torch.as_tensor(frames), batch)]
        return F.normalize(torch.cat(parts).flatten(1).float(), dim=-1)

    def _pool(self, deep: Tensor) -> Tensor:
        """Each slot's own weighted mean over the 8x8 cells: [N, slots, C]."""
        weights = self.look(deep).flatten(2).softmax(-1)
        pooled: Tensor = weights @ deep.flatten(2).transpose(1, 2)
        return pooled


def _choose(probabilities: Tensor) -> Tensor:
    """Index of the most probable class, REJECT for the last one."""
    best = probabilities.argmax(-1)
    return torch.where(best == probabilities.shape[-1] - 1, REJECT, best)
