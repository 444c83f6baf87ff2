"""Cases of the mini world whose prompt switches: which frame follows which sentence, and the truth that shows it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magbench.data.mini_case import scenes_of, world_of
from magbench.data.mini_world import CameraPath, Scene, World
from magbench.errors import ConfigError
from magbench.options import RunOptions
from magbench.records import CaseRecord, Switch
from magbench.runners.prepare import prepare
from magbench.runners.references import render

FIRST = Scene("clear", "meadow", "red", "blue", "tall", "pans right and comes back")
NIGHT = replace(FIRST, sky="night", ground="quarry")
STRANGER = replace(NIGHT, body="pink", hat_colour="yellow", hat_shape="wide")
SEED = 11


def case(*switches: Switch, **fields: object) -> CaseRecord:
    given = {"id": "c", "track": "long-horizon", "prompt": FIRST.sentence(), "world_seed": SEED, "frames": 30}
    return CaseRecord.model_validate({**given, "schedule": switches, **fields})


BOTH = case(Switch(at=1.0, prompt=NIGHT.sentence()), Switch(at=2.5, prompt=STRANGER.sentence(), cut=True))


def test_each_scene_starts_with_the_first_chunk_after_its_time() -> None:
    assert scenes_of(BOTH) == {0: FIRST, 9: NIGHT, 21: STRANGER}
    assert scenes_of(case()) == {0: FIRST}


def test_the_truth_is_each_sentence_of_the_same_world_in_its_own_frames() -> None:
    frames = world_of(BOTH, SEED).clip(30)
    for scene, part in ((FIRST, slice(0, 9)), (NIGHT, slice(9, 21)), (STRANGER, slice(21, 30))):
        np.testing.assert_array_equal(frames[part], World(scene, SEED).clip(range(30)[part]))
    assert (frames[8, 0] != frames[9, 0]).all(), "the sky changes at once"


def test_frames_do_not_depend_on_the_order_they_are_asked_for() -> None:
    np.testing.assert_array_equal(world_of(BOTH, SEED).clip(range(29, -1, -1))[::-1], world_of(BOTH, SEED).clip(30))


def test_a_new_hat_hides_what_it_covers() -> None:
    path = CameraPath(4.0).to_dict()
    wide = replace(FIRST, hat_shape="wide")
    switching = world_of(case(Switch(at=1.5, prompt=wide.sentence()), path=path), SEED)
    for t, scene in ((11, FIRST), (12, wide)):
        alone = World(scene, SEED, CameraPath(4.0))
        assert switching.subject_box(t) == alone.subject_box(t)
        assert switching.visible(t) == alone.visible(t)
    assert switching.subject_box(11) != switching.subject_box(12)


def test_the_checksum_of_the_truth_covers_the_switch() -> None:
    frames = World(FIRST, SEED).clip(30)
    frames[9:] = World(NIGHT, SEED).clip(range(9, 30))
    right = case(BOTH.schedule[0], truth_sha256=hashlib.sha256(frames.tobytes()).hexdigest())
    np.testing.assert_array_equal(render(right, 0), frames)
    with pytest.raises(ConfigError, match="case 'c' renders to"):
        render(right.model_copy(update={"schedule": ()}), 0)


def test_a_sentence_cannot_turn_the_camera_unless_the_path_is_given() -> None:
    still = replace(NIGHT, camera="stands still")
    switch = Switch(at=1.0, prompt=still.sentence())
    with pytest.raises(ConfigError, match="can't turn 'the camera pans right and comes back' into 'stands still'"):
        world_of(case(switch), SEED)
    path = CameraPath(2.0)
    given = world_of(case(switch, path=path.to_dict()), SEED)
    np.testing.assert_array_equal(given.frame(20), World(NIGHT, SEED, path).frame(20))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("{at: 1.0, prompt: a cat}", "cannot read the prompt 'a cat'"),
        (f"{{at: 3.7, prompt: '{NIGHT.sentence()}'}}", "acts at latent frame 30, and the video ends at 30"),
    ],
)
def test_a_run_finds_a_switch_it_cannot_make_before_the_first_sample(
    schedule: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "name: own\nversion: 1\nmodel: mini\ntracks:\n  long-horizon:\n    cases:\n"
        f"      - {{id: c, prompt: '{FIRST.sentence()}', frames: 30, schedule: [{schedule}]}}\n"
    )
    with pytest.raises(ConfigError, match=message):
        prepare(RunOptions(method=("fifo",), suite=str(file)))
