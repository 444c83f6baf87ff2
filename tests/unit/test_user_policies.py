"""Policies in files and plug-ins: what they are called, what is wrong with them, and when they count as changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magbench.errors import ConfigError
from magbench.runners.methods import METHODS, all_methods, bind, parse_method
from magbench.runners.user_policies import code_of, fault, hold

GOOD = '''
from dataclasses import dataclass
from typing import Literal
from magbench.runners.policies.fifo import Fifo

@dataclass(frozen=True)
class Mine(Fifo):
    """A FIFO of mine.

    With a tail.
    """
    sink: int = 2
    tail: Literal["short", "long"] = "short"
'''
BARE = """
from dataclasses import dataclass
from magbench.runners.policies.base import CachePolicy
from magbench.runners.policies.fifo import FifoCache

@dataclass(frozen=True)
class Bare(CachePolicy):
    keep: int = 4
    def layer(self, geometry):
        return FifoCache(self.keep + 3, 0, geometry)
    @property
    def budget(self):
        return self.keep
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("./mine.py:Mine", "mine.py:Mine"),
        ("mine.py:Mine", "mine.py:Mine"),
        ("mine.py:Mine:sink=1,tail=long", "mine.py:Mine:sink=1,tail=long"),
        ("./mine.py:Mine: tail=long , sink=2", "mine.py:Mine:tail=long"),
        ("mine.py:Mine:budget=7", "mine.py:Mine:window=10"),
    ],
)
def test_names(spec: str, label: str) -> None:
    bound = parse_method(spec)
    assert bound.label == label
    assert parse_method(label).policy == bound.policy
    assert bound.method.name == "mine.py:Mine"
    assert bound.method.summary == "A FIFO of mine."
    assert bound.policy.sink == bound.parameters["sink"] == (1 if "sink=1" in spec else 2)  # type: ignore[attr-defined]


def test_a_path_stays_as_it_was_written(here: Path) -> None:
    (here / "a").mkdir()
    (here / "a" / "b.c.py").write_text(GOOD)
    assert parse_method("a/b.c.py:Mine").label == "a/b.c.py:Mine"
    assert parse_method(f"{here}/a/./b.c.py:Mine:sink=0").label == f"{here}/a/b.c.py:Mine:sink=0"


