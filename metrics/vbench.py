"""VBench 0.1.5 (Huang et al. 2024): subject and background consistency and aesthetic quality, in its own recipe.

Everything that changes a number is VBench's: every frame, its resizing, the clamped cosine. Three things aren't. It
scores with half precision on GPUs, which moves the third decimal; here it is single precision everywhere. It decodes
with other libraries. And it weighs a data set by frames or by videos depending on the number of processes; see
`dataset_score`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from magbench.errors import ConfigError
from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.laion import TOWER_VBENCH
from magbench.records import MetricRecord, Series

VBENCH = "vbench-0.1.5"


class PreviousAndFirst:
    """Consistency as VBench defines it: half the similarity to the frame before plus half that to the first.

    Similarity is max(0, cosine).
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._previous = torch.empty(0)

    def add(self, features: Tensor) -> list[float]:
        """Values of further frames, float32 [n, width]; the very first frame has none."""
        unit = normalize(features.float(), dim=1)
        if self._first is None:
            self._first, self._previous, unit = unit[0].clone(), unit[0], unit[1:]
        before = torch.cat([self._previous[None], unit])
        self._previous = before[-1].clone()
        to_previous, to_first = (unit * before[:-1]).sum(1).clamp(min=0), (unit @ self._first).clamp(min=0)
        values: list[float] = ((to_previous + to_first) / 2).tolist()
        return values


class _Consistency(Metric):
    profile = VBENCH
    clock = "every frame"
    reductions = (Declared("consistency", "higher", "", 0, 1), Declared("pairs", "none", "", 1))

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        super().start(info)
        self._consistency = PreviousAndFirst()
        self._times: list[float] = []
        self._values: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Compare every frame with the one before and the first."""
        self._times += item.times
        self._values += self._consistency.add(item.feature(self.needs.features[0]))

    def finish(self) -> Scores | NotApplicable:
        """Average."""
        if not self._values:
            return NotApplicable("fewer than two frames: nothing to compare")
        return Scores(
            {"consistency": sum(self._values) / len(self._values), "pairs": float(len(self._values))},
            (Series(name="consistency", times=tuple(self._times[1:]), values=tuple(self._values)),),
        )


class SubjectConsistencyVBench(_Consistency):
    """VBench's `subject_consistency`: DINO ViT-B/16 on every frame.

    The short side is brought to 224 without antialias and nothing is cropped: 480x832 is read at 224x388, of which the
    network drops the last 4 columns. `consistency` is the mean over frames from the second on of half the similarity to
    the frame before plus half that to the first, max(0, cosine). `pairs` is how many there were: VBench's weight.
    A frozen video gets 1, and more frames per second raise it.
    """

    name = "subject_consistency"
    title = "VBench 0.1.5 subject consistency (DINO on every frame)"
    needs = Needs(features=("magbench.metrics.hub_vit:dino_vitb16_vbench",))
    licence = "Apache-2.0"


class BackgroundConsistencyVBench(_Consistency):
    """VBench's `background_consistency`: CLIP ViT-B/32 on every frame, resized without antialias or clamp.

    The reductions are those of `subject_consistency@vbench-0.1.5`. No background is segmented: it is the whole frame.
    """

    name = "background_consistency"
    title = "VBench 0.1.5 background consistency (CLIP ViT-B/32 on every frame)"
    needs = Needs(features=("magbench.metrics.clip:vit_b_32_vbench",))
    licence = "MIT"


class AestheticVBench(Metric):
    """VBench's `aesthetic_quality`: mean of LAION's linear rating over every frame, a tenth of it, not clamped."""

    name = "aesthetic"
    profile = VBENCH
    title = "VBench 0.1.5 aesthetic quality (LAION on CLIP ViT-L/14, every frame: expensive)"
    clock = "every frame"
    needs = Needs(features=(TOWER_VBENCH, "magbench.metrics.laion:laion_linear_vbench"))
    reductions = (Declared("rating", "higher"),)
    licence = "MIT"

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        super().start(info)
        self._times: list[float] = []
        self._ratings: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Rate every frame."""
        self._times += item.times
        self._ratings += item.feature(self.needs.features[-1]).tolist()

    def finish(self) -> Scores | NotApplicable:
        """Average."""
        if not self._ratings:
            return NotApplicable("there are no generated frames to rate")
        return Scores(
            {"rating": sum(self._ratings) / len(self._ratings)},
            (Series(name="rating", times=tuple(self._times), values=tuple(self._ratings)),),
        )


def dataset_score(records: Sequence[MetricRecord], weighting: Literal["videos", "frames"] = "videos") -> float:
    """A consistency of VBench over a data set.

    VBench weighs subject consistency by frames in one process and by videos in several, background consistency always
    by frames: with videos of different lengths the two differ in the second decimal. Our tables weigh by videos.

    Args:
        records: Of `subject_consistency@vbench-0.1.5` or `background_consistency@vbench-0.1.5`, one per video.
        weighting: Whether each video counts the same, or as often as it has pairs.

    Raises:
        ConfigError: there is no record, or one without a value.
    """
    if not records:
        raise ConfigError("there is no record to average")
    total = weights = 0.0
    for record in records:
        found = {reduction.name: reduction.value for reduction in record.reductions}
        value, pairs = found.get("consistency"), found.get("pairs")
        if value is None or pairs is None:
            raise ConfigError(f"{record.name} has no consistency to average: {record.reason or 'another metric'}")
        weight = pairs if weighting == "frames" else 1.0
        total, weights = total + weight * value, weights + weight
    return total / weights
