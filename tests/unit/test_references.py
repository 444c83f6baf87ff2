"""The rendered truth, frame by frame."""

import hashlib

import numpy as np
import pytest

from magbench.data.mini_world import Scene, World
from magbench.errors import ConfigError
from magbench.records import CaseRecord
from magbench.runners.references import render, rendered

SCENE = Scene("clear", "meadow", "red", "blue", "tall", "pans right slowly")


def case(**fields: object) -> CaseRecord:
    return CaseRecord(id="a", track="long-horizon", prompt=SCENE.sentence(), world_seed=7, frames=20, **fields)


def test_streamed_is_the_clip() -> None:
    clip = World(SCENE, 7).clip(20)
    checked = case(truth_sha256=hashlib.sha256(clip.tobytes()).hexdigest())
    assert np.array_equal(np.stack([*rendered(checked, 0)]), clip)
    assert np.array_equal(render(checked, 0), clip)


def test_a_world_that_has_changed_is_told_behind_the_last_frame() -> None:
    frames = rendered(case(truth_sha256="ab" * 32), 0)
    for _ in range(20):
        next(frames)
    with pytest.raises(ConfigError, match="the suite says abababababab"):
        next(frames)
