"""Loops, cuts, returns to the opening, chunk discontinuity: clips with a known answer, and what is none of them."""

import numpy as np
import pytest
import torch

from magbench.metrics.base import Clip, Info, Metric, NotApplicable, Scores
from magbench.metrics.chunk_discontinuity import ChunkDiscontinuity
from magbench.metrics.cuts import Cuts, unexplained
from magbench.metrics.loops import Loops
from magbench.metrics.motion import Motion
from magbench.metrics.sink_returns import SinkReturns
from magbench.records import CaseRecord, Switch, Timing
from tests.unit import clips
from tests.unit.clips import Frames, numbers, pan, reason, run, texture

WIDE = texture(32, 2048, seed=3)


def walk(places: np.ndarray) -> Frames:
    """A camera at these columns of a wide panorama, uint8 [T, 32, 48, 3]."""
    return np.stack([WIDE.take(range(place, place + 48), axis=1, mode="wrap") for place in places.astype(int)])


def along(frames: int, speed: int = 6, start: int = 0) -> Frames:
    return walk(start + speed * np.arange(frames))


def noisy(frames: Frames) -> Frames:
    return np.clip(frames + np.random.default_rng(0).normal(0, 6, frames.shape), 0, 255).astype(np.uint8)


def loops(frames: Frames, fps: float = 8.0) -> dict[str, float]:
    return numbers(run(Loops(), frames, fps=fps))


@pytest.mark.parametrize("fps", [8.0, 16.0])
def test_a_loop_is_found_with_its_period(fps: float) -> None:
    """3 s, four rounds: all but the first are repeats."""
    round_ = np.repeat(along(24), int(fps / 8), axis=0)
    assert loops(np.tile(round_, (4, 1, 1, 1)), fps) == pytest.approx({"share": 0.75, "period": 3.0})


def test_a_loop_that_begins_late_counts_for_its_share_and_grain_does_not_hide_it() -> None:
    clip = np.concatenate([along(40), *[along(20, start=700)] * 3])
    found = loops(noisy(clip))
    assert found["share"] == pytest.approx(0.4)
    assert found["period"] == pytest.approx(2.5)


def test_to_and_fro_again_and_again_is_a_loop_of_the_whole_way() -> None:
    way = np.concatenate([np.arange(16), np.arange(16, 0, -1)]) * 6
    found = loops(walk(np.tile(way, 3)))
    assert found["share"] == pytest.approx(2 / 3, abs=0.03)
    assert found["period"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    "clip",
    [
        along(120),
        along(120, speed=1),
        walk(np.concatenate([np.arange(60), np.arange(60, 0, -1)]) * 6),
        np.repeat(along(1), 120, axis=0),
        noisy(np.repeat(along(1), 120, axis=0)),
        along(120)[np.random.default_rng(0).permutation(120)],
        np.concatenate([along(40), along(40, start=900), along(40)]),
    ],
    ids=["pan", "slow pan", "there and back", "held", "held with grain", "shuffled", "seen again after something else"],
)
def test_what_is_no_loop(clip: Frames) -> None:
    answer = run(Loops(), clip)
    assert numbers(answer) == {"share": 0.0}
    assert reason(answer, "period") == "nothing repeats"


def test_a_gait_is_no_loop() -> None:
    """A subject that swings every half second before a still wall."""
    clip = np.repeat(along(1), 120, axis=0)
    for index, frame in enumerate(clip):
        frame[8:24, 8 + 6 * (index % 4) : 20 + 6 * (index % 4)] = (200, 30, 30)
    assert loops(clip)["share"] == 0.0


def test_a_short_video_cannot_loop() -> None:
    assert reason(run(Loops(), along(20))) == "shorter than two rounds of 2 s"


def cuts(frames: Frames, fps: float = 8.0) -> float:
    return numbers(run(Cuts(), frames, fps=fps))["per_minute"]


@pytest.mark.parametrize("fps", [8.0, 24.0])
def test_cuts_are_counted_per_minute(fps: float) -> None:
    clip = np.concatenate([along(48), along(48, start=600), along(48, start=1300)])
    assert cuts(clip, fps) == pytest.approx(2 * 60 * fps / 144)
    assert cuts(noisy(clip), fps) == pytest.approx(2 * 60 * fps / 144)


def test_a_cut_to_black_is_one() -> None:
    clip = along(48)
    clip[24:] = 0
    assert cuts(clip) == pytest.approx(10.0)


@pytest.mark.parametrize("kind", ["pan", "fast pan", "exposure", "colour", "flash", "dissolve", "held"])
def test_what_is_no_cut(kind: str) -> None:
    clip = along(96, speed=12 if kind == "fast pan" else 2)
    if kind == "exposure":
        clip[48:] = clip[48:] * 0.6
    elif kind == "colour":
        clip[48:] = clip[48:] * np.array([0.7, 1.0, 0.8])
    elif kind == "flash":
        clip[48] = 255 - clip[48][::-1]
    elif kind == "dissolve":
        weight = np.clip((np.arange(96) - 40) / 16, 0, 1)[:, None, None, None]
        clip = (clip * (1 - weight) + along(96, 2, 900) * weight).astype(np.uint8)
    elif kind == "held":
        clip = np.repeat(clip[:1], 96, axis=0)
    assert cuts(clip) == 0.0


