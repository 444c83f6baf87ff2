"""What the retention metrics share: the continuation and its truth, frame beside frame."""

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Info, Metric, NotApplicable
from magbench.metrics.ssim import SSIM_WINDOW
from magbench.records import SampleRecord


class Continuation(Metric):
    """Base: keeps the frames after the history beside their truth, and what a frozen model would show instead.

    Once `collected` has returned None, `generated` and `truth` are uint8 [N, H, W, 3] on the CPU. `known` [K, H, W, 3]
    are truth frames that the model was shown, each the last one before it went on: of the history, and, where its cache
    is written from the truth, before each further chunk. `frozen` says for each of the N frames which of the K repeats.
    """

    clock = "every frame after the given history"
    memory = "pairs"
    memory_cap = 2**31
    """Two gigabytes of frames kept for matching. A mag-bench continuation is a few seconds long."""

    def start(self, info: Info) -> NotApplicable | None:
        """Refuse videos without history, without truth, on another clock or in another size, or too long to match."""
        super().start(info)
        self._generated: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._known: list[Tensor] = []
        self.times: list[float] = []
        history, truth = info.sample.history_frames, info.sample.truth
        if truth is None or not history:
            return NotApplicable("there is no given history with a truth after it (mag-bench track only)")
        size = f"{info.width}x{info.height}"
        if (truth.width, truth.height) != (info.width, info.height):
            return NotApplicable(f"the video is {size}, its truth {truth.width}x{truth.height}")
        if min(info.width, info.height) < SSIM_WINDOW:
            return NotApplicable(f"frames of {size} are smaller than the SSIM window of {SSIM_WINDOW} pixels")
        if abs(truth.fps - info.fps) > 1e-3 * truth.fps:
            return NotApplicable(f"the video has {info.fps:g} frames per second, its truth {truth.fps:g}")
        if 3 * 3 * info.width * info.height * (truth.frames - history) > self.memory_cap:
            return NotApplicable(f"a continuation of {truth.frames - history} frames of {size} is too long to match")
        return None

    def update(self, item: Clip) -> None:
        """Keep the clip's frames and the truth's, or the truth's last given frame."""
        frames = item.frames.cpu()
        truth = item.truth.frames.cpu() if item.truth is not None else frames[:0]
        if item.first < self.info.sample.history_frames:
            self._known = [truth[-1:]] if len(truth) else []
            self.given(item.first, frames[: len(truth)], truth)
        else:
            self._generated.append(frames)
            self._truth.append(truth)
            self.times.extend(item.times)

    def given(self, first: int, frames: Tensor, truth: Tensor) -> None:
        """Take frames of the history, the first of them frame `first`, as the video and as the truth show them."""

    def collected(self) -> NotApplicable | None:
        """Put the frames together; the reason why not if the video and its truth don't end together."""
        sample = self.info.sample
        expected = sample.truth.frames - sample.history_frames if sample.truth else 0
        made, known = (sum(map(len, frames)) for frames in (self._generated, self._truth))
        if not made or made != expected or known != expected or not self._known:
            return NotApplicable(f"the video has {made} frames after the history, its truth {expected} ({known} read)")
        self.generated, self.truth = torch.cat(self._generated), torch.cat(self._truth)
        starts = [border - sample.history_frames for border in sample.timing.chunk_borders if writes_truth(sample)]
        starts = [start for start in starts if 0 < start < expected]
        self.known = torch.cat([*self._known, *(self.truth[start - 1 : start] for start in starts)])
        self.frozen = torch.bucketize(torch.arange(expected), torch.tensor(starts, dtype=torch.int64), right=True)
        return None


def writes_truth(sample: SampleRecord) -> bool:
    """Whether the cache was written from the ground truth, not from what was generated."""
    return sample.method.parameters.get("write_back") == "truth"
