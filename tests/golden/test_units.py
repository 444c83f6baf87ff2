"""The unit files: forward pass with activations, rotary embedding, schedule, sinusoid, moved keys, chosen tokens."""

import re

import pytest
import torch
from torch import Tensor

from magbench.runners.policies.deep_forcing import choose
from magbench.runners.wan.rope import Rope, axis_widths, rotate
from magbench.runners.wan.sampler import Schedule, denoise, renoise
from magbench.runners.wan.transformer import attention, sinusoid
from tests.golden import reader
from tests.golden.reader import ATOL, FOLDER, meta, model, tensors

CORE = "units_core"
needs_core = pytest.mark.skipif(CORE not in reader.names(), reason=f"{CORE} is not in {FOLDER}")


def core() -> dict[str, Tensor]:
    return tensors(CORE) if CORE in reader.names() else {}


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


def cases(pattern: str) -> list[str]:
    return sorted({match[1] for key in core() if (match := re.match(pattern, key))})


def grid() -> tuple[int, int]:
    height, width = tensors("inputs")["noise"].shape[-2:]
    return height // 2, width // 2


@pytest.mark.parametrize("case", cases(r"forward/(\w+)/timestep"))
@torch.inference_mode()
def test_forward(case: str) -> None:
    inputs, seen = tensors("inputs"), {}
    rope = Rope(model().config.head_dim, *grid())

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        table = rope.grid((0, 1, 2))
        keys = rotate(k, table)
        seen[f"cache_k/layer{layer}"], seen[f"cache_v/layer{layer}"] = keys[0], v[0]
        return attention(rotate(q, table), keys, v)

    watched = {"patch_embedding": "patch_embedding", "text_embedding": "text_embedding"}
    watched |= {"time_embedding": "time_embedding", "time_projection": "time_projection"}
    for layer in range(model().config.layers):
        watched[f"block{layer}"] = f"blocks.{layer}"
        watched[f"block{layer}_self_attn"] = f"blocks.{layer}.self_attn.o"
        watched[f"block{layer}_cross_attn"] = f"blocks.{layer}.cross_attn.o"

    def keep(name: str) -> None:
        def hook(module: torch.nn.Module, args: object, output: Tensor) -> None:
            seen[name] = output[0]

        hooks.append(model().get_submodule(watched[name]).register_forward_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in watched:
        keep(name)
    timesteps = core()[f"forward/{case}/timestep"][None]
    noisy = inputs["noise"][:, :3]
    seen["flow"] = model()(noisy, timesteps, model().encode_text(inputs["text"]), attend)[0]
    for hook in hooks:
        hook.remove()
    sigmas = [Schedule(5.0).sigma(float(t)) for t in timesteps[0]]
    seen["x0"] = torch.stack([denoise(noisy[0, i], seen["flow"][i], sigma) for i, sigma in enumerate(sigmas)])
    for key, expected in core().items():
        if key.startswith(f"forward/{case}/") and not key.endswith("/timestep"):
            close(seen[key.removeprefix(f"forward/{case}/")].reshape(expected.shape), expected)


@needs_core
def test_axis_widths() -> None:
    content = meta(CORE)
    for key, split in content.items():
        if match := re.fullmatch(r"rope_d(\d+)_channel_split", key):
            assert list(axis_widths(int(match[1]))) == split


@pytest.mark.parametrize("case", cases(r"rope/d(\d+)/q"))
def test_rope_at_start_frames(case: str) -> None:
    frames, rows, cols = core()[f"rope/d{case}/grid"].tolist()
    rope = Rope(int(case), rows, cols)
    starts = [key for key in core() if re.fullmatch(rf"rope/d{case}/start\d+", key)]
    assert starts
    for key in starts:
        first = int(key.rpartition("start")[2])
        table = rope.grid(tuple(range(first, first + frames)))
        close(rotate(core()[f"rope/d{case}/q"], table), core()[key])


@pytest.mark.parametrize("case", cases(r"rope/d(\d+)/freqs_first16_cos"))
def test_rope_table(case: str) -> None:
    """The first 16 indices of each axis, put together from tokens on the diagonal."""
    rope, index = Rope(int(case), 16, 16), torch.arange(16)
    table = rope.tokens(index, index * 16 + index).squeeze(1)
    for part, name in ((table.real, "cos"), (table.imag, "sin")):
        torch.testing.assert_close(part.double(), core()[f"rope/d{case}/freqs_first16_{name}"], atol=1e-7, rtol=0)


@needs_core
@pytest.mark.parametrize("shift", [5, 8])
def test_schedule(shift: int) -> None:
    schedule = Schedule(float(shift))
    torch.testing.assert_close(schedule.sigmas, core()[f"sched/shift{shift}/sigmas"], atol=1e-7, rtol=0)
    torch.testing.assert_close(schedule.timesteps, core()[f"sched/shift{shift}/timesteps"], atol=1e-4, rtol=0)
    for key, expected in core().items():
        if match := re.fullmatch(rf"sched/shift{shift}/warped_([\d_]+)", key):
            warped = torch.tensor([schedule.warp(int(step)) for step in match[1].split("_")])
            torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)


