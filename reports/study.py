"""A blind study: a folder with a page that shows pairs of videos side by side and asks which is better.

The page and its files carry no method, case or key; what is what stands in `key.csv`, beside the page's folder and not
inside it. Sides, pairs and their order are drawn from a seed.
"""

import csv
import io
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from magbench.errors import ConfigError, StoreError
from magbench.names import digest
from magbench.options import StudyOptions
from magbench.records import SampleRecord
from magbench.registry import did_you_mean
from magbench.reports.page import SMALL, prompts
from magbench.store import RunStore

PREVIEW = "preview.mp4"


@dataclass(frozen=True)
class StudyPair:
    """Two videos of the same case and seed."""

    name: str
    """On the page: `p` and its place in the order, from 1."""
    left: SampleRecord
    right: SampleRecord


@dataclass(frozen=True)
class Study:
    """All pairs in the order in which they are shown."""

    id: str
    question: str
    pairs: tuple[StudyPair, ...]


def draw(samples: Sequence[SampleRecord], options: StudyOptions) -> Study:
    """Choose the pairs.

    Each step takes, of the pairs not yet taken, one of those whose case was shown least often, then whose two methods
    met least often, then whose methods were shown least often; chance decides between equals. Of two meetings of the
    same methods each is on the left once.

    Args:
        samples: Those with a video; reference rows and given videos are left out.
        options: As given.

    Raises:
        ConfigError: there is no such method, or no case that two methods have.
    """
    usable = [s for s in samples if s.video and s.method.policy not in ("reference", "file")]
    labels = dict.fromkeys(sample.method.label for sample in usable)
    for label in options.method:
        if label not in labels:
            raise ConfigError(f"the run has no video of method {label!r}", did_you_mean(label, labels))
    groups: dict[tuple[str, str, int], list[SampleRecord]] = defaultdict(list)
    for sample in usable:
        if (not options.method or sample.method.label in options.method) and options.track in (None, sample.case.track):
            groups[sample.case.track, sample.case.id, sample.seed].append(sample)
    open_pairs = [
        pair for _, found in sorted(groups.items()) for pair in combinations(sorted(found, key=lambda s: s.key), 2)
    ]
    if not open_pairs:
        raise ConfigError("no two methods have a video of the same case", "a study needs a run of two methods or more")
    dice = random.Random(f"magbench study {options.seed}")
    dice.shuffle(open_pairs)
    met, shown, cases, lefts = Counter[frozenset[str]](), Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    chosen: list[tuple[SampleRecord, SampleRecord]] = []
    while open_pairs and len(chosen) < options.pairs:
        pair = min(
            open_pairs,
            key=lambda p: (cases[p[0].case.id], met[_methods(p)], sum(shown[s.method.label] for s in p)),
        )
        open_pairs.remove(pair)
        left, right = pair if dice.random() < 0.5 else pair[::-1]
        one, other = left.method.label, right.method.label
        if lefts[one, other] > lefts[other, one]:
            left, right = right, left
        lefts[left.method.label, right.method.label] += 1
        met[_methods(pair)] += 1
        cases[pair[0].case.id] += 1
        shown.update(s.method.label for s in pair)
        chosen.append((left, right))
    dice.shuffle(chosen)
    identity = digest({"keys": [[s.key for s in pair] for pair in chosen], "seed": options.seed})[:12]
    pairs = tuple(StudyPair(f"p{place:03d}", *pair) for place, pair in enumerate(chosen, 1))
    return Study(identity, options.question, pairs)


def _methods(pair: tuple[SampleRecord, SampleRecord]) -> frozenset[str]:
    return frozenset(sample.method.label for sample in pair)


def write_study(store: RunStore, study: Study, folder: Path) -> Path:
    """Write `page/index.html`, the videos beside it, and `key.csv`.

    Returns:
        The page.

    Raises:
        ConfigError: the folder holds something, or a preview is missing.
        StoreError: it can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' is there already and not empty", "choose another folder with --out")
    files = {}
    for pair in study.pairs:
        for side, sample in (("left", pair.left), ("right", pair.right)):
            preview = store.sample_dir(sample.key) / PREVIEW
            if not preview.is_file():
                raise ConfigError(
                    f"sample '{sample.key}' has no {PREVIEW}", "repeat the run's command with --existing redo"
                )
            files[f"{pair.name}-{side}.mp4"] = preview
    page = folder / "page"
    try:
        page.mkdir(parents=True)
        for name, preview in files.items():
            shutil.copyfile(preview, page / name)
        (page / "index.html").write_text(render(study), encoding="utf-8")
        (folder / "key.csv").write_text(key_csv(study), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write '{folder}': {error.strerror}", "choose another folder with --out") from error
    return page / "index.html"


def key_csv(study: Study) -> str:
    """Which sample was shown where; `magbench validate RUN --human CSV --key` reads it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("study", "pair", "left", "right"))
    writer.writerows((study.id, pair.name, pair.left.key, pair.right.key) for pair in study.pairs)
    return out.getvalue()


def render(study: Study) -> str:
    """The page: HTML that names no method, needs nothing from elsewhere, and works from a folder."""
    environment = Environment(
        loader=PackageLoader("magbench.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    widths = [sample.video.width for pair in study.pairs for sample in (pair.left, pair.right) if sample.video]
    shown = [{"name": pair.name, "prompt": prompts(pair.left.case), "given": _given(pair.left)} for pair in study.pairs]
    return environment.get_template("study.html.j2").render(study=study, pairs=shown, small=max(widths) <= SMALL)


def _given(sample: SampleRecord) -> float:
    """Seconds of given history."""
    return sample.history_frames / sample.video.fps if sample.video else 0.0


def counts(study: Study) -> Mapping[str, int]:
    """How often each method is shown."""
    labels: Iterable[str] = (s.method.label for pair in study.pairs for s in (pair.left, pair.right))
    return Counter(labels)
