"""What the retention metrics share: the continuation and its truth, frame beside frame."""

import torch
from torch import Tensor

from magbench.metrics.base import Clip, Info, Metric, NotApplicable
from magbench.metrics.ssim import SSIM_WINDOW


class Continuation(Metric):
    """Base: keeps the frames after the history beside their truth, and the truth's last frame before them.

    `generated` and `truth` are uint8 [N, H, W, 3] on the CPU, `last_given` is [1, H, W, 3], once `collected` has
    returned None.
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
        self._last: list[Tensor] = []
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
        if 2 * 3 * info.width * info.height * (truth.frames - history) > self.memory_cap:
            return NotApplicable(f"a continuation of {truth.frames - history} frames of {size} is too long to match")
        return None

    def update(self, item: Clip) -> None:
        """Keep the clip's frames and the truth's, or the truth's last given frame."""
        frames = item.frames.cpu()
        truth = item.truth.frames.cpu() if item.truth is not None else frames[:0]
        if item.first < self.info.sample.history_frames:
            self._last = [truth[-1:]] if len(truth) else []
            self.given(frames[: len(truth)], truth)
        else:
            self._generated.append(frames)
            self._truth.append(truth)
            self.times.extend(item.times)

    def given(self, frames: Tensor, truth: Tensor) -> None:
        """Take frames of the history, as the video and as the truth show them."""

    def collected(self) -> NotApplicable | None:
        """Put the frames together; the reason why not if the video and its truth don't end together."""
        sample = self.info.sample
        expected = sample.truth.frames - sample.history_frames if sample.truth else 0
        made, known = (sum(map(len, frames)) for frames in (self._generated, self._truth))
        if not made or made != expected or known != expected or not self._last:
            return NotApplicable(f"the video has {made} frames after the history, its truth {expected} ({known} read)")
        self.generated, self.truth, self.last_given = torch.cat(self._generated), torch.cat(self._truth), self._last[0]
        return None
