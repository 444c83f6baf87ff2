"""Whether the subject stays itself: similarity of learned features over time."""

import numpy as np
from numpy.typing import NDArray

from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.bf16 import bf16
from magbench.metrics.clock import RATE, Clock
from magbench.metrics.drift import declared, functionals
from magbench.records import Series

LAGS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds between the frames of the lag curve."""
ANCHOR = 1.0
"""Seconds at the start that the anchor curve compares with."""
MIN_PAIRS = 8
"""Fewest pairs behind a point of the lag curve: one second."""


class SubjectConsistency(Metric):
    """Cosine similarity of DINO ViT-B/16 class tokens (the idea of VBench's dimension, on a fixed clock).

    * `consistency`: mean over frames of half the similarity to the frame 1/8 s before plus half that to the first frame
    * `anchor`: mean similarity to the first second, of everything after it; `anchor.*`: drift of that curve
    * `lag_T`: mean similarity of frames T seconds apart
    * `gap`: median seconds between neighbours: more than 1/8 s where the video has fewer than 8 frames per second, and
      its `consistency` then doesn't compare with others

    Camera motion lowers all of them in a perfect video: compare methods on the same case, never levels across cases. A
    frozen video gets 1.
    """

    name = "subject_consistency"
    title = "Similarity of the subject's features over time (DINO)"
    clock = "8 frames per second"
    needs = Needs(features=("magbench.metrics.backbones:dino_vitb16",))
    memory = "frame"
    reductions = (
        Declared("consistency", "higher", "", -1, 1),
        Declared("anchor", "higher", "", -1, 1),
        *(Declared(f"anchor.{found.name}", found.direction) for found in declared("lower")),
        *(Declared(f"lag_{lag:g}s", "higher", "", -1, 1) for lag in LAGS),
        Declared("gap", "none", "s", 0),
    )
    licence = "Apache-2.0"

    def start(self, info: Info) -> NotApplicable | None:
        """Begin without frames."""
        self.info = info
        self._clock = Clock()
        self._times: list[float] = []
        self._features: list[NDArray[np.float32]] = []
        return None

    def update(self, item: Clip) -> None:
        """Keep the features of the frames on the clock."""
        seen = self._clock.pick(item)
        if len(seen):
            self._times += seen.times
            self._features.append(seen.feature(self.needs.features[0]).float().cpu().numpy())

    def finish(self) -> Scores | NotApplicable:
        """Compare."""
        if len(self._times) < 2:
            return NotApplicable(
                "one frame: nothing to compare" if self._times else "there are no generated frames to compare"
            )
        times, features = np.array(self._times), np.concatenate(self._features).astype(np.float64)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        previous = (features[1:] * features[:-1]).sum(1)
        first = features[1:] @ features[0]
        consistency = (previous + first) / 2
        series = [_series("consistency", times[1:], consistency), *self._lag_curve(times, features)]
        values: dict[str, float | NotApplicable] = {"consistency": float(consistency.mean())}
        after = times >= times[0] + ANCHOR - 0.005
        if after.any():
            anchor = features @ features[~after].mean(0)
            values["anchor"] = float(anchor[after].mean())
            values |= functionals(times[after].tolist(), anchor[after].tolist(), "lower", "anchor")
            series.insert(1, _series("anchor", times, anchor))
        else:
            values["anchor"] = NotApplicable(f"not longer than the {ANCHOR:g} s that would be compared with")
        lags = dict(zip(series[-1].times, series[-1].values, strict=True)) if series[-1].axis == "lag" else {}
        for lag in LAGS:
            values[f"lag_{lag:g}s"] = lags.get(
                lag, NotApplicable(f"fewer than {MIN_PAIRS} pairs of frames are {lag:g} s apart")
            )
        values["gap"] = float(np.median(np.diff(times)))
        return Scores(values, tuple(series))

    @staticmethod
    def _lag_curve(times: NDArray[np.float64], features: NDArray[np.float64]) -> list[Series]:
        lags, values = [], []
        for lag in LAGS:
            later = np.searchsorted(times, times + lag - 0.5 / RATE)
            pairs = np.flatnonzero(later < len(times))
            near = np.abs(times[later[pairs]] - times[pairs] - lag) <= 0.5 / RATE + 0.005
            if near.sum() >= MIN_PAIRS:
                pairs = pairs[near]
                lags.append(lag)
                values.append(float((features[pairs] * features[later[pairs]]).sum(1).mean()))
        return [Series(name="lag", times=tuple(lags), values=tuple(values), axis="lag")] if lags else []


class SubjectConsistencyBF16(SubjectConsistency):
    """`subject_consistency` with DINO in bfloat16; similarities are of float64, as there."""

    title = "Similarity of the subject's features over time (DINO in bfloat16)"
    profile, needs = "bf16", bf16(SubjectConsistency.needs)


def _series(name: str, times: NDArray[np.float64], values: NDArray[np.float64]) -> Series:
    return Series(name=name, times=tuple(times.tolist()), values=tuple(values.tolist()))
