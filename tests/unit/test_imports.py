"""What may import what, and what must not load torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "pandas", "matplotlib", "av")

LEVELS: dict[str, set[str]] = {
    "magbench.errors": set(),
    "magbench.records": set(),
    "magbench.registry": {"magbench.errors"},
    "magbench.names": set(),
    "magbench.schedule": {"magbench.errors", "magbench.records"},
    "magbench.store": {"magbench.errors", "magbench.names", "magbench.records"},
    "magbench.suite": {"magbench.errors", "magbench.records", "magbench.registry", "magbench.data"},
    "magbench.jobs": {"magbench.errors", "magbench.names", "magbench.records", "magbench.suite"},
    "magbench.comparability": {"magbench.errors", "magbench.jobs", "magbench.records", "magbench.results"},
}
FORBIDDEN = {
    "data": ("magbench.metrics", "magbench.runners", "magbench.reports", "magbench.cli", "magbench.store"),
    "metrics": ("magbench.runners", "magbench.reports", "magbench.cli", "magbench.store"),
    "reports": ("magbench.runners", "magbench.metrics", "magbench.cli"),
    "runners": ("magbench.reports", "magbench.cli", "magbench.api"),
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return {name for name in found if name.split(".")[0] == "magbench"}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_point_one_way(folder: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / folder).rglob("*.py")
        for name in imports(file)
        if name.startswith(FORBIDDEN[folder])
    ]
    assert wrong == []


@pytest.mark.parametrize("module", LEVELS)
def test_the_vocabulary_knows_little(module: str) -> None:
    names = {".".join(name.split(".")[:2]) for name in imports(ROOT / (module.replace(".", "/") + ".py"))}
    assert names - {"magbench"} <= LEVELS[module]


def test_one_place_prints() -> None:
    printing = [
        str(file.relative_to(ROOT))
        for folder in ("magbench", "metrics", "runners", "reports", "data")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def loaded_by(code: str) -> set[str]:
    probe = f"import sys\n{code}\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


def test_vocabulary_imports_nothing_heavy() -> None:
    ours = "records store errors registry suite jobs stats options provenance comparison names reports metrics"
    ours += " validation agreement reports.validation reports.agreement"
    names = [*ours.split(), "reports.comparison", "runners.pool", "runners.models"]
    assert loaded_by("\n".join(f"import magbench.{name}" for name in names)) == set()


LIGHT = [
    "--help",
    "run --help",
    "list methods",
    "list models",
    "list metrics",
    "list suites",
    "show mini",
    "compare --help",
    "validate --help",
    "study --help",
    "nonsense",
]


def test_light_commands_load_no_torch() -> None:
    code = f"""
from magbench.cli import main
for command in {LIGHT!r}:
    try:
        main(command.split())
    except SystemExit as end:
        if end.code != (2 if command == "nonsense" else 0):
            raise RuntimeError(command)
    print()
"""
    assert loaded_by(code) == set()


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import av") == {"av"}


def test_importing_the_face_gives_lazy_names() -> None:
    assert (
        loaded_by("import magbench; assert {'run', 'score', 'load', 'compare'} <= set(dir(magbench)); magbench.load")
        == set()
    )
