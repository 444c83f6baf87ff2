"""Retention on clips whose answer is known: copies, held, reversed, offset, damaged where the cache held nothing."""

import math
from pathlib import Path

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from magbench.data.mini_world import FPS, CameraPath
from magbench.data.video import write_video
from magbench.metrics.base import Clip, NotApplicable, Scores
from magbench.metrics.engine import score
from magbench.metrics.matching import pixels
from magbench.metrics.memory_kind import Place, kinds, mirrored_places, sources
from magbench.metrics.retention import Retention, RetentionMAG, RetentionMini
from magbench.records import SampleRecord, Timing, TraceRecord
from tests.unit.one_video import Case, drive, reasons, ref, values

CASE = Case()


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return CASE.truth()


def scored(frames: Tensor, truth: Tensor, step: int = 7) -> Scores | NotApplicable:
    return drive(Retention(), CASE.sample(frames, truth), frames, truth, step=step)


def continued(truth: Tensor, continuation: Tensor) -> Tensor:
    return torch.cat([truth[: CASE.history], continuation])


def mean_psnr(first: Tensor, second: Tensor) -> float:
    pairs = zip(first.numpy(), second.numpy(), strict=True)
    return math.fsum(peak_signal_noise_ratio(a, b) for a, b in pairs) / len(first)


def test_the_truth_itself_is_perfect(truth: Tensor) -> None:
    answer = scored(truth, truth)
    found = values(answer)
    assert found["aligned_psnr"] == found["coverage_psnr"] == found["aligned_psnr@unheld"] == 60
    assert found["aligned_ssim"] == 1
    assert "saved history is the truth" in reasons(answer)["normalised"]


def test_a_held_frame_scores_the_floor_and_covers_no_more(truth: Tensor) -> None:
    suffix = truth[CASE.history :]
    held = truth[CASE.history - 1].expand_as(suffix)
    found = values(scored(continued(truth, held), truth))
    expected = mean_psnr(suffix, held)
    assert expected < 25
    assert found["aligned_psnr"] == pytest.approx(expected)
    assert found["floor_psnr"] == pytest.approx(expected)
    assert found["coverage_psnr"] == pytest.approx(expected)


def test_order_matters_to_aligned_and_monotone_and_not_to_coverage(truth: Tensor) -> None:
    suffix = truth[CASE.history :]
    found = values(scored(continued(truth, suffix.flip(0)), truth))
    assert found["coverage_psnr"] == 60
    assert found["monotone_psnr"] < 25
    assert found["aligned_psnr"] == pytest.approx(mean_psnr(suffix, suffix.flip(0)))
    assert found["aligned_psnr"] < 25


