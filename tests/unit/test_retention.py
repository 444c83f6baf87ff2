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
from magbench.metrics.memory_kind import kinds, sources
from magbench.metrics.retention import Retention, RetentionMAG, RetentionMini
from magbench.records import TraceRecord
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


def test_order_matters_to_aligned_and_not_to_coverage(truth: Tensor) -> None:
    suffix = truth[CASE.history :]
    found = values(scored(continued(truth, suffix.flip(0)), truth))
    assert found["coverage_psnr"] == 60
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
    seen = [(1, 2), (3,), (4, 5), ()]
    chunks = [
        c.model_copy(update={"first_frame": first, "frames": n, "chunk": i})
        for i, (c, first, n) in enumerate(zip(trace((2,), (1, 3)), (0, 10), (10, 4), strict=True))
    ]
    assert kinds(seen, 10, chunks) == ["held", "folded", "evicted", "unseen"]
    assert kinds(seen, 10, ()) == ["evicted", "evicted", "evicted", "unseen"]
    assert kinds(seen, 10, [chunks[0]]) == [None, None, None, "unseen"]
    later = [c.model_copy(update={"folded": (), "held": ()}) for c in chunks]
    later[1] = later[1].model_copy(update={"chunk": 1, "frames": 1})
    later.append(later[1].model_copy(update={"chunk": 2, "first_frame": 11, "frames": 3, "folded": (1, 2, 3)}))
    assert kinds(seen, 10, later) == ["evicted", "folded", "evicted", "unseen"], "folded later is not folded yet"


def test_the_headline_is_over_what_the_cache_no_longer_held(truth: Tensor) -> None:
    found = sources(CASE.world, CASE.history, CASE.frames)
    held, folded = found[2], tuple(sorted(set(found[20]) - set(found[2])))
    cache = trace(held, folded)
    labels = kinds(found, CASE.history, cache)
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
    backwards = best(continued(truth, suffix.flip(0)))
    assert values(backwards)["psnr"] == 100
    assert isinstance(backwards, Scores)
    assert list(backwards.series[0].values) == list(reversed(backwards.series[0].times))
    held = values(best(continued(truth, truth[CASE.history - 1].expand_as(suffix))))
    assert held["matched_share"] == 1 / CASE.after
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
