"""What `ssim_consecutive` must and must not react to (metrics A1 and A2), on clips with a known answer."""

import numpy as np
import pytest

from magbench.metrics import consecutive
from magbench.metrics.base import Scores
from magbench.metrics.ssim_consecutive import SSIMConsecutive, SSIMConsecutiveNative
from magbench.records import Timing
from tests.unit.clips import Frames, numbers, pan, reason, run, texture

FRAMES = 97
TIMING = Timing(
    chunk_borders=tuple(range(9, FRAMES, 12)),
    latent_borders=tuple(sorted(set(range(1, FRAMES, 4)) - set(range(9, FRAMES, 12)))),
)
"""Of Wan at 16 fps: the first latent frame is one pixel frame, the others four; three to a chunk."""


def decoded(shared: float) -> tuple[Frames, np.ndarray]:
    """A pan in which each latent frame has grain of its own; at chunk borders the grain before stays in part.

    Returns:
        The frames, and the latent frame of each.
    """
    rng = np.random.default_rng(0)
    group = (np.arange(FRAMES) + 3) // 4
    grain = [rng.normal(0, 6, (32, 48, 3))]
    for index in range(1, group[-1] + 1):
        fresh = rng.normal(0, 6, (32, 48, 3))
        starts_chunk = int(np.argmax(group == index)) in TIMING.chunk_borders
        mix = shared if starts_chunk else 0.0
        grain.append(mix * grain[-1] + np.sqrt(1 - mix**2) * fresh)
    scene = pan(FRAMES, 1, 32, 48).astype(float) * 0.8 + 25
    return np.clip(scene + np.array(grain)[group], 0, 255).round().astype(np.uint8), group


def effects(shared: float) -> tuple[float, float]:
    """The border effect, and what it would be against all pairs inside a chunk that cross no latent border."""
    frames, group = decoded(shared)
    answer = run(SSIMConsecutive(), frames, fps=16, timing=TIMING, chunk=FRAMES)
    assert isinstance(answer, Scores)
    values = np.array(answer.series[0].values)
    later = np.arange(2, FRAMES)
    chunk = np.isin(later, TIMING.chunk_borders) | np.isin(later - 1, TIMING.chunk_borders)
    inside = group[later] == group[later - 2]
    return numbers(answer)["border_effect"], float(np.median(values[chunk]) - np.median(values[inside]))


def test_latent_borders_that_dip_like_chunk_borders_leave_no_border_effect() -> None:
    effect, uncontrolled = effects(shared=0.0)
    assert abs(effect) < 0.01
    assert uncontrolled < -0.05


def test_without_the_control_the_sign_of_the_border_effect_flips() -> None:
    """Chunk borders that dip less than latent borders do: the model's seam is better than the decoder's own."""
    effect, uncontrolled = effects(shared=0.8)
    assert effect > 0.03
    assert uncontrolled < -0.01


def near_static() -> Frames:
    """A still picture with grain that turns its sign every frame; every ninth frame a grey level stronger."""
    rng = np.random.default_rng(1)
    grain = rng.choice([-1, 1], (32, 48, 3))
    strength = np.where(np.arange(90) % 9 == 4, 7, 6) * np.where(np.arange(90) % 2, 1, -1)
    return (np.clip(texture(32, 48), 20, 235) + strength[:, None, None, None] * grain).astype(np.uint8)


def test_the_mad_floor_keeps_the_flutter_of_a_near_static_clip_from_being_spikes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert numbers(run(SSIMConsecutive(), near_static()))["spike_rate"] == 0
    monkeypatch.setattr(consecutive, "MAD_FLOOR", 0.0)
    assert numbers(run(SSIMConsecutive(), near_static()))["spike_rate"] > 0.15


def test_the_fixed_gap_gives_one_level_at_every_frame_rate_and_native_does_not() -> None:
    clip = pan(64, 1, 32, 48)
    default, native, gaps = [], [], []
    for stride in (1, 2, 4):
        frames, fps = clip[::stride], 32 / stride
        default.append(numbers(run(SSIMConsecutive(), frames, fps=fps))["median"])
        found = numbers(run(SSIMConsecutiveNative(), frames, fps=fps))
        native.append(found["median"])
        gaps.append(found["gap"])
    assert max(default) - min(default) < 0.005
    assert native[0] - native[1] > 0.1
    assert native[1] - native[2] > 0.1
    assert gaps == pytest.approx([1 / 32, 1 / 16, 1 / 8])
    assert native[2] == pytest.approx(default[2])


def test_native_compares_every_frame_with_the_one_before_whatever_the_timestamps() -> None:
    clip = pan(12, 2, 32, 48)
    times = [0.0, 0.001, 0.002, 0.1, 0.11, 0.5, 0.501, 0.9, 1.0, 1.3, 1.31, 1.32]
    answer = run(SSIMConsecutiveNative(), clip, times=times, chunk=5)
    assert isinstance(answer, Scores)
    assert answer.series[0].times == tuple(times[1:])
    assert np.ptp(answer.series[0].values) < 0.05


def test_a_frozen_clip_has_a_level_and_no_spikes() -> None:
    for metric in (SSIMConsecutive(), SSIMConsecutiveNative()):
        held = run(metric, np.repeat(texture(32, 48)[None], 40, 0), timing=TIMING)
        assert numbers(held)["median"] == numbers(held)["p05"] == 1.0
        assert numbers(held)["border_effect"] == 0.0
        assert "stands still in 100% of the pairs" in reason(held, "spike_rate")


def test_a_constant_pan_has_one_value() -> None:
    answer = run(SSIMConsecutive(), pan(60, 2, 32, 48))
    assert isinstance(answer, Scores)
    assert np.ptp(answer.series[0].values) < 0.05
    assert numbers(answer)["spike_rate"] == 0


def test_a_loop_repeats_its_series_and_its_seam_is_a_spike_per_period() -> None:
    period, rounds = 20, 5
    clip = np.tile(pan(period, 1, 32, 48), (rounds, 1, 1, 1))
    answer = run(SSIMConsecutive(), clip)
    assert isinstance(answer, Scores)
    values = np.array(answer.series[0].values)
    assert values[period:] == pytest.approx(values[:-period], abs=1e-9)
    assert numbers(answer)["spike_rate"] == pytest.approx((rounds - 1) / len(values))


def test_reversal_keeps_every_number_and_shuffling_lowers_the_level() -> None:
    clip = pan(40, 1, 32, 48)
    forth, back = (numbers(run(SSIMConsecutiveNative(), frames)) for frames in (clip, clip[::-1]))
    assert forth == pytest.approx(back)
    shuffled = clip[np.random.default_rng(0).permutation(40)]
    assert numbers(run(SSIMConsecutiveNative(), shuffled))["median"] < forth["median"] - 0.1


def test_an_exposure_step_is_one_spike() -> None:
    stepped = pan(60, 1, 32, 48)
    stepped[30:] //= 2
    assert numbers(run(SSIMConsecutive(), stepped))["spike_rate"] == pytest.approx(1 / 59)
