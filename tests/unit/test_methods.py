"""Names, parameters and budgets as a user writes them."""

import subprocess
import sys
from dataclasses import dataclass, replace

import pytest

from magbench.errors import ConfigError
from magbench.runners.methods import METHODS, find_method, parse_method
from magbench.runners.policies.fifo import Fifo
from magbench.runners.policies.full import Full
from magbench.runners.policies.memrope import MemRope


@pytest.mark.parametrize(
    ("spec", "label", "policy"),
    [
        ("full", "full", Full()),
        ("fifo", "fifo", Fifo(window=12, sink=0)),
        ("longlive", "longlive", Fifo(window=12, sink=3)),
        ("longlive:sink=3", "longlive", Fifo(window=12, sink=3)),
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
    assert parse_method("longlive:window=15").parameters == {"window": 15, "sink": 3}
    assert parse_method("full").parameters == {}


@pytest.mark.parametrize("name", METHODS)
def test_budget_sets_the_window(name: str) -> None:
    bound = parse_method(name, budget=12)
    if name == "full":
        assert bound.policy.budget is None
    else:
        assert bound.label == f"{name}:window=15"
        assert bound.policy.budget == 12


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
    with pytest.raises(ConfigError, match="sets window, and so does the budget of 9"):
        parse_method("fifo:window=12", budget=9)
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
