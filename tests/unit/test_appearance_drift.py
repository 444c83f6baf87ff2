import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from skimage.color import rgb2lab

from magbench.metrics.appearance_drift import SCALES, AppearanceDrift
from magbench.metrics.base import Scores
from magbench.metrics.drift import functionals
from tests.unit.clips import Frames, numbers, pan, reason, run, texture

RAMP = np.linspace(0, 1, 120)[:, None, None, None]


def drift(frames: Frames, fps: float = 8.0) -> dict[str, float]:
    return numbers(run(AppearanceDrift(), frames, fps=fps))


def test_a_held_frame_does_not_drift() -> None:
    held = drift(np.repeat(texture()[None], 120, 0))
    assert list(held.values()) == pytest.approx([0] * len(held), abs=1e-12)


def test_a_steady_pan_drifts_far_less_than_any_damage() -> None:
    clip = pan(120)
    stable = drift(clip)["drift"]
    damages = {
        "darker": clip * (1 - 0.6 * RAMP),
        "greyer": clip * (1 - RAMP) + clip.mean(-1, keepdims=True) * RAMP,
        "violet": clip * (1 - RAMP * np.array([0.0, 0.5, 0.0])),
        "flatter": clip * (1 - 0.8 * RAMP) + 128 * 0.8 * RAMP,
        "noisier": clip + np.random.default_rng(0).normal(0, 40, clip.shape) * RAMP,
    }
    for name, damaged in damages.items():
        assert drift(np.clip(damaged, 0, 255).astype(np.uint8))["drift"] > stable + 0.2, name


@pytest.mark.parametrize("component", ["contrast", "saturation", "sharpness", "tails"])
def test_each_component_answers_to_its_own_damage(component: str) -> None:
    clip = pan(120).astype(float)
    grey = clip.mean(-1, keepdims=True)
    damaged = {
        "contrast": clip * (1 - 0.8 * RAMP) + 0.8 * 128 * RAMP,
        "saturation": clip * (1 - RAMP) + grey * RAMP,
        "sharpness": clip + RAMP * 40 * np.where(np.indices(clip.shape[1:3]).sum(0) % 2, 1, -1)[..., None],
        "tails": clip + RAMP * 200,
    }[component]
    before, after = drift(clip.astype(np.uint8)), drift(np.clip(damaged, 0, 255).astype(np.uint8))
    assert after[component] - before[component] > SCALES[component] / 2


def test_stronger_damage_drifts_more() -> None:
    clip = pan(120)
    found = [drift((clip * (1 - strength * RAMP)).astype(np.uint8))["drift"] for strength in (0.1, 0.2, 0.4, 0.8)]
    assert found == sorted(found)
    assert found[0] < found[-1] / 3


