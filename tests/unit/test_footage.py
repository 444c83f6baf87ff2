"""What small pictures tell of a clip."""

from functools import cache

import numpy as np
import pytest
from skimage.transform import downscale_local_mean

from magbench.data.footage import CELLS, Footage
from magbench.data.mini_world import Scene, World
from magbench.data.video import Frame

PAN = (
    "A walker in a red coat and a tall blue hat crosses a meadow under a clear sky, while the camera pans left quickly."
)
FPS = 8


@cache
def world(seed: int, frames: int, prompt: str = PAN) -> list[Frame]:
    return list(World(Scene.parse(prompt), seed).clip(frames))


def look(frames: list[Frame]) -> Footage:
    return Footage.of((index / FPS, frame) for index, frame in enumerate(frames))


def test_small_pictures_are_means_of_equal_cells() -> None:
    """As scikit-image's; 33 x 50 leaves a row and two columns over."""
    frame = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    (picture,) = look([frame]).pictures
    assert picture.shape == (CELLS, CELLS, 3)
    np.testing.assert_allclose(picture, downscale_local_mean(frame[:32, :48], (2, 3, 1)), rtol=1e-6)
    (tiny,) = look([frame[:3, :2]]).pictures
    assert np.array_equal(tiny, frame[:3, :2])


def test_a_clip_and_its_reverse_mirror_in_the_last_index() -> None:
    there = world(5, 12)
    assert look([*there, *there[::-1]]).mirror == 23
    assert look([*there, *there[-2::-1]]).mirror == 22
    assert look(there).mirror is None
    assert look([*there, *there]).mirror is None, "it comes back by a jump, not the way it went"


def test_codec_noise_and_a_frame_of_delay_are_no_other_way_back() -> None:
    x, y = np.meshgrid(np.arange(200), np.arange(48))
    place = np.stack([127 + 100 * np.sin(x / 40 + y / (20 + channel)) for channel in range(3)], -1)
    there = [place[:, t : t + 80].astype(np.uint8) for t in range(0, 120, 2)]
    dice = np.random.default_rng(1)
    noisy = [np.clip(frame + dice.normal(0, 6, frame.shape), 0, 255).astype(np.uint8) for frame in there[::-1]]
    assert look([*there, *noisy]).mirror == 119
    assert look([*there, there[-1], there[-1], *there[:0:-1]]).mirror == 120
    assert look(there).mirror is None


@pytest.mark.parametrize("camera", ["stands still", "pans right slowly"])
def test_a_walker_or_a_slow_camera_alone_is_no_return(camera: str) -> None:
    assert look(world(5, 40, PAN.replace("pans left quickly", camera))).mirror is None


def test_cuts() -> None:
    one, other = world(5, 12), world(6, 12, PAN.replace("clear", "night"))
    assert look([*one, *other]).cuts == (12,)
    assert look(one).cuts == look(one[:1]).cuts == ()


def test_still() -> None:
    frames = world(5, 12)
    assert look([frames[0]] * 3).still
    assert not look(frames).still


def test_evenly_spaced() -> None:
    frames = world(5, 4)

    def spaced(*times: float) -> bool:
        return Footage.of(zip(times, frames, strict=False)).evenly_spaced(FPS)

    assert spaced(0, 0.125, 0.25)
    assert spaced(0, 0.12, 0.26), "as containers round"
    assert not spaced(0, 0.125, 0.375)
