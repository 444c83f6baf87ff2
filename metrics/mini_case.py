"""The mini world behind a sample, for metrics that know the truth and not only its pixels."""

from magbench.data.mini_world import SIZE, CameraPath, Scene, World
from magbench.errors import ConfigError
from magbench.metrics.base import Info, NotApplicable
from magbench.records import CaseRecord


def not_mini(info: Info) -> NotApplicable | None:
    """Why the judge of the mini world can't read this video, or None if it can: it knows 64x64 frames only."""
    if (info.width, info.height) == (SIZE, SIZE):
        return None
    return NotApplicable(
        f"the judge reads {SIZE}x{SIZE} videos of the model mini, this one is {info.width}x{info.height}"
    )


def scene_of(case: CaseRecord) -> Scene | NotApplicable:
    """What the prompt says, or that it is no sentence of the mini world."""
    try:
        return Scene.parse(case.prompt)
    except ConfigError as error:
        return NotApplicable(f"the prompt is no sentence of the mini world: {case.prompt!r}", error.hint or "")


def world_of(case: CaseRecord) -> World | NotApplicable:
    """The world whose frames are the case's truth."""
    scene = scene_of(case)
    if isinstance(scene, NotApplicable):
        return scene
    if case.world_seed is None:
        return NotApplicable("the case has no seed of the mini world")
    return World(scene, case.world_seed, CameraPath.from_dict(case.path) if case.path else None)
