"""Fingerprints: an unchanged repeat passes with room to spare, planted faults of arithmetic are all found."""

import base64
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from magbench.data.mini_world import Scene, World
from magbench.fingerprint import NOT_COMPARABLE, TOLERANCE, check, decode_latents, encode_latents, latent_change
from magbench.records import ChunkPrint, FingerprintRecord, RunRecord
from magbench.runners import rollout
from magbench.runners.fingerprint import Fingerprinter, history_frames, prints, prompt
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.policies.base import CachePolicy, Geometry, LayerCache, Past
from magbench.runners.wan.rope import rotate
from magbench.store import RunStore
from tests.tiny_model import TINY
from tests.wrapped_cache import WrappedCache

LIMIT = TOLERANCE["float32"]
METHOD = parse_method("memrope")


@dataclass(frozen=True)
class Faulty(CachePolicy):
    """A policy that shows something else than the one it says it is, or whose caches are those of another."""

    inner: CachePolicy
    shows: Callable[[Past, Geometry], Past] = lambda past, geometry: past
    stores: CachePolicy | None = None

    def layer(self, geometry: Geometry) -> LayerCache:
        return WrappedCache((self.stores or self.inner).layer(geometry), lambda past: self.shows(past, geometry))

    @property
    def budget(self) -> int | None:
        return self.inner.budget


@pytest.fixture(scope="module")
def fingerprinter() -> Fingerprinter:
    return Fingerprinter(TINY)


@pytest.fixture(scope="module")
def baseline(fingerprinter: Fingerprinter) -> FingerprintRecord:
    return fingerprinter.take(METHOD)


@pytest.fixture
def again(fingerprinter: Fingerprinter, baseline: FingerprintRecord) -> Callable[..., FingerprintRecord]:
    """The baseline's rollouts once more, with another policy inside or in a larger batch."""

    def take(policy: CachePolicy = METHOD.policy, batch: int = 1) -> FingerprintRecord:
        history = fingerprinter.history(baseline.history_frames)
        chunks = prints(fingerprinter.model, policy, history, prompt(), batch)
        return FingerprintRecord.model_validate({**baseline.model_dump(), "chunks": chunks})

    return take


Again = Callable[..., FingerprintRecord]


def moved(before: FingerprintRecord, now: FingerprintRecord) -> list[float]:
    return [latent_change(a, b) for a, b in zip(before.chunks, now.chunks, strict=True) if a.latents]


def test_every_tier_is_in_use(baseline: FingerprintRecord) -> None:
    first, *rest = baseline.chunks
    assert (first.kind, first.past_frames, first.own_frames, first.passes) == ("generate", 0, (0, 1, 2), 4)
    assert [chunk.kind for chunk in rest] == ["history"] * 10 + ["generate"] * 2
    last = rest[-1]
    assert last.shown == tuple((frame, 4) for frame in range(9))
    assert last.own_frames == (9, 10, 11)
    assert last.held == (0, 1, 2, 29, 30, 31, 32)
    assert sum("absorb" in chunk.events for chunk in rest) >= 6
    assert baseline.chunks[4].shown == tuple((frame, 4) for frame in range(9))
    assert [chunk.shape for chunk in baseline.chunks if chunk.latents] == [(3, 16, 4, 4)] * 3


@pytest.mark.parametrize("budget", [None, 5, 9, 10, 31])
@pytest.mark.parametrize("name", METHODS)
def test_the_history_is_longer_than_the_window(name: str, budget: int | None) -> None:
    policy = parse_method(name, budget).policy
    frames = history_frames(policy)
    assert frames % 3 == 0
    assert frames >= (9 if policy.budget is None else policy.budget) + 3 + 15


def test_an_unchanged_repeat_passes(baseline: FingerprintRecord) -> None:
    repeated = Fingerprinter(TINY).take(METHOD)
    assert repeated == baseline
    assert check(baseline, repeated) == ()


def two_threads() -> AbstractContextManager[None]:
    @contextmanager
    def switch() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(2 if before == 1 else 1)
        yield
        torch.set_num_threads(before)

    return switch()


