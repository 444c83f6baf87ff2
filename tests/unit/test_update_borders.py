"""At which borders a policy re-arranges its cache, for every policy there is."""

import pytest
import torch

from magbench.records import CaseRecord, Switch, TraceRecord
from magbench.runners.execute import measured_timing
from magbench.runners.methods import METHODS, parse_method
from magbench.runners.rollout import PromptSwitch, begin
from magbench.runners.wan.sampler import seeded_noise
from tests.tiny_model import TINY, load_tiny

FRAMES, SWITCH = 72, 36
COMPRESSED = {"deep-forcing": range(21, FRAMES, 6), "deep-forcing:budget=9": range(12, FRAMES, 6)}
"""From the first chunk that doesn't fit into 21 or 12 frames on, every second one."""
RESTARTED = range(21, FRAMES, 18)
"""A rollout of 21 frames, then each of the next adds 18."""
AT_A_SWITCH = ("longlive", "infinity-rope")


def trace_of(spec: str, switched: bool) -> list[TraceRecord]:
    model = load_tiny()
    noise = seeded_noise([1], (3, 16, *model.latent_size))
    with torch.inference_mode():
        rollout = begin(model, parse_method(spec).policy, ["a walker"], noise)
        switches = {SWITCH // 3: PromptSwitch(model.text(["another walker"]), cut=True)} if switched else {}
        return [step.trace for step in rollout.generate(FRAMES // 3, switches)]


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("spec", [*METHODS, "deep-forcing:budget=9"])
def test_update_borders(spec: str, switched: bool) -> None:
    schedule = (Switch(at=SWITCH / 8, prompt="another walker", cut=True),) if switched else ()
    case = CaseRecord(id="a", track="long-horizon", frames=FRAMES, schedule=schedule)
    timing = measured_timing(TINY, case, trace_of(spec, switched))
    expected = [*COMPRESSED.get(spec, RESTARTED if spec == "causvid" else ())]
    if switched and spec in AT_A_SWITCH:
        expected.append(SWITCH)
    assert list(timing.update_borders) == expected
    assert timing.switch_borders == ((SWITCH,) if switched else ())
    assert timing.chunk_borders == tuple(range(3, FRAMES, 3))


def test_causvid_flushes_behind_the_chunk_that_two_rollouts_share() -> None:
    traces = {trace.first_frame: trace for trace in trace_of("causvid", False)}
    assert (traces[18].past_frames, traces[18].events, traces[18].held) == (18, (), tuple(range(18)))
    assert (traces[21].past_frames, traces[21].events, traces[21].held) == (3, ("flush",), (18, 19, 20))
    assert traces[21].dropped == tuple(range(18))
