"""Every rollout of the golden folder is reproduced, with everything the files say of it."""

import ast
import re
from collections import Counter

import pytest
import torch
from torch import Tensor

from magbench.runners.policies.deep_forcing import DeepForcing
from magbench.runners.policies.longlive import LongLive
from tests.golden import reader
from tests.golden.reader import ATOL, meta, policy_of, replay, tensors

EVICTED = [name for name in reader.covered() if meta(name)["evictions"]]
CHECKED = (
    r"latents",
    r"(flow|x0)/c\d+/step\d+",
    r"window/w\d+/(flow|timestep)",
    r"attended/c\d+/\w+/layer\d+/[kv]_every_fsl",
    r"memory/(long|short)/layer\d+/[kv]",
    r"layout/c\d+/\w+/(src_frame|src_spatial|pos)",
    r"pc/e\d+/layer\d+/(selected|scores|reuse_counts|selected_src_frame|selected_src_spatial|selected_pos)",
)
"""Tensors that the tests below look at."""


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


@pytest.mark.skipif(reader.FOLDER != reader.OWN, reason="another folder's are named at the end of the run")
def test_every_file_has_a_policy() -> None:
    assert reader.uncovered() == []


@pytest.mark.parametrize("name", reader.covered())
def test_no_tensor_is_left_out(name: str) -> None:
    assert [key for key in tensors(name) if not any(re.fullmatch(kind, key) for kind in CHECKED)] == []


@pytest.mark.parametrize("name", reader.covered())
def test_latents(name: str) -> None:
    latents = replay(name).latents
    close(latents, tensors(name)["latents"])
    for chunk, stats in zip(latents, meta(name)["latents_stats_per_chunk"], strict=True):
        found = {"mean": chunk.mean(), "std": chunk.std(), "absmax": chunk.abs().max()}
        assert {key: value.item() for key, value in found.items()} == pytest.approx(stats, abs=ATOL)


@pytest.mark.parametrize("name", reader.covered())
def test_timesteps_and_noise(name: str) -> None:
    """Each pass ran at the noise levels of the file, and noise was added in its order."""
    run, config = replay(name), meta(name)["config"]
    steps = [step for step in config.get("warped_denoising_step_list") or run.sampler.timesteps if step]
    assert run.sampler.timesteps == pytest.approx(steps, abs=1e-3)
    for one in run.passes:
        if match := re.fullmatch(r"step(\d+)", one.name):
            assert one.timesteps == (run.sampler.timesteps[int(match[1])],) * 3
        elif one.name != "window":
            assert set(one.timesteps) == {0.0}
    assert run.asked == ast.literal_eval(meta(name)["renoise_order"])


@pytest.mark.parametrize("name", reader.covered_with("flow/"))
def test_flow_and_x0(name: str) -> None:
    run = replay(name)
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"(flow|x0)/c(\d+)/step(\d+)", key):
            one, step = run.find(int(match[2]), f"step{match[3]}"), int(match[3])
            close(one.flow if match[1] == "flow" else run.sampler.clean(step, one.noisy, one.flow), expected)


@pytest.mark.parametrize("name", reader.covered_with("window/"))
def test_windows(name: str) -> None:
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"window/w(\d+)/(flow|timestep)", key):
            one = replay(name).find(int(match[1]), "window")
            if match[2] == "flow":
                close(one.flow, expected)
            else:
                torch.testing.assert_close(torch.tensor(one.timesteps), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", reader.covered())
def test_attention_layout(name: str) -> None:
    """Which frame, or token, is shown where, and which pass made it. The files give the third pass like the second."""
    run, passes = replay(name), {(one.chunk, one.name) for one in replay(name).passes}
    seen = set()
    for record in meta(name)["attention_layout"]:
        chunk, kind = record["chunk"], record["pass"]
        later = [f"step{step}" for step in range(1, len(run.sampler.steps))] if kind == "step1" else [kind]
        for each in later:
            one = run.find(chunk, each)
            seen.add((chunk, each))
            assert list(one.pasts[0].own_frames) == record["q_pos"], record
            assert run.start_of(one) == record["start_frame"], record
            assert one.keys == record["num_keys"], record
            if "token_level" in record:
                parts = [f"{record['token_level']}/{part}" for part in ("src_frame", "src_spatial", "pos")]
                tokens = zip(*(tensors(name)[part].tolist() for part in parts), strict=True)
                assert run.tokens(chunk, each) == list(tokens), record
            else:
                given = zip(*(record[f"key_{part}"] for part in ("src_frame", "pos", "src_pass")), strict=True)
                expected = Counter((frame, pos, each if writer == kind else writer) for frame, pos, writer in given)
                ours = zip(run.layout(chunk, each), one.writers, strict=True)
                assert Counter((frame, pos, writer) for (frame, pos), writer in ours) == expected, record
    assert seen == passes


@pytest.mark.parametrize("name", reader.covered_with("layout/"))
def test_layouts_belong_to_a_pass(name: str) -> None:
    """Every layout tensor is one that a record points at, so that it was compared above."""
    pointed = {record["token_level"] for record in meta(name)["attention_layout"] if "token_level" in record}
    assert {key.rpartition("/")[0] for key in tensors(name) if key.startswith("layout/")} == pointed


@pytest.mark.parametrize("name", reader.covered_with("attended/"))
def test_attended_keys_and_values(name: str) -> None:
    """Keys as rotated, of every layer: the first token of each frame, or every so many where frames are broken up."""
    run = replay(name)
    layouts = {(record["chunk"], record["pass"]): record for record in meta(name)["attention_layout"]}
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"attended/c(\d+)/(\w+)/layer(\d+)/([kv])_every_fsl", key):
            chunk, kind = int(match[1]), match[2]
            record = layouts[chunk, kind]
            actual = run.attended(chunk, kind, int(match[3]))["kv".index(match[4])][:: run.tokens_per_frame]
            if "token_level" not in record:
                ours = run.layout(chunk, kind)
                actual = actual[[ours.index(p) for p in zip(record["key_src_frame"], record["key_pos"], strict=True)]]
            close(actual, expected)


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
                past = run.past(chunk, layer=int(match[2]))
                kept = (past.keys if match[3] == "k" else past.values)[0]
                assert len(kept) == 2 * size
                memory = kept[:size] if match[1] == "long" else kept[size:]
                close(memory, row.expand_as(memory) if flat else row)


