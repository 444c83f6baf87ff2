"""The suite `mini` and its leave-and-return cases."""

import functools
from collections import Counter

import pytest

from magbench.data import mini_suites
from magbench.data.mag_bench import AWAY, CASE_SEEDS, CONTINUATION, LEAD_IN, WINDOW, mini_case, mini_cases, truth_sha256
from magbench.data.mini_world import VOCABULARY, CameraPath, Scene, World
from magbench.errors import ConfigError
from magbench.metrics import METRICS
from magbench.metrics.judge import frames as judge_frames
from magbench.records import CaseRecord
from magbench.runners.mini import clips
from magbench.schedule import switch_frames
from magbench.suite import Suite, load_suite

suites = functools.cache(mini_suites.suites)
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


@pytest.mark.parametrize("name", ["mini", "mini-card", "mini-minute", "long", "interactive"])
def test_the_suite_files_hold_what_the_code_makes(name: str) -> None:
    assert load_suite(name) == Suite.model_validate(suites()[name])


def test_every_case_is_another_world() -> None:
    assert len({case.id for case in mini_cases()}) == len(CASE_SEEDS) == 16
    seeds = [case.world_seed for name in suites() for track in load_suite(name).tracks.values() for case in track.cases]
    assert len(set(seeds)) == len(seeds)


def test_every_truth_hash_in_the_suite_is_of_what_the_world_renders(suite: Suite) -> None:
    long = suite.cases("long-horizon")
    for case in (long[0], long[7], long[15]):
        assert truth_sha256(world_of(case), case.frames) == case.truth_sha256


def test_long_horizon_prompts_cover_the_vocabulary_evenly(suite: Suite) -> None:
    scenes = [Scene.parse(case.prompt) for case in suite.cases("long-horizon")]
    assert len(scenes) == 16
    for slot, vocabulary in VOCABULARY.items():
        counts = [[getattr(scene, slot) for scene in scenes].count(word) for word in vocabulary]
        assert max(counts) - min(counts) <= 1
    assert all(scene.body != scene.hat_colour for scene in scenes)
    assert all(24 * 8 <= case.frames <= 30 * 8 for case in suite.cases("long-horizon"))


def test_interactive_changes_the_subject_or_the_place_half_way_and_nothing_else() -> None:
    walker, place = {"body", "hat_colour", "hat_shape"}, {"sky", "ground"}
    counted = Counter[str]()
    for case in load_suite("interactive").cases("long-horizon"):
        (switch,) = case.schedule
        before, after = Scene.parse(case.prompt), Scene.parse(switch.prompt)
        changed = {slot for slot in VOCABULARY if getattr(before, slot) != getattr(after, slot)}
        assert changed == (place if case.stratum.startswith("place") else walker)
        assert after.body != after.hat_colour
        assert switch.cut == case.stratum.endswith("cut")
        assert case.frames % CHUNK == 0
        assert switch_frames(case, 8, 1, CHUNK) == (66,)
        counted[case.stratum] += 1
    assert counted == dict.fromkeys(("subject", "subject, cut", "place", "place, cut"), 4)


@pytest.mark.parametrize("name", ["mini", "interactive"])
def test_metrics_and_primary_endpoints_exist(name: str) -> None:
    for track in load_suite(name).tracks.values():
        for metric in track.metrics:
            reductions = {declared.name for declared in METRICS[metric].reductions}
            for endpoint in track.primary:
                if endpoint.startswith(f"{metric}/"):
                    assert endpoint.removeprefix(f"{metric}/") in reductions


@pytest.mark.parametrize("windows", AWAY)
def test_scene_a_is_hidden_for_the_time_away_and_comes_back(windows: float) -> None:
    case = mini_case(CASE_SEEDS[0], windows)
    world = world_of(case)
    history = case.history_frames
    assert history % CHUNK == case.frames % CHUNK == 0
    assert case.frames == history + CONTINUATION

    at_a = LEAD_IN + 16
    scene_a = {v.landmark.x for v in world.visible(at_a) if v.landmark.size < v.screen_x < 63 - v.landmark.size}
    assert scene_a
    assert not scene_a & landmarks_seen(world, range(LONGEST_SINK)), "no sink may hold scene A"
    away = round(windows * WINDOW)
    assert not scene_a & landmarks_seen(world, range(history - away, history + 1))
    assert scene_a <= landmarks_seen(world, range(history + 1, case.frames))
    arrived, back = world.frame_without_walker(at_a), world.frame_without_walker(history + 16)
    assert (arrived == back).all()


def test_every_time_away_has_a_quarter_of_the_cases() -> None:
    counted = Counter(case.stratum for case in mini_cases())
    assert counted == {f"away {windows:g} windows": 4 for windows in AWAY}


def test_a_time_away_that_is_no_even_number_of_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.25 windows is 3\.0 frames"):
        mini_case(CASE_SEEDS[0], 0.25)


def test_no_training_seed_is_a_suite_seed() -> None:
    training = [clips.VAE_SEEDS, clips.GENERATOR_SEEDS, judge_frames.TRAINING_SEEDS]
    held_out = [clips.HELD_OUT_SEEDS, judge_frames.HELD_OUT_SEEDS]
    ranges = [*training, *held_out, CASE_SEEDS]
    for i, one in enumerate(ranges):
        for other in ranges[i + 1 :]:
            assert one.stop <= other.start or other.stop <= one.start
    for name in suites():
        for track in load_suite(name).tracks.values():
            for case in track.cases:
                assert case.world_seed is not None
                assert not any(case.world_seed in seeds for seeds in (*training, *held_out))
