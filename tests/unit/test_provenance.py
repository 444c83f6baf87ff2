"""Where a run came from."""

import getpass
import json
import platform
from datetime import UTC, datetime, timedelta

from magbench import __version__, provenance


def test_versions_name_what_can_change_a_number() -> None:
    versions = provenance.versions()
    assert versions["magbench"] == __version__
    assert versions["python"] == platform.python_version()
    assert {"torch", "av", "numpy"} <= versions.keys()
    assert provenance._version("no-such-package") == "absent"


def test_nothing_personal() -> None:
    text = json.dumps([provenance.versions(), provenance.hardware(), provenance.git()])
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert "/" not in json.dumps(provenance.git())


def test_time_is_utc() -> None:
    stamp = datetime.fromisoformat(provenance.now())
    assert stamp.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - stamp) < timedelta(minutes=1)


def test_hardware_is_all_strings() -> None:
    found = provenance.hardware()
    assert int(found["cores"]) == provenance.cores() >= 1
    assert all(isinstance(value, str) for value in found.values())
