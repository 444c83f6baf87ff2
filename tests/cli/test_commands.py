"""The rest of the command line: bad requests, lists, descriptions, doctor, report."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from magbench import __version__
from magbench.cli import console
from magbench.metrics import METRICS
from magbench.runners.methods import METHODS, parse_method, spelled
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
    memrope = invoke("show", "memrope:sink=1").out.splitlines()
    assert memrope[:2] == [
        "method: memrope:sink=1",
        "summary: sink, a long and a short moving average of evicted frames, newest frames, at slot positions",
    ]
    assert "  sink=1           First frames of the video that never leave." in memrope
    assert "  memory=both      Which averages are kept. One of both, long, short, none." in memrope
    assert [line for line in memrope if line.startswith("budget: 9 past frames; --budget N: 3 or more. ")]
    assert "  --budget 12  window=15" in memrope
    assert "  1.  paper: both memories start at zero; release: they start at the first evicted mean" in memrope
    assert [line for line in memrope if line.startswith("      here: as released; variant=paper")]
    assert "  mini  training-free transfer: the model was not trained with this cache" in memrope
    assert [line for line in memrope if line.startswith("also holds: ")]
    mini = invoke("show", "mini").out
    assert "16 long-horizon" in invoke("list", "suites").out
    assert "suite: mini version 1" in mini
    assert "model: mini" in mini


@pytest.mark.parametrize("name", METHODS)
def test_what_json_says_of_a_method_is_complete(name: str, invoke: Invoke) -> None:
    (found,) = json.loads(invoke("show", name, "--json").out)
    bound = parse_method(name)
    assert (found["method"], found["summary"], found["source"]) == (name, bound.method.summary, bound.method.source)
    assert {key: each["value"] for key, each in found["parameters"].items()} == bound.parameters
    assert all(each["about"].endswith((".", ")")) for each in found["parameters"].values())
    assert found["differences"] == [asdict(each) for each in bound.method.differences]
    assert set(found["applicability"]) == {"mini"}
    assert found["applicability"]["mini"]["reason"]
    budget = found["budget"]
    assert (budget["own"], budget["matched"]) == (bound.policy.budget, bound.policy.matched)
    assert list(budget["sets"]) == (["6", "9", "12", "18"] if bound.policy.matched else [])
    for frames, sets in budget["sets"].items():
        assert parse_method(f"{name}:{spelled(sets)}").policy.budget == int(frames)
    loops = {"rolling-forcing": "RollingWindow.", "causvid": "OverlappingRollouts."}
    assert found["loop"].partition(" ")[0] == loops.get(name, "")
    assert bool(found["also holds"]) == (name in ("memrope", "deep-forcing"))
    assert found["written by"] == ("a second network, which sees an empty prompt" if name == "mag" else "")
    prompt = "the newest 12 frames are encoded again"
    assert found["at a new prompt"] == (prompt if name == "longlive" else "")


def test_show_says_why_there_is_no_budget(invoke: Invoke) -> None:
    assert "budget: grows with the video, whatever --budget says." in invoke("show", "full").out
    assert "budget: 12 past frames\n" in invoke("show", "fifo:window=15").out
    assert "  --budget 6   window 9 of fifo is smaller than sink (7)" in invoke("show", "fifo:sink=7").out


def test_a_terminal_gets_lines_of_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(console, "width", lambda: 30)
    console.fold("  1.  a rather long line, which goes on and on", 6)
    assert capsys.readouterr().out == "  1.  a rather long line,\n      which goes on and on\n"


def test_a_policy_file_can_be_shown(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from magbench.runners.policies.fifo import *\n\n@dataclass(frozen=True)\nclass Mine(Fifo):\n    "
    (tmp_path / "mine.py").write_text(f'{code}"""Mine, all\n    mine."""\n    tail: int = 2\n    """Its end."""\n')
    lines = invoke("show", "./mine.py:Mine:sink=1").out.splitlines()
    assert lines[:4] == ["method: mine.py:Mine:sink=1", "summary: Mine, all mine.", "source: mine.py", "parameters:"]
    assert "  sink=1     First frames of the video that never leave." in lines
    assert "  tail=2     Its end." in lines
    (tmp_path / "mine.py").write_text(f"{code}pass\n")
    assert invoke("show", "mine.py:Mine").out.splitlines()[:2] == ["method: mine.py:Mine", "source: mine.py"]
    done = invoke("show", "mine.py:Your")
    assert (done.code, done.out) == (2, "")
    assert "error: 'mine.py' defines no class 'Your'." in done.err


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
    assert (lines[0], lines[-1]) == ("mine.py:Mine", "all 13 checks passed")
    assert lines[3].startswith("  ok      memory       The cache reaches its budget, never shows more, ")
    assert lines[3].endswith(" (3 past frames)")
    (tmp_path / "mine.py").write_text(f"{good}    @property\n    def budget(self): return 4\n")
    done = invoke("check-policy", "./mine.py:Mine", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["method"], found["ok"], len(found["checks"])) == ("mine.py:Mine", False, 13)
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
