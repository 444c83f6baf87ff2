"""Prompt adherence: with a reader that says what it is told, and on rendered worlds with the shipped judge."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from magbench.data.mini_case import world_of
from magbench.data.mini_world import Scene, World
from magbench.metrics.base import Clip, Metric, NotApplicable, Scores
from magbench.metrics.judge import REJECT, SLOTS, Reading, load_judge
from magbench.metrics.mini import SubjectIdentity
from magbench.metrics.prompt_adherence import PromptAdherence
from magbench.records import CaseRecord, SampleRecord, Switch
from tests.unit.one_video import Case, drive, reasons, values

OLD = Scene("clear", "meadow", "red", "blue", "tall", "stands still")
PLACE = replace(OLD, sky="night", ground="desert")
COAT = replace(PLACE, body="green")
SWITCH, END = 24, 48
"""The switch at 2.9 s acts from frame 24 on, 3 s."""
TO_PLACE = (Switch(at=2.9, prompt=PLACE.sentence()),)

Words = Callable[[int], Scene | tuple[int, ...]]
"""What the reader says of frame t: a scene's words, or five indices in the order of SLOTS."""


def record(frames: Tensor, schedule: tuple[Switch, ...], first: Scene = OLD) -> SampleRecord:
    case = CaseRecord(
        id="c", track="long-horizon", prompt=first.sentence(), world_seed=405_001, frames=END, schedule=schedule
    )
    return Case().sample(frames, None).model_copy(update={"case": case, "history_frames": 0})


def indices(scene: Scene) -> tuple[int, ...]:
    return tuple(words.index(getattr(scene, slot)) for slot, words in SLOTS.items())


def told(
    words: Words,
    schedule: tuple[Switch, ...] = TO_PLACE,
    length: int = END,
    metric: type[Metric] = PromptAdherence,
    history: int = 0,
) -> Scores | NotApplicable:
    def read(clip: Clip) -> Reading:
        said = [words(clip.first + i) for i in range(len(clip))]
        slots = torch.tensor([indices(one) if isinstance(one, Scene) else one for one in said]).T
        blank = torch.zeros(len(clip), 8)
        return Reading(*slots, {}, blank, blank.long(), blank.long())

    frames = torch.zeros(length, 64, 64, 3, dtype=torch.uint8)
    sample = record(frames, schedule).model_copy(update={"history_frames": history})
    return drive(metric(), sample, frames, feature=read)


def switching(t: int) -> Scene:
    return OLD if t < SWITCH else PLACE


def test_a_video_that_follows() -> None:
    assert values(told(switching)) == {"after": 1, "kept": 1, "before": 1, "old": 0, "lag": 0}


def test_a_video_that_stays() -> None:
    answer = told(lambda _: OLD)
    assert values(answer) == {"after": 0, "kept": 1, "before": 1, "old": 1}
    assert "nowhere" in reasons(answer)["lag"]


def test_a_video_that_switches_too_early() -> None:
    found = values(told(lambda _: PLACE))
    assert (found["after"], found["kept"]) == (1, 1)
    assert found["before"] == pytest.approx(3 / 5)


def test_one_of_two_changed_attributes() -> None:
    half = replace(OLD, sky=PLACE.sky)
    answer = told(lambda t: OLD if t < SWITCH else half)
    assert values(answer) == {"after": 0.5, "kept": 1, "before": 1, "old": 0.5}


