"""mag-bench on the mini world: leave a scene, stay away, come back.

The given history is a lead-in longer than any sink, the way to scene A, a rest there, and the time away; the model
continues from the moment the camera turns up at the border of A again, moving back the way it came. The lead-in keeps
A out of every sink, and the time away is measured in units of the largest window that is compared.
"""

import hashlib
import random

from magbench.data.mini_world import QUICK, SIZE, CameraPath, Scene, World
from magbench.errors import ConfigError
from magbench.records import CaseRecord

WINDOW = 12
"""Latent frames of the largest window compared on this track."""
AWAY = (0.5, 1.0, 2.0, 4.0)
"""Times away, in windows."""
CASE_SEEDS = range(2_000_000, 2_000_016)
"""World seeds of the suite `mini`, never used in training: each its own panorama and prompt."""
LEAD_IN, DWELL, CONTINUATION = 18, 10, 21
OPENING = 3
"""Frames given where no more than a sink is."""
CROSSING = SIZE // int(QUICK)
"""Frames the camera needs to move by one frame width."""


def mini_cases(seeds: range = CASE_SEEDS) -> tuple[CaseRecord, ...]:
    """One case per world, a quarter of them for each time away; rendered to hash the truth."""
    share = len(seeds) // len(AWAY)
    return tuple(mini_case(seed, AWAY[i // share]) for i, seed in enumerate(seeds))


def mini_case(seed: int, windows: float) -> CaseRecord:
    """One case; camera and prompt follow from the seed.

    Args:
        seed: World seed; even seeds pan right, odd ones left.
        windows: Time away in units of WINDOW.

    Raises:
        ConfigError: The time away is no even number of whole frames.
    """
    away = windows * WINDOW
    if away < 0 or away % 2:
        raise ConfigError(f"a time away of {windows} windows is {away} frames; it must be an even number")
    side = "left" if seed % 2 else "right"
    scene = Scene.draw(random.Random(f"magbench mag-bench-mini {seed}"), camera=f"pans {side} and comes back")
    speed = -QUICK if side == "left" else QUICK
    path = CameraPath(speed, lead_in=LEAD_IN, arrive=CROSSING, dwell=DWELL, leave=CROSSING, away=int(away))
    frames = path.return_frame + CONTINUATION
    return CaseRecord(
        id=f"return-{int(away):02d}-{seed % 1000:02d}",
        track="mag-bench",
        prompt=scene.sentence(),
        world_seed=seed,
        path=path.to_dict(),
        history_frames=path.return_frame,
        frames=frames,
        truth_sha256=truth_sha256(World(scene, seed, path), frames),
        stratum=f"away {windows:g} windows",
    )


def mini_opening(seed: int) -> CaseRecord:
    """A clip of one chunk to continue, on the camera path its prompt says: the sink alone knows the place.

    Args:
        seed: World seed.
    """
    scene = Scene.draw(random.Random(f"magbench mag-bench-mini {seed}"))
    frames = OPENING + CONTINUATION
    return CaseRecord(
        id=f"opening-{seed % 1000:02d}",
        track="mag-bench",
        prompt=scene.sentence(),
        world_seed=seed,
        history_frames=OPENING,
        frames=frames,
        truth_sha256=truth_sha256(World(scene, seed), frames),
        stratum="one chunk given",
    )


def truth_sha256(world: World, frames: int) -> str:
    """Hash of the first `frames` frames' RGB bytes, in order."""
    digest = hashlib.sha256()
    for t in range(frames):
        digest.update(world.frame(t).tobytes())
    return digest.hexdigest()
