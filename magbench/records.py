"""Everything magbench writes to disk, as strict models.

Numbers are finite: what has no number carries a state and a reason instead.
"""

import base64
import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

SCHEMA_VERSION = 1

State = Literal["value", "not_applicable", "error"]
Direction = Literal["higher", "lower", "none"]
Track = Literal["long-horizon", "mag-bench", "videos"]
Transform = Literal["none", "static", "shuffled"]
Applicability = Literal["in-distribution", "training-free transfer", "not applicable", "reference", "external"]
Unit = Annotated[str, Field(description="'' for a pure number, else dB, s, /s, /min, px, frames, bytes, ms")]


class Record(BaseModel):
    """Base of all records: unknown keys are refused, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoRef(Record):
    """A video file and the view of it that is scored."""

    path: str
    """Relative to the sample's folder, or absolute for a user's own file."""
    sha256: str
    frames: int
    fps: FiniteFloat
    width: int
    height: int
    transform: Transform = "none"
    """`static`: the frame before `hold_from` (frame 0 when 0) is held from there on. `shuffled`: frames are permuted
    in blocks."""
    hold_from: int = 0


class Timing(Record):
    """Where the model's own borders lie in the video, in pixel-frame indices.

    A border b lies between frames b-1 and b.
    """

    chunk_borders: tuple[int, ...] = ()
    latent_borders: tuple[int, ...] = ()
    """Borders between latent frames inside a chunk."""
    update_borders: tuple[int, ...] = ()
    """The chunk borders at which the policy compressed or re-arranged its cache."""
    switch_borders: tuple[int, ...] = ()
    """The chunk borders from which another prompt holds."""


class Switch(Record):
    """Another prompt from some moment on."""

    at: Annotated[FiniteFloat, Field(gt=0)]
    """Seconds from the start of the video; `magbench.schedule.switch_frames` says which frame that is."""
    prompt: str
    cut: bool = False
    """A new shot, not a continuation of the one before."""


def _ascending(schedule: tuple[Switch, ...]) -> tuple[Switch, ...]:
    for one, other in pairwise(schedule):
        if one.at >= other.at:
            raise ValueError(f"switches must come in the order of their times, {other.at:g} s follows {one.at:g} s")
    return schedule


Schedule = Annotated[tuple[Switch, ...], AfterValidator(_ascending)]


def _one_after_the_other(visits: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    last = 0.0
    for start, end in visits:
        if not last <= start < end:
            raise ValueError(f"visits must have a length and follow each other, {start:g} to {end:g} s does not")
        last = end
    return visits


class CaseRecord(Record):
    """One item of a track."""

    id: str
    track: Track
    prompt: str = ""
    world_seed: int | None = None
    path: dict[str, Any] | None = None
    """The camera path of a procedural case, as `mini_world` reads it; None when the prompt's own path is used."""
    clip: str | None = None
    """Path of the video whose first frames are the truth; None for a case of the procedural world."""
    clip_sha256: str | None = None
    """Hash of that file."""
    history_frames: int = 0
    """Latent frames of given history before generation starts."""
    frames: int = 0
    """Latent frames in all, history included."""
    schedule: Schedule = ()
    """Prompts that follow `prompt`, by strictly ascending time."""
    truth_sha256: str | None = None
    """Hash of the rendered truth's RGB bytes, fixed in the suite."""
    mirror: int | None = None
    """Of a palindromic clip: pixel frames t and mirror - t are the same picture."""
    visits: Annotated[tuple[tuple[FiniteFloat, FiniteFloat], ...], AfterValidator(_one_after_the_other)] = ()
    """Start and end, in seconds, of each visit to one place that the prompt's camera leaves and comes back to."""
    stratum: str = ""
    closed_path: bool = False
    """The prompt says that the camera leaves a place and comes back to it."""


class MethodRecord(Record):
    """A method as it ran."""

    label: str
    """What the user named, in canonical form: `memrope`, `memrope:memory=none`, `fifo`, or a reference row."""
    policy: str
    parameters: dict[str, Any] = {}
    """All parameters, defaults resolved."""
    budget_frames: FiniteFloat | None = None
    """Most past frames any pass may attend to, the chunk itself excluded."""
    own_budget_frames: FiniteFloat | None = None
    """The budget that the method has when none is given."""
    family: str = ""
    """The label without what a budget has decided: rows of a family differ in their budget only."""
    matched: bool = True
    """False for a row of reference whose budget can't be chosen."""
    code_sha256: str = ""
    """Of the file that defines the policy, where it is none of magbench's."""
    released_frames: int | None = None
    """Most latent frames of a video for which the release has positions; None where its positions don't end."""
    applicability: Applicability
    reason: str = ""


