"""The shipped model with MemRoPE, recorded once. A change of arithmetic shows here, another machine does not.

Where a change is meant, record again: `python -m tests.golden.test_fingerprint`.
"""

from pathlib import Path

from magbench.fingerprint import check
from magbench.records import FingerprintRecord
from magbench.runners.fingerprint import Fingerprinter
from magbench.runners.methods import parse_method
from magbench.runners.models import find_model

FILE = Path(__file__).with_name("mini-memrope.fingerprint.json")


def take() -> FingerprintRecord:
    return Fingerprinter(find_model("mini")).take(parse_method("memrope"))


def test_nothing_has_moved_since_it_was_recorded() -> None:
    assert check(FingerprintRecord.model_validate_json(FILE.read_text()), take()) == ()


if __name__ == "__main__":
    FILE.write_text(take().model_dump_json(indent=1) + "\n")