def test_half_the_truth_covers_half(truth: Tensor) -> None:
    suffix = truth[CASE.history :]
    half = suffix[: len(suffix) // 2]
    rest = suffix[len(half) :]
    nearest = [max(peak_signal_noise_ratio(t, g) for g in half.numpy()) for t in rest.numpy()]
    expected = (60 * len(half) + math.fsum(nearest)) / len(suffix)
    found = values(scored(continued(truth, torch.cat([half, half])), truth))
    assert found["coverage_psnr"] == pytest.approx(expected)


def test_monotone_forgives_lingering_but_no_more_than_a_quarter(truth: Tensor) -> None:
    suffix = truth[CASE.history :]
    lag = CASE.after // 4
    late = torch.tensor([max(0, min(t - lag, CASE.after - 1)) for t in range(CASE.after)])
    late[-1] = CASE.after - 1
    found = values(scored(continued(truth, suffix[late]), truth))
    skipped = range(CASE.after - 1 - lag, CASE.after - 1)  # never shown; the frames beside them are as near as any
    nearest = [max(peak_signal_noise_ratio(suffix[t].numpy(), suffix[g].numpy()) for g in late) for t in skipped]
    assert found["monotone_psnr"] == pytest.approx((60 * (CASE.after - lag) + math.fsum(nearest)) / CASE.after, abs=0.5)
    assert found["aligned_psnr"] + 10 < found["monotone_psnr"] <= found["coverage_psnr"]
    later = torch.tensor([max(0, min(t - 2 * lag, CASE.after - 1)) for t in range(CASE.after)])
    assert values(scored(continued(truth, suffix[later]), truth))["monotone_psnr"] < found["monotone_psnr"] - 5


def test_a_cache_written_from_the_truth_has_the_floor_of_each_chunk(truth: Tensor) -> None:
    suffix, history = truth[CASE.history :], CASE.history
    starts = range(0, CASE.after, 3)
    borders = Timing(chunk_borders=tuple(history + start for start in (*starts[1:], CASE.after)))
    sample = CASE.sample(truth, truth).model_copy(update={"timing": borders})
    plain = values(drive(Retention(), sample, truth, truth))
    assert plain["floor_psnr"] == pytest.approx(mean_psnr(suffix, truth[history - 1].expand_as(suffix)))
    written = sample.method.model_copy(update={"parameters": {"write_back": "truth"}})
    told = sample.model_copy(update={"method": written})
    repeated = [truth[history + max(start for start in starts if start <= t) - 1] for t in range(CASE.after)]
    expected = mean_psnr(suffix, torch.stack(repeated))
    assert expected > plain["floor_psnr"] + 1
    assert values(drive(Retention(), told, truth, truth))["floor_psnr"] == pytest.approx(expected)
    frozen = continued(truth, torch.stack(repeated))
    best = values(drive(RetentionMAG(), told, frozen, truth, feature=lambda clip: pixels(clip.frames)))
    assert best["psnr"] == best["floor_psnr"]


def palindrome(truth: Tensor) -> tuple[Tensor, SampleRecord]:
    """A clip of 41 frames whose frames t and 40 - t are equal, 30 of them given; stride 1."""
    clip = torch.cat([truth[:21], truth[:20].flip(0)])
    sample = CASE.sample(clip, clip, world_seed=None, mirror=40, history_frames=30)
    return clip, sample.model_copy(update={"history_frames": 30})


def test_the_mirrored_history_is_the_truth_of_a_palindrome(truth: Tensor) -> None:
    clip, sample = palindrome(truth)
    assert values(drive(Retention(), sample, clip, clip))["mirrored_psnr"] == 60
    off = clip.clone()
    off[35] ^= 16
    found = drive(Retention(), sample, off, off)
    assert values(found)["mirrored_psnr"] == pytest.approx((60 * 10 + 20 * math.log10(255 / 16)) / 11)
    assert "no palindrome" in reasons(scored(truth, truth))["mirrored_psnr"]


def test_what_a_palindrome_showed_before() -> None:
    """Wan: one pixel frame, then four to a latent; 9 latent frames (33 pixels) given of 61 that turn at pixel 30."""
    found = mirrored_places(60, 4, 9, range(33, 61))
    assert [place.latent for place in found] == [t // 4 + (t % 4 > 0) for t in range(33, 61)]
    assert found[0].shown_by == (6, 7, 8), "pixel 27 is in latent 7; pixel 33, in latent 9, lies beside latent 8"
    assert found[4].shown_by == (5, 6, 7), "pixel 23; pixel 37 is in latent 10, which nothing given lies beside"
    assert found[27].shown_by == (0, 1), "pixel 0"
    assert found[26].shown_by == (0, 1, 2), "pixel 1, in latent 1"
    assert mirrored_places(35, 1, 30, range(36, 37))[0].shown_by == (), "the mirror is before the start"


def test_kinds_of_a_palindrome_come_from_its_mirror(truth: Tensor) -> None:
    clip, sample = palindrome(truth)
    sample = sample.model_copy(update={"method": sample.method.model_copy(update={"applicability": "external"})})
    cache = [
        c.model_copy(update={"first_frame": first, "frames": n})
        for c, first, n in zip(trace((0, 1), (8, 9, 10)), (0, 30), (30, 11), strict=True)
    ]
    found = values(drive(Retention(), sample, clip, clip, cache))
    # Mirrors of frames 30..40 are 10..0; each was shown one latent to either side, too.
    assert (found["share@held"], found["share@folded"], found["share@evicted"]) == (3 / 11, 4 / 11, 4 / 11)
    uneven = sample.model_copy(update={"case": sample.case.model_copy(update={"history_frames": 9})})
    why = reasons(drive(Retention(), uneven, clip, clip, cache))["share@held"]
    assert why == "9 latent frames of history don't split 30 pixel frames evenly"


def test_ssim_is_that_of_scikit_image(truth: Tensor) -> None:
    dice = torch.Generator().manual_seed(0)
    noisy = (truth.float() + 20 * torch.randn(truth.shape, generator=dice)).round().clamp(0, 255).byte()
    pairs = list(zip(noisy[CASE.history :].numpy(), truth[CASE.history :].numpy(), strict=True))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    expected = math.fsum(structural_similarity(a, b, **options) for a, b in pairs) / len(pairs)
    assert values(scored(noisy, truth))["aligned_ssim"] == pytest.approx(expected, abs=1e-6)


def test_normalised_is_0_at_the_floor_and_1_at_what_the_codec_costs(truth: Tensor) -> None:
    def through_codec(frames: Tensor) -> Tensor:
        return frames ^ 8  # every value off by 8

    decoded = through_codec(truth)
    found = values(scored(decoded, truth))
    assert found["ceiling_psnr"] == pytest.approx(20 * math.log10(255 / 8))
    assert found["normalised"] == pytest.approx(1)
    held = truth[CASE.history - 1].expand_as(truth[CASE.history :])
    found = values(scored(torch.cat([decoded[: CASE.history], held]), truth))
    assert found["normalised"] == pytest.approx(0)
    coarse = torch.cat([truth[: CASE.history] ^ 64, decoded[CASE.history :]])
    assert "less than 3 dB apart" in reasons(scored(coarse, truth))["normalised"]


def test_the_size_of_the_chunks_changes_nothing(truth: Tensor) -> None:
    frames = truth.roll(5, dims=2)
    assert scored(frames, truth, step=1) == scored(frames, truth, step=64) == scored(frames, truth)


def trace(held: tuple[int, ...], folded: tuple[int, ...]) -> list[TraceRecord]:
    """One chunk for the whole continuation; the folding happened in a chunk of the history."""

    def chunk(kind: str, first: int, frames: int, **cache: tuple[int, ...]) -> TraceRecord:
        sizes = {"ms": 1, "passes": 1, "past_frames": 1, "cached_frames": 1, "cache_bytes": 1}
        return TraceRecord.model_validate(
            {"chunk": first, "kind": kind, "first_frame": first, "frames": frames, **sizes, **cache}
        )

    return [
        chunk("history", 0, CASE.history, folded=folded),
        chunk("generate", CASE.history, CASE.after, held=held),
    ]


def test_sources_follow_the_camera() -> None:
    """At 4 px a frame, frame `n` after the return shows what frame `n` before the end of `leave` did, ± 2 frames."""
    path = CASE.path
    leave_ends = path.return_frame - path.away
    found = sources(CASE.world, CASE.history, CASE.frames)
    assert found[0] == (*range(leave_ends - 2, leave_ends + 3), *range(path.return_frame - 2, path.return_frame))
    assert found[6] == tuple(range(leave_ends - 8, leave_ends - 3))
    rest = range(path.lead_in + path.arrive - 1, path.lead_in + path.arrive + path.dwell + 3)
    assert set(rest) <= set(found[10])
    still = Case(path=CameraPath(0.0))
    assert sources(still.world, 4, 6) == [(0, 1, 2, 3)] * 2
    assert sources(Case(path=CameraPath(4.0)).world, 4, 9)[1:] == [(3,), (), (), ()], "a pan shows new places"


def test_kinds_of_memory() -> None:
    seen = [Place(t, shown_by) for t, shown_by in enumerate([(1, 2), (3,), (4, 5), ()], start=10)]
    chunks = [
        c.model_copy(update={"first_frame": first, "frames": n, "chunk": i})
        for i, (c, first, n) in enumerate(zip(trace((2,), (1, 3)), (0, 10), (10, 4), strict=True))
    ]
    assert kinds(seen, chunks) == ["held", "folded", "evicted", "unseen"]
    assert kinds(seen, ()) == ["evicted", "evicted", "evicted", "unseen"]
    assert kinds(seen, [chunks[0]]) == [None, None, None, "unseen"]
    later = [c.model_copy(update={"folded": (), "held": ()}) for c in chunks]
    later[1] = later[1].model_copy(update={"chunk": 1, "frames": 1})
    later.append(later[1].model_copy(update={"chunk": 2, "first_frame": 11, "frames": 3, "folded": (1, 2, 3)}))
    assert kinds(seen, later) == ["evicted", "folded", "evicted", "unseen"], "folded later is not folded yet"


def test_the_headline_is_over_what_the_cache_no_longer_held(truth: Tensor) -> None:
    found = sources(CASE.world, CASE.history, CASE.frames)
    held, folded = found[2], tuple(sorted(set(found[20]) - set(found[2])))
    cache = trace(held, folded)
    labels = kinds([Place(t, shown_by) for t, shown_by in enumerate(found, start=CASE.history)], cache)
    assert {"held", "folded", "evicted"} <= set(labels)
    frames = truth.clone()
    for i, label in enumerate(labels, start=CASE.history):
        if label in ("folded", "evicted"):
            frames[i] ^= 16 if label == "folded" else 32
    sample = CASE.sample(frames, truth, method="memrope")
    numbers = values(drive(Retention(), sample, frames, truth, cache))
    folded_db, evicted_db = 20 * math.log10(255 / 16), 20 * math.log10(255 / 32)
    counts = labels.count("folded"), labels.count("evicted")
    assert numbers["aligned_psnr@held"] == 60
    assert numbers["aligned_psnr@folded"] == pytest.approx(folded_db)
    assert numbers["aligned_psnr@evicted"] == pytest.approx(evicted_db)
    expected = (folded_db * counts[0] + evicted_db * counts[1]) / sum(counts)
    assert numbers["aligned_psnr@unheld"] == pytest.approx(expected)
    for group in ("held", "folded", "evicted"):
        assert numbers[f"share@{group}"] == pytest.approx(labels.count(group) / CASE.after)
    everything = drive(Retention(), sample, frames, truth, trace(tuple(range(CASE.history)), ()))
    assert "no frame shows a place that was folded or evicted" in reasons(everything)["aligned_psnr@unheld"]


def test_without_a_trace_the_split_is_unknown_except_for_reference_rows(truth: Tensor) -> None:
    sample = CASE.sample(truth, truth, method="memrope")
    assert "no trace" in reasons(drive(Retention(), sample, truth, truth))["aligned_psnr@unheld"]
    other = CASE.sample(truth, truth, prompt="a cat")
    answer = drive(Retention(), other, truth, truth)
    assert "cannot read the prompt 'a cat'" in reasons(answer)["aligned_psnr@unheld"]
    assert values(answer)["aligned_psnr"] == 60


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"history_frames": 0}, "no given history"),
        ({"truth": None}, "no given history"),
        ({"truth": {"width": 32}}, "64x64, its truth 32x64"),
        ({"truth": {"fps": 16}}, "8 frames per second, its truth 16"),
        ({"truth": {"frames": 10**6}}, "too long to match"),
        ({"truth": {"frames": CASE.frames + 3}}, f"{CASE.after} frames after the history, its truth {CASE.after + 3}"),
    ],
)
def test_not_applicable(truth: Tensor, change: dict[str, object], reason: str) -> None:
    update = dict(change)
    if isinstance(fields := update.get("truth"), dict):
        update["truth"] = ref(truth).model_copy(update=fields)
    sample = CASE.sample(truth, truth).model_copy(update=update)
    answer = drive(Retention(), sample, truth, truth)
    assert isinstance(answer, NotApplicable)
    assert reason in answer.reason


