"""When a switch acts."""

import pytest

from magbench.errors import ConfigError
from magbench.records import CaseRecord, Switch
from magbench.schedule import switch_frames


def case(*at: float, frames: int = 120, history: int = 0) -> CaseRecord:
    return CaseRecord(
        id="c",
        track="long-horizon",
        frames=frames,
        history_frames=history,
        schedule=tuple(Switch(at=second, prompt="p") for second in at),
    )


def test_a_case_without_a_schedule_never_switches() -> None:
    assert switch_frames(case(frames=0), 8, 1, 3) == ()


@pytest.mark.parametrize(
    ("at", "fps", "stride", "chunk", "frame"),
    [
        (3.0, 8, 1, 3, 24),
        (3.0 + 1e-6, 8, 1, 3, 27),
        (2.9, 8, 1, 3, 24),
        (8.0, 8, 1, 3, 66),
        (1e-3, 8, 1, 3, 3),
        (5.25, 16, 4, 3, 21),
        (5.0, 16, 4, 3, 21),
        (5.26, 16, 4, 3, 24),
        (1.1, 10, 1, 1, 11),
    ],
)
def test_a_switch_waits_for_the_next_chunk(at: float, fps: float, stride: int, chunk: int, frame: int) -> None:
    assert switch_frames(case(at), fps, stride, chunk) == (frame,)


def test_the_chunk_is_the_one_at_which_a_rollout_first_finds_the_time_passed() -> None:
    """The released loop: before each chunk, has its first frame reached the switch?"""
    times = (0.4, 3.3, 3.8, 9.1, 14.0)
    waiting, found = list(times), []
    for first in range(0, 120, 3):
        if waiting and first >= waiting[0] * 8:
            found.append(first)
            waiting.pop(0)
    assert switch_frames(case(*times), 8, 1, 3) == tuple(found)
    assert len(found) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (case(15.0), "the switch at 15 s acts at latent frame 120, and the video ends at 120"),
        (case(14.9), "acts at latent frame 120"),
        (case(3.0, history=24), "acts at latent frame 24, and 24 are given"),
        (case(1.0, history=24), "acts at latent frame 9, and 24 are given"),
        (case(2.0, 2.9, 3.0), "the switch at 3 s acts at latent frame 24, as the one before it does"),
    ],
)
def test_a_switch_that_cannot_act_is_refused(given: CaseRecord, message: str) -> None:
    with pytest.raises(ConfigError, match="case 'c': the switch") as caught:
        switch_frames(given, 8, 1, 3)
    assert message in caught.value.message
    assert caught.value.hint
