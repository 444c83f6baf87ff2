"""Every rollout of the golden folder is reproduced: latents, flows, attended keys and values, memories, layouts."""

import re
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor

from magbench.runners.policies.base import MEMORY, CachePolicy
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.memrope import MemRope, MemRopeCache
from magbench.runners.wan.sampler import Schedule, denoise
from tests.golden import reader
from tests.golden.reader import ATOL, Replay, meta, replay, tensors


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


if reader.uncovered():

    @pytest.mark.parametrize("name", reader.uncovered())
    def test_file_has_a_policy(name: str) -> None:
        pytest.skip(f"no policy implements {name} yet")


@pytest.mark.parametrize("name", reader.covered())
def test_latents(name: str) -> None:
    close(replay(name).latents, tensors(name)["latents"])


@pytest.mark.parametrize("name", reader.covered_with("flow/"))
def test_flow_and_x0(name: str) -> None:
    pipeline = meta(name)["config"]["pipeline"]
    schedule = Schedule(pipeline["timestep_shift"])
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"(flow|x0)/c(\d+)/step(\d+)", key):
            chunk, step = int(match[2]), int(match[3])
            actual = replay(name).flow(chunk, step)
            if match[1] == "x0":
                sigma = schedule.sigma(schedule.warp(pipeline["denoising_step_list"][step]))
                actual = denoise(replay(name).noisy(chunk, step), actual, sigma)
            close(actual, expected)


@pytest.mark.parametrize("name", reader.covered())
def test_attention_layout(name: str) -> None:
    run, given = replay(name), 3 * replay(name).prefill
    for record in meta(name)["attention_layout"]:
        chunk, kind = record["chunk"], record["pass"]
        ours = run.layout(chunk)
        assert sorted(ours) == sorted(zip(record["key_src_frame"], record["key_pos"], strict=True)), record
        assert list(run.past(chunk).own_frames) == record["q_pos"], record
        assert run.attended(chunk, kind, 0)[0].shape[0] == record["num_keys"], record
        for source, writer in zip(record["key_src_frame"], record["key_src_pass"], strict=True):
            own = source >= record["start_frame"]
            before = None if source == MEMORY else "prefill" if source < given else "ctx"
            assert writer == (kind if own else before), record


@pytest.mark.parametrize("name", reader.covered_with("attended/"))
def test_attended_keys_and_values(name: str) -> None:
    run = replay(name)
    layouts = {(record["chunk"], record["pass"]): record for record in meta(name)["attention_layout"]}
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"attended/c(\d+)/(\w+)/layer(\d+)/([kv])_every_fsl", key):
            chunk, kind = int(match[1]), match[2]
            record = layouts[chunk, kind]
            ours = run.layout(chunk)
            order = [ours.index(p) for p in zip(record["key_src_frame"], record["key_pos"], strict=True)]
            actual = run.attended(chunk, kind, int(match[3]))["kv".index(match[4])]
            close(actual[:: run.tokens_per_frame][order], expected)


@pytest.mark.parametrize("name", reader.covered_with("memory/"))
def test_memories(name: str) -> None:
    run, content = replay(name), meta(name)
    size = run.tokens_per_frame
    flat = content["memory_identical_over_spatial_positions"]
    chunks = content["memory_chunks"] if flat else content["memory_chunks_full"]
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"memory/(long|short)/layer(\d+)/([kv])", key):
            assert len(expected) == len(chunks)
            for row, chunk in zip(expected, chunks, strict=True):
                past = run.past(chunk, int(match[2]))
                kept = (past.keys if match[3] == "k" else past.values)[0, past.sources == MEMORY]
                assert len(kept) == 2 * size
                memory = kept[:size] if match[1] == "long" else kept[size:]
                close(memory, row.expand_as(memory) if flat else row)


@pytest.mark.parametrize("name", reader.covered())
def test_trace_accounts_for_every_frame(name: str) -> None:
    """Each past frame is held, folded or dropped, once, and the trace agrees with the layout."""
    run = replay(name)
    gone: set[int] = set()
    for trace in run.traces:
        leaving = {*trace.folded, *trace.dropped}
        assert not leaving & gone
        gone |= leaving
        assert sorted({*trace.held} | gone) == list(range(trace.first_frame))
        assert not {*trace.held} & gone
        layout = run.layout(trace.chunk - run.prefill)
        assert trace.past_frames == len(layout) - 3


def worst(name: str, policy: CachePolicy) -> float:
    """Largest difference to the golden latents."""
    expected = tensors(name)["latents"]
    return float((Replay(name, policy).latents - expected).abs().max())


def policy_of(name: str, kind: type[CachePolicy]) -> CachePolicy:
    if name not in reader.covered():
        pytest.skip(f"{name} is not in {reader.FOLDER}")
    policy = reader.POLICIES[name](meta(name)["config"]["policy_args"])
    assert isinstance(policy, kind)
    return policy


def test_a_slightly_wrong_alpha_is_seen() -> None:
    policy = policy_of("memrope", MemRope)
    assert worst("memrope", replace(policy, alpha_long=1.1 * policy.alpha_long)) > 5 * ATOL
    assert worst("memrope", replace(policy, alpha_short=1.1 * policy.alpha_short)) > 5 * ATOL


@pytest.mark.parametrize(("name", "kind"), [("memrope", MemRope), ("longlive", Fifo), ("longlive_infinity", MemRope)])
def test_a_wrong_sink_is_seen(name: str, kind: type[CachePolicy]) -> None:
    policy = policy_of(name, kind)
    assert worst(name, replace(policy, sink=policy.sink - 1)) > 0.01


def test_a_mean_per_position_is_seen() -> None:
    policy = policy_of("memrope", MemRope)

    def per_position(cache: MemRopeCache, x: Tensor) -> Tensor:
        return torch.unflatten(x.float(), 1, (-1, cache.geometry.tokens_per_frame)).mean(1)

    with mock.patch.object(MemRopeCache, "_mean", per_position):
        assert worst("memrope", policy) > 0.001


def test_a_wrong_window_is_seen() -> None:
    policy = policy_of("sf_window", Fifo)
    assert worst("sf_window", replace(policy, window=policy.window + 1)) > 0.01