@pytest.mark.parametrize("name", EVICTED)
def test_compressions(name: str) -> None:
    """Sizes and margins of each choice of Deep Forcing; margins are between scores, so twice as far off."""
    run, policy, layers = replay(name), policy_of(name), reader.model().config.layers
    assert isinstance(policy, DeepForcing)
    size = run.tokens_per_frame
    records = meta(name)["evictions"]
    assert len(run.compressions) == len(records) * layers
    for index, record in enumerate(records):
        for layer, expected in enumerate(record["layers"]):
            found = run.compressions[index * layers + layer]
            assert (record["index"], record["chunk"], record["start_frame"]) == (index, found.chunk, 3 * found.chunk)
            chosen = torch.zeros(found.tokens, dtype=torch.bool)
            chosen[found.chosen] = True
            chosen = chosen[policy.sink * size :][: len(found.scores)]
            rejected = found.scores[~chosen & ~found.barred]
            assert expected | {"margin": 0, "score_std": 0} == {
                "T": found.tokens,
                "R": policy.recent * size,
                "sink_tokens": policy.sink * size,
                "top_c": (policy.keep - policy.sink - policy.recent) * size,
                "n_selected": len(found.chosen),
                "n_candidates": len(found.scores),
                "n_excluded_by_reuse": int(found.barred.sum()),
                "margin": 0,
                "score_std": 0,
            }
            assert float(found.scores.std()) == pytest.approx(expected["score_std"], rel=1e-4)
            margin = found.scores[chosen].min() - rejected.max()
            assert float(margin) == pytest.approx(expected["margin"], abs=1e-3)


@pytest.mark.parametrize("name", reader.covered_with("pc/"))
def test_chosen_tokens(name: str) -> None:
    run, layers = replay(name), reader.model().config.layers
    policy = policy_of(name)
    assert isinstance(policy, DeepForcing)
    first = policy.sink * run.tokens_per_frame
    for key, expected in tensors(name).items():
        if match := re.fullmatch(r"pc/e(\d+)/layer(\d+)/(\w+)", key):
            found = run.compressions[int(match[1]) * layers + int(match[2])]
            if match[3] == "scores":
                torch.testing.assert_close(found.scores, expected, atol=5e-4, rtol=0)
            elif match[3] == "reuse_counts":
                assert found.counts.tolist() == expected.tolist()
            elif match[3] == "selected":
                assert found.chosen.tolist() == expected.tolist()
            else:
                shown = run.tokens(found.chunk, "step0")[first : first + len(expected)]
                part = ("selected_src_frame", "selected_src_spatial", "selected_pos").index(match[3])
                assert [token[part] for token in shown] == expected.tolist()


def frames_come_back(name: str) -> bool:
    """A re-cache that replaces the sink takes the oldest of the newest frames for it, which may have been dropped."""
    policy, arguments = policy_of(name), meta(name)["config"]["policy_args"]
    return isinstance(policy, LongLive) and not policy.global_sink and "switch_frame" in arguments


@pytest.mark.parametrize("name", [name for name in reader.covered() if not frames_come_back(name)])
def test_trace_accounts_for_every_frame(name: str) -> None:
    """Each past frame is held, folded or dropped, once; those that a re-cache encodes again and keeps are its own."""
    gone: set[int] = set()
    for trace in replay(name).traces:
        leaving = [*trace.folded, *trace.dropped]
        assert not gone & {*leaving}
        gone |= {*leaving}
        span = range(trace.first_frame, trace.first_frame + trace.frames)
        again = [frame for frame in span if frame not in gone] if trace.kind == "recache" else []
        end = span.stop if trace.kind == "recache" else span.start
        assert sorted([*trace.held, *again, *gone]) == list(range(end))
