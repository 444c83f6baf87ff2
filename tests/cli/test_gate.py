"""`magbench gate` from the command line: exit codes, files, and hostile text in all of them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from magbench.gate import Check, Outcome
from magbench.reports.verdict import ANNOTATIONS, annotations, grids, junit, summary
from magbench.runners.models import MODELS
from tests.cli.conftest import Invoke
from tests.gate_runs import POLICY, PSNR, RECALL, TRACK, make, shifted
from tests.synthetic_run import HOSTILE
from tests.tiny_model import TINY

ROOT = Path(__file__).resolve().parents[2]
EVIL = f"{HOSTILE}\r\n::error::x%0A,y:\x1b[31m]]>\ud800\x00\ufffe##[group]"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate")
    (root / "gate.yaml").write_text(POLICY)
    make(root / "good")
    make(root / "same")
    make(root / "worse", shifted(PSNR, -3.0))
    make(root / "better", shifted(PSNR, +3.0))
    make(root / "noisy", shifted(PSNR, 0.0, noise=2.0))
    make(root / "holes", lambda s, m: None if s.case.id.endswith("03") else (s, m), status="incomplete")
    make(root / "other", suite_version=2)
    return root


@pytest.mark.parametrize(
    ("run", "words", "code", "said"),
    [
        ("same", (), 0, "gate: PASS, nothing got worse than its margin"),
        ("better", (), 0, "gate: IMPROVED, something got better"),
        ("worse", (), 3, "gate: REGRESSION, something got worse"),
        ("noisy", (), 0, "gate: INCONCLUSIVE, too few cases"),
        ("noisy", ("--strict",), 3, "gate: INCONCLUSIVE (strict: fails)"),
        ("holes", (), 4, "gate: INCOMPLETE, something that the gate needs is missing"),
        ("other", (), 2, "gate: NOT_COMPARABLE, the run and the baseline"),
    ],
)
def test_exit_codes(run: str, words: tuple[str, ...], code: int, said: str, folders: Path, invoke: Invoke) -> None:
    done = invoke("gate", folders / run, "--baseline", folders / "good", "--policy", folders / "gate.yaml", *words)
    assert done.code == code, done.err
    assert said in done.out
    assert "::" not in done.out


def test_files_say_the_same(folders: Path, tmp_path: Path, invoke: Invoke) -> None:
    files = {name: tmp_path / name for name in ("summary", "junit", "json")}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    done = invoke(
        "gate", folders / "worse", "--baseline", folders / "good", "--policy", folders / "gate.yaml", *options,
        "--annotations",
    )  # fmt: skip
    assert done.code == 3
    outcome = Outcome.model_validate_json(files["json"].read_text())
    assert (outcome.verdict, outcome.exit_code, outcome.schema_version) == ("REGRESSION", 3, 1)
    assert files["summary"].read_text() == summary(outcome)
    assert files["junit"].read_text() == junit(outcome)
    assert done.out.splitlines()[-1:] == annotations(outcome)
    (line,) = annotations(outcome)
    assert line.startswith(f"::error title=magbench gate%3A REGRESSION::memrope, {PSNR}: better by -3.000 [")


def test_the_table_cannot_give_commands_to_the_runner(folders: Path, invoke: Invoke) -> None:
    done = invoke(
        "gate", folders / "worse", "--baseline", folders / "good", "--policy", folders / "gate.yaml", "--annotations"
    )
    lines = done.out.splitlines()
    stopped = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", lines[0])
    assert stopped
    assert lines.index(f"::{stopped[1]}::") == len(lines) - 2  # one annotation follows


def test_a_saved_baseline_is_accepted(folders: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("gate", folders / "good", "--save-baseline", tmp_path / "slim")
    assert done.code == 0
    assert re.search(r"baseline: .*slim, \d+ files, 0\.\d MiB", done.out)
    for run, code in (("same", 0), ("worse", 3)):
        words = ("gate", folders / run, "--baseline", tmp_path / "slim", "--policy", folders / "gate.yaml")
        assert invoke(*words).code == code


def test_fingerprints_pass_from_command_to_command(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", TINY)
    for name, method in (("good", "memrope"), ("same", "memrope"), ("other", "memrope:alpha_long=0.1")):
        done = invoke("fingerprint", "--model", "tiny", "--method", method, "--out", tmp_path / name)
        assert done.code == 0, done.err
    assert invoke("gate", tmp_path / "good", "--save-baseline", tmp_path / "slim").code == 0
    done = invoke("gate", tmp_path / "same", "--baseline", tmp_path / "slim")
    assert done.code == 0, done.out
    assert "warning: quality was not checked" in done.out
    done = invoke("gate", tmp_path / "other", "--baseline", tmp_path / "slim")
    assert done.code == 3
    assert "parameter alpha_long was 0.01 and is 0.1" in done.out


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        ("gate", 2, "Missing argument 'RUN'", "see magbench gate --help"),
        ("gate good", 2, "option --baseline is needed", "magbench gate RUN --save-baseline DIR"),
        ("gate none --baseline good", 2, "there is no run folder 'none'", "magbench run makes one"),
        ("gate same --baseline none", 2, "there is no run folder 'none'", "magbench run makes one"),
        ("gate good --baseline good", 2, "'good' is both the run and its baseline", "name two folders"),
        ("gate same --baseline good", 2, f"no margin for the primary endpoint {PSNR}", "--policy"),
        ("gate same --baseline good --policy none.yaml", 2, "cannot read the gate policy 'none.yaml'", "--policy"),
        ("gate same --baseline good --policy same", 2, "cannot read the gate policy 'same': Is a directory", None),
        ("gate same --baseline good --policy gate.yaml --summary no/s", 1, "cannot write 'no/s'", "another file"),
        ("gate same --baseline good --save-baseline x", 2, "--save-baseline goes with no other option", None),
        ("gate holes --save-baseline x", 2, "'holes' cannot become a baseline", "finish it first"),
        ("gate good --save-baseline same", 2, "'same' is not empty and not a baseline", "--save-baseline"),
    ],
)
def test_a_bad_request_is_one_sentence(
    words: str, code: int, message: str, hint: str | None, folders: Path, invoke: Invoke, monkeypatch: Any
) -> None:
    monkeypatch.chdir(folders)
    done = invoke(*words.split())
    assert done.code == code
    error, *rest = done.err.splitlines()
    assert message in error
    assert hint is None or hint in " ".join(rest)
    assert len(rest) <= 1


def test_the_gate_loads_no_torch(folders: Path) -> None:
    code = f"""
