import numpy as np
import pytest

from magbench.metrics.base import Scores
from magbench.metrics.temporal_flickering import TemporalFlickering, TemporalFlickeringVBench
from tests.unit.clips import Frames, numbers, pan, reason, run, texture


def flicker(frames: Frames, **options: object) -> dict[str, float]:
    return numbers(run(TemporalFlickering(), frames, **options))  # type: ignore[arg-type]


def score(frames: Frames) -> float:
    return numbers(run(TemporalFlickeringVBench(), frames))["score"]


def grey(levels: np.ndarray) -> Frames:
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 16, 16, 3)).astype(np.uint8)


def test_a_picture_that_goes_up_and_down_flickers_by_how_far_it_goes() -> None:
    found = flicker(grey(100 + 5 * (-1) ** np.arange(40)))
    assert found == pytest.approx({"flicker": 10.0, "pulse": 0.0})


def test_what_takes_two_frames_up_and_two_down_is_a_pulse() -> None:
    """8 fps: 1/4 s are two frames."""
    found = flicker(grey(np.where(np.arange(40) % 4 < 2, 110, 100)))
    assert found == pytest.approx({"flicker": 0.0, "pulse": 10.0})


def test_a_flash_counts_once() -> None:
    levels = np.full(40, 100)
    levels[20] = 176
    found = flicker(grey(levels))
    assert found["flicker"] == pytest.approx(76 / 38)
    assert found["pulse"] == pytest.approx(76 / 36)


@pytest.mark.parametrize("levels", [np.full(40, 90), 100 + np.arange(40), np.where(np.arange(40) < 20, 50, 200)])
def test_stillness_fades_and_steps_do_not_flicker(levels: np.ndarray) -> None:
    assert flicker(grey(levels)) == {"flicker": 0.0, "pulse": 0.0}


def test_a_cut_and_a_pan_are_no_flicker_and_one_grey_level_of_it_shows_in_a_pan() -> None:
    clip = pan(60, 1)
    calm = flicker(clip)["flicker"]
    assert calm < 0.3
    assert flicker(np.concatenate([clip[:30], pan(30, 1, seed=4)]))["flicker"] < 0.4
    shaking = np.clip(clip.astype(int) + (np.arange(60) % 2)[:, None, None, None], 0, 255).astype(np.uint8)
    assert flicker(shaking)["flicker"] > 4 * calm
    assert 1 - score(clip) > 0.02  # VBench's number takes the pan for flicker


def test_colour_flickers_at_equal_brightness_too_and_grain_does_not() -> None:
    colours = np.stack([grey(np.full(1, 100))[0] + np.array(c) for c in ((8, 0, 0), (0, 0, 8))] * 20).astype(np.uint8)
    assert flicker(colours)["flicker"] == pytest.approx(8 * 2 / 3)
    grain = texture(48, 64) // 2 + np.random.default_rng(0).integers(0, 60, (40, 48, 64, 1))
    assert flicker(grain.astype(np.uint8))["flicker"] < 2
    assert 1 - score(grain.astype(np.uint8)) > 0.07


def test_the_series_lie_at_the_frames_that_have_both_neighbours() -> None:
    answer = run(TemporalFlickering(), pan(20), fps=16)
    assert isinstance(answer, Scores)
    frames, pulses = answer.series
    assert frames.times == pytest.approx([index / 16 for index in range(1, 19)])
    assert pulses.times == pytest.approx([index / 16 for index in range(4, 16)])


def test_few_frames_say_so() -> None:
    assert reason(run(TemporalFlickering(), pan(2))) == "2 frames: flicker takes three"
    assert "1/4" not in reason(run(TemporalFlickering(), pan(4)), "pulse")
    assert reason(run(TemporalFlickeringVBench(), pan(1))) == "fewer than two frames: nothing to compare"


def test_vbench_has_closed_forms() -> None:
    assert score(grey(np.full(10, 90))) == 1.0
    assert score(grey(100 + 5 * (-1) ** np.arange(10))) == pytest.approx(1 - 10 / 255)
    ramp = np.broadcast_to((4 * np.arange(64))[None, :, None], (16, 64, 3)).astype(np.uint8)
    moving = np.stack([np.roll(ramp, -3 * t, axis=1) for t in range(10)])
    # 61 columns differ by 3 steps of 4, the three at the fold by 61 steps
    assert score(moving) == pytest.approx(1 - (61 * 12 + 3 * 244) / 64 / 255, abs=1e-12)


def test_vbench_scores_motion_a_pan_of_3_px_costs_what_the_picture_differs_from_itself() -> None:
    picture = texture().astype(float)
    expected = (255 - np.abs(np.roll(picture, -3, axis=1) - picture).mean()) / 255
    assert score(pan(20, 3)) == pytest.approx(expected, abs=1e-9)
    assert 0.85 < expected < 0.97
