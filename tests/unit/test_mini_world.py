"""The procedural world: same bytes everywhere, and a truth that agrees with its pixels."""

import hashlib
import itertools
import random

import numpy as np
import pytest

from magbench.data.mini_world import (
    CAMERAS,
    COLOUR_RGB,
    COLOURS,
    HATS,
    PANORAMA,
    QUICK,
    SIZE,
    SLOW,
    VOCABULARY,
    CameraPath,
    Scene,
    World,
)
from magbench.errors import ConfigError

SCENE = Scene("night", "desert", "yellow", "blue", "wide", "pans right slowly")


def world(camera: str = "pans right slowly", seed: int = 7) -> World:
    return World(Scene("clear", "meadow", "red", "blue", "tall", camera), seed)


@pytest.mark.parametrize(
    ("seed", "camera", "digest"),
    [
        (0, "stands still", "758087a5b0113cba43fb4accef7925a319461cfe5ed0984ed1d6f1fc02128195"),
        (7, "pans right slowly", "547244202f471b7f75e3f171af4d165dc0987532ecef0cd8bbc5095e529bafd5"),
        (2_000_003, "pans left and comes back", "ef8ede7ff7a6b1478cb639744943591a8dfbcddfb84f3c6f1eae00f641eed64d"),
    ],
)
def test_frames_are_the_same_bytes_on_every_machine(seed: int, camera: str, digest: str) -> None:
    scene = Scene("sunset", "snowfield", "pink", "black", "square", camera)
    clip = World(scene, seed).clip(40)
    assert clip.shape == (40, SIZE, SIZE, 3)
    assert clip.dtype == np.uint8
    assert hashlib.sha256(clip.tobytes()).hexdigest() == digest


