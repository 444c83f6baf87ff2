"""The mini world behind a case: which sentence each frame follows, and the frames themselves."""

from magbench.data.mini_world import FPS, CameraPath, Scene, World
from magbench.records import CaseRecord
from magbench.schedule import switch_frames

CHUNK = 3
"""Frames that the model `mini` generates together."""


def scenes_of(case: CaseRecord) -> dict[int, Scene]:
    """What the prompts say, by the first frame of each, 0 first; a cut counts as any other switch.

    Raises:
        ConfigError: a prompt is no sentence of the mini world, or a switch cannot act.
    """
    prompts = (case.prompt, *(switch.prompt for switch in case.schedule))
    return dict(zip((0, *switch_frames(case, FPS, 1, CHUNK)), map(Scene.parse, prompts), strict=True))


def world_of(case: CaseRecord, world_seed: int) -> World:
    """The world whose frames are the case's truth, through all its switches.

    Raises:
        ConfigError: as `scenes_of`; the case's path is no camera path; a switch says another one.
    """
    (_, first), *later = scenes_of(case).items()
    path = CameraPath.from_dict(case.path) if case.path else None
    return World(first, world_seed, path, dict(later))
