import csv
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import CliRunner

from magbench.agreement import agreement, read_choices
from magbench.api import load
from magbench.cli import group
from magbench.errors import ConfigError
from magbench.options import StudyOptions
from magbench.reports.study import Study, draw, write_study
from magbench.store import RunStore
from tests.synthetic_run import HOSTILE, METHODS, STRENGTH, make_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return make_run(tmp_path_factory.mktemp("study") / "run", cases=6)


def drawn(store: RunStore, **options: object) -> Study:
    return draw(store.samples(), StudyOptions.parse(options))


def test_the_page_tells_nothing(store: RunStore, tmp_path: Path) -> None:
    study = drawn(store, pairs=24)
    page = write_study(store, study, tmp_path / "study")
    files = sorted(page.parent.iterdir())
    assert len(files) == 1 + 2 * 24
    told = page.read_bytes().lower() + b" ".join(file.name.encode() for file in files)
    keys = {sample.key for sample in store.samples()} | {sample.case.id for sample in store.samples()}
    for secret in (*METHODS, *keys, "magbench"):
        assert not re.search(rb"(?<![a-z])" + re.escape(secret.lower().encode()) + rb"(?![a-z])", told), secret
    assert {row["left"] for row in csv.DictReader((tmp_path / "study/key.csv").open())} <= keys


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_is_escaped(store: RunStore, tmp_path: Path) -> None:
    page = write_study(store, drawn(store, pairs=36, question=HOSTILE), tmp_path / "study")
    read = Page(page.read_text(encoding="utf-8"))
    assert all((page.parent / source).is_file() for source in read.sources)
    assert read.tags["video"] == 72
    assert read.tags["script"] == 1
    assert read.tags["style"] == 1
    assert HOSTILE in read.text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.read_text(encoding="utf-8"))


def test_methods_cases_and_sides_are_balanced(store: RunStore) -> None:
    study = drawn(store, pairs=24)
    samples = [sample for pair in study.pairs for sample in (pair.left, pair.right)]
    methods = Counter(sample.method.label for sample in samples)
    assert set(methods) == set(METHODS)
    assert max(methods.values()) - min(methods.values()) <= 2
    meetings = Counter(frozenset((p.left.method.label, p.right.method.label)) for p in study.pairs)
    assert set(meetings) == {frozenset(pair) for pair in combinations(METHODS, 2)}
    assert max(meetings.values()) - min(meetings.values()) <= 2  # some cases lack a method, and cases come first
    cases = Counter(pair.left.case.id for pair in study.pairs)
    assert cases.pop("mag-03") == 1  # all that it has: two of its methods have no video
    assert max(cases.values()) - min(cases.values()) <= 1
    sides = Counter((p.left.method.label, p.right.method.label) for p in study.pairs)
    assert all(abs(sides[one, other] - sides[other, one]) <= 1 for one, other in sides)
    for pair in study.pairs:
        assert (pair.left.case, pair.left.seed) == (pair.right.case, pair.right.seed)
    assert len({frozenset((p.left.key, p.right.key)) for p in study.pairs}) == 24


def test_the_seed_decides_everything(store: RunStore) -> None:
    assert drawn(store, pairs=9, seed=3) == drawn(store, pairs=9, seed=3)
    assert drawn(store, pairs=9, seed=3).pairs != drawn(store, pairs=9, seed=4).pairs
    assert draw(store.samples()[::-1], StudyOptions.parse({"pairs": 9, "seed": 3})) == drawn(store, pairs=9, seed=3)


def test_choices_come_back_as_agreement(store: RunStore, tmp_path: Path) -> None:
    """An annotator who always chooses the stronger method agrees with the metric that was made from its strength."""
    study = drawn(store, pairs=24, track="long-horizon", seed=1)
    write_study(store, study, tmp_path / "study")
    lines = ["study,pair,choice,annotator"]
    for pair in study.pairs:
        left, right = (STRENGTH[sample.method.label] for sample in (pair.left, pair.right))
        lines.append(f'"{study.id}","{pair.name}","{"left" if left > right else "right"}","a, b"')
    (tmp_path / "choices.csv").write_text("\n".join(lines) + "\n")
    choices = read_choices([tmp_path / "choices.csv"], tmp_path / "study/key.csv")
    found = {one.endpoint: one.estimate for one in agreement(load(store.root), choices).agreements}
    best = found["subject_consistency@mini/anchor_end"]
    assert best is not None
    assert best.value > 0.9
    (tmp_path / "other.csv").write_text("\n".join(lines).replace(study.id, "another"))
    with pytest.raises(ConfigError, match="is not in the key"):
        read_choices([tmp_path / "other.csv"], tmp_path / "study/key.csv")


def test_the_commands(store: RunStore, tmp_path: Path) -> None:
    def call(*words: object) -> str:
        done = CliRunner().invoke(group, [str(word) for word in words], standalone_mode=False)
        assert done.exception is None, done.output
        return done.output

    out = tmp_path / "study"
    assert "12 pairs" in call("study", store.root, "--pairs", 12, "--out", out)
    assert "is there already" in call("study", store.root, "--pairs", 12, "--out", out)
    rows = list(csv.DictReader((out / "key.csv").open()))
    (tmp_path / "c.csv").write_text("study,pair,choice\n" + "".join(f"{r['study']},{r['pair']},tie\n" for r in rows))
    told = call(
        "validate", store.root, "--human", tmp_path / "c.csv", "--key", out / "key.csv", "--out", tmp_path / "a"
    )
    assert "12 ties, left out" in told
    assert (tmp_path / "a/agreement.csv").is_file()


def test_what_makes_no_study_is_said(store: RunStore) -> None:
    with pytest.raises(ConfigError, match="no video of method 'fifi'"):
        drawn(store, method="fifi")
    with pytest.raises(ConfigError, match="no two methods"):
        drawn(store, method="fifo")
