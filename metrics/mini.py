"""The `mini` profiles of learned metrics: the judge in the place of downloaded backbones."""

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.drift import declared, functionals
from magbench.metrics.judge.network import WALKER_SLOTS
from magbench.metrics.lpips_consecutive import LPIPSConsecutive
from magbench.metrics.mini_case import not_mini, prompted, scenes_of, shown
from magbench.metrics.subject_consistency import SubjectConsistency
from magbench.records import Series

_OPENING = 3.0
"""Seconds."""


class LPIPSConsecutiveMini(LPIPSConsecutive):
    """`lpips_consecutive` with the judge's three feature maps; see `magbench.metrics.mini_judge.judge_layers`.

    The same reductions of another distance: its level says nothing beside LPIPS.
    """

    profile = "mini"
    title = "Perceptual distance of frames 1/8 s apart by the judge's features; spikes and seams"
    needs = Needs(features=("magbench.metrics.mini_judge:layers",))
    licence = ""

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos that the judge reads."""
        return super().start(info) or not_mini(info)


class SubjectConsistencyMini(SubjectConsistency):
    """`subject_consistency` with the judge's embedding of the walker in the place of DINO.

    The judge looks at coat and hat wherever they are, so the camera's motion moves it less than DINO. The levels of the
    two profiles don't compare.
    """

    profile = "mini"
    title = "Similarity of the walker's embedding over time, by the judge"
    needs = Needs(features=("magbench.metrics.mini_judge:embedding",))
    licence = ""

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos that the judge reads."""
        return super().start(info) or not_mini(info)


class SubjectIdentity(Metric):
    """Does the walker stay the one the prompt describes: coat colour, hat colour, hat shape.

    The series is, per frame, the share of the three that the judge reads as prompted; what it refuses to read is not.
    A frame is held to the prompt of its time: a wanted change of clothes is no loss of identity.
    `all` (the headline) is the share of frames in which all three are right; `body`, `hat_colour`, `hat_shape` each by
    itself; `shown@3s` is 1 if all three are right in more than half of the frames of the first 3 s, else 0, so that its
    mean is the share of videos that show the prompted walker at all. The rest is the drift of the series (see
    `magbench.metrics.drift`), negative when the walker is lost.

    The judge errs too: of 2,000 rendered frames of worlds it wasn't trained on it misread none of the three; blurred,
    noisy or recoloured, 0.05 % of the coats and hat shapes. See also the `real` row. Blind to a walker that is changed
    in ways the prompt has no word for, or doubled.
    """

    name = "subject_identity"
    profile = "mini"
    title = "Frames whose walker has the prompted coat, hat colour and hat shape"
    needs = Needs(features=("magbench.metrics.mini_judge:reading",))
    memory = "frame"
    reductions = (
        Declared("all", "higher", "", 0, 1),
        Declared("body", "higher", "", 0, 1),
        Declared("hat_colour", "higher", "", 0, 1),
        Declared("hat_shape", "higher", "", 0, 1),
        Declared("shown@3s", "higher", "", 0, 1),
        *declared("lower"),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos that the judge reads, of prompts that say what the walker looks like."""
        super().start(info)
        scenes = scenes_of(info.sample.case)
        if reason := not_mini(info):
            return reason
        if isinstance(scenes, NotApplicable):
            return scenes
        self._scenes = scenes
        self._right: list[Tensor] = []
        self._times: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Read the clip's frames."""
        wanted = prompted(self._scenes, WALKER_SLOTS, range(item.first, item.first + len(item)))
        self._right.append(shown(item.feature(self.needs.features[0]), WALKER_SLOTS) == wanted)
        self._times.extend(item.times)

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        if not self._times:
            return NotApplicable("there is no generated frame")
        right = torch.cat(self._right)
        series = right.double().mean(1)
        body, hat_colour, hat_shape = right.double().mean(0).tolist()
        opening = right[torch.tensor(self._times) < self._times[0] + _OPENING].all(1)
        return Scores(
            {
                "all": float(right.all(1).double().mean()),
                "body": body,
                "hat_colour": hat_colour,
                "hat_shape": hat_shape,
                "shown@3s": float(opening.double().mean() > 0.5),
                **functionals(self._times, series.tolist(), "lower"),
            },
            (Series(name="prompted attributes", times=tuple(self._times), values=tuple(series.tolist())),),
        )
