"""Names, parameters and budgets as a user writes them."""

import re
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

import pytest

from magbench.errors import ConfigError
from magbench.runners.differences import DIFFERENCES, released_frames
from magbench.runners.methods import METHODS, BudgetError, bind, find_method, parse_method
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.full import Full
from magbench.runners.policies.longlive import LongLive
from magbench.runners.policies.memrope import MemRope


@pytest.mark.parametrize(
    ("spec", "label", "policy"),
    [
        ("full", "full", Full()),
        ("fifo", "fifo", Fifo(window=12, sink=0)),
        ("longlive", "longlive", LongLive(window=12, sink=3)),
        ("longlive:sink=3", "longlive", LongLive(window=12, sink=3)),
        ("fifo: sink = 3", "fifo:sink=3", Fifo(window=12, sink=3)),
        ("memrope", "memrope", MemRope(window=12, sink=3, alpha_long=0.01, alpha_short=0.1, memory="both")),
        ("memrope:sink=1,alpha_long=0.05", "memrope:alpha_long=0.05,sink=1", MemRope(sink=1, alpha_long=0.05)),
        ("memrope:memory=none", "memrope:memory=none", MemRope(memory="none")),
        ("memrope:adaptive=true,alpha_short=1", "memrope:adaptive=true,alpha_short=1.0", None),
    ],
)
def test_spelling(spec: str, label: str, policy: object) -> None:
    bound = parse_method(spec)
    assert bound.label == label
    assert parse_method(bound.label) == bound
    if policy is not None:
        assert bound.policy == policy


def test_parameters_are_resolved() -> None:
    assert parse_method("longlive:window=15").parameters == {"window": 15, "sink": 3, "global_sink": True}
    assert parse_method("full").parameters == {}


def test_any_policy_can_be_written_from_the_truth() -> None:
    bound = parse_method("memrope:write_back=truth,sink=1")
    assert (bound.label, bound.policy, bound.writes_truth) == ("memrope:sink=1,write_back=truth", MemRope(sink=1), True)
    assert bound.parameters == {**parse_method("memrope:sink=1").parameters, "write_back": "truth"}
    assert parse_method(bound.label) == bound
    assert parse_method("fifo:write_back=truth", 18).label == "fifo:window=21,write_back=truth"
    assert bind("fifo:write_back=truth", 18).family == "fifo:write_back=truth"
    plain = parse_method("fifo:write_back=generated")
    assert plain == parse_method("fifo")
    assert not plain.writes_truth
    own = parse_method("mag:write_back=truth")
    assert own.writes_truth
    assert own.policy.writes_truth, "MAG has the parameter itself"
    with pytest.raises(ConfigError, match="must be one of generated, truth, not 'gt'"):
        parse_method("fifo:write_back=gt")


SPENT = {
    "full": "",
    "fifo": "window=15",
    "longlive": "window=15",
    "longlive-infinity": "window=15",
    "memrope": "window=15",
    "infinity-rope": "window=15",
    "deep-sink": "sink=9,window=15",
    "deep-forcing": "keep=11,sink=6,window=15",
    "mag": "ring=10",
    "rolling-forcing": "window=15",
    "causvid": "",
}
"""What a budget of 12 past frames sets, as the label says it."""


@pytest.mark.parametrize("name", METHODS)
def test_each_policy_spends_a_budget_in_its_own_way(name: str) -> None:
    bound = parse_method(name, budget=12)
    assert bound.label == (f"{name}:{SPENT[name]}" if SPENT[name] else name)
    assert bound.family == name
    if name in ("full", "causvid"):
        assert not bound.policy.matched
        assert bound.policy == parse_method(name).policy
    else:
        assert bound.policy.matched
        assert bound.policy.budget == 12
    assert parse_method(bound.label).policy == bound.policy
    assert parse_method(f"{name}:budget=12") == bound


