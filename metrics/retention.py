"""Does the model still know what it has seen? A continuation against the truth after the given history."""

from collections.abc import Mapping, Sequence
from itertools import pairwise as pairs

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Declared, Extractor, Info, Needs, NotApplicable, Scores
from magbench.metrics.continuation import Continuation
from magbench.metrics.matching import (
    PSNR_CAP,
    RELEASED_CAP,
    Layers,
    capped,
    matched_scores,
    mean_ssim,
    monotone,
    pairwise,
    pixels,
    psnr,
    released_psnr,
)
from magbench.metrics.memory_kind import Kind, kinds, places
from magbench.metrics.mini_case import not_mini
from magbench.records import Series

MIN_SPAN = 3.0
"""dB between floor and ceiling below which a position between them means nothing."""
BAND = 0.25
"""Share of the continuation by which a frame may be early or late on the monotone path."""
GROUPS: Mapping[str, Sequence[Kind]] = {
    "unheld": ("folded", "evicted"),
    "held": ("held",),
    "folded": ("folded",),
    "evicted": ("evicted",),
}
"""Kinds of memory that a number is over."""


class Retention(Continuation):
    """Pixels of the continuation against the truth's: at the same time, in the same order, at the best time.

    * `aligned_psnr`, `aligned_ssim`: same time, mean over frames. `aligned_psnr@unheld` (the headline) is over the
      frames whose place the cache no longer held when they were generated, which is what a memory is for; `@held`,
      `@folded` and `@evicted` are its parts (see `memory_kind`), `share@...` how many frames each is over. Reference
      rows have no cache: all places they saw count as evicted.
    * `monotone_psnr`: dynamic time warping, which forgives another camera speed: for each truth frame a generated
      frame, in order of time, at most a quarter of the continuation early or late, both ends anchored; mean over truth
      frames (see `matching.monotone`).
    * `coverage_psnr`: for each truth frame the best generated frame, mean over truth frames. A frozen video covers
      little. Aligned ≤ monotone ≤ coverage.
    * `floor_psnr`: a frozen model, which repeats the last frame of the truth that it was given. Where the cache is
      written from the truth, that is the last one before each chunk. `ceiling_psnr`: the video's own given frames
      against the truth, i.e. what the model's video codec alone costs on the same scene; it exists if the saved history
      went through the codec. `normalised` is aligned PSNR from floor (0) to ceiling (1), where they are at least 3 dB
      apart.
    * `mirrored_psnr`: of a palindromic clip, the given frames in reverse against the truth: how palindromic the clip
      is. It says nothing about the model.

    Mean of per-frame PSNR over RGB, an identical frame counting 60 dB. SSIM as in `ssim_consecutive@default`.

    Blind to: memory with a small error in camera speed reads like forgetting, in aligned numbers; PSNR likes blur.
    """

    name = "retention"
    version = 2
    title = "Continuation against the truth, same time, same order, best time (PSNR, SSIM)"
    needs = Needs(truth=True, history=True)
    reductions = (
        Declared("aligned_psnr@unheld", "higher", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr", "higher", "dB", 0, PSNR_CAP),
        Declared("aligned_ssim", "higher", "", -1, 1),
        Declared("monotone_psnr", "higher", "dB", 0, PSNR_CAP),
        Declared("coverage_psnr", "higher", "dB", 0, PSNR_CAP),
        Declared("normalised", "higher"),
        Declared("floor_psnr", "none", "dB", 0, PSNR_CAP),
        Declared("ceiling_psnr", "none", "dB", 0, PSNR_CAP),
        Declared("mirrored_psnr", "none", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr@held", "none", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr@folded", "none", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr@evicted", "none", "dB", 0, PSNR_CAP),
        Declared("share@held", "none", "", 0, 1),
        Declared("share@folded", "none", "", 0, 1),
        Declared("share@evicted", "none", "", 0, 1),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """As `Continuation`; of the given frames, PSNR is collected for the ceiling, and the mirror of what follows."""
        self._given: list[Tensor] = []
        self._mirror: dict[int, Tensor] = {}
        return super().start(info)

    def given(self, first: int, frames: Tensor, truth: Tensor) -> None:
        """Also measure how well the video's own history shows the truth, and keep what the truth will show again."""
        self._given.append(psnr(frames, truth))
        sample = self.info.sample
        if sample.case.mirror is not None and sample.truth is not None:
            after = range(sample.history_frames, sample.truth.frames)
            shown = ((sample.case.mirror - t, frame) for t, frame in enumerate(truth, start=first))
            self._mirror |= {t: frame.clone() for t, frame in shown if t in after}

    def finish(self) -> Scores | NotApplicable:
        """Score the continuation."""
        if reason := self.collected():
            return reason
        aligned = capped(psnr(self.generated, self.truth))
        floor = capped(psnr(self.known[self.frozen], self.truth))
        distances = pairwise(pixels, self.generated, self.truth)
        path = monotone(-distances.clamp(min=4 * 10 ** (-PSNR_CAP / 10)).log(), int(BAND * len(self.truth)))
        ceiling = self._ceiling()
        return Scores(
            {
                **self._by_kind(aligned),
                "aligned_psnr": float(aligned.mean()),
                "aligned_ssim": mean_ssim(self.generated, self.truth),
                "monotone_psnr": float(capped(psnr(self.generated[path], self.truth)).mean()),
                "coverage_psnr": float(capped(psnr(self.generated[distances.argmin(0)], self.truth)).mean()),
                "normalised": _between(float(aligned.mean()), float(floor.mean()), ceiling),
                "floor_psnr": float(floor.mean()),
                "ceiling_psnr": ceiling,
                "mirrored_psnr": self._mirrored(),
            },
            (
                _series("aligned_psnr", self.times, aligned.tolist(), "dB"),
                _series("floor_psnr", self.times, floor.tolist(), "dB"),
            ),
        )

    def _ceiling(self) -> float | NotApplicable:
        given = torch.cat(self._given)
        if given.isinf().any():
            return NotApplicable("the saved history is the truth itself, so the cost of the video codec is not known")
        return float(given.mean())

    def _mirrored(self) -> float | NotApplicable:
        if self.info.sample.case.mirror is None:
            return NotApplicable("the case is no palindrome")
        if not self._mirror:
            return NotApplicable("the continuation shows nothing that the history mirrors")
        after = [t - self.info.sample.history_frames for t in self._mirror]
        return float(capped(psnr(torch.stack([*self._mirror.values()]), self.truth[after])).mean())

    def _by_kind(self, aligned: Tensor) -> dict[str, float | NotApplicable]:
        found = self._kinds()
        names = (*(f"aligned_psnr@{group}" for group in GROUPS), "share@held", "share@folded", "share@evicted")
        if isinstance(found, NotApplicable):
            return dict.fromkeys(names, found)
        values: dict[str, float | NotApplicable] = {}
        for group, members in GROUPS.items():
            chosen = torch.tensor([kind in members for kind in found])
            values[f"aligned_psnr@{group}"] = (
                float(aligned[chosen].mean())
                if chosen.any()
                else NotApplicable(f"no frame shows a place that was {' or '.join(members)} when it was generated")
            )
            values[f"share@{group}"] = float(chosen.double().mean())
        return {name: values[name] for name in names}

    def _kinds(self) -> list[Kind | None] | NotApplicable:
        sample = self.info.sample
        seen = places(sample, sample.history_frames + len(self.truth))
        if isinstance(seen, NotApplicable):
            return seen
        if sample.method.applicability != "reference" and not self.info.trace:
            return NotApplicable("there is no trace of the cache")
        return kinds(seen, self.info.trace)


class RetentionMAG(Continuation):
    """The released MAG-Bench protocol: PSNR and SSIM at the best match by LPIPS-AlexNet; see `released_scores`.

    Each generated frame may pick any truth frame, so a frozen video scores high: repeating the last given frame gave
    best-match PSNR of 17.6 to 31.1 dB on five palindromes, where 18.99 is published for MAG. Read it beside the
    `static` row; `floor_psnr` is the same number for a frozen model (see `retention@default`). It is never normalised.

    `matched_share` is the number of different truth frames picked over their number: low means frozen or repeated.
    `ascending_share` is the share of frames whose truth frame comes after the one picked before: 1 in the right order,
    0 frozen or backwards, about a half in no order. The series is the time of the truth frame picked.
    """

    name = "retention"
    profile = "mag"
    version = 2
    title = "Released MAG-Bench scores at the best match (read beside static)"
    needs = Needs(truth=True, history=True, features=("magbench.metrics.backbones:lpips_alex",))
    licence = "BSD-2-Clause (heads), BSD-3-Clause (trunk)"
    reductions = (
        Declared("psnr", "higher", "dB", 0, RELEASED_CAP),
        Declared("ssim", "higher", "", -1, 1),
        Declared("distance", "lower", "", 0),
        Declared("matched_share", "none", "", 0, 1),
        Declared("ascending_share", "none", "", 0, 1),
        Declared("floor_psnr", "none", "dB", 0, RELEASED_CAP),
    )

    def update(self, item: Clip) -> None:
        """As `Continuation`; also keeps hold of the features' extractor for the end, when all pairs are known."""
        self._extractor: Extractor = item.extractors[self.needs.features[0]]
        super().update(item)

    def finish(self) -> Scores | NotApplicable:
        """Match and score."""
        if reason := self.collected():
            return reason

        def backbone(frames: Tensor) -> Layers:
            layers: Layers = self._extractor(Clip(0, (0.0,) * len(frames), frames))
            return layers

        size = (self.truth.shape[1], self.truth.shape[2])
        distances = pairwise(backbone, torch.cat([self.generated, self.known]), self.truth, size)
        found = matched_scores(distances[: len(self.truth)], self.generated, self.truth)
        frozen = distances[len(self.truth) :].argmin(1)[self.frozen]
        steps = list(pairs(found.indices))
        return Scores(
            {
                "psnr": found.psnr,
                "ssim": found.ssim,
                "distance": found.distance,
                "matched_share": len(set(found.indices)) / len(self.truth),
                "ascending_share": (
                    sum(one < other for one, other in steps) / len(steps)
                    if steps
                    else NotApplicable("the continuation is a single frame")
                ),
                "floor_psnr": released_psnr(self.known[self.frozen], self.truth[frozen]),
            },
            (_series("matched_time", self.times, [self.times[i] for i in found.indices], "s"),),
        )


class RetentionMini(RetentionMAG):
    """The released matching with the judge's features in the place of LPIPS; otherwise as `retention@mag`.

    The distance is that of `lpips_consecutive@mini`, so no weights have to be fetched. Its numbers aren't comparable
    with published ones.
    """

    profile = "mini"
    title = "Scores at the best match by the judge's features (read beside static)"
    needs = Needs(truth=True, history=True, features=("magbench.metrics.mini_judge:layers",))
    licence = ""

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos that the judge reads."""
        return super().start(info) or not_mini(info)


def _between(value: float, floor: float, ceiling: float | NotApplicable) -> float | NotApplicable:
    if isinstance(ceiling, NotApplicable):
        return NotApplicable(f"no ceiling: {ceiling.reason}")
    if ceiling - floor < MIN_SPAN:
        return NotApplicable(f"floor {floor:.1f} dB and ceiling {ceiling:.1f} dB are less than {MIN_SPAN:g} dB apart")
    return (value - floor) / (ceiling - floor)


def _series(name: str, times: Sequence[float], values: Sequence[float], unit: str) -> Series:
    return Series(name=name, times=tuple(times), values=tuple(values), unit=unit)
