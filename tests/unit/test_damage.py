import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from magbench.data.damage import DAMAGES, Dose, changed_psnr
from tests.unit.clips import Frames, pan, texture

CLIP = pan(48)
BORDERS = tuple(range(3, 48, 3))


def damaged(name: str, strength: float, onset: int = 12, clip: Frames = CLIP) -> Frames:
    other = np.full_like(clip, 200)
    dose = Dose(strength, onset, len(clip), 8.0, BORDERS, lambda: iter(other))
    return np.stack(list(DAMAGES[name](iter(clip), dose)))


@pytest.mark.parametrize("name", DAMAGES)
def test_nothing_changes_before_the_onset_and_something_after(name: str) -> None:
    found = damaged(name, 0.5)
    assert found.shape == CLIP.shape
    assert found.dtype == np.uint8
    assert np.array_equal(found[:12], CLIP[:12])
    assert not np.array_equal(found[12:], CLIP[12:])
    assert np.array_equal(found, damaged(name, 0.5))


@pytest.mark.parametrize("name", ["identity", "exposure", "colour", "blur", "noise", "seams", "flicker"])
def test_stronger_is_further_from_the_clean_clip(name: str) -> None:
    levels = [damaged(name, strength) for strength in (0.02, 0.05, 0.1, 0.2, 0.4)]
    noise = [peak_signal_noise_ratio(CLIP, level) for level in levels]
    assert noise == sorted(noise, reverse=True)
    assert noise[0] > noise[-1] + 6


def test_ramps_end_at_their_strength() -> None:
    """From the definitions, in the last frame."""
    last = CLIP[-1].astype(float)
    assert np.abs(damaged("exposure", 0.5)[-1] - last * 0.5).max() <= 0.5
    tinted = np.clip(last * np.array([1.2, 0.92, 0.8]), 0, 255)
    assert np.abs(damaged("colour", 0.2)[-1] - tinted).max() <= 0.5 + 1e-9
    assert np.abs(damaged("identity", 0.25)[-1] - (0.75 * last + 50)).max() <= 0.5
    blurred = gaussian_filter(last, (0.05 * 48, 0.05 * 48, 0), mode="nearest")
    assert np.abs(damaged("blur", 0.05)[-1] - blurred).max() <= 0.5 + 1e-6
    half = damaged("exposure", 0.5)[12 + (47 - 12) // 2 + 1]
    assert half.mean() / CLIP.mean() == pytest.approx(0.75, abs=0.02)


def test_noise_has_the_deviation_it_says() -> None:
    grey = np.full((24, 64, 64, 3), 128, np.uint8)
    assert damaged("noise", 0.1, 2, grey)[-1].std() == pytest.approx(25.5, rel=0.02)


def test_freezing_and_looping_last_as_long_as_they_say() -> None:
    frozen = damaged("freeze", 2.0)
    assert all(np.array_equal(frame, CLIP[11]) for frame in frozen[12:28])
    assert np.array_equal(frozen[28:], CLIP[28:])
    looped = damaged("loop", 2.0)
    assert np.array_equal(looped[12:28], np.concatenate([CLIP[4:12]] * 2))
    assert np.array_equal(looped[28:], CLIP[28:])


def test_seams_lie_at_chunk_borders_only() -> None:
    still = np.repeat(texture()[None], 48, 0)
    found = damaged("seams", 0.2, 12, still).mean((1, 2, 3))
    jumps = set((np.flatnonzero(np.abs(np.diff(found)) > 1) + 1).tolist())
    assert jumps == {border for border in BORDERS if border >= 12}
    assert set((np.flatnonzero(np.diff(damaged("flicker", 0.2, 12, still).mean((1, 2, 3)))) + 1).tolist()) == set(
        range(13, 48)
    )


def test_only_rendered_clips_have_another_subject() -> None:
    with pytest.raises(ValueError, match="only a rendered clip"):
        list(DAMAGES["identity"](iter(CLIP), Dose(0.5, 12, 48, 8.0)))


def test_the_distance_counts_changed_pixels_only() -> None:
    clean = np.zeros((4, 4, 3), np.uint8)
    other = clean.copy()
    other[0, 0] = 51  # a fifth of the range
    assert changed_psnr([(clean, other), (clean, clean)]) == pytest.approx(20 * np.log10(5))
    assert changed_psnr([(clean, clean)]) is None
