"""Self-retention on rendered worlds and on declared visits: perfect, frozen, damaged, and where it can't be said."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from magbench.data.mini_world import BODY_SIZE, HATS, HEADROOM, SIZE, CameraPath, Scene, World
from magbench.metrics.base import NotApplicable, Scores
from magbench.metrics.self_retention import Return, SelfRetention, camera_returns
from magbench.records import CaseRecord, SampleRecord, Switch
from tests.unit.clips import pan
from tests.unit.one_video import SCENE, Case, drive, values

FRAMES = 72
CASE = Case()


@pytest.fixture(scope="module")
def world() -> Tensor:
    return torch.from_numpy(World(SCENE, 5).clip(FRAMES))


def sample(frames: Tensor, **case: Any) -> SampleRecord:
    """A video from a prompt: nothing given, the sentence's own camera path."""
    made = CASE.sample(frames, None, **{"path": None, **case})
    fields = {"history_frames": 0, "frames": len(frames), "track": "long-horizon"}
    return made.model_copy(update={"history_frames": 0, "case": made.case.model_copy(update=fields)})


def scored(frames: Tensor, **case: Any) -> Scores | NotApplicable:
    return drive(SelfRetention(), sample(frames, **case), frames)


def why(answer: Scores | NotApplicable) -> str:
    assert isinstance(answer, NotApplicable)
    return answer.reason


def test_the_camera_comes_back_to_both_ends() -> None:
    """24 frames of 4 pixels and back: out of view at the turn are the first 32 pixels, at the start the last 32."""
    found = list(camera_returns(Scene(**{**vars(SCENE), "camera": "pans left and comes back"}).path(), 100))
    near, far = [*range(40, 57)], [*range(64, 81)]
    assert [one.frame for one in found] == near + far, "what comes later is no second visit"
    assert [one.first for one in found] == [(abs(48 - t),) for t in near] + [(24 - abs(72 - t),) for t in far]
    assert {one.before for one in found[: len(near)]} == {39}
    assert {one.before for one in found[len(near) :]} == {63}
    assert not list(camera_returns(CameraPath(4.0), 1000))
    assert not list(camera_returns(CameraPath(4.0, leave=15), 1000)), "60 pixels away, the place is still in view"
    assert list(camera_returns(CameraPath(8.0, lead_in=3, leave=8), 20)) == [Return(19, (0,), 18)]


@pytest.mark.parametrize("hat", HATS)
def test_no_walker_reaches_the_rows_that_are_compared(hat: str) -> None:
    tops = [
        World(Scene(**{**vars(SCENE), "hat_shape": hat}), seed).subject_box(t).top for seed in (0, 7) for t in range(40)
    ]
    assert HEADROOM <= min(tops) < HEADROOM + BODY_SIZE[1] < SIZE


def test_the_world_itself_is_perfect_and_a_frozen_video_gains_nothing(world: Tensor) -> None:
    found = values(scored(world))
    assert (found["psnr"], found["ssim"]) == (60, 1)
    partners = [*((abs(48 - t), 39) for t in range(40, 57)), *((24 - abs(72 - t), 63) for t in range(64, 72))]
    rows = world[:, :HEADROOM].numpy()
    floor = math.fsum(peak_signal_noise_ratio(rows[s], rows[b]) for s, b in partners) / len(partners)
    assert found["floor_psnr"] == pytest.approx(floor)
    assert found["gain"] == pytest.approx(60 - floor) and floor < 25
    frozen = values(scored(world[:1].expand_as(world)))
    assert (frozen["gain"], frozen["psnr"], frozen["ssim"]) == (0, 60, 1)


def test_another_place_on_return_is_seen_and_another_walker_is_not(world: Tensor) -> None:
    damaged = world.clone()
    damaged[40:, :HEADROOM] ^= 16
    assert values(scored(damaged))["psnr"] == pytest.approx(20 * math.log10(255 / 16))
    other = World(SCENE, 6).clip(FRAMES)
    elsewhere = torch.cat([world[:40], torch.from_numpy(other[40:])])
    assert values(scored(elsewhere))["gain"] < 6
    walker = world.clone()
    walker[40:, HEADROOM:] = 0
    assert values(scored(walker)) == values(scored(world))


def test_declared_visits_match_in_any_order() -> None:
    """Frames 0-15 and, after 16 of another picture, the same in reverse, all of 48x64 at 8 frames per second."""
    here, there = (torch.from_numpy(pan(16, seed=seed)) for seed in (0, 1))
    video = torch.cat([here, there, here.flip(0)])
    found = values(scored(video, visits=[[0, 2], [4, 6]]))
    assert (found["psnr"], found["ssim"]) == (60, 1)
    floor = max(peak_signal_noise_ratio(frame.numpy(), there[-1].numpy()) for frame in here)
    assert found["floor_psnr"] == pytest.approx(floor)
    forgotten = torch.cat([here, there, there])
    assert values(scored(forgotten, visits=[[0, 2], [4, 6]]))["gain"] < 3
    assert "ends before frame 44" in why(scored(video[:44], visits=[[0, 2], [4, 6]]))
    assert "single visit" in why(scored(video, visits=[[0, 2]]))
    assert "shorter than a frame" in why(scored(video, visits=[[0, 0.01], [4, 6]]))


def test_not_applicable(world: Tensor) -> None:
    def said(camera: str) -> str:
        return why(scored(world, prompt=Scene(**{**vars(SCENE), "camera": camera}).sentence()))

    assert said("stands still") == said("pans right quickly") == "the prompt's camera never comes back"
    assert "cannot read the prompt 'a cat'" in why(scored(world, prompt="a cat"))
    assert "another prompt follows" in why(scored(world, schedule=(Switch(at=3.0, prompt=SCENE.sentence()),)))
    assert "within the video" in why(scored(world[:40]))
    given = CASE.sample(world, None)
    assert "a given history" in why(drive(SelfRetention(), given, world))
    wide = torch.from_numpy(np.ascontiguousarray(pan(72)))
    assert "the case declares no visits" in why(scored(wide))


@pytest.mark.parametrize("visits", [[[1, 1]], [[2, 1]], [[0, 2], [1, 3]], [[-1, 2]]])
def test_visits_must_follow_each_other(visits: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="follow each other"):
        CaseRecord(id="x", track="long-horizon", visits=visits)
