"""Landmark recall with a reader that says what it is told, so that only the metric's own rules are tested."""

from collections.abc import Callable

import pytest
import torch

from magbench.data.mini_world import COLOURS, PANORAMA, SHAPES, CameraPath
from magbench.metrics.base import Clip, NotApplicable, Scores
from magbench.metrics.judge import CELL, COLUMNS, Reading
from magbench.metrics.landmark_recall import HIDDEN, WINDOW, LandmarkRecall, expectations, forgotten
from tests.unit.one_video import Case, drive, values

TWO = Case(seed=1, path=CameraPath(4.0, lead_in=12, arrive=18, dwell=4, leave=10, away=24))
Seen = list[tuple[int, int, int]]
"""Column, colour, shape."""


def told(case: Case, say: Callable[[int, Seen], Seen]) -> Callable[[Clip], Reading]:
    """A reading in which frame t shows `say(t, what the truth's frame t shows)`."""

    def read(clip: Clip) -> Reading:
        count = len(clip)
        presence = torch.zeros(count, COLUMNS)
        colour, shape = torch.zeros(2, count, COLUMNS, dtype=torch.int64)
        for i in range(count):
            for column, *words in say(clip.first + i, seen(case, clip.first + i)):
                presence[i, column] = 0.9
                colour[i, column], shape[i, column] = words
        nothing = torch.zeros(count, dtype=torch.int64)
        return Reading(nothing, nothing, nothing, nothing, nothing, {}, presence, colour, shape)

    return read


