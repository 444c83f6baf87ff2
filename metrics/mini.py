"""The `mini` profiles of learned metrics: the judge in the place of downloaded backbones."""

import torch
from torch import Tensor

from magbench.data.mini_world import COLOURS, HATS
from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.judge import Reading
from magbench.metrics.lpips_consecutive import LPIPSConsecutive
from magbench.metrics.mini_case import not_mini, scene_of
from magbench.records import Series


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


class SubjectIdentity(Metric):
    """Does the walker stay the one the prompt describes: coat colour, hat colour, hat shape.

    The series is, per frame, the share of the three that the judge reads as prompted; what it refuses to read is not.
    `all` (the headline) is the share of frames in which all three are right; `body`, `hat_colour`, `hat_shape` each by
    itself. `start_end@15%` is the mean of the series over the last 15 % of the frames minus that over the first 15 %:
    negative means the walker is lost over time. On a video without drift it is not exactly 0: see the `real` and
    `static` rows.

    The judge errs too, see the `real` row. Blind to a walker that is changed in ways the prompt has no word for, and
    doubled.
    """

    name = "subject_identity"
    profile = "mini"
    title = "Frames whose walker has the prompted coat, hat colour and hat shape"
    needs = Needs(features=("magbench.metrics.mini_judge:reading",))
    memory = "frame"
    reductions = (
        Declared("all", "higher", "", 0, 1),
        Declared("start_end@15%", "higher", "", -1, 1),
        Declared("body", "higher", "", 0, 1),
        Declared("hat_colour", "higher", "", 0, 1),
        Declared("hat_shape", "higher", "", 0, 1),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Only for videos that the judge reads, of prompts that say what the walker looks like."""
        super().start(info)
        scene = scene_of(info.sample.case)
        if reason := not_mini(info):
            return reason
        if isinstance(scene, NotApplicable):
            return scene
        self._wanted = torch.tensor(
            [COLOURS.index(scene.body), COLOURS.index(scene.hat_colour), HATS.index(scene.hat_shape)]
        )
        self._right: list[Tensor] = []
        self._times: list[float] = []
        return None

    def update(self, item: Clip) -> None:
        """Read the clip's frames."""
        reading: Reading = item.feature(self.needs.features[0])
        read = torch.stack([reading.body, reading.hat_colour, reading.hat_shape], 1)
        self._right.append(read == self._wanted)
        self._times.extend(item.times)

    def finish(self) -> Scores | NotApplicable:
        """Reduce."""
        if not self._times:
            return NotApplicable("there is no generated frame")
        right = torch.cat(self._right)
        series = right.double().mean(1)
        ends = round(0.15 * len(series))
        body, hat_colour, hat_shape = right.double().mean(0).tolist()
        return Scores(
            {
                "all": float(right.all(1).double().mean()),
                "start_end@15%": float(series[-ends:].mean() - series[:ends].mean())
                if ends
                else NotApplicable(f"{len(series)} frames are too few for a start and an end of 15 %"),
                "body": body,
                "hat_colour": hat_colour,
                "hat_shape": hat_shape,
            },
            (Series(name="prompted attributes", times=tuple(self._times), values=tuple(series.tolist())),),
        )