def test_a_cut_that_the_prompt_asks_for_is_none() -> None:
    clip = np.concatenate([along(48), along(48, start=600)])
    timing = Timing(chunk_borders=(24, 48, 72), switch_borders=(48,))

    def found(cut: bool) -> float:
        metric = Cuts()
        schedule = (Switch(at=6, prompt="another place", cut=cut),)
        case = CaseRecord(id="clip", track="long-horizon", schedule=schedule)
        return _told(metric, clip, case, timing)["per_minute"]

    assert found(cut=True) == 0.0
    assert found(cut=False) == pytest.approx(5.0)


def _told(metric: Metric, frames: Frames, case: CaseRecord, timing: Timing, history: int = 0) -> dict[str, float]:

    record = clips.sample(len(frames), 8.0, timing, case=case, history_frames=history)
    refused = metric.start(Info(record, 8.0, len(frames), 48, 32))
    if refused:
        raise ValueError(refused.reason)
    metric.update(Clip(0, tuple(i / 8 for i in range(len(frames))), torch.from_numpy(frames)))
    return numbers(metric.finish())


def test_gain_and_offset_explain_a_picture_and_another_picture_does_not() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(50, 10, (2, 8, 8, 3)).astype(np.float32)
    assert unexplained(one, 0.5 * one + 20) == pytest.approx(0, abs=1e-3)
    assert unexplained(one, -one) > 10
    assert 10 < unexplained(one, other) < 25
    assert unexplained(one, other) == unexplained(other, one)


def returns(frames: Frames, fps: float = 8.0) -> float:
    return numbers(run(SinkReturns(), frames, fps=fps))["per_minute"]


@pytest.mark.parametrize("fps", [8.0, 24.0])
def test_jumps_back_to_the_opening_are_counted(fps: float) -> None:
    clip = np.concatenate([along(60), along(60), along(60)])
    clip = np.repeat(clip, int(fps / 8), axis=0)
    assert returns(clip, fps) == pytest.approx(2 * 60 / (180 / 8), rel=0.01)
    assert returns(noisy(clip), fps) == pytest.approx(2 * 60 / (180 / 8), rel=0.01)


@pytest.mark.parametrize(
    "clip",
    [
        along(160),
        walk(np.concatenate([np.arange(80), np.arange(80, 0, -1)]) * 6),
        walk(np.concatenate([np.arange(80), np.arange(80, 0, -1)]) * 12),
        np.repeat(along(1), 160, axis=0),
        np.concatenate([along(80), along(80, start=900)]),
        walk(np.round(4 * np.sin(np.arange(160) / 3)) + 4),
    ],
    ids=["pan", "there and back", "fast there and back", "held", "cut to another place", "never leaves"],
)
def test_what_is_no_return(clip: Frames) -> None:
    assert returns(clip) == 0.0


def test_the_continuation_of_a_given_clip_is_meant_to_come_back() -> None:
    case = CaseRecord(id="clip", track="mag-bench", history_frames=24)
    with pytest.raises(ValueError, match="continues a given clip"):
        _told(SinkReturns(), along(40), case, Timing(), history=24)


def test_a_video_no_longer_than_its_opening_cannot_return() -> None:
    assert "not longer than the 1 s" in reason(run(SinkReturns(), along(8)))


BORDERS = Timing(chunk_borders=(9, 18, 27))


def jumping(at: tuple[int, ...]) -> Frames:
    """A pan of 1 px a frame, and 4 px before the frames named, 36 frames."""
    places = np.cumsum([0, *(4 if index in at else 1 for index in range(1, 36))])
    picture = texture(72, 96, seed=2)
    return np.stack([np.roll(picture, -place, axis=1) for place in places])


@pytest.mark.parametrize(("at", "on_borders"), [((9, 18, 27), 1.0), ((5, 14, 32), 0.0), ((9, 18, 32), 2 / 3)])
def test_chunk_discontinuity_is_the_ratio_of_the_fastest_pairs(at: tuple[int, ...], on_borders: float) -> None:
    found = numbers(run(ChunkDiscontinuity(), jumping(at), timing=BORDERS))
    assert found["ratio"] == pytest.approx(4 / ((3 * 4 + 32) / 35), rel=0.1)
    assert found["on_borders"] == pytest.approx(on_borders)


def test_a_steady_pan_has_no_discontinuity() -> None:
    assert numbers(run(ChunkDiscontinuity(), jumping(())[:14], timing=BORDERS))["ratio"] < 1.1


def test_chunk_discontinuity_needs_borders_and_motion() -> None:
    clip = jumping(())[:10]
    assert "not known" in reason(run(ChunkDiscontinuity(), clip))
    assert reason(run(ChunkDiscontinuity(), np.repeat(clip[:1], 10, 0), timing=BORDERS)) == "nothing moves"
    assert "no pair" in reason(run(ChunkDiscontinuity(), clip[:5], timing=BORDERS))


def test_the_longest_freeze_is_told_in_seconds() -> None:
    clip = np.concatenate([pan(9, 2), np.repeat(pan(9, 2)[-1:], 16, 0), pan(8, 2, seed=1), pan(8, 2, seed=1)[[-1] * 8]])
    answer = run(Motion(), clip)
    assert isinstance(answer, Scores)
    assert not isinstance(answer, NotApplicable)
    assert numbers(answer)["freeze_longest"] == pytest.approx(2.0)
    still = next(series for series in answer.series if series.name == "still")
    assert sum(still.values) == 16 + 8
    assert numbers(run(Motion(), pan(9, 2)))["freeze_longest"] == 0.0