@pytest.mark.parametrize("name", [name for name, spent in SPENT.items() if spent])
def test_every_budget_down_to_the_smallest_is_kept_or_refused(name: str) -> None:
    bound = [bind(name, budget) for budget in range(1, 31)]
    refused = [budget for budget, method in enumerate(bound, 1) if method.refusal]
    assert refused == list(range(1, len(refused) + 1))
    assert len(refused) < 6
    for budget, method in enumerate(bound, 1):
        if method.refusal:
            assert (method.label, method.refused) == (f"{name}:budget={budget}", budget)
            assert method.policy == parse_method(name).policy
        else:
            assert method.policy.budget == budget
            assert method.refused is None
        assert method.family == name


@pytest.mark.parametrize(
    ("spec", "budget", "label", "family"),
    [
        ("fifo:budget=12", None, "fifo:window=15", "fifo"),
        ("fifo:budget=9,sink=3", None, "fifo:sink=3", "fifo:sink=3"),
        ("fifo: budget = 9", 9, "fifo", "fifo"),
        ("fifo:window=15", None, "fifo:window=15", "fifo:window=15"),
        ("memrope:memory=none", 3, "memrope:memory=none,window=6", "memrope:memory=none"),
        ("deep-forcing:sink=3", 9, "deep-forcing:keep=9,sink=3,window=12", "deep-forcing:sink=3"),
        ("deep-forcing:budget=18", None, "deep-forcing", "deep-forcing"),
        ("mag:budget=6,writer=generator", None, "mag:ring=4,writer=generator", "mag:writer=generator"),
        ("full", 9, "full", "full"),
        ("causvid:rollout_frames=12", 9, "causvid:rollout_frames=12", "causvid:rollout_frames=12"),
    ],
)  # fmt: skip
def test_rows_of_a_family_differ_in_their_budget_only(spec: str, budget: int | None, label: str, family: str) -> None:
    bound = parse_method(spec, budget)
    assert (bound.label, bound.family) == (label, family)
    assert parse_method(label).policy == bound.policy


@pytest.mark.parametrize(
    ("spec", "budget", "label", "reason"),
    [
        ("memrope", 4, "memrope:budget=4", "window 7 of memrope is smaller than sink (3), memories (2) and chunk (3)"),
        ("fifo:sink=6", 5, "fifo:sink=6,budget=5", "window 8 of fifo is smaller than sink (6) and chunk (3)"),
        ("deep-forcing", 1, "deep-forcing:budget=1", "can't use a budget of 1 frames; use 2 or more"),
        ("mag", 2, "mag:budget=2", "mag can't use a budget of 2 frames; its sink alone is 2"),
        ("mag:sink=0", 9, "mag:sink=0,budget=9", "its own is 7 with ring=7; leave the budget out and set ring"),
        ("mag:variant=paper", 9, "mag:variant=paper,budget=9", "its own grows with the video with ring=7"),
        ("rolling-forcing", 2, "rolling-forcing:budget=2", "its anchor alone is 3"),
    ],
)
def test_a_budget_that_a_policy_cannot_have_is_a_row_with_a_reason(
    spec: str, budget: int, label: str, reason: str
) -> None:
    bound = bind(spec, budget)
    assert (bound.label, bound.refused, bound.policy) == (label, budget, parse_method(spec).policy)
    assert reason in bound.refusal
    with pytest.raises(BudgetError):
        parse_method(spec, budget)


