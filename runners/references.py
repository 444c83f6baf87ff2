"""The reference rows of a procedural suite: the world itself, a held frame, shuffled frames."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from magbench.data import mini_case
from magbench.data.mag_clips import clip_frames
from magbench.data.mini_world import Frame, World
from magbench.errors import ConfigError
from magbench.jobs import Job, sample_seed
from magbench.records import CaseRecord, SampleRecord, Timing, VideoRef


def world_of(case: CaseRecord, seed: int) -> World:
    """The world a case is set in. Without a seed of its own, as with a user's prompts, it follows case and seed.

    Raises:
        ConfigError: the mini world has no such case; see `magbench.data.mini_case`.
    """
    world_seed = case.world_seed if case.world_seed is not None else sample_seed(case, seed) % 2**31
    return mini_case.world_of(case, world_seed)


def rendered(case: CaseRecord, seed: int) -> Iterator[Frame]:
    """The case's truth, frame by frame: uint8 [64, 64, 3].

    Raises:
        ConfigError: as `render`; a checksum that differs is known behind the last frame.
    """
    world, digest = world_of(case, seed), hashlib.sha256()
    for index in range(case.frames):
        frame = world.frame(index)
        digest.update(frame.tobytes())
        yield frame
    if case.truth_sha256 and (found := digest.hexdigest()) != case.truth_sha256:
        raise ConfigError(
            f"case {case.id!r} renders to {found[:12]}, the suite says {case.truth_sha256[:12]}",
            "the world has changed since the suite was released: use the matching version of magbench",
        )


@lru_cache(maxsize=32)
def _render(case: str, seed: int) -> Frame:
    return np.stack([*rendered(CaseRecord.model_validate_json(case), seed)])


def render(case: CaseRecord, seed: int) -> Frame:
    """All frames of the case's truth: uint8 [frames, 64, 64, 3], checked against the suite's checksum.

    Raises:
        ConfigError: the checksum differs, or the mini world has no such case.
    """
    return _render(case.model_dump_json(), seed)


def truth_frames(case: CaseRecord, seed: int, frames: int) -> Iterator[Frame]:
    """The first `frames` pixel frames of the case's truth, uint8 [H, W, 3] each: of its clip, or rendered.

    Raises:
        ConfigError: see `render`; or the clip is not the one that was looked through.
        VideoError: the clip can't be read.
    """
    if case.clip is not None:
        return clip_frames(Path(case.clip), case.clip_sha256 or "", frames)
    return rendered(case, seed) if frames == case.frames else iter(render(case, seed)[:frames])


def transformed(job: Job, real: SampleRecord, timing: Timing, history_frames: int) -> SampleRecord:
    """The record of a `static` or `shuffled` row: a view of the real row's file, without pixels of its own."""
    if real.video is None:
        return job.record(
            status="error",
            reason=f"there is no real video to derive it from: {real.reason}",
            hint=real.hint,
        )
    path = str(Path("..") / real.key / real.video.path)
    view = {"path": path, "transform": job.method.label, "hold_from": history_frames}
    return job.record(
        status="ok",
        video=VideoRef.model_validate({**real.video.model_dump(), **view}),
        truth=truth_of(job, real),
        timing=timing,
        history_frames=history_frames,
    )


def truth_of(job: Job, real: SampleRecord | None) -> VideoRef | None:
    """The ground truth of a case that has a given history: the real row's file, seen from the job's folder."""
    if real is None or real.video is None or not job.case.history_frames:
        return None
    return real.video.model_copy(update={"path": str(Path("..") / real.key / real.video.path)})
