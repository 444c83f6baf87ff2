"""Frames with labels for the judge, and the damage it must read through or refuse."""

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from magbench.data.mini_world import BODY_SIZE, COLOUR_RGB, COLOURS, SHAPES, SIZE, Frame, Scene, World
from magbench.metrics.judge.network import CELL, COLUMNS, REJECT, SLOTS, WALKER_SLOTS

TRAINING_SEEDS = range(300_000, 400_000)
HELD_OUT_SEEDS = range(400_000, 410_000)
IGNORE = -100
"""Label of what is neither readable for certain nor certainly not: it costs nothing in training."""

_READABLE, _HIDDEN = 0.6, 0.25
_BORDER = 1.5
_FOREIGN = 120


@dataclass(frozen=True)
class Labelled:
    """Frames and what they show; REJECT where a slot must be refused, IGNORE where there is no right answer.

    Args:
        frames: uint8 [N, 64, 64, 3].
        slots: int64 [N, 5], class indices in the order of SLOTS.
        columns: int64 [N, 3, 8], presence (0 or 1), colour and shape per column of 8 pixels.
    """

    frames: Tensor
    slots: Tensor
    columns: Tensor


def render(seeds: range, per_world: int, garbled: float) -> Labelled:
    """Render `per_world` frames of each world, a share `garbled` of them with something missing or unreadable."""
    frames, slots, columns = [], [], []
    for seed in seeds:
        dice = random.Random(f"magbench mini judge {seed}")
        scene = Scene.draw(dice)
        world = World(scene, seed)
        truth = [words.index(getattr(scene, slot)) for slot, words in SLOTS.items()]
        for _ in range(per_world):
            t = int(dice.random() * 200)
            frame, labels, column = world.frame(t), list(truth), landmark_labels(world, t)
            if dice.random() < garbled:
                _garble(world, t, frame, labels, column, dice)
            frames.append(frame)
            slots.append(labels)
            columns.append(column)
    return Labelled(torch.from_numpy(np.stack(frames)), torch.tensor(slots), torch.from_numpy(np.stack(columns)))


def landmark_labels(world: World, t: int) -> npt.NDArray[np.int64]:
    """Presence, colour and shape per column of 8 pixels, int64 [3, 8], for the undamaged frame `t`."""
    labels = np.full((3, COLUMNS), IGNORE, np.int64)
    labels[0] = 0
    views = [view for view in world.visible(t) if 0 <= view.screen_x < SIZE]
    for view in views:
        column = int(view.screen_x // CELL)
        offset = view.screen_x - column * CELL
        for neighbour, distance in ((column - 1, offset), (column + 1, CELL - offset)):
            if 0 <= neighbour < COLUMNS and distance < _BORDER:
                labels[0, neighbour] = IGNORE
        if view.visible >= _READABLE:
            words = (COLOURS.index(view.landmark.colour), SHAPES.index(view.landmark.shape))
            labels[:, column] = (1, *words)
        elif view.visible >= _HIDDEN:
            labels[0, column] = IGNORE
    return labels


def _garble(
    world: World, t: int, frame: Frame, labels: list[int], column: npt.NDArray[np.int64], dice: random.Random
) -> None:
    """Make one thing unreadable, in place, and its label REJECT (a landmark's: absent)."""

    def reject(*slots: str) -> None:
        for slot in slots:
            labels[list(SLOTS).index(slot)] = REJECT

    def noise(shape: tuple[int, ...], block: int) -> Frame:
        cells = SIZE // block
        small = np.frombuffer(dice.randbytes(cells * cells * 3), np.uint8).reshape(cells, cells, 3)
        return small.repeat(block, 0).repeat(block, 1)[: shape[0], : shape[1]]

    box = world.subject_box(t)
    split = box.bottom - BODY_SIZE[1]
    whole, hat = frame[box.top : box.bottom, box.left : box.right], frame[box.top : split, box.left : box.right]
    background = world.frame_without_walker(t)
    kind = dice.random()
    if kind < 0.25:
        frame[:] = background
        reject(*WALKER_SLOTS)
    elif kind < 0.4:
        whole[:] = noise(whole.shape, 2 if dice.random() < 0.5 else 4)
        reject(*WALKER_SLOTS)
    elif kind < 0.55:
        hat[:] = background[box.top : split, box.left : box.right]
        reject("hat_colour", "hat_shape")
    elif kind < 0.7:
        share = 0.4 + 0.2 * dice.random()
        mixed = share * whole + (1 - share) * noise((1, 1, 3), 1)[0, 0]
        whole[:] = mixed.astype(np.uint8)
        for slot, pixel in (("body", mixed[-1, mixed.shape[1] // 2]), ("hat_colour", mixed[0, mixed.shape[1] // 2])):
            distance = np.abs(np.array(COLOUR_RGB) - pixel).sum(-1).min()
            labels[list(SLOTS).index(slot)] = REJECT if distance > _FOREIGN else IGNORE
        labels[list(SLOTS).index("hat_shape")] = IGNORE
    elif kind < 0.85:
        block = 1 << int(1 + 3 * dice.random())
        frame[:] = noise(frame.shape, block) if dice.random() < 0.5 else noise((1, 1, 3), 1)[0, 0]
        reject(*SLOTS)
        column[0], column[1:] = 0, IGNORE
    else:
        walker = whole.copy()
        for i in np.flatnonzero(column[0] == 1).tolist():
            left = max(0, (i - 1) * CELL)
            patch = frame[12:36, left : left + 3 * CELL]
            patch[:] = noise(patch.shape, 2 if dice.random() < 0.5 else 4)
        whole[:] = walker
        column[0, column[0] == 1], column[1:] = 0, IGNORE


def damage(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, noise, colour casts and fading that leave a frame readable: uint8 [N, 64, 64, 3] to the same."""
    count = len(frames)

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    x = frames.permute(0, 3, 1, 2).float()
    half = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    softer = F.avg_pool2d(F.pad(soft, (2, 2, 2, 2), mode="replicate"), 5, 1)
    kind = rand(1, 1, 1)
    x = torch.where(kind < 0.15, half, torch.where(kind < 0.35, soft, torch.where(kind < 0.45, softer, x)))
    x = x + rand(1, 1, 1) ** 3 * 40 * torch.randn(x.shape, generator=generator)
    x = x * (0.85 + 0.3 * rand(3, 1, 1)) + 24 * (rand(3, 1, 1) - 0.5)
    grey = x.mean((1, 2, 3), keepdim=True)
    x = grey + (x - grey) * (1 - 0.4 * rand(1, 1, 1) ** 2)
    return x.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
