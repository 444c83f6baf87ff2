"""Puts what `magbench validate` found into docs/validation.md and .json: `python docs/validation_page.py FOLDER`."""

import sys
from pathlib import Path

from magbench.reports.validation import page
from magbench.validation import ValidationRecord

PAGE = Path(__file__).parent / "validation.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"


def main() -> None:
    text = (Path(sys.argv[1]) / "validation.json").read_text(encoding="utf-8")
    PAGE.with_suffix(".json").write_text(text, encoding="utf-8")
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table = page(ValidationRecord.model_validate_json(text))
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
