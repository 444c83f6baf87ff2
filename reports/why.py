"""Diagnostics of caches to the rows of a figure and a table; `magbench.reports.why_figure` draws them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from magbench.records import AGES, ChunkWhy, MethodWhy, RunRecord, Tier, VideoWhy, WhyRecord
from magbench.reports.grids import Grid, Item, Notes, interval, number, signed
from magbench.stats import MIN_CASES_TEST, Estimate, case_means, mean_estimate

TIERS: tuple[Tier, ...] = get_args(Tier)
TRANSFER = "†"


@dataclass(frozen=True)
class WhyRow:
    """One method. Shares are means over its videos, of each the second half; numbers have intervals over cases."""

    label: str
    policy: str
    parameters: str
    """As in the label, but without what its budget has decided."""
    budget: float | None
    """None where the cache grows."""
    transfer: bool
    """Whether the model was not trained with this cache."""
    reason: str
    """Why there is nothing to show; else empty."""
    overlap: tuple[tuple[int, float], ...] = ()
    """First frame of a chunk, and its overlap: mean over videos."""
    chosen_overlap: tuple[tuple[int, float], ...] = ()
    chosen_chance: tuple[tuple[int, float], ...] = ()
    ages: tuple[float, ...] = ()
    keys: Mapping[Tier, float] = field(default_factory=dict)
    mass: Mapping[Tier, float] = field(default_factory=dict)
    numbers: Mapping[str, Estimate] = field(default_factory=dict)
    """`overlap`, `chosen_overlap`, `chosen_chance`, `border_effect`, `update_effect`; `newly cached`, `newly chosen`:
    attention per token over that of a token cached, or chosen, before; `other`, `update`: SSIM across chunk borders
    without, or with, an update less SSIM across latent borders inside chunks. What no video has is absent."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why an effect is absent."""


def why_rows(record: WhyRecord) -> tuple[WhyRow, ...]:
    """One row per method, in order."""
    return tuple(map(_row, record.methods))


def _row(found: MethodWhy) -> WhyRow:
    method, videos = found.method, found.videos
    transfer = method.applicability == "training-free transfer"
    parameters = method.family.removeprefix(method.policy).removeprefix(":")
    head = method.label, method.policy, parameters, method.budget_frames, transfer
    if found.state != "value":
        return WhyRow(*head, f"{found.state.replace('_', ' ')}: {found.reason}")
    late = [chunk for video in videos for chunk in _late(video)]
    per_case: dict[str, dict[str, list[float]]] = {}
    for video in videos:
        for name, value in _numbers(video).items():
            per_case.setdefault(name, {}).setdefault(video.case, []).append(value)
    return WhyRow(
        *head,
        "",
        _over_time(videos, "overlap"),
        _over_time(videos, "chosen_overlap"),
        _over_time(videos, "chosen_chance"),
        tuple(np.mean([chunk.ages for chunk in late], axis=0).tolist()),
        _shares(chunk.keys for chunk in late),
        _shares(chunk.mass for chunk in late),
        {name: mean_estimate([*case_means(values).values()]) for name, values in per_case.items()},
        {effect.name: effect.reason for video in videos for effect in video.effects if effect.reason},
    )


