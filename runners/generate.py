"""Jobs to latents: batches of samples on one model."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from magbench.jobs import Job, sample_seed
from magbench.runners.methods import parse_method
from magbench.runners.models import ModelInfo, VideoModel
from magbench.runners.policies.base import CachePolicy
from magbench.runners.reel import Packed, Reel
from magbench.runners.references import truth_frames
from magbench.runners.rollout import CachedAttention, MakeAttention, PromptSwitch, Rollout, Step, begin
from magbench.runners.state import NotResumableError, kinds_of, pack, unpack
from magbench.runners.wan.sampler import seeded_noise
from magbench.schedule import switch_frames

_log = logging.getLogger(__name__)


class Generator:
    """Rolls out jobs; loads the model when it is first needed.

    Args:
        info: The model.
        device: Torch device.
        dtype: Numeric type of the rollout.
    """

    def __init__(self, info: ModelInfo, device: str, dtype: str) -> None:
        self.info, self.device, self.dtype = info, device, dtype
        self._told: set[str] = set()

    @cached_property
    def model(self) -> VideoModel:
        """The model, ready to generate."""
        return self.info.load(self.device, self.dtype)

    def refusal(self, job: Job) -> str:
        """Why the method has no meaning on the case; empty when it has."""
        if job.method.applicability == "not applicable":
            return job.method.reason
        method = parse_method(job.method.label)
        if method.writes_truth and not job.case.history_frames:
            return "there is no ground truth to write back"
        if method.writes_truth and method.policy.rollout != CachePolicy.rollout:
            return "its loop can write back nothing but what was generated"
        return self.info.refuses(job.method.budget_frames, job.case.frames)

    def roll(
        self, slots: Sequence[Job], attention: MakeAttention = CachedAttention, reel: Reel | None = None
    ) -> Iterator[Step]:
        """Make the videos of one batch, chunk by chunk.

        Args:
            slots: Jobs of one `Group`, one per row; see `Group.slots`.
            attention: See `Rollout`.
            reel: Takes the chunks; those it has are not made again.
        """
        if reel and reel.complete:
            return
        case, model = slots[0].case, self.model
        config = model.transformer.config
        shape = (self.info.chunk, config.in_channels, *model.latent_size)
        seeds = [sample_seed(job.case, job.seed) for job in slots]
        noise = seeded_noise(seeds, shape, model.transformer.dtype, self.device)
        with torch.inference_mode():
            method = parse_method(slots[0].method.label)
            truth = self._truth(slots, case.frames) if method.writes_truth else None
            prompts = [job.case.prompt for job in slots]
            rollout = begin(model, method.policy, prompts, noise, self.info.stride, truth, attention)
            switches = self._switches(slots)
            if reel and reel.saved:
                _take_up(rollout, reel, switches)
            for step in self._left(rollout, slots, switches):
                if reel:
                    reel.add(step, partial(self._state, rollout, slots[0].method.label))
                yield step

    def _left(self, rollout: Rollout, slots: Sequence[Job], switches: Mapping[int, PromptSwitch]) -> Iterator[Step]:
        """The chunks that the rollout has not made yet."""
        case = slots[0].case
        if rollout.frames < case.history_frames:
            yield from rollout.history(self._truth(slots, case.history_frames)[:, rollout.frames :])
        yield from rollout.generate((case.frames - rollout.frames) // self.info.chunk, switches)

    def _state(self, rollout: Rollout, label: str) -> Packed | None:
        """The state of a rollout; None, and a word about it once, where the policy's caches can't be put down."""
        try:
            return pack(rollout.state(), kinds_of(rollout.attention.caches))
        except NotResumableError as error:
            if label not in self._told:
                _log.warning("%s: a video that is stopped starts over, as its cache can't be saved: %s", label, error)
            self._told.add(label)
            return None

    def _truth(self, slots: Sequence[Job], frames: int) -> Tensor:
        """The first `frames` latents of the truth, [B, frames, C, H, W]; a causal encoder needs no frame after them."""
        pixels = self.info.pixel_frames(frames)
        clips = (np.stack([*truth_frames(job.case, job.seed, pixels)]) for job in slots)
        latents = torch.stack([self.model.encode(clip) for clip in clips])
        return latents.to(self.device, self.model.transformer.dtype)

    def _switches(self, slots: Sequence[Job]) -> dict[int, PromptSwitch]:
        """The prompt switches that the slots share, by chunk; their prompts are each slot's own."""
        first = slots[0].case
        starts = switch_frames(first, self.info.fps, self.info.stride, self.info.chunk)
        switches = zip(starts, first.schedule, zip(*(job.case.schedule for job in slots), strict=True), strict=True)
        return {
            start // self.info.chunk: PromptSwitch(self.model.text([each.prompt for each in prompts]), switch.cut)
            for start, switch, prompts in switches
        }


def _take_up(rollout: Rollout, reel: Reel, switches: Mapping[int, PromptSwitch]) -> None:
    """Put the rollout behind what the reel has. A state that can't be restored is not tried twice."""
    text, tensors = reel.saved or ("", {})
    try:
        rollout.restore(unpack(text, tensors, kinds_of(rollout.attention.caches)), switches)
        reel.saved = None
    except BaseException:
        reel.clear()
        raise