import sys
from magbench.cli import main
try:
    main(["gate", "{folders / "worse"}", "--baseline", "{folders / "good"}", "--policy", "{folders / "gate.yaml"}"])
except SystemExit as end:
    print(end.code, *(m for m in ("torch", "pandas", "matplotlib", "av") if m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "3"


# ---------------------------------------------------------------- the writers, with hostile text


def hostile() -> Outcome:
    def check(**fields: Any) -> Check:
        return Check(**{"part": TRACK, "method": EVIL, "endpoint": RECALL, "text": EVIL, **fields})

    numbers = {"baseline": 0.4, "run": 0.2, "better_by": -0.2, "low": -0.3, "high": -0.1, "margin": 0.05, "cases": 16}
    return Outcome(
        verdict="REGRESSION", exit_code=3, strict=False, run=EVIL, baseline=EVIL, policy=EVIL,
        checks=(
            check(part="fingerprint", endpoint="fingerprint", verdict="REGRESSION", details=(EVIL, EVIL + "2")),
            check(verdict="REGRESSION", **numbers),
            check(verdict="REGRESSION", acknowledged=EVIL, **numbers),
            check(verdict="INCONCLUSIVE", cases_needed=40, **numbers),
            check(verdict="NOT_COMPARABLE"),
            check(verdict="INCOMPLETE"),
            check(verdict=None),
            check(verdict="PASS", **numbers),
            check(part="runs", method="", endpoint="", verdict="INCOMPLETE"),
        ),
        warnings=(EVIL,), notices=(EVIL,),
    )  # fmt: skip


def test_markdown_keeps_its_tables_whatever_the_names() -> None:
    text = summary(hostile())
    assert text.startswith("## ❌ magbench gate: REGRESSION")
    assert "<script" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]", text)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1


def junit_problems(element: ElementTree.Element) -> Iterator[str]:
    """What the schema that CI systems share (Ant's, as Jenkins and GitLab read it) has against a document."""
    attributes = {
        "testsuites": ({"name"}, {"tests", "failures", "errors", "skipped", "time"}),
        "testsuite": ({"name", "tests"}, {"failures", "errors", "skipped", "time", "timestamp", "hostname", "id"}),
        "testcase": ({"name", "classname"}, {"time", "status"}),
        "failure": (set(), {"message", "type"}),
        "error": (set(), {"message", "type"}),
        "skipped": (set(), {"message"}),
    }
    children = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "skipped"}}
    needed, allowed = attributes[element.tag]
    if not needed <= element.attrib.keys() <= needed | allowed:
        yield f"{element.tag} has {sorted(element.attrib)}"
    if wrong := {child.tag for child in element} - children.get(element.tag, set()):
        yield f"{element.tag} holds {wrong}"
    if element.tag == "testcase" and len(element) > 1:
        yield "a test has two outcomes"
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        if name in element.attrib and int(element.attrib[name]) != len(list(element.iter(tag))):
            yield f"{element.tag} counts {element.attrib[name]} {name}"
    if "time" in element.attrib and not re.fullmatch(r"\d+(\.\d+)?", element.attrib["time"]):
        yield "time is no number"
    for child in element:
        yield from junit_problems(child)