def seen(case: Case, t: int) -> Seen:
    return [
        (int(x // CELL), COLOURS.index(landmark.colour), SHAPES.index(landmark.shape))
        for landmark, x, share in case.world.visible(t)
        if 0 <= x < 64 and share >= 0.6
    ]


def shifted(by: int) -> Callable[[int, Seen], Seen]:
    return lambda _, truth: [(c + by, of, form) for c, of, form in truth if 0 <= c + by < COLUMNS]


def recall(case: Case, say: Callable[[int, Seen], Seen], step: int = 7) -> Scores | NotApplicable:
    frames = torch.zeros(case.frames, 64, 64, 3, dtype=torch.uint8)
    return drive(LandmarkRecall(), case.sample(frames, None), frames, feature=told(case, say), step=step)


def test_a_perfect_reader_of_the_truth() -> None:
    found = values(recall(TWO, lambda _, truth: truth))
    assert found == {"recall": 1, "false_alarm": 0, "landmarks": 2}


def test_nothing_there() -> None:
    found = values(recall(TWO, lambda *_: []))
    assert found == {"recall": 0, "false_alarm": 0, "landmarks": 2}


@pytest.mark.parametrize("change", [(1, 0), (0, 1)])
def test_wrong_colour_or_shape_is_not_the_landmark(change: tuple[int, int]) -> None:
    def say(_: int, truth: Seen) -> Seen:
        return [(c, (of + change[0]) % len(COLOURS), (form + change[1]) % len(SHAPES)) for c, of, form in truth]

    found = values(recall(TWO, say))
    assert (found["recall"], found["false_alarm"]) == (0, 0)


def test_one_cell_off_is_right_and_two_are_a_false_alarm() -> None:
    inner = values(recall(TWO, shifted(1)))
    outer = values(recall(TWO, shifted(2)))
    assert inner["recall"] > 0.8
    assert inner["false_alarm"] == 0
    assert outer["recall"] == 0
    assert outer["false_alarm"] > 0.1


def test_false_alarms_are_a_share_of_the_empty_columns() -> None:
    """Column 2 is claimed in every frame; it counts where no landmark is nearer than two columns."""

    def near(t: int) -> set[int]:
        return {int(x // CELL) + by for _, x, _ in TWO.world.visible(t) for by in (-1, 0, 1)}

    frames = range(TWO.history, TWO.frames)
    claimed = sum(2 not in near(t) for t in frames)
    empty = sum(len(set(range(COLUMNS)) - near(t)) for t in frames)
    found = values(recall(TWO, lambda *_: [(2, 0, 0)]))
    assert 0 < claimed < len(frames)
    assert found["false_alarm"] == pytest.approx(claimed / empty)


def test_each_landmark_weighs_the_same_and_is_the_share_of_its_frames() -> None:
    first, second = sorted(forgotten(TWO.world, TWO.history, TWO.frames))
    due = expectations(TWO.world, TWO.history, TWO.frames)
    when = {n: [t for t, e in enumerate(due, TWO.history) if n in {s[0] for s in e.due}] for n in (first, second)}
    kept = set(when[first]) | set(when[second][:3])
    wanted = {s[:1] + s[2:]: s for e in due for s in e.due}
    assert {key[0] for key in wanted} == {first, second}
    words = {n: next(s[2:] for s in wanted.values() if s[0] == n) for n in (first, second)}

    def say(t: int, truth: Seen) -> Seen:
        late = t in when[second] and t not in when[second][:3]
        return [mark for mark in truth if t in kept and not (late and mark[1:] == words[second])]

    assert words[first] != words[second]
    answer = recall(TWO, say)
    assert values(answer)["recall"] == pytest.approx((1 + 3 / len(when[second])) / 2)
    assert answer == recall(TWO, say, step=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("away", [2, 6, 48])
def test_forgotten_by_geometry_alone(seed: int, away: int) -> None:
    """Where the camera was decides, apart from the few frames in which the walker hides a landmark."""
    case = Case(seed=seed, path=CameraPath(4.0, lead_in=12, arrive=18, dwell=4, leave=10, away=away))
    world = case.world

    def inside(landmark_x: int, size: int, t: int) -> bool:
        offset = (landmark_x - world.camera(t) - 32 + PANORAMA / 2) % PANORAMA - PANORAMA / 2
        return abs(offset) < 32 + size

    expected = set()
    for number, landmark in enumerate(world.landmarks):
        shown = [t for t in range(case.frames) if inside(landmark.x, landmark.size, t)]
        before, after = [t for t in shown if t < case.history], [t for t in shown if t >= case.history]
        if before and after and min(before) >= 12 and min(after) - max(before) > 15:
            expected.add(number)
    found = forgotten(world, case.history, case.frames)
    assert found <= expected
    assert len(expected - found) <= 1


def test_a_landmark_a_sink_would_hold_is_not_asked_for() -> None:
    opening = {TWO.world.landmarks.index(view.landmark) for t in range(WINDOW) for view in TWO.world.visible(t)}
    later = {
        TWO.world.landmarks.index(v.landmark) for t in range(TWO.history, TWO.frames) for v in TWO.world.visible(t)
    }
    assert opening & later
    assert not opening & forgotten(TWO.world, TWO.history, TWO.frames)


def test_not_applicable() -> None:
    frames = torch.zeros(TWO.frames, 64, 64, 3, dtype=torch.uint8)
    short = Case(seed=0, path=CameraPath(4.0, lead_in=12, arrive=18, dwell=4, leave=2, away=2))
    reason(recall(short, lambda _, truth: truth), f"no landmark comes back after at least {HIDDEN} frames")
    feature = told(TWO, lambda _, truth: truth)
    sample = TWO.sample(frames, None)
    reason(drive(LandmarkRecall(), sample, frames[:-2], feature=feature), "the video ends after 28 of 30 frames")
    wide = torch.zeros(2, 64, 66, 3, dtype=torch.uint8)
    reason(drive(LandmarkRecall(), sample, wide, feature=feature), "64x64 videos of the model mini, this one is 66x64")
    other = TWO.sample(frames, None, prompt="a cat")
    reason(drive(LandmarkRecall(), other, frames, feature=feature), "cannot read the prompt 'a cat'")
    prompt_only = TWO.sample(frames, None).model_copy(update={"history_frames": 0})
    reason(drive(LandmarkRecall(), prompt_only, frames, feature=feature), "no given history")


def reason(answer: Scores | NotApplicable, text: str) -> None:
    assert isinstance(answer, NotApplicable)
    assert text in answer.reason