def test_a_cut_off_video_is_not_scored(truth: Tensor) -> None:
    answer = drive(Retention(), CASE.sample(truth, truth), truth[:-4], truth)
    assert isinstance(answer, NotApplicable)
    assert f"{CASE.after - 4} frames after the history, its truth {CASE.after}" in answer.reason


@pytest.mark.parametrize("metric", [RetentionMAG, RetentionMini])
def test_best_match_rewards_a_frozen_frame_and_says_so(truth: Tensor, metric: type[RetentionMAG]) -> None:
    def layers(clip: Clip) -> object:
        return pixels(clip.frames)

    def best(frames: Tensor) -> Scores | NotApplicable:
        return drive(metric(), CASE.sample(frames, truth), frames, truth, feature=layers)

    suffix = truth[CASE.history :]
    same = values(best(truth))
    assert (same["psnr"], same["ssim"], same["matched_share"]) == (100, 1, 1)
    assert same["distance"] == pytest.approx(0, abs=1e-6)
    assert same["ascending_share"] == 1
    backwards = best(continued(truth, suffix.flip(0)))
    assert values(backwards)["ascending_share"] == 0
    assert values(backwards)["psnr"] == 100
    assert isinstance(backwards, Scores)
    assert list(backwards.series[0].values) == list(reversed(backwards.series[0].times))
    held = values(best(continued(truth, truth[CASE.history - 1].expand_as(suffix))))
    assert (held["matched_share"], held["ascending_share"]) == (1 / CASE.after, 0)
    expected = max(peak_signal_noise_ratio(t, truth[CASE.history - 1].numpy()) for t in suffix.numpy())
    assert held["psnr"] == pytest.approx(expected)
    assert held["psnr"] == held["floor_psnr"] == same["floor_psnr"]
    assert held["psnr"] > mean_psnr(suffix, truth[CASE.history - 1].expand_as(suffix)) + 1