def test_what_is_neither_new_nor_old() -> None:
    """The sky is refused, the ground a third one; the hat is lost as well."""
    lost = (REJECT, 2, *indices(OLD)[2:4], REJECT)
    found = values(told(lambda t: OLD if t < SWITCH else lost))
    assert (found["after"], found["old"], found["before"]) == (0, 0, 1)
    assert found["kept"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("late", [1, 5, 13])
def test_the_lag_is_the_time_to_the_first_second_that_shows_three_quarters(late: int) -> None:
    """Eight frames of which six are right need two frames before the change."""
    answer = told(lambda t: OLD if t < SWITCH + late else PLACE)
    found = values(answer)
    assert found["lag"] == max(0, late - 2) / 8
    assert found["after"] == pytest.approx(1 - late / 24)
    assert found["old"] == pytest.approx(late / 24)
    assert isinstance(answer, Scores)
    everything, changed = answer.series
    assert everything.values == pytest.approx([1] * SWITCH + [0.6] * late + [1] * (24 - late))
    assert changed.times[0] == SWITCH / 8
    assert changed.values == (0,) * late + (1,) * (24 - late)


def test_a_change_too_short_for_a_window_has_no_lag() -> None:
    assert "lag" in reasons(told(lambda t: OLD if t < END - 5 else PLACE))
    assert "lag" in reasons(told(switching, length=SWITCH + 7))
    assert values(told(switching, length=SWITCH + 8))["lag"] == 0


def test_several_switches_weigh_the_same_whatever_their_length() -> None:
    """The first acts for 18 frames and is followed; the second, of the coat alone, acts for six and isn't."""
    schedule = (*TO_PLACE, Switch(at=5.25, prompt=COAT.sentence()))
    answer = told(switching, schedule)
    assert values(answer) == {"after": 0.5, "kept": 1, "before": 1, "old": 0.5}
    assert "lag" in reasons(answer)


def test_switches_that_change_all_or_nothing() -> None:
    nothing = told(lambda _: OLD, (Switch(at=2.9, prompt=OLD.sentence(), cut=True),))
    assert values(nothing) == {"kept": 1, "before": 1}
    assert all("no switch changes" in reason for reason in reasons(nothing).values())
    other = Scene("misty", "quarry", "pink", "black", "wide", OLD.camera)
    everything = told(lambda t: OLD if t < SWITCH else other, (Switch(at=2.9, prompt=other.sentence()),))
    assert "changes all attributes" in reasons(everything)["kept"]
    assert values(everything)["after"] == 1


def test_given_frames_do_not_count() -> None:
    wrong = indices(COAT)
    found = values(told(lambda t: wrong if t < 9 else switching(t), history=9))
    assert found == {"after": 1, "kept": 1, "before": 1, "old": 0, "lag": 0}


def test_not_applicable() -> None:
    def refused(answer: Scores | NotApplicable) -> str:
        assert isinstance(answer, NotApplicable)
        return answer.reason

    assert refused(told(switching, ())) == "the prompt never switches"
    assert refused(told(switching, length=SWITCH)) == "the video ends at frame 24, its prompt switches at frame 24"
    assert "the video ends at frame 0" in refused(told(switching, length=0))
    assert "cannot read the prompt 'a cat'" in refused(told(switching, (Switch(at=1, prompt="a cat"),)))
    assert "ends at 48" in refused(told(switching, (Switch(at=60, prompt=PLACE.sentence()),)))
    wide = torch.zeros(END, 64, 128, 3, dtype=torch.uint8)
    assert "this one is 128x64" in refused(drive(PromptAdherence(), record(wide, TO_PLACE), wide))


def test_identity_is_held_to_the_prompt_of_each_frame() -> None:
    schedule = (Switch(at=2.9, prompt=replace(OLD, body="green", hat_shape="wide").sentence()),)

    def identity(words: Words) -> dict[str, float]:
        return values(told(words, schedule, metric=SubjectIdentity))

    found = identity(lambda _: OLD)
    assert (found["all"], found["body"], found["hat_colour"], found["hat_shape"]) == (0.5, 0.5, 1, 0.5)
    assert identity(lambda t: OLD if t < SWITCH else replace(OLD, body="green", hat_shape="wide"))["all"] == 1


@pytest.mark.parametrize(
    "after", [PLACE, replace(OLD, body="green", hat_colour="pink", hat_shape="wide")], ids=["place", "subject"]
)
def test_the_judge_sees_it_in_rendered_worlds(after: Scene) -> None:
    judge = load_judge()

    def seen(frames: Tensor) -> dict[str, float]:
        made = record(frames, (Switch(at=2.9, prompt=after.sentence()),))
        return values(drive(PromptAdherence(), made, frames, feature=lambda clip: judge.read(clip.frames)))

    made = record(torch.zeros(END, 64, 64, 3), (Switch(at=2.9, prompt=after.sentence()),)).case
    truth = torch.from_numpy(world_of(made, 405_001).clip(END))
    assert seen(truth) == {"after": 1, "kept": 1, "before": 1, "old": 0, "lag": 0}
    assert seen(truth[:1].expand(END, -1, -1, -1)) == {"after": 0, "kept": 1, "before": 1, "old": 1}
    late = torch.from_numpy(np.concatenate([World(OLD, 405_001).clip(36), World(after, 405_001).clip(range(36, END))]))
    assert seen(late)["after"] == 0.5