@needs_core
def test_x0_and_renoise() -> None:
    schedule = Schedule(5.0)
    sigmas = [schedule.sigma(float(t)) for t in core()["sched/t"]]
    assert sigmas == pytest.approx(meta(CORE)["sched_sigma_used_for_t"], abs=1e-7)
    clean, noise, flow = (core()[f"sched/{key}"] for key in ("clean", "noise", "flow"))
    noisy = core()["sched/add_noise"]
    for row, sigma in enumerate(sigmas):
        close(renoise(clean[row], noise[row], sigma), noisy[row])
        close(denoise(noisy[row], flow[row], sigma), core()["sched/x0_from_flow"][row])


@needs_core
def test_sinusoid() -> None:
    expected = core()["sinusoidal/embedding_f32"]
    actual = sinusoid(core()["sinusoidal/positions"], expected.shape[-1]).float()
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.skipif("units_relrope" not in reader.names(), reason=f"units_relrope is not in {FOLDER}")
def test_rope_at_given_indices() -> None:
    unit = tensors("units_relrope")
    rope = Rope(unit["relrope/k"].shape[-1], *grid())
    close(rotate(unit["relrope/k"], rope.grid(tuple(unit["relrope/frame_indices"].tolist()))), unit["relrope/out"])


DELTA = "units_delta"
needs_delta = pytest.mark.skipif(DELTA not in reader.names(), reason=f"{DELTA} is not in {FOLDER}")


@needs_delta
def test_a_key_that_is_moved_in_time() -> None:
    """The release turns a rotated key further, by at most 1023; here it is rotated once, to where it ends up."""
    unit = tensors(DELTA)
    raw = unit["time_delta/k_raw"]
    rope, cells = Rope(raw.shape[-1], *grid()), torch.arange(raw.shape[1])
    (start,) = (int(match[1]) for key in unit if (match := re.fullmatch(r"time_delta/k_roped_at_(\d+)", key)))

    def at(frame: int) -> Tensor:
        return rotate(raw, rope.tokens(torch.full_like(cells, frame), cells))

    close(at(start), unit[f"time_delta/k_roped_at_{start}"])
    moved = {key: re.fullmatch(r"time_delta/(plus|minus)(\d+)", key) for key in unit}
    assert sum(match is not None for match in moved.values()) == sum(key.startswith("time_delta/") for key in unit) - 2
    for key, match in moved.items():
        if match:
            reach = min(int(match[2]), 1023)
            turn = rope.tokens(torch.full_like(cells, reach), 0 * cells)
            close(rotate(at(start), turn if match[1] == "plus" else turn.conj()), unit[key])
            end = start + reach if match[1] == "plus" else start - reach
            if end >= 0:
                close(at(end), unit[key])


@needs_delta
def test_choice_of_tokens() -> None:
    unit, sizes = tensors(DELTA), meta(DELTA)["select"]
    sink, recent = sizes["sink_tokens"], sizes["T"] - sizes["R"]
    barred = unit["select/counts"][:, sink:recent] >= sizes["max_reuse"]
    index, missing = choose(unit["select/scores"][:, sink:recent], barred, sizes["top_c"])
    assert not missing.any()
    assert (index[0] + sink).tolist() == unit["select/selected"].tolist()
    kept = [*range(sink), *(index[0] + sink).tolist(), *range(recent, sizes["T"])]
    assert kept == unit["select/keep"].tolist()
