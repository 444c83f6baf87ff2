import pytest

from tests.golden import reader


def pytest_configure() -> None:
    if not reader.FOLDER.is_dir():
        pytest.exit(f"MAGBENCH_GOLDEN names no folder: '{reader.FOLDER}'", returncode=4)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left = reader.uncovered()
    if left:
        terminalreporter.write_line(f"golden: no policy implements yet: {', '.join(left)} (in {reader.FOLDER})")
