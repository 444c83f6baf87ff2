"""The judge's profiles: identity with a reader that says what it is told, distances with an untrained judge."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from magbench.data.mini_world import COLOURS, HATS
from magbench.metrics.base import Clip, NotApplicable, Scores
from magbench.metrics.judge import REJECT, Judge, Reading
from magbench.metrics.lpips_consecutive import distance
from magbench.metrics.matching import pairwise
from magbench.metrics.mini import LPIPSConsecutiveMini, SubjectConsistencyMini, SubjectIdentity
from magbench.metrics.mini_judge import judge_layers
from tests.unit.one_video import SCENE, Case, drive, values

CASE = Case()
WORDS = (COLOURS.index(SCENE.body), COLOURS.index(SCENE.hat_colour), HATS.index(SCENE.hat_shape))
LENGTH = 40


def identity(walker: Callable[[int], tuple[int, int, int]], length: int = LENGTH) -> Scores | NotApplicable:
    frames = torch.zeros(length, 64, 64, 3, dtype=torch.uint8)
    sample = CASE.sample(frames, None).model_copy(update={"history_frames": 0})

    def read(clip: Clip) -> Reading:
        body, hat, shape = torch.tensor([walker(clip.first + i) for i in range(len(clip))]).T
        blank = torch.zeros(len(clip), 8)
        return Reading(body, body, body, hat, shape, {}, blank, blank.long(), blank.long())

    return drive(SubjectIdentity(), sample, frames, feature=read)


def test_the_prompted_walker_throughout() -> None:
    found = values(identity(lambda _: WORDS))
    assert [found[name] for name in ("all", "body", "hat_colour", "hat_shape")] == [1, 1, 1, 1]
    assert (found["start_end@15%"], found["slope"], found["worst_window"]) == (0, 0, 1)


@pytest.mark.parametrize("other", [(WORDS[1] + 1) % len(COLOURS), REJECT])
def test_a_hat_that_changes_colour_half_way(other: int) -> None:
    answer = identity(lambda t: WORDS if t < LENGTH // 2 else (WORDS[0], other, WORDS[2]))
    found = values(answer)
    assert (found["all"], found["hat_colour"], found["body"], found["hat_shape"]) == (0.5, 0.5, 1, 1)
    assert found["start_end@15%"] == pytest.approx(-1 / 3)
    assert isinstance(answer, Scores)
    assert answer.series[0].values[LENGTH // 2 - 1] == 1
    assert answer.series[0].values[LENGTH // 2] == pytest.approx(2 / 3)


def test_frames_need_all_three() -> None:
    """Body wrong in even frames, shape wrong in odd ones: never all three."""
    wrong = (WORDS[0] + 1) % len(COLOURS)
    found = values(identity(lambda t: (WORDS[0] if t % 2 else wrong, WORDS[1], WORDS[2] if t % 2 == 0 else REJECT)))
    assert (found["all"], found["body"], found["hat_shape"]) == (0, 0.5, 0.5)


def test_not_applicable() -> None:
    frames = torch.zeros(4, 64, 64, 3, dtype=torch.uint8)
    answer = drive(SubjectIdentity(), CASE.sample(frames, None, prompt="a cat"), frames)
    assert isinstance(answer, NotApplicable)
    assert "cannot read the prompt 'a cat'" in answer.reason
    wide = torch.zeros(4, 64, 128, 3, dtype=torch.uint8)
    for metric in (SubjectIdentity(), LPIPSConsecutiveMini(), SubjectConsistencyMini()):
        answer = drive(metric, CASE.sample(wide, None), wide)
        assert isinstance(answer, NotApplicable)
        assert "this one is 128x64" in answer.reason
    short = identity(lambda _: WORDS, length=1)
    assert isinstance(short, Scores)
    assert isinstance(short.values["start_end@15%"], NotApplicable)
    nothing = identity(lambda _: WORDS, length=0)
    assert isinstance(nothing, NotApplicable)
    assert "no generated frame" in nothing.reason


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(1)
    return Judge().eval()


def test_distance_of_the_judge_is_the_mean_over_layers_and_cells(judge: Judge) -> None:
    frames = CASE.truth()[:40:8]
    maps = [m / m.square().sum(1, keepdim=True).sqrt().clamp(min=1e-10) for m in judge.features(frames)]
    expected = torch.stack([(m[:, None] - m[None]).square().sum(2).mean((2, 3)) for m in maps]).mean(0).detach()
    found = pairwise(lambda part: judge_layers(judge, part), frames, frames)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.diagonal().abs().max() < 1e-5
    assert 0 < found.max() <= 2


def test_consecutive_distance_of_a_held_and_of_a_moving_clip(judge: Judge) -> None:
    truth = CASE.truth()

    def layers(clip: Clip) -> list[tuple[Tensor, Tensor]]:
        with torch.no_grad():
            return judge_layers(judge, clip.frames)

    def median(frames: Tensor) -> float:
        sample = CASE.sample(frames, None).model_copy(update={"history_frames": 0})
        return values(drive(LPIPSConsecutiveMini(), sample, frames, feature=layers))["median"]

    moving = truth[CASE.history : CASE.history + 9]
    with torch.no_grad():
        one, other = ([(m[0], w) for m, w in judge_layers(judge, moving[i : i + 1])] for i in (0, 1))
    assert median(moving[:1].expand(9, -1, -1, -1)) == 0
    assert median(moving[:2]) == pytest.approx(distance(one, other))
    assert median(moving) > 0


def test_consistency_is_the_cosine_of_the_embedding() -> None:
    frames = torch.zeros(LENGTH, 64, 64, 3, dtype=torch.uint8)
    sample = CASE.sample(frames, None).model_copy(update={"history_frames": 0})

    def consistency(turns_at: int) -> float:
        def embed(clip: Clip) -> Tensor:
            return torch.eye(2)[[int(clip.first + i >= turns_at) for i in range(len(clip))]]

        return values(drive(SubjectConsistencyMini(), sample, frames, feature=embed))["consistency"]

    assert consistency(LENGTH) == 1
    assert consistency(1) == pytest.approx((LENGTH - 2) / 2 / (LENGTH - 1))
