import numpy as np
import pytest

from magbench.metrics.base import NotApplicable
from magbench.metrics.consecutive import Consecutive, Pair, Pairs, Recipe, spikes
from magbench.records import Timing
from tests.unit.clips import numbers, reason

RECIPE = Recipe("x", "lower", dissimilarity=lambda x: 1 - x, effect=lambda x: x, still=1e-4)


def pairs_of(times: list[float], chunk: int = 5) -> list[tuple[int, int]]:
    pairs, made = Pairs[float](), []
    for first in range(0, len(times), chunk):
        made += pairs.add(first, times[first : first + chunk], times[first : first + chunk])
    assert all((pair.now, pair.before) == (pair.time, pair.time_before) for pair in made)
    return [(pair.index_before, pair.index) for pair in made]


@pytest.mark.parametrize(("fps", "gap"), [(4, 1), (8, 1), (12, 2), (16, 2), (24, 3), (25, 3), (30, 4), (60, 8)])
@pytest.mark.parametrize("digits", [6, 3])  # Matroska rounds to milliseconds
def test_pairs_lie_an_eighth_of_a_second_apart(fps: int, gap: int, digits: int) -> None:
    pairs = pairs_of([round(index / fps, digits) for index in range(40)])
    assert {later - earlier for earlier, later in pairs} == {gap}
    assert pairs[-1][1] == 39
    assert len({later for _, later in pairs}) == len(pairs) >= 40 - gap - 1


def test_pairs_follow_the_timestamps_where_the_rate_varies() -> None:
    assert pairs_of([0.0, 0.05, 0.125, 0.15, 0.4, 0.5, 0.52]) == [(0, 2), (0, 3), (3, 4), (4, 5), (4, 6)]


def test_pairs_keep_only_the_last_eighth_of_a_second() -> None:
    pairs = Pairs[int]()
    for index in range(1000):
        pairs.add(index, [index / 16], [index])
        assert len(pairs._tail) <= 4


def scores(values: np.ndarray, timing: Timing | None = None, fps: float = 8.0) -> object:
    collected = Consecutive()
    pairs = [Pair(i + 1, i, (i + 1) / fps, i / fps, None, None) for i in range(len(values))]
    collected.add(1, [], [])
    collected.add(len(values), pairs, values.tolist())
    return collected.scores(RECIPE, timing or Timing())


def test_median_and_percentile() -> None:
    values = np.random.default_rng(0).uniform(0.5, 0.9, 101)
    found = numbers(scores(values))
    ordered = np.sort(values)
    assert found["median"] == ordered[50]
    assert found["p05"] == pytest.approx(ordered[5])
    assert found["gap"] == pytest.approx(0.125)


def test_spike_rate_counts_what_was_planted() -> None:
    rng = np.random.default_rng(0)
    dissimilarity = 0.1 * np.exp(0.05 * rng.uniform(-1, 1, 400))
    clean = numbers(scores(1 - dissimilarity))["spike_rate"]
    dissimilarity[20::40] *= 2
    dissimilarity[30::80] /= 2  # a moment of stillness stands out as well
    assert clean == 0
    assert numbers(scores(1 - dissimilarity))["spike_rate"] == pytest.approx(15 / 400)


def test_slow_changes_of_motion_are_no_spikes() -> None:
    dissimilarity = 0.05 * np.exp(np.sin(np.arange(480) / 40))
    assert numbers(scores(1 - dissimilarity))["spike_rate"] == 0


def test_flutter_of_a_calm_clip_is_no_spike() -> None:
    """The MAD of such a clip is near 0, so that anything would be beyond it."""
    log_values = np.where(np.arange(200) % 9 == 0, np.log(0.011), np.log(0.01))
    times = np.arange(200) / 8
    assert not spikes(log_values, times).any()
    log_values[100] = np.log(0.02)
    assert spikes(log_values, times).tolist().index(True) == 100


def test_a_frozen_clip_has_no_spike_rate() -> None:
    assert "stands still in 100% of the pairs" in reason(scores(np.ones(100)), "spike_rate")


def test_a_short_clip_has_no_spike_rate() -> None:
    assert "15 pairs are too few" in reason(scores(np.full(15, 0.9)), "spike_rate")


def chunked(frames: int, size: int) -> Timing:
    chunk = tuple(range(size, frames, size))
    return Timing(chunk_borders=chunk, latent_borders=tuple(b for b in range(1, frames) if b not in chunk))


def test_border_effect_is_the_planted_dip() -> None:
    timing = chunked(60, 3)
    values = np.full(59, 0.9)
    values[[border - 1 for border in timing.chunk_borders]] = 0.8
    assert numbers(scores(values, timing))["border_effect"] == pytest.approx(-0.1)


def test_the_control_of_the_border_effect_is_the_latent_border() -> None:
    """Four pixel frames per latent: a decoder dips at every latent border, and only what is beyond that counts."""
    timing = Timing(
        chunk_borders=tuple(range(9, 97, 12)), latent_borders=tuple(set(range(1, 97, 4)) - {*range(9, 97, 12)})
    )
    values = np.full(96, 0.9)
    values[[border - 1 for border in timing.latent_borders]] -= 0.02
    values[[border - 1 for border in timing.chunk_borders]] -= 0.02
    assert numbers(scores(values, timing))["border_effect"] == pytest.approx(0)