def test_junit_is_valid_whatever_the_names() -> None:
    text = junit(hostile())
    root = ElementTree.fromstring(text.encode())
    assert list(junit_problems(root)) == []
    assert [(s.get("name"), s.get("tests")) for s in root] == [("fingerprint", "1"), (TRACK, "7"), ("runs", "1")]
    kinds = [case[0].tag if len(case) else "passed" for case in root.iter("testcase")]
    assert kinds == ["failure", "failure", "skipped", "skipped", "error", "error", "skipped", "passed", "error"]


def test_the_schema_check_finds_problems() -> None:
    text = junit(hostile()).replace('failures="1"', 'failures="9"', 1).replace("<skipped", '<skipped type="x"', 1)
    assert len(list(junit_problems(ElementTree.fromstring(text.encode())))) == 2


def test_inconclusive_is_a_failure_where_strict() -> None:
    strict = hostile().model_copy(update={"strict": True})
    kinds = [
        case[0].tag if len(case) else "" for case in ElementTree.fromstring(junit(strict).encode()).iter("testcase")
    ]
    assert kinds[3] == "failure"


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it."""
    found = re.fullmatch(r"::(\w+) ([^:]*?)::(.*)", line)
    assert found, line
    properties = dict(part.split("=", 1) for part in found[2].split(","))

    def decoded(text: str, more: dict[str, str]) -> str:
        for code, sign in {"%0D": "\r", "%0A": "\n", **more, "%25": "%"}.items():
            text = text.replace(code, sign)
        return text

    return found[1], {k: decoded(v, {"%3A": ":", "%2C": ","}) for k, v in properties.items()}, decoded(found[3], {})


def test_annotations_are_one_line_each_and_decode_to_the_text() -> None:
    lines = annotations(hostile())
    assert all(line.isprintable() for line in lines)
    read = [parsed(line) for line in lines]
    assert [kind for kind, _, _ in read] == ["error"] * 5 + ["warning"] * 2
    assert {title["title"] for _, title, _ in read[:5]} == {
        "magbench gate: REGRESSION", "magbench gate: NOT_COMPARABLE", "magbench gate: INCOMPLETE"
    }  # fmt: skip
    assert all(set(title) == {"title"} for _, title, _ in read)
    plain = "".join(c for c in " ".join(EVIL.split()) if c.isprintable())
    assert read[0][2] == f"{plain}, fingerprint: {plain}; {plain}; {plain}2"
    assert read[1][2] == f"{plain}, {RECALL}: {plain}"
    assert "%250A" in lines[0]  # a percent sign of the text stays one


def test_no_more_annotations_than_are_shown() -> None:
    one = hostile()
    many = one.model_copy(update={"checks": one.checks[1:2] * 30, "warnings": ()})
    lines = annotations(many)
    assert len(lines) == ANNOTATIONS
    assert lines[-1].endswith("::and 21 more, see the summary")


def test_the_terminal_gets_no_control_characters() -> None:
    for grid in grids(hostile()):
        texts = [item.text + item.detail for group in grid.groups for line in group for item in line]
        assert all(text.isprintable() for text in [*texts, *grid.notes])


def test_half_a_character_in_a_record_breaks_no_file(folders: Path, tmp_path: Path, invoke: Invoke) -> None:
    store = make(tmp_path / "run")
    (sample,) = (s for s in store.records() if s.case.id.endswith("03"))
    file = store.sample_dir(sample.key) / "sample.json"
    text = (
        file.read_text().replace('"status": "ok"', '"status": "error"').replace('"reason": ""', r'"reason": "\ud800"')
    )
    file.write_text(text)
    options = [f"--{name}={tmp_path / name}" for name in ("summary", "junit", "json")]
    words = ("--baseline", folders / "good", "--policy", folders / "gate.yaml", "--annotations", *options)
    done = invoke("gate", store.root, *words)
    assert done.code == 4, done.err
    assert all((tmp_path / name).read_bytes().decode() for name in ("summary", "junit", "json"))


def test_json_is_strict_and_whole(folders: Path, tmp_path: Path, invoke: Invoke) -> None:
    file = tmp_path / "gate.json"
    invoke("gate", folders / "noisy", "--baseline", folders / "good", "--policy", folders / "gate.yaml", "--json", file)
    values = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in strict JSON"))
    (found,) = [check for check in values["checks"] if check["endpoint"] == PSNR]
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["low"] < -found["margin"] < found["high"]
    assert found["cases_needed"] > found["cases"] == 12
