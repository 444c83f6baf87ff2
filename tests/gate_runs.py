"""Run folders for the gate, made without a model: one method on the leave-and-return track, changed at will."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magbench.fingerprint import encode_latents
from magbench.gate_policy import GatePolicy, parse_policy
from magbench.records import ChunkPrint, FingerprintRecord, MetricRecord, SampleRecord
from magbench.store import RunStore
from tests.synthetic_run import make_sample, run_record

TRACK = "mag-bench"
RECALL, PSNR = "landmark_recall@mini/recall", "retention@default/aligned_psnr@unheld"
DRIFT = "appearance_drift@default/end"
GATED = ("landmark_recall", "retention", "appearance_drift", "subject_consistency")
POLICY = f"""
margins:
  {RECALL}: {{absolute: 0.05}}
  {PSNR}: {{absolute: 0.5}}
  {DRIFT}: {{absolute: 0.02}}
"""

Change = Callable[[SampleRecord, list[MetricRecord]], tuple[SampleRecord, list[MetricRecord]] | None]
"""Gets a sample and its scores; gives what is stored instead, None for nothing."""


def policy(more: str = "") -> GatePolicy:
    return parse_policy(POLICY + more, "gate.yaml")


def make(
    root: Path,
    change: Change = lambda sample, scores: (sample, scores),
    labels: Sequence[str] = ("memrope",),
    cases: int = 12,
    prints: Sequence[FingerprintRecord] | None = None,
    primary: Sequence[str] = (RECALL, PSNR, DRIFT),
    **run: Any,
) -> RunStore:
    """Write a run folder without videos; every method gets the same fingerprint unless `prints` says otherwise."""
    run = {"methods": tuple(labels), "primary": {TRACK: tuple(primary)}, **run}
    store = RunStore.create(root, run_record(**run))
    rows = [(label, index) for label in labels for index in range(cases)]
    for label, index in [*rows, *([("real", 0)] if cases else [])]:
        sample, scores = made(label, index)
        kept = change(sample, scores) if label != "real" else (sample, scores)
        if kept is not None:
            for record in kept[1]:
                store.write_metric(kept[0].key, record)
            store.write_sample(kept[0])
    for record in [fingerprint(label) for label in labels] if prints is None else prints:
        store.write_fingerprint(record)
    return store


def made(label: str, index: int) -> tuple[SampleRecord, list[MetricRecord]]:
    """A sample and the scores that the gate looks at; a method that fails on this track there borrows another's."""
    sample, scores, _ = make_sample(TRACK, index, label)
    if sample.status != "ok":
        other, scores, _ = make_sample(TRACK, index, "memrope")
        sample = other.model_copy(update={"key": sample.key, "method": sample.method})
    gated = [r.model_copy(update={"series": r.series[:1]}) for r in scores if r.metric in GATED]
    return sample, gated


def shifted(endpoint: str, by: float, noise: float = 0.0, seed: int = 0) -> Change:
    """Add `by` to one number of every sample, and noise of that standard deviation."""
    metric, _, name = endpoint.partition("/")
    rng = np.random.default_rng(seed)

    def change(sample: SampleRecord, scores: list[MetricRecord]) -> tuple[SampleRecord, list[MetricRecord]]:
        moved = []
        for record in scores:
            if record.name == metric:
                reductions = [
                    r.model_copy(update={"value": (r.value or 0.0) + by + noise * rng.normal()})
                    if r.name == name
                    else r
                    for r in record.reductions
                ]
                record = record.model_copy(update={"reductions": tuple(reductions)})
            moved.append(record)
        return sample, moved

    return change


def fingerprint(method: str = "memrope", moved: float = 0.0, **changes: Any) -> FingerprintRecord:
    """Two chunks of fixed latents; `moved` is added to one value of the second."""
    latents = np.random.default_rng(1).normal(size=(2, 3, 2, 2, 2))
    latents[1, 0, 0, 0, 0] += moved
    chunks = [
        ChunkPrint(
            name=f"chunk {i}", kind="generate", first_frame=3 * i, frames=3, passes=11, past_frames=9, cached_frames=9,
            cache_bytes=1024, state_bytes=0, held=(0, 1), folded=(), dropped=(), events=(), shown=((0, 4),),
            own_frames=(9, 10, 11), shape=(3, 2, 2, 2), latents=encode_latents(latents[i]),
        )
        for i in range(2)
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "recipe": 1, "method": method, "model": "mini", "weights_sha256": "ab" * 32, "dtype": "float32",
        "sampler": "steps=10", "history_frames": 6, "chunks": tuple(chunks), **changes,
    }  # fmt: skip
    return FingerprintRecord(**fields)
