"""Rollouts with one thing wrong: the golden tensors notice, and by as much as the files say."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch import Tensor

from magbench.runners import rollout
from magbench.runners.overlap import OverlappingRollouts
from magbench.runners.policies import infinity_rope
from magbench.runners.policies.base import CachePolicy, Chunk, Past
from magbench.runners.policies.causvid import CausVid
from magbench.runners.policies.deep_forcing import DeepForcing, DeepForcingCache
from magbench.runners.policies.deep_sink import DeepSink, DeepSinkCache
from magbench.runners.policies.fifo import Fifo, FifoCache
from magbench.runners.policies.full import Full
from magbench.runners.policies.infinity_rope import InfinityRope, InfinityRopeCache
from magbench.runners.policies.longlive import LongLive
from magbench.runners.policies.longlive_infinity import LongLiveInfinity
from magbench.runners.policies.mag import Mag
from magbench.runners.policies.memrope import MemRope, MemRopeCache
from magbench.runners.policies.rolling_forcing import RollingForcing, RollingForcingCache
from magbench.runners.rollout import Rollout, Step, Writer
from magbench.runners.wan.transformer import TextCache
from tests.golden import reader
from tests.golden.reader import ATOL, Replay, meta, model, policy_of, tensors

Wrong = Callable[[MonkeyPatch, str], Tensor]
"""Runs a file's rollout with something wrong; latents as in the file."""

SLIGHT, MUCH = 5 * ATOL, 50 * ATOL


def roll(name: str, policy: CachePolicy | None = None, **pipeline: Any) -> Tensor:
    return Replay(name, policy or policy_of(name), watch=False, **pipeline).latents


def parameter(**changes: Callable[[Any], Any]) -> Wrong:
    """Parameters changed by functions of their value."""

    def wrong(patch: MonkeyPatch, name: str) -> Tensor:
        policy = policy_of(name)
        return roll(name, replace(policy, **{key: change(getattr(policy, key)) for key, change in changes.items()}))

    return wrong


def pipeline(**changes: Any) -> Wrong:
    return lambda patch, name: roll(name, **changes)


def other_warp(patch: MonkeyPatch, name: str) -> Tensor:
    return roll(name, warp_denoising_step=not meta(name)["config"]["pipeline"]["warp_denoising_step"])


def no_recache(patch: MonkeyPatch, name: str) -> Tensor:
    patch.setattr(LongLive, "recache_frames", 0)
    return roll(name)


def old_prompt_in_recache(patch: MonkeyPatch, name: str) -> Tensor:
    real, old = Rollout._recache, model().encode_text(tensors("inputs")["text"])

    def recache(run: Rollout, newest: Tensor) -> Step:
        new, run.text = run.text, old
        step = real(run, newest)
        run.text = new
        return step

    patch.setattr(Rollout, "_recache", recache)
    return roll(name)


def causal_recache(patch: MonkeyPatch, name: str) -> Tensor:
    real, (height, width) = rollout.attention, tensors("inputs")["noise"].shape[-2:]
    chunk = 3 * height * width // 4

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if q.shape[1] > chunk:
            query, key = torch.arange(q.shape[1]) // chunk, torch.arange(k.shape[1]) // chunk
            mask = (key <= query[:, None])[None, None]
        return real(q, k, v, mask)

    patch.setattr(rollout, "attention", attention)
    return roll(name)


