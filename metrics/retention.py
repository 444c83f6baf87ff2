"""Does the model still know what it has seen? A continuation against the truth after the given history."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Declared, Extractor, Info, Needs, NotApplicable, Scores
from magbench.metrics.continuation import Continuation
from magbench.metrics.matching import (
    PSNR_CAP,
    RELEASED_CAP,
    Layers,
    capped,
    mean_ssim,
    pairwise,
    pixels,
    psnr,
    released_scores,
)
from magbench.metrics.memory_kind import Kind, kinds, sources
from magbench.metrics.mini_case import not_mini, world_of
from magbench.records import Series

MIN_SPAN = 3.0
"""dB between floor and ceiling below which a position between them means nothing."""


class Retention(Continuation):
    """Pixels of the continuation against the truth's, at the same time and at the best time.

    * `aligned_psnr`, `aligned_ssim`: same time, mean over frames. `aligned_psnr@unheld` (the headline) is over the
      frames whose place the cache no longer held when they were generated, which is what a memory is for; `@held`,
      `@folded` and `@evicted` are its parts (see `memory_kind`). Reference rows have no cache: all places they saw
      count as evicted.
    * `coverage_psnr`: for each truth frame the best generated frame, mean over truth frames. A frozen video covers
      little.
    * `floor_psnr`: repeating the truth's last given frame. `ceiling_psnr`: the video's own given frames against the
      truth, i.e. what the model's video codec alone costs on the same scene; it exists if the saved history went
      through the codec. `normalised` is aligned PSNR from floor (0) to ceiling (1), where they are at least 3 dB apart.

    Mean of per-frame PSNR over RGB, an identical frame counting 60 dB. SSIM as in `ssim_consecutive@default`.

    Blind to: memory with a small error in camera speed, which reads like forgetting; PSNR likes blur.
    """

    name = "retention"
    title = "Continuation against the truth, same time and best time (PSNR, SSIM)"
    needs = Needs(truth=True, history=True)
    reductions = (
        Declared("aligned_psnr@unheld", "higher", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr", "higher", "dB", 0, PSNR_CAP),
        Declared("aligned_ssim", "higher", "", -1, 1),
        Declared("coverage_psnr", "higher", "dB", 0, PSNR_CAP),
        Declared("normalised", "higher"),
        Declared("floor_psnr", "none", "dB", 0, PSNR_CAP),
        Declared("ceiling_psnr", "none", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr@held", "none", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr@folded", "none", "dB", 0, PSNR_CAP),
        Declared("aligned_psnr@evicted", "none", "dB", 0, PSNR_CAP),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """As `Continuation`; the given frames' PSNR is collected for the ceiling."""
        self._given: list[Tensor] = []
        return super().start(info)

    def given(self, frames: Tensor, truth: Tensor) -> None:
        """Also measure how well the video's own history shows the truth."""
        self._given.append(psnr(frames, truth))

    def finish(self) -> Scores | NotApplicable:
        """Score the continuation."""
        if reason := self.collected():
            return reason
        aligned = capped(psnr(self.generated, self.truth))
        floor = capped(psnr(self.last_given.expand_as(self.truth), self.truth))
        best = pairwise(pixels, self.generated, self.truth).argmin(0)
        ceiling = self._ceiling()
        return Scores(
            {
                **self._by_kind(aligned),
                "aligned_psnr": float(aligned.mean()),
                "aligned_ssim": mean_ssim(self.generated, self.truth),
                "coverage_psnr": float(capped(psnr(self.generated[best], self.truth)).mean()),
                "normalised": _between(float(aligned.mean()), float(floor.mean()), ceiling),
                "floor_psnr": float(floor.mean()),
                "ceiling_psnr": ceiling,
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

    def _by_kind(self, aligned: Tensor) -> dict[str, float | NotApplicable]:
        groups: Mapping[str, Sequence[Kind]] = {
            "unheld": ("folded", "evicted"),
            "held": ("held",),
            "folded": ("folded",),
            "evicted": ("evicted",),
        }
        found = self._kinds()
        if isinstance(found, NotApplicable):
            return {f"aligned_psnr@{group}": found for group in groups}
        values: dict[str, float | NotApplicable] = {}
        for group, members in groups.items():
            chosen = torch.tensor([kind in members for kind in found])
            values[f"aligned_psnr@{group}"] = (
                float(aligned[chosen].mean())
                if chosen.any()
                else NotApplicable(f"no frame shows a place that was {' or '.join(members)} when it was generated")
            )
        return values

    def _kinds(self) -> list[Kind | None] | NotApplicable:
        sample = self.info.sample
        world = world_of(sample.case)
        if isinstance(world, NotApplicable):
            return NotApplicable(f"which history frames showed the same place is not known: {world.reason}")
        if sample.method.applicability != "reference" and not self.info.trace:
            return NotApplicable("there is no trace of the cache")
        history = sample.history_frames
        return kinds(sources(world, history, history + len(self.truth)), history, self.info.trace)


class RetentionMAG(Continuation):
    """The released MAG-Bench protocol: PSNR and SSIM at the best match by LPIPS-AlexNet; see `released_scores`.

    Each generated frame may pick any truth frame, so a frozen video scores high: repeating the last given frame gave
    best-match PSNR of 17.6 to 31.1 dB on five palindromes, where 18.99 is published for MAG. Read it beside the
    `static` row; `floor_psnr` is the same number for that frozen frame. It is never normalised.

    `matched_share` is the number of different truth frames picked over their number: low means frozen or repeated. The
    series is the time of the truth frame picked.
    """

    name = "retention"
    profile = "mag"
    title = "Released MAG-Bench scores at the best match (read beside static)"
    needs = Needs(truth=True, history=True, features=("magbench.metrics.backbones:lpips_alex",))
    licence = "BSD-2-Clause (heads), BSD-3-Clause (trunk)"
    reductions = (
        Declared("psnr", "higher", "dB", 0, RELEASED_CAP),
        Declared("ssim", "higher", "", -1, 1),
        Declared("distance", "lower", "", 0),
        Declared("matched_share", "none", "", 0, 1),
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

        found = released_scores(backbone, self.generated, self.truth)
        frozen = released_scores(backbone, self.last_given.expand_as(self.truth), self.truth)
        return Scores(
            {
                "psnr": found.psnr,
                "ssim": found.ssim,
                "distance": found.distance,
                "matched_share": len(set(found.indices)) / len(self.truth),
                "floor_psnr": frozen.psnr,
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
