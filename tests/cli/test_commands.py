"""The rest of the command line: bad requests, lists, descriptions, doctor, report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from magbench import __version__
from magbench.metrics import METRICS
from magbench.runners.methods import METHODS
from magbench.suite import suite_names
from tests.cli.conftest import Invoke

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("rnu", "unknown command 'rnu'", "did you mean 'run'?"),
        ("run", "option --method is needed", "see magbench list methods"),
        ("run --method memrop", "unknown method 'memrop'", "did you mean 'memrope'?"),
        ("run --method memrope:sinc=1", "memrope has no parameter 'sinc'", "did you mean 'sink'?"),
        ("run --method memrope:alpha_long=2", "alpha_long of memrope is 2.0, outside (0, 1]", None),
        ("run --method memrope:window=5", "window 5 of memrope is smaller than sink", "window=8 or more"),
        ("run --method fifo:window=5", "as a baseline: window 5 of memrope is smaller", "--no-baselines"),
        ("run --method fifo:sink=x", "sink of fifo must be a whole number, not 'x'", None),
        ("run --method fifo --suite mimi", "unknown suite 'mimi'", "did you mean 'mini'?"),
        ("run --method fifo --track mag", "option --track", None),
        ("run --method fifo --model minni", "unknown model 'minni'", "did you mean 'mini'?"),
        ("run --method fifo --seconds 0", "option --seconds '0': Input should be greater than 0", None),
        ("run --method fifo --seeds 1-", "option --seeds '1-': expected numbers and ranges", None),
        ("run --method fifo --seeds 3-1", "option --seeds '3-1': the range 3-1 is empty", None),
        ("run --method fifo --budget -4", "option --budget", None),
        ("run --method fifo --workers many", "option --workers 'many': Input should be a valid integer", None),
        ("run --method fifo --device gpu", "unknown device 'gpu'", "use auto, cpu, cuda"),
        ("run --method fifo --device mps", "unknown device 'mps'", "use auto, cpu"),
        ("run --method fifo --device cpu:7", "unknown device 'cpu:7'", "use auto, cpu"),
        ("run --method fifo --out=", "option --out is empty", "unset"),
        ("run --method=", "option --method is empty", "unset"),
        (f"run --method fifo --out {'x' * 300}", "cannot make the run folder 'xxx", "shorter name"),
        (f"score {'x' * 300}", "cannot read 'xxx", "check the path"),
        (f"report {'x' * 300}", "cannot open the run folder 'xxx", None),
        ("list", "Missing argument '{methods|models|metrics|suites}'. Choose from: methods, models,", None),
        ("run --method fifo --existing maybe", "option --existing 'maybe'", None),
        ("run --method fifo --out /proc/none/run", "cannot make the run folder '/proc/none/run'", "--out"),
        ("run --method fifo --prompts none.txt", "cannot read prompts file 'none.txt'", None),
        ("run --method fifo --nonsense", "No such option '--nonsense'", "see magbench run --help"),
        ("list everything", "Invalid value for '{methods|models|metrics|suites}'", "see magbench list --help"),
        ("show memrpoe", "nothing is called 'memrpoe'", "did you mean 'memrope'?"),
        ("report nowhere", "there is no run folder 'nowhere'", "magbench run makes one"),
    ],
)
def test_a_bad_request_is_one_sentence(
    words: str, message: str, hint: str | None, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*words.split())
    assert done.code == (1 if message.startswith(("cannot make", "cannot open")) else 2)
    assert f"error: {message}" in done.err
    if hint:
        assert hint in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_outside_the_grammar(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "p.txt").write_text("a cat on the moon\n")
    done = invoke("run", "--method", "fifo", "--prompts", tmp_path / "p.txt", "--out", tmp_path / "run")
    assert done.code == 2
    assert "a cat on the moon" in done.err
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" in invoke("run", "--method", "memrop", "--debug").err
    monkeypatch.setenv("MAGBENCH_DEBUG", "1")
    assert "Traceback" in invoke("show", "nothing-of-the-kind").err


@pytest.mark.parametrize(
    ("kind", "names"),
    [("methods", set(METHODS)), ("metrics", set(METRICS)), ("suites", set(suite_names())), ("models", {"mini"})],
)
def test_lists(kind: str, names: set[str], invoke: Invoke) -> None:
    entries = json.loads(invoke("list", kind, "--json").out)
    assert {entry["name"] for entry in entries} == names
    assert all(entry["summary"] for entry in entries)
    plain = invoke("list", kind).out.splitlines()
    assert {line.split("\t")[0] for line in plain} == names


@pytest.mark.parametrize("name", [*METHODS, "memrope:memory=none", *METRICS, "retention", "mini"])
def test_everything_can_be_shown(name: str, invoke: Invoke) -> None:
    done = invoke("show", name)
    assert done.code == 0
    assert name in done.out
    assert invoke("show", name, "--json").out.lstrip().startswith("[")


def test_show_tells_what_a_user_needs(invoke: Invoke) -> None:
    memrope = invoke("show", "memrope:sink=1").out
    assert "method: memrope:sink=1" in memrope
    assert "sink: 1  (First frames of the video that never leave.)" in memrope
    assert "budget: 9 past frames" in memrope
    assert "training-free transfer" in memrope
    assert "paper: zero" in memrope
    mini = invoke("show", "mini").out
    assert "16 long-horizon" in invoke("list", "suites").out
    assert "suite: mini version 1" in mini
    assert "model: mini" in mini


def test_report_rebuilds_the_same_bytes(finished: Path, invoke: Invoke) -> None:
    names = ("results.json", "report.html", "tables/long-horizon.md", "tables/samples.csv")
    files = [finished / name for name in names]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    done = invoke("report", finished)
    assert done.code == 0
    assert f"report: {finished / 'report.html'}" in done.out
    assert [file.read_bytes() for file in files] == before


def test_doctor_looks_at_everything(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGBENCH_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = invoke("doctor")
    assert done.code == (1 if "  bad " in done.out else 0)
    for word in ("torch ", "encoder libx264rgb", "model mini", "weights dino", "GiB free", "cores"):
        assert word in done.out
    assert list(tmp_path.iterdir()) == []


def test_version_and_help() -> None:
    command = [sys.executable, "-m", "magbench"]
    version = subprocess.run([*command, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert __version__ in version.stdout
    help_ = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("run", "score", "report", "list", "show", "doctor"):
        assert f"\n  {name} " in help_.stdout


def test_check_policy_says_what_fails(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = "from magbench.runners.policies.fifo import *\n\n@dataclass(frozen=True)\n"
    good = f"{head}class Mine(Fifo):\n    window: int = 6\n"
    (tmp_path / "mine.py").write_text(good)
    done = invoke("check-policy", "./mine.py:Mine")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert (lines[0], lines[-1]) == ("mine.py:Mine", "all 12 checks passed")
    assert lines[3].startswith("  ok      memory       The cache reaches its budget, never shows more, ")
    assert lines[3].endswith(" (3 past frames)")
    (tmp_path / "mine.py").write_text(f"{good}    @property\n    def budget(self): return 4\n")
    done = invoke("check-policy", "./mine.py:Mine", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["method"], found["ok"], len(found["checks"])) == ("mine.py:Mine", False, 12)
    assert [check["name"] for check in found["checks"] if not check["ok"]] == ["budget", "memory"]
    (tmp_path / "mine.py").write_text(f"{good}    def layer(self, geometry): return 1 / 0\n")
    done = invoke("check-policy", "./mine.py:Mine")
    assert done.code == 1
    assert done.out.splitlines()[1:] == [
        "  FAILED  runs         ZeroDivisionError: division by zero (mine.py, line 6)",
        "nothing else can be checked until it runs",
    ]
    done = invoke("check-policy", "./mine.py:Yours")
    assert (done.code, done.out) == (2, "")
    assert "error: 'mine.py' defines no class 'Yours'" in done.err
