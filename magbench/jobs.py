"""Suite x methods x seeds to jobs: one job per sample, grouped for batched sampling."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from magbench.errors import ConfigError
from magbench.names import digest, slug
from magbench.records import CaseRecord, MethodRecord, SampleRecord, Track
from magbench.suite import Suite

BATCH = 4
"""Samples per batch. Fixed, because a matrix product may round differently at another batch size."""

ALONE_FRAMES = 960
"""Samples of more latent frames are batches of their own: one that is filled up would cost hours for nothing."""

CASE_IDENTITY = ("id", "track", "prompt", "world_seed", "path", "history_frames", "frames", "schedule", "clip_sha256")
"""The fields of a case that change pixels. Its stratum and the truth's checksum don't."""


@dataclass(frozen=True)
class ModelIdentity:
    """What of a model changes pixels.

    Args:
        name: As in `magbench list models`.
        weights_sha256: Of all its weights.
        dtype: Numeric type of the rollout, e.g. `float32`.
        sampler: Its sampler, in words, with every constant that matters.
    """

    name: str
    weights_sha256: str
    dtype: str
    sampler: str


@dataclass(frozen=True)
class Job:
    """One sample to be."""

    key: str
    case: CaseRecord
    method: MethodRecord
    model: str
    seed: int

    def record(self, **fields: Any) -> SampleRecord:
        """The job's sample record, with the fields that only making it tells."""
        return SampleRecord(
            key=self.key, case=self.case, method=self.method, model=self.model, seed=self.seed, **fields
        )


@dataclass(frozen=True)
class Group:
    """Jobs of one method, track, length and times of switches and cuts that are sampled in one batch.

    Membership depends on the plan alone, never on which samples are missing; `slots` keeps a job's place in the batch.
    """

    jobs: tuple[Job, ...]

    @property
    def size(self) -> int:
        """How many are sampled together."""
        return batch_size(self.jobs[0].case)

    def slots(self, missing: Iterable[str]) -> tuple[Job, ...]:
        """`size` jobs to sample: each missing one in its place, the other places filled with a missing one."""
        wanted = set(missing)
        filler = next(job for job in self.jobs if job.key in wanted)
        placed = [job if job.key in wanted else filler for job in self.jobs]
        return tuple(placed + [filler] * (self.size - len(placed)))


@dataclass(frozen=True)
class Plan:
    """Everything a run has to make, in key order."""

    suite: Suite
    jobs: tuple[Job, ...]

    def groups(self) -> Iterator[Group]:
        """The generated samples (reference rows are made one by one), in key order within a group."""

        def kind(job: Job) -> tuple[str, str, int, int, tuple[tuple[float, bool], ...]]:
            switches = tuple((switch.at, switch.cut) for switch in job.case.schedule)
            return job.method.label, job.case.track, job.case.frames, job.case.history_frames, switches

        generated = [job for job in self.jobs if job.method.policy != "reference"]
        for _, members in groupby(sorted(generated, key=lambda job: (kind(job), job.key)), key=kind):
            ordered = tuple(members)
            size = batch_size(ordered[0].case)
            for start in range(0, len(ordered), size):
                yield Group(ordered[start : start + size])

    def references(self, label: str) -> tuple[Job, ...]:
        """The jobs of one reference row: `real`, `static` or `shuffled`."""
        return tuple(job for job in self.jobs if job.method.policy == "reference" and job.method.label == label)

    def real_key(self, job: Job) -> str | None:
        """The key of the rendered truth on the job's case and seed; None when the track has no such row."""
        return self._real.get((job.case.track, job.case.id, job.seed))

    @cached_property
    def _real(self) -> dict[tuple[str, str, int], str]:
        return {(job.case.track, job.case.id, job.seed): job.key for job in self.references("real")}


def batch_size(case: CaseRecord) -> int:
    """Samples per batch at the length of a case."""
    return BATCH if case.frames <= ALONE_FRAMES else 1


def expand(
    suite: Suite,
    methods: Sequence[MethodRecord],
    model: ModelIdentity,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """All jobs of a suite.

    Args:
        suite: With the tracks that are wanted.
        methods: Resolved; a label named twice counts once.
        model: The model they run on.
        seeds: Instead of each track's own.
    """
    unique = {method.label: method for method in methods}.values()
    jobs = []
    for track, spec in suite.tracks.items():
        rows = [*unique, *(reference_method(label) for label in spec.references)]
        for case in suite.cases(track):
            for seed in seeds or spec.seeds:
                jobs += [Job(sample_key(suite, case, seed, row, model), case, row, model.name, seed) for row in rows]
    return Plan(suite, tuple(sorted(jobs, key=lambda job: job.key)))


def reference_method(label: str) -> MethodRecord:
    """The method record of a reference row."""
    return MethodRecord(label=label, policy="reference", applicability="reference")


def sample_key(suite: Suite, case: CaseRecord, seed: int, method: MethodRecord, model: ModelIdentity) -> str:
    """A readable prefix and a hash of everything that changes pixels.

    That is: suite name and version, the case (`CASE_IDENTITY`), the seed, the policy, all its parameters and, where it
    is none of magbench's, its code, and, where a model is at work, its name, weights, numeric type and sampler. Device,
    workers, batch, metrics, labels and dates are left out.
    """
    absent = {name for name in ("schedule", "clip_sha256") if not getattr(case, name)}  # older keys don't have them
    identity: dict[str, Any] = {
        "suite": [suite.name, suite.version],
        "case": case.model_dump(include=set(CASE_IDENTITY) - absent),
        "seed": seed,
        "policy": method.policy,
        "parameters": method.parameters,
    }
    if method.code_sha256:
        identity["code"] = method.code_sha256
    if method.policy == "reference":
        identity["reference"] = method.label
    else:
        identity["model"] = [model.name, model.weights_sha256, model.dtype, model.sampler]
    return f"{slug(case.track)}.{slug(case.id)}.s{seed}.{slug(method.label)}.{digest(identity)[:12]}"


def sample_seed(case: CaseRecord, seed: int) -> int:
    """Seed of a sample's noise stream: a hash of case and seed, the same for all methods and models, 63 bits."""
    text = f"{case.track}/{case.id}/{seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def of_other_code(plan: Plan, stored: Iterable[SampleRecord]) -> tuple[SampleRecord, ...]:
    """Stored samples of the plan's policies that were made before, or after, the policy's file was edited."""
    now = {job.method.policy: job.method.code_sha256 for job in plan.jobs}
    return tuple(s for s in stored if now.get(s.method.policy, s.method.code_sha256) != s.method.code_sha256)


def refuse_mixture(plan: Plan, stored: Iterable[SampleRecord]) -> None:
    """Refuse a run folder whose samples would stand in the same cell of a table as the plan's, yet differ from them.

    Raises:
        ConfigError: a stored sample has a planned job's method, case and seed, but another key.
    """

    def cell(item: Job | SampleRecord) -> tuple[Track, str, int, str]:
        return item.case.track, item.case.id, item.seed, item.method.label

    planned = {cell(job): job.key for job in plan.jobs}
    for sample in stored:
        if planned.get(cell(sample), sample.key) != sample.key:
            raise ConfigError(
                f"the run folder already holds {sample.method.label!r} on case {sample.case.id!r}, seed {sample.seed}, "
                "made with other settings (length, budget, weights or numeric type)",
                "choose another folder with --out",
            )
