"""VBench-Long's two consistencies, raw: inside its clips of 2 s, and from clip to clip, side by side.

VBench-Long fuses the two after pushing the second through a table that turns a similarity of 0.40 into 0.91; by default
it leaves the second out altogether, and with an underscore in the file name too. Neither is done here: there is no
mapped and no fused value. Clips are not encoded again, which costs the original some 5 dB.
"""

from magbench.metrics.base import Clip, Declared, Info, Metric, Needs, NotApplicable, Scores
from magbench.metrics.vbench import PreviousAndFirst
from magbench.metrics.vbench_frames import clip_starts
from magbench.records import Series

SECONDS = 2
"""Length of a clip, which `long_custom_input` fixes."""


class _OpenClip:
    """A clip whose frames are still coming."""

    def __init__(self, start: int, stop: int, time: float) -> None:
        self.start, self.stop, self.time = start, stop, time
        self.consistency = PreviousAndFirst()
        self.values: list[float] = []


class _LongConsistency(Metric):
    profile = "vbench-long"
    clock = "every frame in clips of 2 s; first frames of clips"
    reductions = (
        Declared("in_clip", "higher", "", 0, 1),
        Declared("clip_to_clip", "higher", "", 0, 1),
        Declared("clips", "none", "", 1),
    )

    def start(self, info: Info) -> NotApplicable | None:
        """Cut the video into clips."""
        super().start(info)
        self._length = int(info.fps) * SECONDS
        if self._length < 2:
            return NotApplicable(f"at {info.fps:g} frames per second a clip of {SECONDS} s has {self._length} frames")
        self._frames = info.frames - info.sample.history_frames
        starts = clip_starts(self._frames, self._length) if self._frames > 0 else ()
        self._waiting = list(starts)
        self._open: list[_OpenClip] = []
        self._closed: list[tuple[float, float]] = []
        self._between, self._between_times = PreviousAndFirst(), list[float]()
        self._between_values: list[float] = []
        self._seen = 0
        return None

    def update(self, item: Clip) -> None:
        """Compare frames within their clips, and the first frames of clips with each other."""
        features = item.feature(self.needs.features[0])
        first, self._seen = self._seen, self._seen + len(item)
        firsts = []
        while self._waiting and self._waiting[0] < self._seen:
            start = self._waiting.pop(0)
            firsts.append(start - first)
            self._open.append(_OpenClip(start, start + self._length, item.times[start - first]))
        for clip in self._open:
            part = features[max(clip.start - first, 0) : max(clip.stop - first, 0)]
            if len(part):
                clip.values += clip.consistency.add(part)
        for clip in [clip for clip in self._open if clip.stop <= self._seen]:
            self._close(clip)
        if firsts:
            heads = item.pick(tuple(firsts))
            self._between_times += heads.times
            self._between_values += self._between.add(heads.feature(self.needs.features[-1]))

    def _close(self, clip: _OpenClip) -> None:
        self._open.remove(clip)
        if clip.values:
            self._closed.append((clip.time, sum(clip.values) / len(clip.values)))

    def finish(self) -> Scores | NotApplicable:
        """Average over clips."""
        for clip in tuple(self._open):
            self._close(clip)
        if not self._closed:
            return NotApplicable("fewer than two frames: nothing to compare")
        if self._seen != self._frames:
            return NotApplicable(
                f"{self._frames} frames were announced and {self._seen} came: the last clip is in the wrong place",
                "re-mux the file",
            )
        times, values = zip(*self._closed, strict=True)
        series = [Series(name="in_clip", times=times, values=values)]
        found: dict[str, float | NotApplicable] = {"in_clip": sum(values) / len(values)}
        if between := self._between_values:
            found["clip_to_clip"] = sum(between) / len(between)
            series.append(Series(name="clip_to_clip", times=tuple(self._between_times[1:]), values=tuple(between)))
        else:
            found["clip_to_clip"] = NotApplicable(f"the video is not longer than one clip of {SECONDS} s")
        found["clips"] = float(len(values))
        return Scores(found, tuple(series))


class SubjectConsistencyLong(_LongConsistency):
    """VBench-Long's `subject_consistency`, raw: DINO inside clips, DINOv2 ViT-B/14 from clip to clip.

    A clip has 2 * int(fps) frames, so 46 at 23.976 fps. A rest is made whole with frames of the clip before it, so the
    last clip is always the last frames. `in_clip` is the mean over clips of `subject_consistency@vbench-0.1.5` inside
    each; `clip_to_clip` is the same formula over the clips' first frames. `clips` is how many there are.
    """

    name = "subject_consistency"
    title = "VBench-Long subject consistency, raw: in 2 s clips (DINO), and from clip to clip (DINOv2)"
    needs = Needs(
        features=(
            "magbench.metrics.hub_vit:dino_vitb16_vbench",
            "magbench.metrics.hub_vit:dinov2_vitb14_vbench",
        )
    )
    licence = "Apache-2.0"


class BackgroundConsistencyLong(_LongConsistency):
    """VBench-Long's `background_consistency`, raw, with CLIP ViT-B/32 inside clips and from clip to clip.

    Clips and reductions are those of `subject_consistency@vbench-long`. From clip to clip VBench-Long offers CLIP or
    DreamSim and its developers' setting is DreamSim: `clip_to_clip` is the CLIP one.
    """

    name = "background_consistency"
    title = "VBench-Long background consistency, raw: in 2 s clips, and from clip to clip (both CLIP ViT-B/32)"
    needs = Needs(features=("magbench.metrics.clip:vit_b_32_vbench",))
    licence = "MIT"