def unnoticed(field: str) -> Wrong:
    """The cache is not told of a new prompt, or of a cut."""

    def wrong(patch: MonkeyPatch, name: str) -> Tensor:
        real = InfinityRopeCache.past

        def past(cache: InfinityRopeCache, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
            return real(cache, replace(chunk, **{field: False}), q, k)

        patch.setattr(InfinityRopeCache, "past", past)
        return roll(name)

    return wrong


def early_cut(patch: MonkeyPatch, name: str) -> Tensor:
    patch.setattr(infinity_rope, "CUT_FRAMES", tuple(frame - 1 for frame in infinity_rope.CUT_FRAMES))
    return roll(name)


def same_prompt(patch: MonkeyPatch, name: str) -> Tensor:
    def text(prompt: str) -> TextCache:
        return model().encode_text(tensors("inputs")["text"])

    patch.setattr(Replay, "_text", staticmethod(text))
    return roll(name)


def mean_per_position(patch: MonkeyPatch, name: str) -> Tensor:
    def mean(cache: MemRopeCache, x: Tensor) -> Tensor:
        return torch.unflatten(x.float(), 1, (-1, cache.geometry.tokens_per_frame)).mean(1)

    patch.setattr(MemRopeCache, "_mean", mean)
    return roll(name)


def resting_sink(patch: MonkeyPatch, name: str) -> Tensor:
    patch.setattr(DeepSinkCache, "past", FifoCache.past)
    patch.setattr(DeepForcingCache, "_move_sink", lambda *_: None)
    return roll(name)


def touching_sink(patch: MonkeyPatch, name: str) -> Tensor:
    """The sink right before the newest frames, without the hole."""
    real = DeepSinkCache.past

    def past(cache: DeepSinkCache, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
        shown = real(cache, chunk, q, k)
        return replace(shown, frames=shown.frames + 3 * (shown.frames != shown.sources))

    patch.setattr(DeepSinkCache, "past", past)
    return roll(name)


def no_older_queries(patch: MonkeyPatch, name: str) -> Tensor:
    real = DeepForcingCache._compress

    def compress(cache: DeepForcingCache, chunk: Chunk, q: Tensor) -> None:
        cache.queries = None
        real(cache, chunk, q)

    patch.setattr(DeepForcingCache, "_compress", compress)
    return roll(name)


def prompt_in_memory_pass(patch: MonkeyPatch, name: str) -> Tensor:
    writer = reader.memory()
    text = writer.network.encode_text(tensors("inputs")["text"])
    patch.setattr(reader, "memory", lambda: Writer(writer.network, text))
    return roll(name)


def anchor(shown: bool) -> Wrong:
    """Windows without the anchor, or with it at its own time indices."""

    def wrong(patch: MonkeyPatch, name: str) -> Tensor:
        real = RollingForcingCache.past

        def past(cache: RollingForcingCache, chunk: Chunk, q: Tensor, k: Tensor) -> Past:
            right = real(cache, chunk, q, k)
            if chunk.kind != "window" or not len(right.sources):
                return right
            if shown:
                return replace(right, frames=right.sources)
            rest = slice(3 * cache.geometry.tokens_per_frame, None)
            tokens = {"keys": right.keys[:, rest], "values": right.values[:, rest]}
            return replace(right, **tokens, frames=right.frames[rest], sources=right.sources[rest])

        patch.setattr(RollingForcingCache, "past", past)
        return roll(name)

    return wrong


def start_as_it_was(patch: MonkeyPatch, name: str) -> Tensor:
    """The first frame of a rollout is taken from the last one without decoding and encoding it."""
    real = OverlappingRollouts._first_frame

    def first_frame(run: OverlappingRollouts, latents: Tensor) -> Tensor:
        real(run, latents)
        return latents[:, :1]

    patch.setattr(OverlappingRollouts, "_first_frame", first_frame)
    return roll(name)


def no_start(patch: MonkeyPatch, name: str) -> Tensor:
    """Rollouts that begin from noise; compared where the file's are generated."""
    policy, inputs, right = policy_of(name), tensors("inputs"), tensors(name)["latents"]
    assert isinstance(policy, CausVid)
    per, parts, sampler = policy.rollout_frames // 3, [], Replay(name, policy, watch=False).sampler
    for first in range(0, len(right), per):

        def noise(chunk: int, step: int, first: int = first) -> Tensor:
            own = first + chunk
            return inputs["renoise"][own, step - 1][None] if step else inputs["noise"][:, 3 * own : 3 * own + 3]

        size, text = (right.shape[-2], right.shape[-1]), model().encode_text(inputs["text"])
        made = torch.cat([step.latents for step in Rollout(model(), Full(), sampler, text, noise, size).generate(per)])
        parts.append(torch.cat([right[first : first + 1], made[1:]]) if first else made)
    return torch.cat(parts)


RECORDED: dict[str, Wrong] = {
    "prompt switched without the KV re-cache pass (cross-attention text changes, cached K/V stay)": no_recache,
    "same scenes and flushes without the RoPE cut": unnoticed("scene_cut"),
    "prompt switched without the KV flush": unnoticed("prompt_changed"),
    "prompt not switched (flush kept)": same_prompt,
    "4-step list [1000,750,500,250] warped instead of the 5-step list": pipeline(
        denoising_step_list=[1000, 750, 500, 250]
    ),
    "second rollout without start latents (no overlap); chunks 8..13 compared": no_start,
    "reuse cap removed": parameter(reuse=lambda _: 255),
}
"""What the files call their negative control -> how it is done here."""


@pytest.mark.parametrize(
    "name", [name for name in reader.covered() if meta(name).get("negative_control", {}).get("what") in RECORDED]
)
def test_as_wrong_as_the_reference(name: str, monkeypatch: MonkeyPatch) -> None:
    control = meta(name)["negative_control"]
    wrong = RECORDED[control["what"]](monkeypatch, name)
    difference = (wrong - tensors(name)["latents"]).abs().amax((1, 2, 3, 4))
    assert float(difference.max()) == pytest.approx(control["max_abs_diff"], abs=ATOL)
    assert difference.tolist() == pytest.approx(control["per_chunk"], rel=0.01, abs=ATOL)
    assert int((difference > 1e-3).nonzero()[0]) == control["first_differing_chunk"]


@dataclass(frozen=True)
class Control:
    what: str
    wrong: Wrong
    applies: Callable[[Any], bool]
    """To a policy."""
    least: float = MUCH
    to: Callable[[dict[str, Any]], bool] = lambda content: True
    """To a file's content."""


def of(*kinds: type[CachePolicy]) -> Callable[[CachePolicy], bool]:
    return lambda policy: isinstance(policy, kinds)


def plain(content: dict[str, Any]) -> bool:
    """From text alone, with one prompt."""
    config = content["config"]
    return not config["prefill_frames"] and not {"scenes", "switch_frame"} & {*config["policy_args"]}


def late_switch(content: dict[str, Any]) -> bool:
    """A prompt switch after the window is full."""
    arguments = content["config"]["policy_args"]
    return arguments.get("switch_frame", 0) > arguments["local_attn_size"]


def has(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda content: name in content["config"]["policy_args"]


def cuts(content: dict[str, Any]) -> bool:
    return any(scene[2] for scene in content["config"]["policy_args"].get("scenes", ()))


def capped(content: dict[str, Any]) -> bool:
    """A token was barred since it had been chosen too often."""
    return any(layer["n_excluded_by_reuse"] for record in content["evictions"] for layer in record["layers"])


def overflows(content: dict[str, Any]) -> bool:
    """More chunks than the ring of MAG holds, before the last one."""
    config = content["config"]
    return config["num_chunks"] + config["prefill_frames"] // 3 - 1 > config["policy_args"]["local_attn_size"]


def averaging(policy: CachePolicy) -> bool:
    return isinstance(policy, MemRope) and policy.memory == "both"


CONTROLS = (
    Control("window too large", parameter(window=lambda w: w + 1), of(Fifo, LongLiveInfinity)),
    Control(
        "sink frame missing",
        parameter(sink=lambda s: s - 1),
        lambda policy: vars(policy).get("sink", 0) > 0 and not isinstance(policy, InfinityRope),
        to=plain,
    ),
    Control("sink frame too many", parameter(sink=lambda s: s + 1), of(InfinityRope), to=plain),
    Control("alpha_long", parameter(alpha_long=lambda a: 1.1 * a), averaging, SLIGHT),
    Control("alpha_short", parameter(alpha_short=lambda a: 1.1 * a), averaging, SLIGHT),
    Control("memories from zero", parameter(variant=lambda _: "paper"), averaging),
    Control("long memory only", parameter(memory=lambda _: "long", adaptive=lambda _: False), averaging),
    Control("mean per position", mean_per_position, lambda policy: averaging(policy) and not policy.adaptive),
    Control("no re-cache", no_recache, of(LongLive), to=has("switch_frame")),
    Control("old prompt in the re-cache", old_prompt_in_recache, of(LongLive), to=has("switch_frame")),
    Control("causal mask in the re-cache", causal_recache, of(LongLive), to=has("switch_frame")),
    Control("other global_sink", parameter(global_sink=lambda g: not g), of(LongLive), to=late_switch),
    Control("no flush", unnoticed("prompt_changed"), lambda p: of(InfinityRope)(p) and p.sink > 1, to=has("scenes")),
    Control("same prompt", same_prompt, of(InfinityRope, LongLive), to=lambda c: has("scenes")(c) or late_switch(c)),
    Control("no cut", unnoticed("scene_cut"), of(InfinityRope), to=cuts),
    Control("cut one frame early", early_cut, of(InfinityRope), to=cuts),
    Control("sink at rest", resting_sink, of(DeepSink, DeepForcing)),
    Control("sink without a hole", touching_sink, of(DeepSink)),
    Control("no older queries", no_older_queries, of(DeepForcing)),
    Control("fewer recent frames", parameter(recent=lambda r: r - 1), of(DeepForcing)),
    Control("cap removed", parameter(reuse=lambda _: 255), of(DeepForcing), to=capped),
    Control("cap too low", parameter(reuse=lambda r: r - 1), of(DeepForcing), to=capped),
    Control("cap too high", parameter(reuse=lambda r: r + 1), of(DeepForcing), to=capped),
    Control("prompt in the memory pass", prompt_in_memory_pass, lambda p: of(Mag)(p) and p.writer == "memory"),
    Control("other writer", parameter(writer=lambda w: "generator" if w == "memory" else "memory"), of(Mag)),
    Control("ring too small", parameter(ring=lambda r: r - 1), of(Mag), to=overflows),
    Control("ring too large", parameter(ring=lambda r: r + 1), of(Mag), to=overflows),
    Control(
        "other latents written",
        parameter(write_back=lambda w: "truth" if w == "generated" else "generated"),
        of(Mag),
        to=has("initial"),
    ),
    Control("no anchor", anchor(shown=False), of(RollingForcing)),
    Control("anchor at rest", anchor(shown=True), of(RollingForcing)),
    Control("window of a chunk less", parameter(window=lambda w: w - 3), of(RollingForcing)),
    Control("other shift", pipeline(timestep_shift=5.0), of(CausVid)),
    Control("warped the other way", other_warp, of(CausVid)),
    Control("start not encoded again", start_as_it_was, of(CausVid)),
    Control("no start", no_start, of(CausVid)),
)


def applicable() -> Iterator[Any]:
    for control in CONTROLS:
        for name in reader.covered():
            if control.applies(policy_of(name)) and control.to(meta(name)):
                yield pytest.param(name, control, id=f"{name}-{control.what.replace(' ', '_')}")


@pytest.mark.parametrize(("name", "control"), [*applicable()])
def test_a_mistake_is_seen(name: str, control: Control, monkeypatch: MonkeyPatch) -> None:
    assert float((control.wrong(monkeypatch, name) - tensors(name)["latents"]).abs().max()) > control.least