class SampleRecord(Record):
    """One video: case x seed x method. Written last, so its presence means the sample is complete."""

    schema_version: Literal[1] = 1
    key: str
    case: CaseRecord
    method: MethodRecord
    model: str
    seed: int
    status: Literal["ok", "error", "not_applicable"]
    reason: str = ""
    hint: str = ""
    video: VideoRef | None = None
    truth: VideoRef | None = None
    """The ground truth of the same case on the same clock, where there is one. Path relative to the sample's folder."""
    timing: Timing = Timing()
    history_frames: int = 0
    """Pixel frames at the start of the video that were given, not generated."""

    @property
    def extended(self) -> bool:
        """Whether the video is longer than the release can make it: there the release itself is not applicable."""
        return self.method.released_frames is not None and self.case.frames > self.method.released_frames


class TraceRecord(Record):
    """One chunk of one rollout, as measured."""

    chunk: int
    kind: Literal["history", "generate", "recache"]
    first_frame: int
    frames: int
    ms: FiniteFloat
    passes: int
    keys_passes: FiniteFloat = 0.0
    """Key frames that a query saw, its own chunk's included, summed over all passes; a pass over more frames than a
    chunk has counts in proportion."""
    past_frames: FiniteFloat
    """Past tokens attended to, in frames, the chunk itself excluded."""
    cached_frames: FiniteFloat
    cache_bytes: int
    """K and V, all layers."""
    state_bytes: int = 0
    """Anything else the policy keeps between chunks, all layers."""
    network_bytes: int = 0
    """Weights of a second network that the cache needs, once for all samples."""
    held: tuple[int, ...] = ()
    """Source frames whose raw keys are in the cache (layer 0)."""
    folded: tuple[int, ...] = ()
    """Source frames folded into a memory at this chunk."""
    dropped: tuple[int, ...] = ()
    """Source frames lost at this chunk without entering a memory."""
    events: tuple[str, ...] = ()
    """What the cache did before this chunk: evict, absorb, compress, flush, cut, recache."""


class ChunkPrint(Record):
    """What one chunk of a fingerprint's rollouts saw and gave: its trace but for the time, positions, latents."""

    name: str
    """Which one, in words: `the first chunk from text`, `history chunk 3`, `generated chunk 10`."""
    kind: Literal["history", "generate", "recache"]
    first_frame: int
    frames: int
    passes: int
    past_frames: FiniteFloat
    cached_frames: FiniteFloat
    cache_bytes: int
    state_bytes: int
    held: tuple[int, ...]
    folded: tuple[int, ...]
    dropped: tuple[int, ...]
    events: tuple[str, ...]
    shown: tuple[tuple[int, int], ...]
    """Layer 0: time indices of the past's tokens in order, as (index, how many tokens in a row)."""
    own_frames: tuple[int, ...]
    """Layer 0: time indices of the chunk's own frames."""
    hide_own: int = 0
    shape: tuple[int, ...] = ()
    """Of the latents: frames, channels, rows, columns. Empty for given history."""
    latents: str = ""
    """Base64 of the clean latents, little-endian float32. Empty for given history."""

    @model_validator(mode="after")
    def _whole(self) -> "ChunkPrint":
        size = len(base64.b64decode(self.latents, validate=True))
        if size != (4 * math.prod(self.shape) if self.shape else 0):
            raise ValueError(f"{self.name}: {size} bytes do not hold latents of shape {self.shape}")
        return self


