"""How a budget is spent: which ones each method can use, and what the page says of it."""

import importlib.util
from pathlib import Path

import pytest

from magbench.errors import ConfigError
from magbench.runners.budgets import Spending
from magbench.runners.methods import METHODS, BudgetError, bind, parse_method

DOCS = Path(__file__).parents[2] / "docs"
SMALLEST = {
    "fifo": 1, "longlive": 3, "longlive-infinity": 3, "memrope": 5, "infinity-rope": 1, "deep-sink": 1,
    "deep-forcing": 2, "mag": 3, "rolling-forcing": 3,
}  # fmt: skip
"""Sink and memories, else 1; a chosen frame and a recent one; sink 2 and one frame of a chunk; the anchor."""


@pytest.mark.parametrize("name", SMALLEST)
def test_a_method_can_use_every_budget_from_its_smallest_on(name: str) -> None:
    assert Spending(name).smallest == SMALLEST[name]
    for frames in range(SMALLEST[name], 49):
        assert parse_method(name, frames).policy.budget == frames
    for frames in range(1, SMALLEST[name]):
        with pytest.raises(BudgetError):
            parse_method(name, frames)


@pytest.mark.parametrize("name", METHODS)
def test_its_own_budget_gives_the_released_parameters(name: str) -> None:
    own = parse_method(name).policy
    bound = parse_method(name, own.budget or 7)
    assert (bound.policy, bound.label, bound.family) == (own, name, name)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - SMALLEST.keys()))
def test_unmatched_methods_keep_what_they_have(name: str) -> None:
    assert {parse_method(name, frames).label for frames in (1, 6, 100)} == {name}
    assert Spending(name).smallest is None
    assert "whatever --budget says" in str(Spending(name))


def test_the_proportions_of_deep_forcing_hold_at_other_sizes() -> None:
    policy = parse_method("deep-forcing", 39).policy
    assert policy == parse_method("deep-forcing:window=42,keep=32,sink=20").policy
    assert parse_method("deep-sink", 39).policy == parse_method("deep-sink:window=42,sink=28").policy


def test_what_a_sink_leaves_decides_the_smallest_budget() -> None:
    assert Spending("memrope:sink=1").smallest == 3
    assert Spending("memrope:sink=1,memory=none").smallest == 1


def test_words() -> None:
    assert str(Spending("mag")) == "23 past frames; --budget N: 3 or more. All but the sink goes to the ring."
    assert str(Spending("mag:variant=paper")) == "grows with the video"
    assert str(Spending("fifo:window=9")) == "6 past frames"
    assert str(Spending("fifo")).startswith("9 past frames; --budget N: 1 or more. All of it is window")


def test_a_refused_budget_is_a_row_with_a_reason() -> None:
    bound = bind("memrope:sink=1", 2)
    assert (bound.label, bound.family, bound.refused) == ("memrope:sink=1,budget=2", "memrope:sink=1", 2)
    assert "window 5 of memrope is smaller than sink (1), memories (2) and chunk (3)" in bound.refusal
    with pytest.raises(ConfigError, match="window 5 of memrope"):
        parse_method("memrope:sink=1", 2)


def test_the_page_has_the_table_that_the_policies_give() -> None:
    spec = importlib.util.spec_from_file_location("budget_table", DOCS / "budget_table.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "budget.md").read_text(encoding="utf-8")
    assert page.split(script.START)[1].split(script.END)[0].strip() == script.table().strip()
    assert "| `deep-forcing` | 18 past frames | 2 or more | window 9, keep 7, sink 2 |" in page
