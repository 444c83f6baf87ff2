"""A user's clips as a suite: MAG-Bench on any model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magbench.data.mag_clips import Clip, list_clips, settle, survey
from magbench.data.mag_frames import FrameRule
from magbench.errors import ConfigError
from magbench.names import digest, slug
from magbench.options import RunOptions
from magbench.runners.models import ModelInfo, find_model
from magbench.suite import ClipSpec, Suite, TrackSpec

NAME, VERSION = "mag-bench-clips", 1
MODEL = "mini"
BASELINES = ("fifo",)
PRIMARY = ("retention@default/aligned_psnr",)
METRICS = ("retention@default", "retention@mag", "efficiency@default")
HINT = "mend them, or name the folder that the paths are relative to with --clips-root"
MINI_METRICS = ("retention@default", "retention@mini", "efficiency@default")
"""On `mini` the released matching is by features that need no weights."""


@dataclass(frozen=True)
class ClipSuite:
    """Clips, ready to run."""

    suite: Suite
    notes: tuple[str, ...]
    """What to know of clips: those left out, and why."""
    resolved: dict[str, Any]
    """For the run's record."""


def clip_suite(options: RunOptions, source: Path) -> ClipSuite:
    """Look through the clips and make a suite of them. Every clip is decoded once.

    Args:
        options: With the model, captions, and what to do with faulty clips.
        source: CSV file, folder or video.

    Raises:
        ConfigError: another option doesn't go with clips; there are no clips, or some can't be used.
    """
    _alone(options)
    model = find_model(options.model or MODEL)
    rule = FrameRule(model.fps, model.stride, model.chunk)
    captions = options.caption == "use"
    listing = list_clips(source, options.clips_root)
    found, wrong, notes = survey(
        listing.rows, rule, model.size, model.require_readable if captions else lambda caption: None
    )
    faults = [*listing.faults, *wrong]
    settle(faults, len(found), options.faulty_clips == "leave-out", HINT)
    suite = Suite(
        name=NAME,
        version=VERSION,
        model=MODEL,
        title="continue clips of one's own, or MAG-Bench's",
        baselines=BASELINES,
        tracks={
            "mag-bench": TrackSpec(
                metrics=MINI_METRICS if model.name == "mini" else METRICS,
                primary=PRIMARY,
                cases=tuple(_case(clip, rule, model, captions) for clip in found),
            )
        },
    )
    left_out = [str(fault) for fault in faults]
    return ClipSuite(
        suite,
        (*listing.notes, *notes, *(f"left out: {line}" for line in left_out)),
        {"captions": options.caption, "clips_left_out": left_out},
    )


def _alone(options: RunOptions) -> None:
    """Refuse what would choose other cases."""
    for name in ("suite", "prompts"):
        if name in options.model_fields_set:
            raise ConfigError(f"--{name} and --clips both say what to generate", "leave one of them out")
    if "long-horizon" in options.track:
        raise ConfigError("--clips makes mag-bench cases, not long-horizon ones", "leave out --track long-horizon")


def _case(clip: Clip, rule: FrameRule, model: ModelInfo, captions: bool) -> ClipSpec:
    row = clip.row
    return ClipSpec(
        id=_case_id(row.name),
        prompt=row.caption if captions else "",
        history_frames=rule.latents(clip.given),
        frames=rule.latents(clip.used),
        clip=str(row.path.resolve()),
        clip_sha256=clip.sha256,
        mirror=clip.mirror,
        stratum=", ".join(filter(None, (row.category, _time_away(clip, model)))),
    )


def _case_id(name: str) -> str:
    """Readable, and fixed by the name alone, so that another clip in the list changes none."""
    readable = slug(str(Path(name).with_suffix(""))).replace("=", "-")
    return f"{readable}-{digest({'clip': name})[:6]}"


def _time_away(clip: Clip, model: ModelInfo) -> str:
    """From a place's last sight to the first frame that has to show it again, in doublings of a second."""
    if clip.mirror is None or (away := (2 * clip.given - clip.mirror) / model.fps) <= 0:
        return ""
    doublings = [0, 1, 2, 4, 8, 16, 32, 64]
    low = max(bound for bound in doublings if bound <= away)
    return f"away {low}-{2 * low or 1} s" if low < doublings[-1] else f"away over {low} s"
