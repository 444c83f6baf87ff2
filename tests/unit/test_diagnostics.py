"""Diagnostics of caches whose contents are known, and that looking changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from magbench.records import ChunkWhy
from magbench.runners import diagnostics
from magbench.runners.diagnostics import TIERS, Diagnosis, Look
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.policies.base import CachePolicy, Chunk, FrameCache, Geometry, LayerCache, Past
from magbench.runners.policies.deep_forcing import DeepForcing, DeepForcingCache
from magbench.runners.rollout import begin
from magbench.runners.wan.sampler import seeded_noise
from tests.tiny_model import TinyModel, load_tiny

SIZE = 4
"""Tokens per frame of the tiny model."""


def roll(policy: CachePolicy, chunks: int, diagnosis: Diagnosis | None, model: TinyModel | None = None) -> Tensor:
    model = model or load_tiny()
    noise = seeded_noise([1, 2], (3, 16, *model.latent_size))
    watched = {} if diagnosis is None else {"attention": diagnosis.attention}
    with torch.inference_mode():
        rollout = begin(model, policy, ["a walker", "a tree"], noise, **watched)
        return torch.cat([step.latents for step in rollout.generate(chunks)], dim=1)


def diagnosed(spec: str, chunks: int = 14, model: TinyModel | None = None) -> tuple[ChunkWhy, ...]:
    policy = parse_method(spec).policy
    diagnosis = Diagnosis(policy, layers=2)
    roll(policy, chunks, diagnosis, model)
    return diagnosis.chunks(1)


@pytest.mark.parametrize("spec", METHODS)
def test_looking_changes_nothing(spec: str) -> None:
    policy = parse_method(spec).policy
    diagnosis = Diagnosis(policy, layers=2)
    assert torch.equal(roll(policy, 9, diagnosis), roll(policy, 9, None))
    chunks = diagnosis.chunks(0)
    assert [chunk.first_frame for chunk in chunks] == list(range(0, 27, 3))
    for chunk in chunks:
        assert sum(chunk.keys.values()) == pytest.approx(1, abs=1e-4)
        assert sum(chunk.mass.values()) == pytest.approx(1, abs=1e-4)
        assert sum(chunk.ages) == pytest.approx(1 if chunk.first_frame else 0, abs=1e-4)


def test_nothing_is_computed_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(diagnostics, "attention", lambda *_: calls.append(1) or torch.zeros(2, 12, 2, len(TIERS)))
    roll(parse_method("fifo").policy, 3, None)
    assert not calls
    roll(parse_method("fifo").policy, 3, Diagnosis(parse_method("fifo").policy, layers=2))
    assert len(calls) == 3 * 3 * 2, "chunks, noisy passes, layers; the clean pass is not looked at"


@pytest.mark.parametrize(("window", "sink"), [(6, 0), (9, 0), (12, 3), (21, 0)])
def test_of_a_window_all_but_one_chunk_stays(window: int, sink: int) -> None:
    chunks = diagnosed(f"fifo:window={window},sink={sink}")
    past = window - 3
    assert chunks[0].overlap is chunks[1].overlap is None
    assert chunks[2].overlap == (1 if window > 6 else 0)
    assert chunks[-1].overlap == pytest.approx((past - 3) / past, abs=1e-5)
    shares = {"sink": sink, "recent": past - 3 - sink, "newly cached": 3, "own": 3}
    assert chunks[-1].keys == pytest.approx({tier: n / window for tier, n in shares.items() if n}, abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "overlap"),
    [
        ("full", 1),
        ("memrope", 4 / 7),
        ("mag:writer=generator,ring=7", 8 / 9),
        ("deep-sink", 15 / 18),
        ("infinity-rope", 1 / 3),
    ],
)
def test_overlap_of_other_caches(spec: str, overlap: float) -> None:
    assert diagnosed(spec)[-1].overlap == pytest.approx(overlap, abs=1e-5)


def test_a_fresh_rollout_shares_nothing_with_the_last() -> None:
    overlaps = {chunk.first_frame: chunk.overlap for chunk in diagnosed("causvid")}
    assert overlaps[18] == 1
    assert overlaps[21] == 0
    assert overlaps[24] == 1


def test_ages() -> None:
    """39 frames of a cache that keeps everything: ages 1 to 39, one each."""
    assert diagnosed("full")[-1].ages == pytest.approx([n / 39 for n in (3, 4, 8, 16, 8, 0, 0)], abs=1e-5)
    assert diagnosed("fifo")[-1].ages == pytest.approx([n / 9 for n in (3, 4, 2, 0, 0, 0, 0)], abs=1e-5)
    memrope = diagnosed("memrope")[-1].ages  # frames 0 to 2, two memories, frames 35 to 38
    assert memrope == pytest.approx([n / 9 for n in (3, 1, 0, 0, 3, 0, 2)], abs=1e-5)


@pytest.mark.parametrize("spec", METHODS)
def test_uniform_attention_is_the_share_of_keys(spec: str) -> None:
    model = load_tiny()
    for block in model.transformer.blocks:
        block.self_attn.q.weight.zero_()
        block.self_attn.q.bias.zero_()
    for chunk in diagnosed(spec, 9, model):
        assert chunk.mass == pytest.approx(chunk.keys, abs=2e-5)


def test_mass_is_the_softmax_summed_over_a_tier() -> None:
    generator = torch.Generator().manual_seed(0)
    q, keys = (torch.randn(2, count, 3, 8, generator=generator) for count in (5, 9))
    tiers = torch.randint(len(TIERS), (2, 9), generator=generator)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 2:4] = True
    look = Look(0, tiers, tiers, tiers, False)
    look.add(q, keys, ~padding[:, None, None])
    for row in range(2):
        scores = torch.einsum("lhd,thd->hlt", q[row], keys[row]) / 8**0.5
        weights = scores.masked_fill(padding[row], -torch.inf).softmax(-1).mean((0, 1))
        expected = [float(weights[tiers[row] == tier].sum()) for tier in range(len(TIERS))]
        assert look.masses[0][row].tolist() == pytest.approx(expected, abs=1e-6)


class Spied(DeepForcingCache):
    """Writes down which tokens are chosen."""

    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        past = super().past(chunk, q, k)
        if past.events:
            chosen = self.tokens.chosen[1] > 0
            places = zip(self.tokens.frames[1][chosen].tolist(), self.tokens.cells[1][chosen].tolist(), strict=True)
            again = self.tokens.chosen[1] > 1
            CHOICES.append((chunk.first, set(places), int(again.sum())))
        return past


CHOICES: list[tuple[int, set[tuple[int, int]], int]] = []


@dataclass(frozen=True)
class SpiedDeepForcing(DeepForcing):
    def layer(self, geometry: Geometry) -> LayerCache:
        return Spied(self, geometry)


def test_choices_of_deep_forcing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CHOICES", [])
    policy = SpiedDeepForcing()
    diagnosis = Diagnosis(policy, layers=1)
    diagnosis.looks = {1: {}}
    roll(policy, 16, diagnosis)
    chunks = {chunk.first_frame: chunk for chunk in diagnosis.chunks(1)}
    choices = CHOICES[1::2]  # of the second layer
    assert [first for first, _, _ in choices] == [21, 27, 33, 39, 45]
    assert chunks[21].chosen_overlap is None
    for (_, before, _), (first, now, again) in pairwise(choices):
        assert chunks[first].chosen_overlap == pytest.approx(len(before & now) / len(before | now), abs=1e-5)
        assert again == len(before & now)
        assert chunks[first].chosen_chance == pytest.approx(1 / 7, abs=1e-5), "2 of 8 frames, and 2 of the same 8"
        keys = chunks[first].keys
        assert keys.get("chosen before", 0) == pytest.approx(again / (16 * SIZE), abs=1e-5)
        assert keys.get("newly chosen", 0) == pytest.approx((len(now) - again) / (16 * SIZE), abs=1e-5)
    assert all(chunks[first].chosen_overlap is None for first in range(24, 45, 6)), "no choice at these"


@dataclass(frozen=True)
class Own(CachePolicy):
    """A user's: the newest two frames, and nothing that the diagnostics ask for."""

    def layer(self, geometry: Geometry) -> LayerCache:
        return OwnCache(geometry)

    @property
    def budget(self) -> int:
        return 2


class OwnCache(FrameCache):
    def past(self, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        self.remove(0, max(0, len(self.sources) - 2))
        return self.past_at(self.sources, chunk)


def test_a_policy_needs_to_say_nothing() -> None:
    diagnosis = Diagnosis(Own(), layers=2)
    roll(Own(), 4, diagnosis)
    assert [set(chunk.keys) for chunk in diagnosis.chunks(0)] == [{"own"}, *[{"newly cached", "own"}] * 3]
    assert diagnosis.chunks(0)[-1].overlap == 0


def test_the_anchor_of_rolling_forcing_is_a_sink() -> None:
    """Windows of three noise levels: the anchor, 9 of the newest clean frames, 9 noisy ones."""
    last = diagnosed("rolling-forcing", 16)[-3]
    assert last.keys == pytest.approx(
        {"sink": 3 / 21, "recent": 6 / 21, "newly cached": 3 / 21, "own": 9 / 21}, abs=1e-5
    )


def test_layers_are_first_middle_and_last() -> None:
    def layers(count: int) -> Sequence[int]:
        return list(Diagnosis(Own(), count).looks)

    assert (layers(1), layers(2), layers(4), layers(30)) == ([0], [0, 1], [0, 2, 3], [0, 15, 29])