@pytest.mark.parametrize(
    ("spec", "code", "message", "hint"),
    [
        ("no.py:Mine", None, r"there is no policy file 'no\.py'", "paths count from /"),
        (".py:Mine", None, r"there is no policy file '\.py'", ""),
        ("dir.py:Mine", None, r"cannot read the policy file 'dir\.py': Is a directory", ""),
        ("mine.py:Mien", None, r"'mine\.py' defines no class 'Mien'", "did you mean 'Mine'"),
        ("mine.py:Fifo", None, r"'mine\.py' defines no class 'Fifo'", "mine.py:Mine"),
        ("mine.py", None, r"'mine\.py' needs the name of a class behind it", "write mine.py:Mine"),
        ("mine.py:sink=1", None, r"'mine\.py' needs the name of a class behind it", "write mine.py:Mine"),
        ("mine.py:Mine:sinc=1", None, r"mine\.py:Mine has no parameter 'sinc'", "did you mean 'sink'"),
        ("mine.py:Mine:tail=none", None, r"tail of mine\.py:Mine must be one of short, long, not", "show mine.py"),
        ("mine.py:Mine:window=3", None, "window 3 of fifo is smaller than sink", ""),
        ("x.py:X", "class X: pass", r"x\.py:X is no cache policy", "@dataclass(frozen=True)"),
        ("x.py:X", "def X(): pass", r"x\.py:X is no cache policy", "CachePolicy"),
        ("x.py:X", GOOD + "class X(Mine):\n  more: int = 1", r"x\.py:X is no cache policy", "@dataclass(frozen=True)"),
        ("x.py:X", "X = 1 / 0", r"'x\.py' cannot be imported: ZeroDivisionError: division by zero \(x\.py, line 1", ""),
        ("x.py:X", "\nimport nowhere", r"cannot be imported: ModuleNotFoundError: No module named 'nowhere' \(x", ""),
        ("x.py:X", "class X\n", r"cannot be imported: SyntaxError: expected ':' \(x\.py, line 1\)", ""),
        ("x.py:X", b"\xff", r"'x\.py' cannot be imported: SyntaxError", ""),
        ("x.py:Bare", BARE.replace("layer", "layers"), r"x\.py:Bare does not define layer", ""),
        ("x.py:Bare", BARE.replace(": int = 4", ": int"), r"parameter 'keep' of x\.py:Bare has no default", ""),
        ("x.py:Bare", BARE.replace("int = 4", "str = ''"), r"parameter 'keep' of x\.py:Bare has type str", "Literal"),
        ("x.py:Bare", BARE.replace("int = 4", "'no' = 4"), r"parameters of x\.py:Bare cannot be read: NameError", ""),
        ("x.py:Bare", BARE.replace("self.keep\n", "1.5\n"), r"the budget of x\.py:Bare is 1\.5", "whole number"),
        ("x.py:Bare", BARE.replace("self.keep\n", "self.kept\n"), r"x\.py:Bare cannot be made: AttributeError", ""),
    ],
)  # fmt: skip
def test_mistakes_are_named(here: Path, spec: str, code: str | bytes | None, message: str, hint: str) -> None:
    (here / "dir.py").mkdir()
    if code is not None:
        (here / "x.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    with pytest.raises(ConfigError, match=message) as caught:
        parse_method(spec)
    assert hint in (caught.value.hint or "")
    assert "\n" not in caught.value.message


def test_a_budget_without_a_parameter_for_it_is_refused(here: Path) -> None:
    (here / "x.py").write_text(BARE)
    assert parse_method("x.py:Bare").policy.budget == 4
    with pytest.raises(ConfigError, match=r"x\.py:Bare has no parameter 'window' for a budget to set") as caught:
        parse_method("x.py:Bare", budget=9)
    assert "`spend`" in (caught.value.hint or "")
    assert "no parameter 'window'" in bind("x.py:Bare", 9).refusal
    spend = f"{BARE}    @classmethod\n    def spend(cls, budget):\n        return "
    (here / "x.py").write_text(spend + "{'keep': budget}\n")
    assert parse_method("x.py:Bare", budget=9).label == "x.py:Bare:keep=9"
    (here / "x.py").write_text(spend + "1 / 0\n")
    with pytest.raises(ConfigError, match="cannot spend a budget of 9 frames: ZeroDivisionError"):
        parse_method("x.py:Bare", budget=9)


def test_an_edited_file_is_another_policy(here: Path) -> None:
    """Also when size and time of the file stay the same, by which Python's own import goes."""
    file = here / "mine.py"
    before = parse_method("mine.py:Mine")
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text(GOOD.replace("sink: int = 2", "sink: int = 1"))
    os.utime(file, ns=times)
    after = parse_method("mine.py:Mine")
    assert (before.parameters["sink"], after.parameters["sink"]) == (2, 1)
    assert before.code_sha256 != after.code_sha256
    assert code_of(type(after.policy)) == file.read_bytes()
    assert not (here / "__pycache__").exists()
    assert parse_method("memrope").code_sha256 == ""


def test_a_file_can_be_held_as_it_was(here: Path) -> None:
    hold({"mine.py": GOOD.encode()})
    try:
        (here / "mine.py").write_text("being edited")
        assert parse_method("./mine.py:Mine").parameters["sink"] == 2
    finally:
        hold({})
    with pytest.raises(ConfigError, match="SyntaxError"):
        parse_method("./mine.py:Mine")


def test_the_line_at_fault_is_found(here: Path) -> None:
    (here / "x.py").write_text(f"{BARE}    def boom(self):\n        return int('x')\n")
    policy = parse_method("x.py:Bare").policy
    with pytest.raises(ValueError, match="invalid literal") as caught:
        policy.boom()  # type: ignore[attr-defined]
    assert fault(caught.value) == "x.py, line 15"
    assert fault(ValueError()) == ""


@pytest.fixture
def plug_in(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers `mine`, and `memrope`, which is ours."""
    info = here / "site" / "mine_policies-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-policies\nVersion: 1.2\nSummary: FIFOs of mine\n")
    points = "[magbench.policies]\nmine = mine_plugged:Mine\nmemrope = mine_plugged:Mine\n"
    (info / "entry_points.txt").write_text(points)
    (here / "site" / "mine_plugged.py").write_text(GOOD)
    monkeypatch.syspath_prepend(here / "site")
    monkeypatch.delitem(sys.modules, "mine_plugged", raising=False)
    return here / "site" / "mine_plugged.py"


def test_plug_ins_are_methods(plug_in: Path) -> None:
    found = all_methods()
    assert list(found) == [*METHODS, "mine"]
    assert (found["mine"].summary, found["mine"].source) == ("FIFOs of mine", "plug-in mine-policies 1.2")
    assert "mine_plugged" not in sys.modules
    bound = parse_method("mine:sink=1", budget=9)
    assert bound.label == "mine:sink=1"
    assert type(bound.policy).__module__ == "mine_plugged"
    assert code_of(type(bound.policy)) == plug_in.read_bytes()
    assert type(parse_method("memrope").policy).__name__ == "MemRope"
    with pytest.raises(ConfigError, match="unknown method 'mien'") as caught:
        parse_method("mien")
    assert "did you mean 'mine'" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nowhere", "mine of plug-in mine-policies 1.2 cannot be imported: ModuleNotFoundError"),
        ("", "mine of plug-in mine-policies 1.2 cannot be imported: AttributeError"),
        ("Mine = 7", "mine is no cache policy"),
    ],
)
def test_a_broken_plug_in_is_named(plug_in: Path, code: str, message: str) -> None:
    plug_in.write_text(code)
    assert "mine" in all_methods()
    with pytest.raises(ConfigError, match=message):
        parse_method("mine")


def test_listing_plug_ins_imports_neither_them_nor_torch(plug_in: Path) -> None:
    code = """if True:
        import sys
        from magbench.cli import main
        try:
            main(["list", "methods", "--json"])
        finally:
            print({"torch", "mine_plugged"} & set(sys.modules), file=sys.stderr)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plug_in.parent), *sys.path])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "mine" in [entry["name"] for entry in json.loads(done.stdout)]
    assert done.stderr.strip() == "set()"
