"""Do the frames show what the prompt of their time says?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import normalize

from magbench.metrics.aesthetic import RATE
from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.clock import Clock
from magbench.metrics.drift import functionals
from magbench.metrics.laion import TOWER
from magbench.records import SampleRecord, Series

WINDOW = 10.0
"""Seconds."""
_DRIFT = ("start_end@15%", "start_end@5s", "slope")


class TextAlignment(Metric):
    """Cosine of CLIP ViT-L/14 between each frame and the prompt that holds at its time, in windows of 10 s.

    * `similarity`: mean over two frames per second
    * `worst_window`: the lowest mean of a window. Windows begin anew where the prompt switches; a rest shorter than
      5 s belongs to the window before it
    * `switch_gain`: of the frames after the first switch, how much closer they are to their prompt than to the prompt
      before it; negative if the video stays with the old one
    * `start_end@15%`, `start_end@5s`, `slope`: drift over frames, see `magbench.metrics.drift`. Not applicable where
      the prompt switches: levels of different prompts don't compare
    * `tokens_cut`: tokens that the encoder doesn't read, of the prompt that loses most. It reads 75, a paragraph is
      longer; above 0 there is a warning too

    Real videos of a good prompt reach about 0.2 to 0.3. Compare methods on the same case, never levels across prompts.
    """

    name = "text_alignment"
    title = "Similarity of frames and the prompt of their time, in 10 s windows (CLIP ViT-L/14)"
    clock = "2 frames per second"
    needs = Needs(features=(TOWER,))
    memory = "frame"
    reductions = (
        Declared("similarity", "higher", "", -1, 1),
        Declared("worst_window", "higher", "", -1, 1),
        Declared("switch_gain", "higher", "", -2, 2),
        *(Declared(name, "higher") for name in _DRIFT),
        Declared("tokens_cut", "lower", "", 0),
    )
    licence = "MIT"

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos whose prompt is known."""
        super().start(info)
        case = info.sample.case
        self._prompts = (case.prompt, *(switch.prompt for switch in case.schedule))
        if not all(prompt.strip() for prompt in self._prompts):
            return NotApplicable("the prompt is not known", "name it in the manifest of the videos")
        self._clock = Clock(RATE)
        self._times: list[float] = []
        self._holds: list[int] = []
        self._cosines: list[NDArray[np.float64]] = []
        self._texts: Any = None
        self._cut = 0
        return None

    def update(self, item: Clip) -> None:
        """Compare the frames on the clock with all prompts."""
        picked = self._clock.indices(item.times)
        if not picked:
            return
        seen = item.pick(picked)
        if self._texts is None:
            encoder: Any = item.extractors[TOWER]
            self._texts = normalize(encoder.texts(self._prompts).double(), dim=1)
            self._cut = max(map(encoder.tokens_cut, self._prompts))
        self._times += seen.times
        self._holds += [
            holds(self.info.sample, item.first + index, time) for index, time in zip(picked, seen.times, strict=True)
        ]
        images = normalize(seen.feature(TOWER).double(), dim=1)
        self._cosines.append((images @ self._texts.T).cpu().numpy())

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        if not self._times:
            return NotApplicable("there are no generated frames to compare")
        times, holds, cosines = np.array(self._times), np.array(self._holds), np.concatenate(self._cosines)
        frames = np.arange(len(times))
        own = cosines[frames, holds]
        starts, means = _windows(times, holds, own)
        switched = holds > 0
        gain = own[switched] - cosines[frames, holds - 1][switched]
        if (holds == holds[0]).all():
            drift = functionals(self._times, own.tolist(), "lower")
        else:
            reason = "the prompt switches: levels of different prompts don't compare"
            drift = dict.fromkeys(_DRIFT, NotApplicable(reason))
        return Scores(
            {
                "similarity": float(own.mean()),
                "worst_window": min(means),
                "switch_gain": float(gain.mean())
                if len(gain)
                else NotApplicable("no frame follows a switch of the prompt"),
                **{name: drift[name] for name in _DRIFT},
                "tokens_cut": float(self._cut),
            },
            (
                Series(name="window", times=tuple(starts), values=tuple(means)),
                Series(name="frame", times=tuple(self._times), values=tuple(own.tolist())),
            ),
            (f"the encoder reads 75 tokens: of the longest prompt the last {self._cut} were not compared",)
            if self._cut
            else (),
        )


def holds(sample: SampleRecord, frame: int, time: float) -> int:
    """Which prompt holds at a frame: 0 is the case's own, i its i-th switch.

    The borders at which the model switched decide, where they are known, else the times of the schedule.
    """
    borders = sample.timing.switch_borders
    if len(borders) == len(sample.case.schedule):
        return sum(frame >= border for border in borders)
    return sum(time >= switch.at - 0.005 for switch in sample.case.schedule)


def _windows(
    times: NDArray[np.float64], holds: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Start and mean of each window."""
    starts, means = list[float](), list[float]()
    for prompt in np.unique(holds):
        at, those = times[holds == prompt], values[holds == prompt]
        count = max(1, int((at[-1] - at[0]) / WINDOW + 0.5))
        slot = np.minimum(((at - at[0] + 0.005) / WINDOW).astype(int), count - 1)
        for window in range(count):
            starts.append(float(at[slot == window][0]))
            means.append(float(those[slot == window].mean()))
    return starts, means