@pytest.mark.parametrize("other", ["threads", "kernels", "batch"])
def test_other_roundings_stay_a_hundred_times_below_the_tolerance(
    other: str, baseline: FingerprintRecord, again: Again
) -> None:
    way: AbstractContextManager[Any] = {
        "threads": two_threads,
        "kernels": lambda: torch.backends.mkldnn.flags(enabled=False),
        "batch": nullcontext,
    }[other]()
    with way:
        current = again(batch=4 if other == "batch" else 1)
    assert check(baseline, current) == ()
    assert max(moved(baseline, current)) <= LIMIT / 100


def dropped(past: Past, geometry: Geometry) -> Past:
    """Frame in slot 5 is missing."""
    size = geometry.tokens_per_frame
    keep = torch.tensor([i for i in range(past.keys.shape[1]) if i // size != 5], dtype=torch.int64)
    return replace(past, keys=past.keys[:, keep], values=past.values[:, keep], frames=past.frames[keep],
                   sources=past.sources[keep])  # fmt: skip


def sink_zeroed(past: Past, geometry: Geometry) -> Past:
    cut = 3 * geometry.tokens_per_frame
    keys, values = past.keys.clone(), past.values.clone()
    keys[:, :cut], values[:, :cut] = 0, 0
    return replace(past, keys=keys, values=values)


def shifted(past: Past, geometry: Geometry) -> Past:
    return replace(past, own_frames=tuple(frame + 1 for frame in past.own_frames))


def memories_exchanged(past: Past, geometry: Geometry) -> Past:
    size = geometry.tokens_per_frame
    order = [*range(3 * size), *range(4 * size, 5 * size), *range(3 * size, 4 * size)]
    order += range(5 * size, past.keys.shape[1])
    order = order[: past.keys.shape[1]]
    return replace(past, keys=past.keys[:, order], values=past.values[:, order])


def averages(**alphas: float) -> CachePolicy:
    return replace(METHOD.policy, **alphas)  # type: ignore[return-value]


FAULTS: dict[str, tuple[Faulty, str]] = {
    "both averages x10": (Faulty(METHOD.policy, stores=averages(alpha_long=0.1, alpha_short=1.0)), "latents"),
    "slow average x10": (Faulty(METHOD.policy, stores=averages(alpha_long=0.1)), "latents"),
    "fast average x10": (Faulty(METHOD.policy, stores=averages(alpha_short=1.0)), "latents"),
    "sink zeroed": (Faulty(METHOD.policy, sink_zeroed), "latents"),
    "memories exchanged": (Faulty(METHOD.policy, memories_exchanged), "latents"),
    "own frames shifted by one": (Faulty(METHOD.policy, shifted), "own frames"),
    "a dropped frame": (Faulty(METHOD.policy, dropped), "past frames"),
    "a frame less of window": (Faulty(METHOD.policy, stores=parse_method("memrope", 8).policy), "held"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_of_a_policy_are_found(fault: str, baseline: FingerprintRecord, again: Again) -> None:
    policy, told = FAULTS[fault]
    current = again(policy)
    changes = check(baseline, current)
    assert any(change.startswith(told) for change in changes), changes
    assert not any(change.startswith(NOT_COMPARABLE) for change in changes)
    assert max(moved(baseline, current)) >= 2 * LIMIT


def queries_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only queries: what is recorded of positions stays right."""

    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        late = self.geometry.rope.grid(tuple(f + 1 for f in self.own), self.geometry.device)
        self.keys[:, self.past :], self.values[:, self.past :] = rotate(k, self.table), v
        return rollout.attention(rotate(q, late), self.keys, self.values)

    def init(self: Any, past: Past, own: int, geometry: Geometry) -> None:
        whole(self, past, own, geometry)
        self.geometry, self.own = geometry, past.own_frames

    whole = rollout._Buffer.__init__
    monkeypatch.setattr(rollout._Buffer, "__init__", init)
    monkeypatch.setattr(rollout._Buffer, "attend", attend)


def timesteps(change: Callable[[float], float], monkeypatch: pytest.MonkeyPatch) -> None:
    flow = rollout.Rollout._flow

    def late(
        self: rollout.Rollout, latents: Tensor, times: list[float], writer: rollout.Writer | None = None
    ) -> Tensor:
        return flow(self, latents, [change(t) for t in times], writer)

    monkeypatch.setattr(rollout.Rollout, "_flow", late)


LOOP_FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "queries shifted by one": queries_shifted,
    "all timesteps off by one": lambda patch: timesteps(lambda t: t + 1, patch),
    "noisy timesteps off by one": lambda patch: timesteps(lambda t: t + (t > 0), patch),
    "clean pass at timestep 1": lambda patch: timesteps(lambda t: max(t, 1.0), patch),
}


@pytest.mark.parametrize("fault", LOOP_FAULTS)
def test_planted_faults_of_the_loop_are_found(
    fault: str, baseline: FingerprintRecord, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    LOOP_FAULTS[fault](monkeypatch)
    current = again()
    assert any(change.startswith("latents of generated chunk 10") for change in check(baseline, current))
    assert max(moved(baseline, current)) >= 2 * LIMIT


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_sha256": "cd" * 32}, f"weights sha256 was {'ab' * 6}... and is {'cd' * 6}..."),
        ({"dtype": "bfloat16"}, "dtype was 'float32' and is 'bfloat16'"),
        ({"budget_frames": 8}, "budget frames was 9 and is 8"),
        ({"model": "other", "sampler": "steps=4"}, "model was 'tiny' and is 'other'"),
        ({"recipe": 0}, "recipe was 1 and is 0"),
    ],
)
def test_other_inputs_are_not_comparable(change: dict[str, Any], told: str, baseline: FingerprintRecord) -> None:
    found = check(baseline, baseline.model_copy(update={**change, "chunks": baseline.chunks[1:]}))
    assert found[0] == NOT_COMPARABLE + told
    assert len(found) == len(change)


def test_changed_parameters_are_told(baseline: FingerprintRecord) -> None:
    current = baseline.model_copy(update={"parameters": {**baseline.parameters, "alpha_long": 0.1}})
    assert check(baseline, current) == ("parameter alpha_long was 0.01 and is 0.1",)
    fewer = {name: value for name, value in baseline.parameters.items() if name != "sink"}
    assert check(baseline, baseline.model_copy(update={"parameters": fewer})) == (
        "parameter sink was 3 and is absent",
    )  # fmt: skip


def with_latents(record: FingerprintRecord, change: Callable[[Any], Any]) -> FingerprintRecord:
    last = record.chunks[-1]
    altered = last.model_copy(update={"latents": encode_latents(change(decode_latents(last)))})
    return record.model_copy(update={"chunks": (*record.chunks[:-1], altered)})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_that_are_not_finite_are_found(value: float, baseline: FingerprintRecord) -> None:
    def spoil(latents: Any) -> Any:
        latents[0, 0, 0, 0] = value
        return latents

    (change,) = check(baseline, with_latents(baseline, spoil))
    assert change.startswith("latents of generated chunk 11 moved by")


def test_the_tolerance_is_in_units_of_the_root_mean_square(baseline: FingerprintRecord) -> None:
    latents = decode_latents(baseline.chunks[-1])
    step = np.zeros_like(latents)
    step[1, 2, 3, 0] = 0.25 * np.sqrt(np.mean(latents**2))
    current = with_latents(baseline, lambda values: values + step)
    assert moved(baseline, current)[-1] == pytest.approx(0.25, rel=1e-5)
    assert check(baseline, current, tolerance=0.26) == ()
    assert check(baseline, current, tolerance=0.24) == (
        "latents of generated chunk 11 moved by 0.25 of their root mean square, tolerance 0.24",
    )


def test_missing_chunks_and_other_shapes_are_told(baseline: FingerprintRecord) -> None:
    shorter = baseline.model_copy(update={"chunks": baseline.chunks[:-1]})
    assert check(baseline, shorter) == ("there were 13 chunks and are 12",)
    last = baseline.chunks[-1]
    flat = last.model_copy(update={"shape": (3, 16, 16, 1)})
    assert check(baseline, baseline.model_copy(update={"chunks": (*baseline.chunks[:-1], flat)})) == (
        "latents of generated chunk 11 had shape (3, 16, 4, 4) and have (3, 16, 16, 1)",
    )


def test_a_method_that_fails_is_told(
    fingerprinter: Fingerprinter, baseline: FingerprintRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(type(METHOD.policy), "layer", explode)
    failed = fingerprinter.take(METHOD)
    assert (failed.state, failed.reason) == ("error", "RuntimeError: boom")
    assert not fingerprinter.is_current(failed, METHOD)
    assert fingerprinter.is_current(baseline, METHOD)
    assert check(baseline, failed) == ("memrope is error: RuntimeError: boom",)
    assert check(failed, baseline) == (NOT_COMPARABLE + "the baseline of memrope is error: RuntimeError: boom",)


def test_current_means_same_inputs(fingerprinter: Fingerprinter, baseline: FingerprintRecord) -> None:
    assert not fingerprinter.is_current(None, METHOD)
    assert not fingerprinter.is_current(baseline, parse_method("memrope:sink=2"))
    assert not Fingerprinter(TINY, dtype="bfloat16").is_current(baseline, METHOD)
    assert not fingerprinter.is_current(baseline.model_copy(update={"weights_sha256": "x"}), METHOD)


def test_a_model_that_cannot_encode_the_world_gets_noise(fingerprinter: Fingerprinter) -> None:
    frames = World(Scene.parse(prompt()), 3_000_000).clip(6)
    torch.testing.assert_close(fingerprinter.history(6)[0], fingerprinter.model.encode(frames), rtol=0, atol=0)
    other = Fingerprinter(TINY)
    other.__dict__["model"] = replace(other.model, side=8)
    noise = other.history(6)
    assert noise.shape == (1, 6, 16, 4, 4)
    assert noise.std() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(noise, other.history(6), rtol=0, atol=0)


def test_the_store_keeps_one_per_label(tmp_path: Path, baseline: FingerprintRecord) -> None:
    store = RunStore.create(tmp_path, RunRecord(magbench_version="0", kind="fingerprint"))
    assert store.fingerprints() == {}
    labels = ("memrope", "memrope:alpha_long=0.05", "memrope:alpha_long=0-05", "memrope:memory=none")
    for label in reversed(labels):
        store.write_fingerprint(baseline.model_copy(update={"method": label}))
    store.write_fingerprint(baseline)
    assert list(store.fingerprints()) == sorted(labels)
    assert store.fingerprints()["memrope"] == baseline
    assert len(list((tmp_path / "fingerprints").iterdir())) == 4
    for file in (tmp_path / "fingerprints").iterdir():
        file.write_text(file.read_text()[:-9])
    assert store.fingerprints() == {}, "what cannot be read back counts as absent"


def test_records_hold_together(baseline: FingerprintRecord) -> None:
    with pytest.raises(ValidationError, match="3 bytes do not hold latents of shape"):
        ChunkPrint.model_validate({**baseline.chunks[-1].model_dump(), "latents": "AAAA"})
    last = baseline.chunks[-1]
    with pytest.raises(ValidationError, match="Only base64 data is allowed"):
        ChunkPrint.model_validate({**last.model_dump(), "latents": "*" + last.latents[1:]})
    half = baseline.model_copy(update={"dtype": "float16"})
    assert check(half, half) == ()
    with pytest.raises(ValidationError, match="state 'value' with 0 chunks"):
        FingerprintRecord.model_validate({**baseline.model_dump(), "chunks": ()})
    odd = np.array([[[[1.5, -2.25, 3e-8]]]])
    chunk = baseline.chunks[-1].model_copy(update={"shape": odd.shape, "latents": encode_latents(odd)})
    assert base64.b64decode(chunk.latents) == np.float32(odd).tobytes()
    np.testing.assert_array_equal(decode_latents(chunk), odd.astype(np.float32))
