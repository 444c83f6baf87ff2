"""Does the video follow when its prompt switches? The headline of the suite `interactive` on the mini world."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.judge import SLOTS
from magbench.metrics.mini_case import not_mini, prompted, scenes_of, shown
from magbench.records import Series

REACHED = 3 / 4
"""Share of the changed attributes, over `WINDOW`, from which a switch has arrived: no two of three, nor one of two."""
WINDOW = 1.0
"""Seconds."""


class PromptAdherence(Metric):
    """Share of what the prompt says that the frames show, before and after it switches.

    The judge reads five attributes in each frame: sky, ground, coat colour, hat colour, hat shape; what it refuses to
    read is not shown. They are held to the prompt of the frame's time, from the chunk on at which a switch acts.

    `after` (the headline): of the attributes that the new prompt changed, the share shown as it says, over all frames
    until the next switch. `kept`: the same share of the attributes that it did not change: what should have outlived
    the switch. `before`: the same share of all five before the first switch. `old`: of the changed attributes, the
    share still shown as the prompt before said; what is neither new nor old is something else, or unreadable. `lag`:
    seconds from the switch to the first window of 1 s over which 3/4 of the changed attributes are shown; not
    applicable where none is, so read it beside `after`. With several switches, each is the mean over switches.

    The series are the share of all five over time and, since the switch, that of the changed ones.

    The judge errs too: of the 6,708 rendered frames of 52 switching cases in worlds it wasn't trained on it misread
    none of the five, nor after a round trip through the VAE of `mini`; blurred, noisy or recoloured, 0.03 % of each at
    most. See also the `real` row. A frozen video has a perfect `kept` and no `after`, one that starts anew at the
    switch may have it the other way round: neither stands alone. Blind to whether hills and landmarks stay the same,
    and to how the change looks: a dissolve counts as soon as it reads as the new.
    """

    name = "prompt_adherence"
    profile = "mini"
    title = "Prompted sky, ground, coat and hat that are shown before and after the prompt switches"
    needs = Needs(features=("magbench.metrics.mini_judge:reading",))
    memory = "frame"
    reductions = (
        Declared("after", "higher", "", 0, 1),
        Declared("kept", "higher", "", 0, 1),
        Declared("before", "higher", "", 0, 1),
        Declared("old", "lower", "", 0, 1),
        Declared("lag", "lower", "s", 0),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos that the judge reads, of prompts that switch."""
        super().start(info)
        if not info.sample.case.schedule:
            return NotApplicable("the prompt never switches")
        scenes = scenes_of(info.sample.case)
        if reason := not_mini(info):
            return reason
        if isinstance(scenes, NotApplicable):
            return scenes
        self._scenes = scenes
        self._shown: list[Tensor] = []
        self._times: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Read the clip's frames."""
        self._shown.append(shown(item.feature(self.needs.features[0]), tuple(SLOTS)))
        self._times.extend(item.times)

    def finish(self) -> Scores | NotApplicable:
        """Compare scene by scene."""
        first = self.info.sample.history_frames
        end, switches = first + len(self._times), tuple(self._scenes)[1:]
        if end <= switches[-1]:
            return NotApplicable(f"the video ends at frame {end}, its prompt switches at frame {switches[-1]}")
        read, says = torch.cat(self._shown), prompted(self._scenes, tuple(SLOTS), range(first, end))
        right = read == says
        after, kept, old, lags = list[float](), list[float](), list[float](), list[float | None]()
        times, shares = list[float](), list[float]()
        for start, stop in pairwise(frame - first for frame in (*switches, end)):
            before = says[start - 1]
            changed = says[start] != before
            if not changed.all():
                kept.append(_share(right[start:stop, ~changed]))
            if changed.any():
                now = right[start:stop, changed]
                after.append(_share(now))
                old.append(_share((read[start:stop] == before)[:, changed]))
                lags.append(self._lag(now))
                times.extend(self._times[start:stop])
                shares.extend(now.double().mean(1).tolist())
        unchanged = "no switch changes an attribute that the judge reads"
        reached = [lag for lag in lags if lag is not None]
        return Scores(
            {
                "after": _mean(after, unchanged),
                "kept": _mean(kept, "every switch changes all attributes that the judge reads"),
                "before": _share(right[: switches[0] - first]),
                "old": _mean(old, unchanged),
                "lag": _mean(reached, unchanged)
                if len(reached) == len(lags)
                else NotApplicable(f"the new prompt is shown for {WINDOW:g} s nowhere"),
            },
            (
                Series(
                    name="prompted attributes", times=tuple(self._times), values=tuple(right.double().mean(1).tolist())
                ),
                *([Series(name="changed attributes", times=tuple(times), values=tuple(shares))] if times else []),
            ),
        )

    def _lag(self, right: Tensor) -> float | None:
        """Seconds until the first window that shows the new prompt; bool [frames, changed attributes]."""
        window = round(WINDOW * self.info.fps)
        counts = right.sum(1)
        if len(counts) < window:
            return None
        arrived = counts.unfold(0, window, 1).sum(1) >= REACHED * window * right.shape[1]
        return float(arrived.int().argmax()) / self.info.fps if arrived.any() else None


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _mean(values: Sequence[float], none: str) -> float | NotApplicable:
    return sum(values) / len(values) if values else NotApplicable(none)