def test_a_mistake_is_no_refusal() -> None:
    with pytest.raises(ConfigError, match="fifo has no parameter 'sinc'"):
        bind("fifo:sinc=1", 9)


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("memrop", "unknown method 'memrop'", "did you mean 'memrope'"),
        ("memrope:alpa_long=0.1", "memrope has no parameter 'alpa_long'", "did you mean 'alpha_long'"),
        ("memrope:alpha_long=x", "alpha_long of memrope must be a number, not 'x'", ""),
        ("memrope:alpha_long=0", r"alpha_long of memrope is 0.0, outside \(0, 1\]", ""),
        ("memrope:alpha_short=1.5", r"alpha_short of memrope is 1.5, outside \(0, 1\]", ""),
        ("memrope:alpha_short=nan", r"alpha_short of memrope is nan, outside \(0, 1\]", ""),
        ("memrope:sink=2.5", "sink of memrope must be a whole number, not '2.5'", ""),
        ("memrope:memory=all", "memory of memrope must be one of both, long, short, none, not 'all'", ""),
        ("memrope:adaptive=yes", "adaptive of memrope must be true or false, not 'yes'", ""),
        ("memrope:adaptive=true,memory=long", "adaptive=true of memrope needs the short memory", "memory=both"),
        ("memrope:window=7", r"window 7 of memrope is smaller than sink \(3\), memories \(2\)", "window=8 or more"),
        ("fifo:window=4,sink=2", r"window 4 of fifo is smaller than sink \(2\) and chunk \(3\)", "window=5 or more"),
        ("fifo:sink=-1", "sink of fifo is -1", "0 or more"),
        ("fifo:sink=1,sink=2", "sink of fifo is given twice", ""),
        ("fifo:sink", "'sink' after 'fifo' is no name=value", "fifo:name=value"),
        ("fifo:", "'' after 'fifo' is no name=value", "fifo:name=value"),
    ],
)
def test_mistakes_are_named(spec: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_method(spec)
    assert hint in (caught.value.hint or "")


def test_budget_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="sets window, and so does the budget of 9") as caught:
        parse_method("deep-forcing:window=18", budget=9)
    assert caught.value.hint == "drop one of them; that budget is window=12,keep=9,sink=4"
    with pytest.raises(ConfigError, match="'fifo:budget=9' has a budget of its own, and 12 frames were asked for"):
        parse_method("fifo:budget=9", budget=12)
    with pytest.raises(ConfigError, match="budget of fifo must be a whole number, not 'all'"):
        parse_method("fifo:budget=all")
    with pytest.raises(ConfigError, match="the budget is -1 frames"):
        parse_method("fifo", budget=-1)
    with pytest.raises(ConfigError, match="window 5 of memrope is smaller"):
        parse_method("memrope", budget=2)


def test_policies_check_values_given_in_python() -> None:
    with pytest.raises(ConfigError, match="memory of memrope is 'all'"):
        MemRope(memory="all")  # type: ignore[arg-type]


def test_every_method_explains_itself() -> None:
    for name, method in METHODS.items():
        assert name == method.name
        assert method.summary
        assert method.source
        assert find_method(name) is method


@pytest.mark.parametrize("name", METHODS)
def test_differences_name_parameters_that_are_there(name: str) -> None:
    method = METHODS[name]
    parameters = method.defaults()
    assert method.differences
    for difference in method.differences:
        assert all(asdict(difference).values())
        named = re.findall(r"(\w+)=", difference.here)
        assert set(named) <= set(parameters)
    assert ("variant" in parameters) == any("variant=paper" in each.here for each in method.differences)


def test_differences_are_of_methods() -> None:
    assert set(DIFFERENCES) == set(METHODS)


def test_listing_imports_no_torch() -> None:
    code = "import sys; from magbench.runners.methods import METHODS; list(METHODS); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@dataclass(frozen=True)
class Rigid(Fifo):
    """A policy whose budget follows from no parameter."""

    @property
    def budget(self) -> int:
        return 4


def test_a_budget_that_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "rigid", replace(METHODS["fifo"], name="rigid"))
    monkeypatch.setattr(type(METHODS["rigid"]), "load", lambda self: Rigid)
    with pytest.raises(ConfigError, match="'rigid' cannot be given a budget of 12 frames: its own is 4"):
        parse_method("rigid", budget=12)


def test_which_releases_end_at_their_tables() -> None:
    ends = {name for name in METHODS if released_frames(name) == 1024}
    assert ends == {"fifo", "longlive", "deep-sink", "deep-forcing", "mag", "rolling-forcing"}
    assert all(released_frames(name) is None for name in METHODS.keys() - ends)
    assert released_frames("./mine.py:Mine") is None
