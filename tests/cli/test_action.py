"""The GitHub action: its shell steps, run here on made-up runs, without network and without GitHub."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from magbench import __version__
from magbench.baseline import save_baseline
from magbench.cli import COMMANDS
from magbench.gate_policy import load_policy, parse_policy
from magbench.registry import load_object
from magbench.store import RunStore
from tests.gate_runs import POLICY, PSNR, make, shifted

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
EXAMPLE = ROOT / "examples" / "ci"
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SHELL = [step for step in STEPS if "run" in step]
bash = pytest.mark.skipif(not shutil.which("bash"), reason="the action's steps are bash")

STUB = """#!{python}
import json, os, shutil, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python" and words[:1] == ["-c"]:
    os.execv({python!r}, [{python!r}, *words])
if name == "magbench" and words[0] == "run":
    (out,) = [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
    if os.path.isdir(os.environ["MADE_UP"]):
        shutil.copytree(os.environ["MADE_UP"], out)
    sys.exit(int(os.environ["RUN_CODE"]))
if name == "magbench":
    os.execv({python!r}, [{python!r}, "-m", "magbench", *words])
"""
"""Stands for `python` and `magbench`: notes its arguments; `run` gives a made-up run, `gate` is the real one."""


@dataclass
class Runner:
    """As much of a GitHub runner as the action needs."""

    root: Path
    made_up: Path
    run_code: int = 0

    def __post_init__(self) -> None:
        (self.root / "bin").mkdir(parents=True)
        for name in ("python", "magbench"):
            file = self.root / "bin" / name
            file.write_text(STUB.format(python=sys.executable))
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        for name in ("temp", "work"):
            (self.root / name).mkdir()
        for name in ("calls", "summary"):
            (self.root / name).touch()

    def execute(self, **inputs: str) -> tuple[int, dict[str, dict[str, str]], str]:
        """Run the shell steps until one fails; exit code, outputs of the steps, what was printed."""
        values = {name: str(spec.get("default", "")) for name, spec in ACTION["inputs"].items()} | inputs
        outputs: dict[str, dict[str, str]] = {}
        printed = ""
        for number, step in enumerate(SHELL):
            written = self.root / f"output-{number}"
            written.touch()
            environment = {name: self._value(text, values, outputs) for name, text in step.get("env", {}).items()}
            script = self.root / f"step-{number}.sh"
            script.write_text(step["run"])
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
                cwd=self.root / "work",
                env={
                    "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT),
                    "RUNNER_TEMP": str(self.root / "temp"),
                    "GITHUB_OUTPUT": str(written),
                    "GITHUB_STEP_SUMMARY": str(self.root / "summary"),
                    "CALLS": str(self.root / "calls"),
                    "MADE_UP": str(self.made_up),
                    "RUN_CODE": str(self.run_code),
                    **environment,
                },
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            printed += done.stdout + done.stderr
            lines = [line.partition("=") for line in written.read_text().splitlines()]
            outputs[step.get("id", str(number))] = {name: value for name, _, value in lines}
            if done.returncode:
                return done.returncode, outputs, printed
        return 0, outputs, printed

    def calls(self, *start: str) -> list[list[str]]:
        found = [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]
        return [call[len(start) :] for call in found if tuple(call[: len(start)]) == start]

    def _value(self, text: str, inputs: dict[str, str], outputs: dict[str, dict[str, str]]) -> str:
        """The few expressions that the action uses: `${{ a.b }}` and `${{ a.b || c.d }}`."""

        def one(match: re.Match[str]) -> str:
            for name in match[1].split("||"):
                parts = name.strip().split(".")
                found = {
                    "inputs": lambda p: inputs[p[1]],
                    "github": lambda p: {"action_path": "/the/action"}[p[1]],
                    "steps": lambda p: outputs[p[1]].get(p[3], ""),
                }[parts[0]](parts)
                if found:
                    return found
            return ""

        return re.sub(r"\$\{\{(.*?)\}\}", one, str(text))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return make(tmp_path / "good").root


@pytest.fixture
def inputs(good: Path, tmp_path: Path) -> dict[str, str]:
    save_baseline(RunStore.open(good), tmp_path / "baseline")
    (tmp_path / "gate.yaml").write_text(POLICY)
    return {"method": "memrope", "baseline": str(tmp_path / "baseline"), "policy": str(tmp_path / "gate.yaml")}


@bash
def test_a_passing_run(good: Path, inputs: dict[str, str], tmp_path: Path) -> None:
    runner = Runner(tmp_path / "runner", good)
    code, outputs, printed = runner.execute(**inputs)
    assert code == 0, printed
    assert outputs["gate"]["verdict"] == "PASS"
    report = Path(outputs["run"]["report"])
    assert {"run", "summary.md", "junit.xml", "gate.json"} == {path.name for path in report.iterdir()}
    assert (runner.root / "summary").read_text() == (report / "summary.md").read_text()
    assert runner.calls("python", "-m", "pip") == [["install", "--quiet", "--", "/the/action"]]
    assert runner.calls("magbench", "run") == [
        ["--suite=mini-gate", "--no-baselines", f"--out={report}/run", "--method=memrope"]
    ]


@bash
def test_a_regression_fails_the_step_and_is_annotated(inputs: dict[str, str], tmp_path: Path) -> None:
    runner = Runner(tmp_path / "runner", make(tmp_path / "bad", shifted(PSNR, -3.0)).root)
    code, outputs, printed = runner.execute(**inputs)
    assert code == 3
    assert outputs["gate"]["verdict"] == "REGRESSION"
    assert f"::error title=magbench gate%3A REGRESSION::memrope, {PSNR}: better by -3" in printed
    assert "❌" in (runner.root / "summary").read_text()


@bash
def test_strict_reaches_the_gate(inputs: dict[str, str], tmp_path: Path) -> None:
    run = make(tmp_path / "noisy", shifted(PSNR, 0.0, noise=2.0)).root
    assert Runner(tmp_path / "one", run).execute(**inputs)[0] == 0
    assert Runner(tmp_path / "two", run).execute(**inputs, strict="true")[0] == 3


@bash
def test_failed_samples_are_left_to_the_gate(inputs: dict[str, str], tmp_path: Path) -> None:
    run = make(tmp_path / "holes", lambda s, m: None if s.case.id.endswith("03") else (s, m), status="incomplete")
    code, outputs, _ = Runner(tmp_path / "runner", run.root, run_code=4).execute(**inputs)
    assert (code, outputs["gate"]["verdict"]) == (4, "INCOMPLETE")


@bash
@pytest.mark.parametrize("run_code", [1, 2, 130])
def test_a_run_that_fails_as_a_whole_ends_the_action(
    run_code: int, good: Path, inputs: dict[str, str], tmp_path: Path
) -> None:
    runner = Runner(tmp_path / "runner", good, run_code=run_code)
    code, outputs, _ = runner.execute(**inputs)
    assert code == run_code
    assert "gate" not in outputs


@bash
def test_without_a_baseline_the_next_step_is_named(good: Path, inputs: dict[str, str], tmp_path: Path) -> None:
    runner = Runner(tmp_path / "runner", good)
    code, outputs, printed = runner.execute(**(inputs | {"baseline": "ci/none"}))
    assert code == 2
    assert "verdict" not in outputs["gate"]
    assert "there is no run folder 'ci/none'" in printed
    assert (runner.root / "summary").read_text() == ""


@bash
def test_several_methods_and_options(good: Path, inputs: dict[str, str], tmp_path: Path) -> None:
    runner = Runner(tmp_path / "runner", good)
    more = {"method": "memrope\n\nfifo:sink=1\n", "track": "mag-bench", "seeds": "0-3", "requirement": "magbench==9"}
    runner.execute(**(inputs | more))
    (words,) = runner.calls("magbench", "run")
    assert words[3:] == ["--method=memrope", "--method=fifo:sink=1", "--track=mag-bench", "--seeds=0-3"]
    assert runner.calls("python", "-m", "pip")[0][-1] == "magbench==9"


@bash
@pytest.mark.parametrize("name", ["method", "suite", "track", "seeds", "baseline", "policy", "strict", "requirement"])
def test_inputs_are_never_run_as_shell(name: str, good: Path, inputs: dict[str, str], tmp_path: Path) -> None:
    runner = Runner(tmp_path / "runner", good)
    runner.execute(**(inputs | {name: '$(touch pwned)`touch pwned`"; touch pwned; "\'; touch pwned #\n; touch pwned'}))
    assert list((runner.root / "work").iterdir()) == []
    assert not list(tmp_path.rglob("pwned"))


def test_no_script_has_an_expression_in_it() -> None:
    assert SHELL
    for step in SHELL:
        assert "${{" not in step["run"], step["name"]
        assert step["shell"] == "bash"


def test_every_input_is_used_and_described() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text(encoding="utf-8")))
    assert used == set(ACTION["inputs"])
    for name, spec in ACTION["inputs"].items():
        assert spec["description"], name
        assert spec.get("required") or isinstance(spec.get("default"), str), name


def test_outputs_name_steps_and_values_that_exist() -> None:
    ids = {step["id"]: step["run"] for step in SHELL if "id" in step}
    for spec in ACTION["outputs"].values():
        found = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.(\w+) \}\}", spec["value"])
        assert found
        assert f'echo "{found[2]}=' in ids[found[1]]


# ---------------------------------------------------------------- the worked example


def workflow_step() -> dict[str, Any]:
    workflow = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "quality.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in workflow["jobs"]["gate"]["steps"] if "magbench" in step.get("uses", "")]
    return dict(step)


def test_the_example_calls_this_action_at_this_version() -> None:
    step = workflow_step()
    assert step["uses"].endswith(f"@v{__version__}")
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert {name for name, spec in ACTION["inputs"].items() if spec.get("required")} <= set(step["with"])
    assert (EXAMPLE / step["with"]["policy"]).is_file()


def test_the_example_has_a_margin_for_every_endpoint_and_explains_acknowledging() -> None:
    text = (EXAMPLE / workflow_step()["with"]["policy"]).read_text(encoding="utf-8")
    assert parse_policy(text, "example").margins == load_policy().margins
    shown = "".join(line.removeprefix("# ") for line in text.splitlines(True) if not line.startswith("# A change"))
    assert len(parse_policy(shown.partition("\n")[2], "example").acknowledged) == 1
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert len(parse_policy(text + block, "readme").acknowledged) == 1


@bash
def test_the_examples_workflow_reads_one_line(tmp_path: Path) -> None:
    workflow = yaml.safe_load((EXAMPLE / ".github" / "workflows" / "quality.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    (tmp_path / "method.txt").write_text("memrope:alpha_long=0.01\nname=fifo\n")
    environment = {"GITHUB_OUTPUT": str(tmp_path / "output"), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "output").read_text() == "name=memrope:alpha_long=0.01\n"


@pytest.mark.parametrize("page", ["docs/gate.md", "examples/ci/README.md"])
def test_commands_in_the_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^magbench (\w+) (.*)$", text, re.MULTILINE)
    assert commands
    for name, rest in commands:
        known = {option for parameter in load_object(COMMANDS[name]).params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= known
    for policy in re.findall(r"```yaml\n(fingerprint:.*?)```", text, re.DOTALL):
        assert parse_policy(policy, page).acknowledged