def test_the_judge_reads_mini_only() -> None:
    frames = torch.zeros(CASE.frames, 64, 80, 3, dtype=torch.uint8)
    answer = drive(RetentionMini(), CASE.sample(frames, frames), frames, frames)
    assert isinstance(answer, NotApplicable)
    assert "64x64 videos of the model mini, this one is 80x64" in answer.reason


def test_reference_rows_through_the_engine(truth: Tensor, tmp_path: Path) -> None:
    """A lossless file, the shipped judge, the transforms of the reader: what the tables' reference rows will say."""
    case = Case(seed=0, path=CameraPath(4.0, lead_in=12, arrive=18, dwell=4, leave=10, away=24))
    frames = case.truth()
    write_video(tmp_path / "v.mkv", iter(frames.numpy()), FPS, "lossless")
    names = ["landmark_recall@mini", "retention@default", "retention@mini", "subject_identity@mini"]

    def row(**view: object) -> dict[str, float]:
        sample = case.sample(frames, frames)
        assert sample.video is not None
        sample = sample.model_copy(update={"video": sample.video.model_copy(update=view)})
        records = score(sample, tmp_path, (), names)
        assert [record.state for record in records] == ["value"] * len(names)
        return {f"{r.metric}/{x.name}": x.value for r in records for x in r.reductions if x.value is not None}

    real, static = row(), row(transform="static", hold_from=case.history)
    assert (real["landmark_recall/recall"], real["landmark_recall/false_alarm"]) == (1, 0)
    assert (real["retention/aligned_psnr@unheld"], real["retention/psnr"]) == (60, 100)
    assert real["subject_identity/all"] == 1
    assert static["landmark_recall/recall"] == 0
    assert static["retention/psnr"] > static["retention/aligned_psnr"] + 3, "best match flatters a frozen video"
    assert static["retention/matched_share"] == 1 / case.after
