import pytest

from tests.golden import reader


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left = reader.uncovered()
    if left:
        terminalreporter.write_line(f"golden: no policy implements yet: {', '.join(left)} (in {reader.FOLDER})")
