"""MAG-Bench's frame rule, against the table that the released data set class gave."""

import json
from pathlib import Path

import pytest

from magbench.data.mag_frames import FrameRule
from magbench.runners.models import find_model

WAN = FrameRule(16, 4, 3)
MINI = FrameRule(8, 1, 3)
TABLE = json.loads((Path(__file__).parents[1] / "golden" / "data" / "units_mag.json").read_text())["mag_bench_table"]


def test_the_released_numbers() -> None:
    kept = 0
    for duration, total, used, switch, generated, frames, history in TABLE:
        if used is None:
            assert not WAN.fits(total, duration), (duration, total)
            continue
        kept += 1
        found = (WAN.used(total), WAN.switch(duration))
        assert found == (used, switch), (duration, total)
        assert WAN.fits(total, duration)
        assert WAN.latents(used) == frames
        assert WAN.latents(switch) == history == frames - generated
    assert kept > 60


def test_which_clips_the_released_assertion_stops() -> None:
    """Frames are the whole ones in the duration, to a tenth of a second."""
    stopped = [tenths for tenths in range(1, 200) if not WAN.fits(int(1.6 * tenths + 1e-9), tenths / 10)]
    assert stopped == [*range(1, 36), *range(39, 44), 49, 50]


def test_the_rule_on_mini() -> None:
    """By hand: 14 frames are 12 used, of which 10, rounded up to 12, are given."""
    assert [n for n in range(1, 60) if not MINI.fits(n, n / 8)] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 14]
    assert (MINI.used(50), MINI.switch(50 / 8)) == (48, 39)
    assert (MINI.latents(48), MINI.latents(39)) == (48, 39)


@pytest.mark.parametrize("rule", [WAN, MINI])
def test_long_enough(rule: FrameRule) -> None:
    n = rule.long_enough
    assert not rule.fits(n - 1, (n - 1) / rule.fps)
    assert all(rule.fits(m, m / rule.fps) for m in range(n, 2000))


def test_chunks_are_whole_in_the_models_own_counting() -> None:
    info = find_model("mini")
    rule = FrameRule(info.fps, info.stride, info.chunk)
    for total in range(9, 100):
        if rule.fits(total, total / rule.fps):
            frames, history = rule.latents(rule.used(total)), rule.latents(rule.switch(total / rule.fps))
            assert frames % info.chunk == history % info.chunk == 0
            assert info.pixel_frames(frames) == rule.used(total)
            assert info.pixel_frames(history) == rule.switch(total / rule.fps)