def _late(video: VideoWhy) -> tuple[ChunkWhy, ...]:
    return video.chunks[len(video.chunks) // 2 :]


def _numbers(video: VideoWhy) -> dict[str, float]:
    late = _late(video)
    others = set(TIERS) - {"own", "newly cached"}
    found = {
        "overlap": _mean(chunk.overlap for chunk in late),
        "chosen_overlap": _mean(chunk.chosen_overlap for chunk in late),
        "chosen_chance": _mean(chunk.chosen_chance for chunk in late),
        "newly cached": _per_token(late, {"newly cached"}, others),
        "newly chosen": _per_token(late, {"newly chosen"}, {"chosen before"}),
        **{kind: _less(video.ssim.get(kind), video.ssim.get("latent")) for kind in ("other", "update")},
        **{effect.name: effect.value for effect in video.effects},
    }
    return {name: value for name, value in found.items() if value is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _per_token(chunks: Sequence[ChunkWhy], some: set[Tier], others: set[Tier]) -> float | None:
    """Attention that a key of `some` tiers gets over that of a key of `others`, in the chunks that show both."""

    def total(shares: Mapping[Tier, float], tiers: set[Tier]) -> float:
        return sum(share for tier, share in shares.items() if tier in tiers)

    both = [chunk for chunk in chunks if total(chunk.keys, some) and total(chunk.keys, others)]
    if not both:
        return None
    mass, keys = (
        [sum(total(getattr(chunk, what), tiers) for chunk in both) for tiers in (some, others)]
        for what in ("mass", "keys")
    )
    return mass[0] / keys[0] / (mass[1] / keys[1])


def _shares(chunks: Iterable[Mapping[Tier, float]]) -> dict[Tier, float]:
    rows = [[shares.get(tier, 0.0) for tier in TIERS] for shares in chunks]
    return {tier: share for tier, share in zip(TIERS, np.mean(rows, axis=0).tolist(), strict=True) if share}


def _over_time(videos: Sequence[VideoWhy], name: str) -> tuple[tuple[int, float], ...]:
    points: dict[int, list[float]] = {}
    for chunk in (chunk for video in videos for chunk in video.chunks):
        value = getattr(chunk, name)
        if value is not None:
            points.setdefault(chunk.first_frame, []).append(value)
    return tuple((first, float(np.mean(points[first]))) for first in sorted(points))


def age_names() -> tuple[str, ...]:
    """The bins of an age histogram in words, memory tokens last."""
    edges = zip(AGES, (*AGES[1:], None), strict=True)
    bins = [f"{low}+" if high is None else f"{low}–{high - 1}" for low, high in edges]
    return (*bins, "memory")


def captions(rows: Sequence[WhyRow], run: RunRecord) -> tuple[str, ...]:
    """What the figure shows and what it doesn't, in sentences."""
    cases = max((estimate.n for row in rows for estimate in row.numbers.values()), default=0)
    few = f", descriptive only below {MIN_CASES_TEST} cases" if cases < MIN_CASES_TEST else ""
    frames = max(run.resolved["frames"]["long-horizon"])
    return (
        f"Suite {run.suite} v{run.suite_version}, {cases} cases of {frames} latent frames. (b), (c), (d) and the "
        f"numbers of (a): means over the second half of each video. Bars: 95 % interval of the mean over cases{few}.",
        "(a) Overlap: Jaccard index of the past tokens shown to a chunk and to the one before, without that one's own; "
        "of tokens chosen one by one, from each choice to the next, and what a random choice would give. (b) Latent "
        "frames from a token to the chunk. (c), (d) Noisy passes; first, middle and last layer; all heads and queries.",
        "(e) Median SSIM of consecutive frames across chunk borders less that across latent borders inside chunks of "
        "the same video. An update compresses or re-arranges the cache; borders without one count since the first.",
        "Attention tells where queries look, not what the picture owes to it. Newly cached tokens are the nearest in "
        "time whatever the cache, so their ratio in (d) is to be read against that of other caches."
        + (f" {TRANSFER} the model was not trained with this cache." if any(row.transfer for row in rows) else ""),
        f"Model {run.model}: {run.resolved['model']}.",
    )


def why_grid(rows: Sequence[WhyRow], run: RunRecord) -> Grid:
    """The numbers of the figure."""
    notes = Notes()
    shares: dict[str, tuple[Tier, ...]] = {
        "sink": ("sink",),
        "memory": ("memory",),
        "chosen": ("chosen before", "newly chosen"),
        "recent": ("recent", "newly cached"),
        "own": ("own",),
    }
    header = ["method", "past frames", "overlap", "chosen overlap", "chosen by chance"]
    header += [f"attention on {name}" for name in shares]
    header += ["per newly cached token", "per newly chosen token", "border effect", "update effect"]

    def estimate(row: WhyRow, name: str, write: Callable[[float], str] = number) -> Item:
        found = row.numbers.get(name)
        if found is None:
            return Item("–", notes=notes.number([row.reasons.get(name, "")]))
        return Item(write(found.value), interval(found.low, found.high))

    def line(row: WhyRow) -> tuple[Item, ...]:
        label = Item(f"{row.label} {TRANSFER}" if row.transfer else row.label, notes=notes.number([row.reason]))
        if row.reason:
            return (label, *(Item("") for _ in header[1:]))
        attention = [sum(row.mass.get(tier, 0.0) for tier in tiers) for tiers in shares.values()]
        return (
            label,
            Item("all" if row.budget is None else f"{row.budget:g}"),
            *(estimate(row, name) for name in ("overlap", "chosen_overlap", "chosen_chance")),
            *(Item(f"{share:.3f}" if share else "–") for share in attention),
            *(estimate(row, name) for name in ("newly cached", "newly chosen")),
            *(estimate(row, name, signed) for name in ("border_effect", "update_effect")),
        )

    body = tuple(map(line, rows))
    title = "What caches keep, and what is looked at"
    optional = (9, 8, 7, 6, 5, 4, 1)
    return Grid(title, tuple((name,) for name in header), (body,), tuple(notes.texts), captions(rows, run), optional)
