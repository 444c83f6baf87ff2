"""What a generator refuses to make."""

import pytest

from magbench.jobs import Job
from magbench.records import CaseRecord, MethodRecord
from magbench.runners.generate import Generator
from magbench.runners.models import find_model


@pytest.mark.parametrize(
    ("label", "history", "reason"),
    [
        ("fifo", 12, ""),
        ("fifo:write_back=truth", 12, ""),
        ("fifo:write_back=truth", 0, "no ground truth"),
        ("mag:write_back=truth", 12, ""),
        ("mag:write_back=truth", 0, "no ground truth"),
        ("causvid:write_back=truth", 12, "nothing but what was generated"),
        ("causvid", 12, ""),
    ],
)
def test_where_the_truth_can_be_written_back(label: str, history: int, reason: str) -> None:
    case = CaseRecord(id="a", track="mag-bench", history_frames=history, frames=15)
    method = MethodRecord(label=label, policy="p", budget_frames=9, applicability="in-distribution")
    refusal = Generator(find_model("mini"), "cpu", "float32").refusal(Job("k", case, method, "mini", 0))
    assert bool(refusal) == bool(reason)
    assert reason in refusal
