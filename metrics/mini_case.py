"""The mini world behind a sample, for metrics that know the truth and not only its pixels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from magbench.data import mini_case
from magbench.data.mini_world import SIZE, Scene, World, scene_at
from magbench.errors import ConfigError
from magbench.metrics.base import Info, NotApplicable
from magbench.metrics.judge import SLOTS, Reading
from magbench.records import CaseRecord


def not_mini(info: Info) -> NotApplicable | None:
    """Why the judge of the mini world can't read this video, or None if it can: it knows 64x64 frames only."""
    if (info.width, info.height) == (SIZE, SIZE):
        return None
    return NotApplicable(
        f"the judge reads {SIZE}x{SIZE} videos of the model mini, this one is {info.width}x{info.height}"
    )


def scenes_of(case: CaseRecord) -> dict[int, Scene] | NotApplicable:
    """What the prompts say, by the first frame of each, 0 first; or why they are none of the mini world."""
    try:
        return mini_case.scenes_of(case)
    except ConfigError as error:
        return NotApplicable(error.message, error.hint or "")


def prompted(scenes: Mapping[int, Scene], slots: Sequence[str], frames: range) -> Tensor:
    """What the prompt of each frame says: int64 [frames, slots], numbered as the judge reads them."""
    said = [scene_at(scenes, t) for t in frames]
    words = [[SLOTS[slot].index(getattr(scene, slot)) for slot in slots] for scene in said]
    return torch.tensor(words, dtype=torch.int64).view(len(frames), len(slots))


def shown(reading: Reading, slots: Sequence[str]) -> Tensor:
    """What the judge reads: int64 [frames, slots], REJECT where it refuses."""
    return torch.stack([getattr(reading, slot) for slot in slots], 1)


def world_of(case: CaseRecord) -> World | NotApplicable:
    """The world whose frames are the case's truth."""
    if case.world_seed is None:
        return NotApplicable("the case has no seed of the mini world")
    try:
        return mini_case.world_of(case, case.world_seed)
    except ConfigError as error:
        return NotApplicable(error.message, error.hint or "")