def test_pairs_of_two_frames_count_for_the_border_between_them() -> None:
    collected = Consecutive()
    pairs = [Pair(i + 2, i, (i + 2) / 16, i / 16, None, None) for i in range(60)]
    borders = (12, 24, 36, 48)
    across = [any(pair.index_before < border <= pair.index for border in borders) for pair in pairs]
    collected.add(62, pairs, np.where(across, 0.7, 0.9).tolist())
    timing = Timing(chunk_borders=borders, latent_borders=tuple(b for b in range(4, 60, 4) if b not in borders))
    assert sum(across) == 8
    assert numbers(collected.scores(RECIPE, timing))["border_effect"] == pytest.approx(-0.2)


def test_update_effect_compares_borders_with_and_without() -> None:
    timing = chunked(60, 3)
    timing = timing.model_copy(update={"update_borders": timing.chunk_borders[::2]})
    values = np.full(59, 0.9)
    values[[border - 1 for border in timing.update_borders]] = 0.6
    assert numbers(scores(values, timing))["update_effect"] == pytest.approx(-0.3)


def test_the_control_of_the_update_effect_begins_with_the_first_update() -> None:
    """A video that falls apart while its cache is still growing: the young borders would look like an effect."""
    timing = chunked(60, 3)
    timing = timing.model_copy(update={"update_borders": timing.chunk_borders[9::2]})
    values = np.where(np.arange(59) < 29, 0.9, 0.5)
    assert numbers(scores(values, timing))["update_effect"] == pytest.approx(0)
    values[[border - 1 for border in timing.update_borders]] -= 0.1
    assert numbers(scores(values, timing))["update_effect"] == pytest.approx(-0.1)


def test_an_update_is_no_border_effect_and_a_border_no_update_effect() -> None:
    """Half the borders update. All dip by 0.1, and by 0.2 more where they update."""
    timing = chunked(61, 3)
    timing = timing.model_copy(update={"update_borders": timing.chunk_borders[1::2]})
    values = np.full(60, 0.9)
    values[[border - 1 for border in timing.chunk_borders]] -= 0.1
    assert numbers(scores(values, timing))["update_effect"] == pytest.approx(0)
    values[[border - 1 for border in timing.update_borders]] -= 0.2
    found = numbers(scores(values, timing))
    assert found["update_effect"] == pytest.approx(-0.2)
    assert found["border_effect"] == pytest.approx(-0.2)  # the median of 0.8 and 0.6, minus 0.9


def test_where_the_prompt_switches_nothing_is_the_caches_doing() -> None:
    timing = chunked(60, 3)
    switches = timing.chunk_borders[::2]
    values = np.full(59, 0.9)
    values[[border - 1 for border in switches]] = 0.2
    told = timing.model_copy(update={"switch_borders": switches})
    assert numbers(scores(values, timing))["border_effect"] == pytest.approx(-0.7)
    assert numbers(scores(values, told))["border_effect"] == pytest.approx(0)
    told = told.model_copy(update={"update_borders": switches})
    assert "only where the prompt switched" in reason(scores(values, told), "update_effect")
    told = told.model_copy(update={"update_borders": (*switches, *timing.chunk_borders[1::4])})
    assert numbers(scores(values, told))["update_effect"] == pytest.approx(0)


def test_medians_by_kind_of_border() -> None:
    timing = chunked(60, 3).model_copy(update={"update_borders": (12, 30, 48), "switch_borders": (21,)})
    values = np.full(59, 0.9)
    values[[border - 1 for border in timing.chunk_borders]] = 0.7
    values[[11, 29, 47]] = 0.4
    values[:11] = 0.1
    values[20] = 0.0
    collected = Consecutive()
    collected.add(60, [Pair(i + 1, i, (i + 1) / 8, i / 8, None, None) for i in range(59)], values.tolist())
    assert collected.medians(timing) == pytest.approx({"chunk": 0.7, "latent": 0.9, "update": 0.4, "other": 0.7})
    assert collected.medians(Timing()) == {}


@pytest.mark.parametrize(
    ("update", "says"),
    [((), "never re-arranged"), (tuple(range(3, 60, 3)), "at every border"), ((3,), "1 pairs across borders with")],
)
def test_update_effect_says_why_there_is_none(update: tuple[int, ...], says: str) -> None:
    timing = chunked(60, 3).model_copy(update={"update_borders": update})
    assert says in reason(scores(np.full(59, 0.9), timing), "update_effect")


def test_unknown_borders_have_no_effects() -> None:
    answer = scores(np.full(59, 0.9))
    assert "not known" in reason(answer, "border_effect")
    assert "not known" in reason(answer, "update_effect")


def test_one_frame_and_too_short_clips_say_so() -> None:
    collected = Consecutive()
    collected.add(1, [], [])
    assert collected.scores(RECIPE, Timing()) == NotApplicable("one frame: nothing to compare")
    collected.add(1, [], [])
    assert "no two frames are 0.125 s apart" in reason(collected.scores(RECIPE, Timing()))