class FingerprintRecord(Record):
    """A short fixed rollout of one method: what was fed in, what each chunk saw, and the latents that came out."""

    schema_version: Literal[1] = 1
    recipe: int
    """Version of the fixed inputs."""
    method: str
    """Canonical label."""
    parameters: dict[str, Any] = {}
    """All parameters, defaults resolved."""
    code_sha256: str = ""
    """As in `MethodRecord`."""
    budget_frames: FiniteFloat | None = None
    model: str
    weights_sha256: str
    dtype: str
    sampler: str
    history_frames: int
    """Latent frames of given history."""
    state: State = "value"
    reason: str = ""
    hint: str = ""
    chunks: tuple[ChunkPrint, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "FingerprintRecord":
        if (self.state == "value") != bool(self.chunks) or (self.state != "value" and not self.reason):
            raise ValueError(f"fingerprint of {self.method!r}: state {self.state!r} with {len(self.chunks)} chunks")
        return self


class Reduction(Record):
    """One named number of a metric, or the reason why there is none."""

    name: str
    state: State
    value: FiniteFloat | None = None
    reason: str = ""
    direction: Direction = "none"
    unit: Unit = ""

    @model_validator(mode="after")
    def _consistent(self) -> "Reduction":
        if (self.state == "value") != (self.value is not None):
            raise ValueError(f"reduction {self.name!r}: state {self.state!r} with value {self.value!r}")
        if self.state != "value" and not self.reason:
            raise ValueError(f"reduction {self.name!r}: state {self.state!r} needs a reason")
        return self


class Series(Record):
    """A metric over time. Times are seconds from the start of the video, or lags for a lag curve."""

    name: str
    times: tuple[FiniteFloat, ...]
    values: tuple[FiniteFloat, ...]
    unit: Unit = ""
    axis: Literal["time", "lag"] = "time"

    @model_validator(mode="after")
    def _same_length(self) -> "Series":
        if len(self.times) != len(self.values):
            raise ValueError(f"series {self.name!r}: {len(self.times)} times for {len(self.values)} values")
        return self


class MetricRecord(Record):
    """What one metric says of one video."""

    schema_version: Literal[1] = 1
    metric: str
    profile: str
    version: int
    state: State
    reason: str = ""
    hint: str = ""
    """How to make a not-applicable metric applicable, e.g. which weights to fetch."""
    video_sha256: str
    """Identity of what was scored: file hash, transform and reference together."""
    weights_sha256: str = ""
    warnings: tuple[str, ...] = ()
    """What to know about the video or its numbers, e.g. repeated frames, key frames at chunk borders, a cut prompt."""
    reductions: tuple[Reduction, ...] = ()
    """The first one is the headline."""
    series: tuple[Series, ...] = ()

    @property
    def name(self) -> str:
        """`metric@profile`, the name used in every output."""
        return f"{self.metric}@{self.profile}"

    @model_validator(mode="after")
    def _consistent(self) -> "MetricRecord":
        if self.state == "value" and not self.reductions:
            raise ValueError(f"{self.name}: state 'value' without a reduction")
        if self.state != "value" and (not self.reason or self.reductions):
            raise ValueError(f"{self.name}: state {self.state!r} needs a reason and no reductions")
        return self


Tier = Literal["sink", "memory", "chosen before", "newly chosen", "recent", "newly cached", "own"]
"""Kinds of keys that a chunk attends to; see `magbench.runners.diagnostics`."""
Border = Literal["chunk", "latent", "update", "other"]
"""Kinds of borders in a video; see `magbench.metrics.consecutive.Seams`."""
AGES = (1, 4, 8, 16, 32, 64)
"""Youngest age in each bin of an age histogram. Age: latent frames from a token's own frame to the chunk's first."""


class ChunkWhy(Record):
    """What a chunk was shown of the past and what it looked at: means over the layers that were sampled."""

    first_frame: int
    overlap: FiniteFloat | None = None
    """Jaccard index of the raw past tokens shown to the chunk before and to this one, leaving out the chunk before
    itself, which could not be in the first of the two sets. None where that set is empty."""
    chosen_overlap: FiniteFloat | None = None
    """Where tokens have just been chosen one by one: the Jaccard index of the last choice and this one."""
    chosen_chance: FiniteFloat | None = None
    """The same, had this choice been made at random from the tokens that could be chosen."""
    ages: tuple[FiniteFloat, ...] = ()
    """Share of each bin of `AGES` in the past tokens shown, and last that of memory tokens, which have no age."""
    keys: dict[Tier, FiniteFloat]
    """Share of each tier in the keys that a query sees, the chunk's own included."""
    mass: dict[Tier, FiniteFloat]
    """Share of each tier in the attention: mean over queries, heads and noisy passes."""


class VideoWhy(Record):
    """The diagnostics of one video."""

    case: str
    seed: int
    chunks: tuple[ChunkWhy, ...]
    ssim: dict[Border, FiniteFloat]
    """Median SSIM of consecutive frames across each kind of border."""
    effects: tuple[Reduction, ...]
    """`border_effect` and `update_effect` of `ssim_consecutive@default`."""


class MethodWhy(Record):
    """The diagnostics of one method."""

    method: MethodRecord
    state: State = "value"
    reason: str = ""
    hint: str = ""
    videos: tuple[VideoWhy, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "MethodWhy":
        if (self.state == "value") != bool(self.videos) or (self.state != "value" and not self.reason):
            raise ValueError(f"why of {self.method.label!r}: state {self.state!r} with {len(self.videos)} videos")
        return self


class WhyRecord(Record):
    """why.json: what each method's cache showed, and what was looked at."""

    schema_version: Literal[1] = 1
    methods: tuple[MethodWhy, ...]


class RunRecord(Record):
    """run.json: who, what, when, with which versions."""

    schema_version: Literal[1] = 1
    magbench_version: str
    kind: Literal["run", "score", "fingerprint", "why"]
    suite: str = ""
    suite_version: int = 0
    model: str = ""
    methods: tuple[str, ...] = ()
    primary: dict[str, tuple[str, ...]] = {}
    """Track -> primary endpoints, each `metric@profile/reduction`."""
    horizons: dict[str, tuple[str, ...]] = {}
    """Track -> coherence horizons, as `magbench.horizon.parse` reads them."""
    arguments: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    command: str = ""
    """The command that continues this run."""
    started: str = ""
    finished: str = ""
    status: Literal["started", "complete", "incomplete", "interrupted", "error"] = "started"
    versions: dict[str, str] = {}
    hardware: dict[str, str] = {}
    git: dict[str, str] = {}
    weights: dict[str, str] = {}
