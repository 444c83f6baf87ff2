"""The suite `mini` and its leave-and-return cases."""

import pytest

from magbench.data.mag_bench import AWAY, CASE_SEEDS, CONTINUATION, LEAD_IN, WINDOW, mini_case, mini_cases, truth_sha256
from magbench.data.mini_world import CameraPath, Scene, World
from magbench.errors import ConfigError
from magbench.metrics import METRICS
from magbench.metrics.judge import frames as judge_frames
from magbench.records import CaseRecord
from magbench.runners.mini import clips
from magbench.suite import Suite, load_suite

LONGEST_SINK = 15
CHUNK = 3


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("mini")


def world_of(case: CaseRecord) -> World:
    assert case.world_seed is not None
    return World(Scene.parse(case.prompt), case.world_seed, CameraPath.from_dict(case.path) if case.path else None)


def landmarks_seen(world: World, frames: range) -> set[int]:
    return {view.landmark.x for t in frames for view in world.visible(t)}


def test_the_suite_holds_the_cases_that_the_code_makes(suite: Suite) -> None:
    assert suite.cases("mag-bench") == mini_cases()
    assert len({case.id for case in mini_cases()}) == len(AWAY) * len(CASE_SEEDS) == 16


def test_every_truth_hash_in_the_suite_is_of_what_the_world_renders(suite: Suite) -> None:
    long = suite.cases("long-horizon")
    for case in (long[0], long[7], long[15]):
        assert truth_sha256(world_of(case), case.frames) == case.truth_sha256


def test_long_horizon_prompts_cover_the_vocabulary_evenly(suite: Suite) -> None:
    scenes = [Scene.parse(case.prompt) for case in suite.cases("long-horizon")]
    assert len(scenes) == 16
    for slot, times in (("sky", 4), ("ground", 4), ("body", 2), ("hat_colour", 2)):
        words = [getattr(scene, slot) for scene in scenes]
        assert {words.count(word) for word in words} == {times}
    assert all(scene.body != scene.hat_colour for scene in scenes)
    assert len({scene.camera for scene in scenes}) == 7
    assert all(24 * 8 <= case.frames <= 30 * 8 for case in suite.cases("long-horizon"))


def test_metrics_and_primary_endpoints_exist(suite: Suite) -> None:
    for track in suite.tracks.values():
        for name in track.metrics:
            reductions = {declared.name for declared in METRICS[name].reductions}
            for endpoint in track.primary:
                if endpoint.startswith(f"{name}/"):
                    assert endpoint.removeprefix(f"{name}/") in reductions


@pytest.mark.parametrize("windows", AWAY)
def test_scene_a_is_hidden_for_the_time_away_and_comes_back(windows: float) -> None:
    case = mini_case(CASE_SEEDS[0], windows)
    world = world_of(case)
    history = case.history_frames
    assert history % CHUNK == case.frames % CHUNK == 0
    assert case.frames == history + CONTINUATION

    at_a = LEAD_IN + 16
    scene_a = landmarks_seen(world, range(at_a, at_a + 1))
    assert not scene_a & landmarks_seen(world, range(LONGEST_SINK)), "no sink may hold scene A"
    away = round(windows * WINDOW)
    assert not scene_a & landmarks_seen(world, range(history - away, history + 1))
    assert scene_a <= landmarks_seen(world, range(history + 1, case.frames))
    arrived, back = world.frame_without_walker(at_a), world.frame_without_walker(history + 16)
    assert (arrived == back).all()


def test_cases_of_one_seed_differ_only_in_the_time_away() -> None:
    short, long = mini_case(CASE_SEEDS[1], 0.5), mini_case(CASE_SEEDS[1], 4)
    assert short.prompt == long.prompt
    assert long.history_frames - short.history_frames == round(3.5 * WINDOW)


def test_a_time_away_that_is_no_even_number_of_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.25 windows is 3\.0 frames"):
        mini_case(CASE_SEEDS[0], 0.25)


def test_no_training_seed_is_a_suite_seed(suite: Suite) -> None:
    training = [clips.VAE_SEEDS, clips.GENERATOR_SEEDS, judge_frames.TRAINING_SEEDS]
    held_out = [clips.HELD_OUT_SEEDS, judge_frames.HELD_OUT_SEEDS]
    ranges = [*training, *held_out, CASE_SEEDS]
    for i, one in enumerate(ranges):
        for other in ranges[i + 1 :]:
            assert one.stop <= other.start or other.stop <= one.start
    for track in suite.tracks:
        for case in suite.cases(track):
            assert case.world_seed is not None
            assert not any(case.world_seed in seeds for seeds in (*training, *held_out))