def test_frames_do_not_depend_on_the_order_they_are_asked_for() -> None:
    forward = world().clip(6)
    backward = world().clip([5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(forward, backward[::-1])


def test_sentence_is_plain_english() -> None:
    assert SCENE.sentence() == (
        "A walker in a yellow coat and a wide blue hat crosses a desert under a night sky, "
        "while the camera pans right slowly."
    )


def test_parse_inverts_every_word_of_every_slot() -> None:
    dice = random.Random(0)
    for slot, words in VOCABULARY.items():
        for word in words:
            scene = Scene.draw(dice, **{slot: word})
            assert getattr(scene, slot) == word
            assert Scene.parse(scene.sentence()) == scene


def test_parse_is_lenient_in_form() -> None:
    assert Scene.parse(f"  {SCENE.sentence().upper().rstrip('.')}  \n") == SCENE


@pytest.mark.parametrize("text", ["", "a dog on a beach", SCENE.sentence() + " And then it rains."])
def test_parse_shows_an_example_for_a_free_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="only knows the sentences of its small world") as caught:
        Scene.parse(text)
    example = (caught.value.hint or "").removeprefix("write it like: ")
    assert Scene.parse(example).sentence() == example


def test_parse_names_an_unknown_word_and_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'mauve' is not a word the mini world knows for body") as caught:
        Scene.parse(SCENE.sentence().replace("yellow", "mauve"))
    assert all(colour in (caught.value.hint or "") for colour in COLOURS)


@pytest.mark.parametrize(
    ("camera", "steps"),
    [
        ("stands still", [0.0] * 3),
        ("pans left slowly", [-SLOW] * 3),
        ("pans right quickly", [QUICK] * 3),
        ("pans right and comes back", [QUICK] * 24 + [-QUICK] * 24 + [QUICK] * 3),
    ],
)
def test_prompt_moves_the_camera(camera: str, steps: list[float]) -> None:
    positions = [world(camera).camera(t) for t in range(len(steps) + 1)]
    assert np.diff(positions).tolist() == steps


def test_still_camera_sees_the_same_place_behind_the_walker() -> None:
    still = world("stands still")
    np.testing.assert_array_equal(still.frame_without_walker(0), still.frame_without_walker(33))
    assert (still.frame(0) != still.frame(5)).any(), "the walker moves"


def test_panorama_wraps_around() -> None:
    quick = world("pans right quickly")
    lap = PANORAMA // int(QUICK)
    np.testing.assert_array_equal(quick.frame_without_walker(3), quick.frame_without_walker(3 + lap))
    assert (quick.frame_without_walker(3) != quick.frame_without_walker(3 + lap // 2)).any()


def test_a_whole_pixel_of_panning_shifts_the_picture() -> None:
    quick = world("pans right quickly")
    before, after = quick.frame_without_walker(0), quick.frame_without_walker(1)
    np.testing.assert_array_equal(before[:, int(QUICK) :], after[:, : -int(QUICK)])


def test_leave_and_return_goes_back_the_way_it_came() -> None:
    path = CameraPath(-4.0, lead_in=18, arrive=16, dwell=10, leave=16, away=24)
    positions = [path.position(t) for t in range(path.return_frame + 40)]
    assert set(positions[:19]) == {0.0}
    assert positions[34:45] == [-64.0] * 11
    assert positions[path.return_frame] == -128.0
    assert min(positions) == -128.0 - 4 * 12
    away = positions[path.return_frame - 24 : path.return_frame + 1]
    assert away == away[::-1]
    assert positions[path.return_frame :][:33] == [-128.0 + 4 * t for t in range(33)]


@pytest.mark.parametrize("counts", [{"leave": 24}, {"lead_in": 5, "arrive": 9, "dwell": 3, "leave": 7, "away": 12}])
def test_turn_frame_is_the_farthest_point(counts: dict[str, int]) -> None:
    path = CameraPath(2.0, **counts)
    assert path.turn_frame is not None
    positions = [path.position(t) for t in range(2 * path.turn_frame)]
    assert positions.index(max(positions)) == path.turn_frame
    assert CameraPath(2.0).turn_frame is None


def test_no_two_landmarks_of_a_world_are_alike_or_touch() -> None:
    for seed in range(30):
        landmarks = world(seed=seed).landmarks
        assert len({(mark.colour, mark.shape) for mark in landmarks}) == len(landmarks)
        gaps = [b.x - a.x for a, b in itertools.pairwise(landmarks)]
        assert min(gaps) > 2 * landmarks[0].size + 1


def test_camera_path_survives_a_dictionary() -> None:
    path = CameraPath(4.0, lead_in=3, arrive=5, dwell=7, leave=9, away=10)
    assert CameraPath.from_dict(path.to_dict()) == path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 0.3}, "not a multiple of 1/8 pixel"),
        ({"speed": 1.0, "leave": 4, "away": 3}, "odd time away"),
        ({"speed": 1.0, "dwell": -1}, "negative frame count"),
        ({"speed": 1.0, "zoom": 2}, "unknown keys \\['zoom'\\]"),
        ({"away": 2}, "no speed"),
    ],
)
def test_camera_path_refuses_what_it_cannot_do(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CameraPath.from_dict(values)


def test_visible_landmarks_are_where_their_colour_is() -> None:
    quick = world("pans right quickly", seed=3)
    seen = 0
    for t in range(0, 60, 4):
        frame = quick.frame(t)
        for landmark, x, share in quick.visible(t):
            if share > 0.95:
                middle = frame[landmark.base - 2, round(x)]
                assert middle.tolist() == list(COLOUR_RGB[COLOURS.index(landmark.colour)])
                seen += 1
    assert seen > 15


def test_a_landmark_leaving_the_frame_loses_its_visible_share() -> None:
    quick = world("pans right quickly", seed=3)
    first = max(quick.visible(0), key=lambda view: view.visible).landmark
    shares = [next((v.visible for v in quick.visible(t) if v.landmark == first), 0.0) for t in range(40)]
    assert max(shares) > 0.9
    assert shares[-1] == 0.0


@pytest.mark.parametrize(("hat", "sky"), list(itertools.product(HATS, ("clear", "night"))))
def test_subject_box_holds_exactly_the_walker(hat: str, sky: str) -> None:
    walker = World(Scene(sky, "quarry", "green", "yellow", hat, "stands still"), 12)
    for t in range(0, 30, 7):
        changed = (walker.frame(t) != walker.frame_without_walker(t)).any(-1)
        rows, columns = np.nonzero(changed)
        box = walker.subject_box(t)
        assert (box.left, box.top, box.right, box.bottom) == (
            columns.min(),
            rows.min(),
            columns.max() + 1,
            rows.max() + 1,
        )


def test_seeds_make_different_places_and_words_do_not_move_them() -> None:
    here, there = world(seed=1), world(seed=2)
    assert here.landmarks != there.landmarks
    other_words = World(Scene("misty", "snowfield", "black", "pink", "wide", CAMERAS[0]), 1)
    assert other_words.landmarks == here.landmarks
