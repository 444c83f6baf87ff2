"""Does a place look the same when the camera comes back? The second visit against the video's own first one."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from magbench.data.mini_world import HEADROOM, SIZE, CameraPath
from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.matching import PSNR_CAP, capped, mean_ssim, pairwise, pixels, psnr
from magbench.metrics.mini_case import not_mini, scenes_of
from magbench.metrics.ssim import SSIM_WINDOW
from magbench.records import CaseRecord, Series


@dataclass(frozen=True)
class Return:
    """A frame of the second visit.

    Args:
        frame: Its index.
        first: Frames of the first visit that it may match.
        before: The last frame before the second visit.
    """

    frame: int
    first: tuple[int, ...]
    before: int


def camera_returns(path: CameraPath, frames: int) -> Iterator[Return]:
    """The frames at which the camera is where it was before, for the second time since the place was out of view.

    Args:
        path: Positions count as they are; a pan that never turns never returns.
        frames: Of the video.
    """
    first: dict[float, int] = {}
    visits: dict[float, int] = {}
    gone: set[float] = set()
    before, last = 0, -1
    for t in range(frames):
        here = path.position(t)
        gone |= {place for place in first if abs(place - here) >= SIZE}
        visits[here] = visits.get(here, 0) + (here not in first or here in gone)
        gone.discard(here)
        if visits[here] == 2:
            before = before if last == t - 1 else t - 1
            last = t
            yield Return(t, (first[here],), before)
        first.setdefault(here, t)


def declared_returns(case: CaseRecord, fps: float) -> Iterator[Return]:
    """The frames of the second declared visit; each may match any frame of the first."""
    (first, second) = (range(round(start * fps), round(end * fps)) for start, end in case.visits[:2])
    yield from (Return(t, tuple(first), second.start - 1) for t in second)


class SelfRetention(Metric):
    """Pixels of the second visit to a place against the video's own first visit, where the prompt's camera comes back.

    In the mini world the camera path is known: a frame is compared with the first one at the same camera position, if
    the place was out of view meanwhile, in the rows that no walker reaches. Elsewhere the case says when the visits are
    (`visits`), and each frame of the second is compared with the frame of the first that is nearest in pixels.

    `psnr` and `ssim` have no better side, since a frozen video has the most. `floor_psnr` is the same for the frame
    just before the return, held. `gain`, the headline, is PSNR above that floor: what coming back shows that standing
    still would not. It is 0 for a frozen video.

    Mean of per-frame PSNR over RGB, an identical frame counting 60 dB. SSIM as in `ssim_consecutive@default`.

    Blind to: whether the first visit was any good; a small error in camera speed reads like forgetting.
    """

    name = "self_retention"
    title = "Second visit to a place against the video's own first visit (PSNR, SSIM)"
    clock = "frames of the second visit"
    memory = "pairs"
    memory_cap = 2**31
    needs = Needs()
    reductions = (
        Declared("gain", "higher", "dB", -PSNR_CAP, PSNR_CAP),
        Declared("psnr", "none", "dB", 0, PSNR_CAP),
        Declared("ssim", "none", "", -1, 1),
        Declared("floor_psnr", "none", "dB", 0, PSNR_CAP),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Find both visits; not applicable where the camera isn't known to come back."""
        super().start(info)
        found = self._returns(info)
        if isinstance(found, NotApplicable):
            return found
        self._found = found
        self._frames: dict[int, Tensor] = {}
        self._times: dict[int, float] = {}
        self._wanted = {t for one in found for t in (one.frame, *one.first, one.before)}
        if min(self._rows, info.width) < SSIM_WINDOW:
            return NotApplicable(f"frames of {info.width}x{info.height} are smaller than the SSIM window")
        if 3 * info.width * self._rows * len(self._wanted) > self.memory_cap:
            return NotApplicable(f"visits of {len(self._wanted)} frames of {info.width}x{info.height} are too long")
        return None

    def _returns(self, info: Info) -> list[Return] | NotApplicable:
        case = info.sample.case
        self._rows = info.height
        if info.sample.history_frames:
            return NotApplicable("there is a given history, which retention compares with (long-horizon track only)")
        if case.visits:
            if len(case.visits) < 2:
                return NotApplicable("the case declares a single visit")
            found = list(declared_returns(case, info.fps))
            if not found or not found[0].first or not found[0].before:
                return NotApplicable("a declared visit is shorter than a frame")
            return found
        if not_mini(info):
            return NotApplicable("it is not known when the camera comes back: the case declares no visits")
        scenes = scenes_of(case)
        if isinstance(scenes, NotApplicable):
            return scenes
        if len(scenes) > 1:
            return NotApplicable("another prompt follows, so the place need not look the same")
        path = CameraPath.from_dict(case.path) if case.path else scenes[0].path()
        if path.turn_frame is None:
            return NotApplicable("the prompt's camera never comes back")
        self._rows = HEADROOM
        found = list(camera_returns(path, case.frames))
        return found or NotApplicable("the camera comes back to no place that was out of view within the video")

    def update(self, item: Clip) -> None:
        """Keep the frames of the visits."""
        for t, time, frame in zip(range(item.first, item.first + len(item)), item.times, item.frames, strict=True):
            if t in self._wanted:
                self._frames[t] = frame[: self._rows].cpu().clone()
                self._times[t] = time

    def finish(self) -> Scores | NotApplicable:
        """Match and compare."""
        if missing := sorted(self._wanted - set(self._frames)):
            return NotApplicable(f"the video ends before frame {missing[0]} of its visits")
        seen = sorted({t for one in self._found for t in one.first})
        column = {t: i for i, t in enumerate(seen)}
        first = torch.stack([self._frames[t] for t in seen])
        allowed = [[column[t] for t in one.first] for one in self._found]

        def matched(shown: list[int]) -> tuple[Tensor, Tensor]:
            """The frames at these indices, and for each the nearest frame of the first visit."""
            distinct = sorted(set(shown))
            distances = pairwise(pixels, torch.stack([self._frames[t] for t in distinct]), first)
            rows = [distances[distinct.index(t)] for t in shown]
            best = [free[int(row[free].argmin())] for row, free in zip(rows, allowed, strict=True)]
            return torch.stack([self._frames[t] for t in shown]), first[best]

        again, partners = matched([one.frame for one in self._found])
        values = capped(psnr(again, partners))
        floor = float(capped(psnr(*matched([one.before for one in self._found]))).mean())
        times = tuple(self._times[one.frame] for one in self._found)
        return Scores(
            {
                "gain": float(values.mean()) - floor,
                "psnr": float(values.mean()),
                "ssim": mean_ssim(again, partners),
                "floor_psnr": floor,
            },
            (Series(name="psnr", times=times, values=tuple(values.tolist()), unit="dB"),),
        )