def test_blotches_show_where_the_mean_stays() -> None:
    """Half of the picture turns lighter and half darker: no global mean moves."""
    clip = np.full((120, 48, 64, 3), 128.0)
    blotches = np.where(np.indices((48, 64)).sum(0) // 8 % 2, 1, -1)[..., None]
    found = drift((clip + 60 * RAMP * blotches).astype(np.uint8))
    assert found["colour"] > 10
    assert found["drift"] > 0.5


def test_an_exposure_step_is_seen_by_every_functional() -> None:
    clip = pan(160)
    clip[80:] //= 2
    found = drift(clip)
    stable = drift(pan(160))
    for name in ("drift", "start_end@15%", "start_end@5s", "slope", "worst_window"):
        assert found[name] > stable[name] + 0.2, name


def test_components_are_what_they_are_called() -> None:
    """Two still scenes, one after the other; each distance from its own definition."""
    one, other = texture(seed=1), (texture(seed=2) * 0.8).astype(np.uint8)
    found = drift(np.concatenate([np.repeat(one[None], 16, 0), np.repeat(other[None], 32, 0)]))
    a, b = rgb2lab(one / 255), rgb2lab(other / 255)
    expected = sum(wasserstein_distance(a[..., i].ravel(), b[..., i].ravel()) for i in range(3))
    assert found["colour"] == pytest.approx(expected, rel=0.05, abs=2)  # bins of 1.6 and 3.4 units
    cells = [
        [x[12 * i : 12 * i + 12, 16 * j : 16 * j + 16].mean((0, 1)) for i in range(4) for j in range(4)] for x in (a, b)
    ]
    assert found["layout"] == pytest.approx(np.linalg.norm(np.subtract(*cells), axis=1).mean(), rel=1e-3)
    assert found["contrast"] == pytest.approx(abs(a[..., 0].std() - b[..., 0].std()), rel=1e-3)
    chroma = [np.hypot(x[..., 1], x[..., 2]).mean() for x in (a, b)]
    assert found["saturation"] == pytest.approx(abs(chroma[0] - chroma[1]), rel=1e-3)
    tails = [np.array([(x[..., 0] < 5).mean(), (x[..., 0] > 95).mean()]) for x in (a, b)]
    assert found["tails"] == pytest.approx(np.abs(tails[0] - tails[1]).sum(), abs=1e-6)
    parts = [found[name] / scale for name, scale in SCALES.items()]
    assert found["drift"] == pytest.approx(np.linalg.norm(parts) / np.sqrt(5))


def test_the_frame_rate_does_not_matter() -> None:
    scene = np.clip(pan(60) * (1 - 0.5 * np.linspace(0, 1, 60)[:, None, None, None]), 0, 255).astype(np.uint8)
    assert drift(scene)["drift"] == pytest.approx(drift(scene.repeat(3, 0), fps=24.0)["drift"], rel=1e-6)


@pytest.mark.parametrize(("seconds", "windows"), [(4, 1), (5, 2), (6, 2), (6.5, 2), (7, 3)])
def test_windows_cover_the_video(seconds: float, windows: int) -> None:
    answer = run(AppearanceDrift(), pan(int(seconds * 8)))
    assert isinstance(answer, Scores)
    assert answer.series[0].times == tuple(3.0 + 2 * index for index in range(windows))


def test_short_videos_are_not_applicable() -> None:
    assert "shorter than 3 s" in reason(run(AppearanceDrift(), pan(20)))
    assert "slope needs three points" in reason(run(AppearanceDrift(), pan(40)), "slope")


def test_large_frames_are_read_small() -> None:
    small, large = pan(40), torch.from_numpy(pan(40)).numpy().repeat(4, 1).repeat(4, 2)
    assert drift(small)["colour"] == pytest.approx(drift(large)["colour"], rel=0.1)


def test_functionals_have_closed_forms() -> None:
    times = np.arange(0, 61.0)
    line = functionals(times.tolist(), (2 + 0.1 * times).tolist(), "higher", "x")
    assert line["x.slope"] == pytest.approx(6.0)
    assert line["x.start_end@5s"] == pytest.approx(0.1 * 55)
    assert line["x.start_end@15%"] == pytest.approx(0.1 * 51)
    assert line["x.worst_window"] == pytest.approx(8.0)
    assert functionals(times.tolist(), (2 + 0.1 * times).tolist(), "lower")["worst_window"] == 2.0


def test_what_moves_drifts_less_than_what_decays() -> None:
    """A window moving over a picture, and zooming into it, against the same picture losing its colours."""
    big = texture(96, 128, seed=3)
    moving = np.stack([big[t // 4 : t // 4 + 48, t // 2 : t // 2 + 64] for t in range(120)])
    zooming = np.stack([big[t // 6 : 96 - t // 6 : 1, t // 6 : 128 - t // 6][:48, :64] for t in range(120)])
    still = np.repeat(big[None, :48, :64], 120, 0)
    decays = {
        "oversaturated": still.mean(-1, keepdims=True) + (still - still.mean(-1, keepdims=True)) * (1 + RAMP),
        "washed out": 128 + (still - 128.0) * (1 - 0.7 * RAMP),
        "dark": still * (1 - 0.6 * RAMP),
    }
    healthy = max(drift(moving)["drift"], drift(zooming)["drift"])
    for name, clip in decays.items():
        assert drift(np.clip(clip, 0, 255).astype(np.uint8))["drift"] > healthy, name


def test_layout_is_told_and_not_counted() -> None:
    """The halves of a picture change places: every colour stays, every cell changes."""
    one = texture()
    one[:, :32] //= 2
    found = drift(np.concatenate([np.repeat(one[None], 16, 0), np.repeat(one[None, :, ::-1], 32, 0)]))
    assert found["layout"] > 10
    assert found["drift"] == pytest.approx(0, abs=0.02)
